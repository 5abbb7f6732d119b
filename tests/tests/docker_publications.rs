//! Every form of `-p` that Docker publishes, and what becomes of it while the container lives.

use std::{
    net::{Ipv4Addr, SocketAddr},
    process::ExitCode,
};

use anyhow::{Context, Result, ensure};
use portway_tests::{
    conversation::{self, Silence},
    docker::{self, DockerLab},
    guest::GREETING,
    harness::{self, Test},
    image::GUEST,
    lab::{CLIENTS, HOST, HOST_SECONDARY},
    portway::{Port, Portway, Used},
    wait::{self, PATIENCE},
};

fn main() -> ExitCode {
    harness::run([
        Test::with_docker("forms_of_a_publication", forms),
        Test::with_docker("a_container_on_two_networks_and_off_one", networks),
        Test::with_docker("stopped_and_started_and_removed", life),
    ])
}

fn forms() -> Result<()> {
    let lab = DockerLab::new()?;
    let portway = Portway::new(&lab.host)?;
    let run = portway.run_with_docker("")?;
    docker::docker(
        &lab.host,
        &format!(
            "run -d --name web -p {HOST_SECONDARY}:9000:8080 -p 127.0.0.1:9001:8080 \
             -p 9002:8080/udp -p 9010-9012:8080-8082 -p 8080 \
             echo {GUEST} serve http/8080 udp/8080 http/8081 http/8082"
        ),
    )?;
    let of_one = portway.wait_active("tcp", 9000)?;
    ensure!(of_one.host_ip == HOST_SECONDARY.to_string(), "{of_one:?}");
    expect(&lab, &portway, HOST_SECONDARY, 9000)?;
    let (other, used) = portway.measure(|| Ok(lab.get_from(CLIENTS[0], (HOST, 9000))))?;
    ensure!(
        other == Err(Silence::Refused) && used == Used::NOTHING,
        "{other:?}, {used:?}"
    );

    // On loopback: docker-proxy's, for the host alone.
    let loopback = portway.port("tcp", 9001)?;
    ensure!(
        loopback
            .as_ref()
            .is_none_or(|port| port.state == "declined"),
        "{loopback:?}"
    );
    ensure!(
        lab.get_on_host("127.0.0.1:9001").is_ok(),
        "loopback's port does not answer"
    );
    let (outside, used) = portway.measure(|| Ok(lab.get_from_outside(9001)))?;
    ensure!(
        outside.is_err() && used == Used::NOTHING,
        "{outside:?}, {used:?}"
    );

    portway.wait_active("udp", 9002)?;
    let (udp, used) = portway.measure(|| {
        lab.client.run(|| {
            let target = SocketAddr::from((HOST, 9002));
            Ok(conversation::udp_echo(None, target, 3, 100))
        })
    })?;
    ensure!(udp.is_ok() && used.both_ways(), "{udp:?}, {used:?}");

    for port in 9010..=9012 {
        portway.wait_active("tcp", port)?;
        expect(&lab, &portway, HOST, port)?;
    }
    let published = docker::docker(&lab.host, "port web 8080/tcp")?;
    let ephemeral = published
        .lines()
        .filter_map(|line| line.strip_prefix("0.0.0.0:")?.parse::<u16>().ok())
        .find(|port| *port > 9012)
        .with_context(|| format!("no ephemeral port in {published}"))?;
    portway.wait_active("tcp", ephemeral)?;
    expect(&lab, &portway, HOST, ephemeral)?;
    ensure!(
        portway
            .ls()?
            .iter()
            .all(|port| port.source == "docker" && port.name.as_deref() == Some("web")),
        "{:?}",
        portway.ls()?
    );
    portway.interrupt(&run)
}

fn networks() -> Result<()> {
    let lab = DockerLab::new()?;
    let host = &lab.host;
    docker::docker(host, "network create one")?;
    docker::docker(host, "network create two")?;
    docker::docker(host, "run -d --name web --network one -p 9000:8080 echo")?;
    let portway = Portway::new(host)?;
    let run = portway.run_with_docker("")?;
    on_network(&lab, &portway, "one")?;
    docker::docker(host, "network connect two web")?;
    expect_answer(&lab)?;
    docker::docker(host, "network disconnect one web")?;
    on_network(&lab, &portway, "two")?;
    portway.interrupt(&run)
}

/// Waits until the port leads to the container's address in `network`, and uses it.
fn on_network(lab: &DockerLab, portway: &Portway<'_>, network: &str) -> Result<()> {
    let address = docker::address(&lab.host, "web", network)?.to_string();
    wait::until_true(&format!("the port on network {network}"), PATIENCE, || {
        let port = portway.port("tcp", 9000).ok().flatten();
        Ok(port.is_some_and(|port| port.state == "active" && port.container_ip == address))
    })
    .with_context(|| portway.text("ls").unwrap_or_default())?;
    expect(lab, portway, HOST, 9000)
}

fn life() -> Result<()> {
    let lab = DockerLab::new()?;
    let host = &lab.host;
    let portway = Portway::new(host)?;
    let run = portway.run_with_docker("")?;
    docker::docker(host, "run -d --name web -p 9000:8080 echo")?;
    for _ in 0..2 {
        portway.wait_active("tcp", 9000)?;
        expect(&lab, &portway, HOST, 9000)?;
        docker::docker(host, "stop web")?;
        gone(&portway)?;
        let (outcome, used) = portway.measure(|| Ok(lab.get_from_outside(9000)))?;
        ensure!(
            outcome == Err(Silence::Refused) && used == Used::NOTHING,
            "{outcome:?}, {used:?}"
        );
        docker::docker(host, "start web")?;
    }
    portway.wait_active("tcp", 9000)?;
    docker::docker(host, "kill web")?;
    gone(&portway)?;
    docker::docker(host, "rm web")?;
    // Another container takes the port.
    docker::docker(host, "run -d --name other -p 9000:8080 echo")?;
    let port = portway.wait_active("tcp", 9000)?;
    ensure!(port.name.as_deref() == Some("other"), "{port:?}");
    expect(&lab, &portway, HOST, 9000)?;
    portway.interrupt(&run)
}

fn gone(portway: &Portway<'_>) -> Result<()> {
    wait::until_true("no port of a stopped container", PATIENCE, || {
        let port: Option<Port> = portway.port("tcp", 9000)?;
        Ok(port.is_none_or(|port| port.state != "active"))
    })
}

fn expect_answer(lab: &DockerLab) -> Result<()> {
    let answer = lab.get_from_outside(9000).map(|answer| answer.body);
    ensure!(answer.as_deref() == Ok(GREETING), "{answer:?}");
    Ok(())
}

fn expect(lab: &DockerLab, portway: &Portway<'_>, address: Ipv4Addr, port: u16) -> Result<()> {
    let (answer, used) = portway.measure(|| Ok(lab.get_from(CLIENTS[0], (address, port))))?;
    let body = answer.map(|answer| answer.body);
    ensure!(
        body.as_deref() == Ok(GREETING),
        "{address}:{port}: {body:?}"
    );
    ensure!(used.both_ways(), "{address}:{port}: {used:?}");
    Ok(())
}
