//! `load` and `publish` do it all: TCP and UDP go through with no process of portway left running, and
//! `unpublish` ends it.

use std::{net::SocketAddr, process::ExitCode};

use anyhow::{Result, anyhow, ensure};
use portway_tests::{
    container::Container,
    conversation::{self, Silence},
    guest::GREETING,
    harness::{self, Test},
    lab::{CLIENTS, HOST, Lab},
    portway::{Portway, Used},
};

fn main() -> ExitCode {
    harness::run([
        Test::of_portway("tcp_without_a_daemon", tcp),
        Test::of_portway("udp_without_a_daemon", udp),
        Test::of_portway("a_range_of_ports", range),
        Test::of_portway("unpublish_ends_it", unpublish),
        Test::of_portway("flows_are_listed", flows),
    ])
}

/// A bulk transfer long enough for segments of every size.
const BULK: usize = 8 << 20;

fn tcp() -> Result<()> {
    let lab = Lab::new()?;
    let web = Container::new(&lab.host, 1)?.serve(&["http/8080", "tcp/8081"])?;
    let portway = Portway::new(&lab.host)?;
    portway.load("--admission direct")?;
    portway.publish(&format!("9000:{}:8080", web.address))?;
    portway.publish(&format!("9001:{}:8081/tcp", web.address))?;
    ensure_no_process(&lab)?;

    let (answer, used) = portway.measure(|| Ok(lab.get_from_outside(9000)))?;
    ensure!(
        answer.as_ref().is_ok_and(|answer| answer.body == GREETING
            && answer
                .client
                .is_some_and(|client| client.ip() == CLIENTS[0])),
        "{answer:?}"
    );
    ensure!(used.both_ways(), "{used:?}");

    let target = SocketAddr::from((HOST, 9001));
    let ((), used) = portway.measure(|| {
        lab.client
            .run(|| conversation::bulk_echo(None, target, BULK))
    })?;
    ensure!(used.both_ways(), "{used:?}");
    let port = portway.wait_active("tcp", 9001)?;
    let bulk = BULK as u64;
    ensure!(port.bytes_in > bulk && port.bytes_out > bulk, "{port:?}");
    ensure!(
        port.packets_in == used.forwarded && port.packets_out == used.replied,
        "the port's counters {port:?} are not the dataplane's {used:?}"
    );
    Ok(())
}

fn udp() -> Result<()> {
    const COUNT: u32 = 100;
    let lab = Lab::new()?;
    let dns = Container::new(&lab.host, 1)?.serve(&["udp/8080"])?;
    let portway = Portway::new(&lab.host)?;
    portway.load("--admission direct")?;
    portway.publish(&format!("9000:{}:8080/udp", dns.address))?;
    ensure_no_process(&lab)?;

    let target = SocketAddr::from((HOST, 9000));
    let source = conversation::from_address(CLIENTS[1]);
    let (client, used) = portway.measure(|| {
        lab.client.run(|| {
            conversation::udp_echo(source, target, COUNT, 1000)
                .map_err(|silence| anyhow!("{silence}"))
        })
    })?;
    let all = u64::from(COUNT);
    ensure!(
        used == Used {
            forwarded: all,
            by_xdp: 0,
            replied: all
        },
        "{COUNT} datagrams each way, but {used:?}"
    );
    let seen = dns.clients("udp");
    ensure!(
        seen.len() == COUNT as usize,
        "the container got {} datagrams",
        seen.len()
    );
    ensure!(
        seen.iter().all(|seen| *seen == client),
        "the container saw {:?}, not {client}",
        seen[0]
    );
    // TCP on the same number is somebody else's.
    let outcome = lab.get_from_outside(9000);
    ensure!(outcome == Err(Silence::Refused), "{outcome:?}");
    Ok(())
}

fn range() -> Result<()> {
    let lab = Lab::new()?;
    let web = Container::new(&lab.host, 1)?.serve(&["http/8080", "http/8081", "http/8082"])?;
    let portway = Portway::new(&lab.host)?;
    portway.load("--admission direct")?;
    portway.publish(&format!("9000-9002:{}:8080-8082", web.address))?;
    for port in 9000..=9002 {
        let (answer, used) = portway.measure(|| Ok(lab.get_from_outside(port)))?;
        ensure!(
            answer.is_ok() && used.both_ways(),
            "port {port}: {answer:?}, {used:?}"
        );
    }
    let outcome = lab.get_from_outside(9003);
    ensure!(outcome == Err(Silence::Refused), "{outcome:?}");
    Ok(())
}

fn unpublish() -> Result<()> {
    let lab = Lab::new()?;
    let web = Container::new(&lab.host, 1)?.serve(&["http/8080", "udp/8080"])?;
    let portway = Portway::new(&lab.host)?;
    portway.load("--admission direct")?;
    let spec = format!("9000:{}:8080", web.address);
    portway.publish(&spec)?;
    portway.publish(&format!("{spec}/udp"))?;
    ensure!(lab.get_from_outside(9000).is_ok(), "not published");

    portway.text("unpublish 9000")?;
    let (outcome, used) = portway.measure(|| Ok(lab.get_from_outside(9000)))?;
    ensure!(
        outcome == Err(Silence::Refused) && used == Used::NOTHING,
        "{outcome:?}, {used:?}"
    );
    // The other protocol stays, until its turn.
    let target = SocketAddr::from((HOST, 9000));
    let ask = || {
        let source = Some(SocketAddr::from((CLIENTS[0], 5000)));
        lab.client
            .run(|| Ok(conversation::udp_echo(source, target, 1, 32)))
    };
    ensure!(ask()?.is_ok(), "udp was unpublished too");
    portway.text("unpublish 9000/udp")?;
    // A flow that was alive ends with its publication.
    let outcome = ask()?;
    ensure!(outcome == Err(Silence::Refused), "{outcome:?}");
    ensure!(
        portway.ls()?.is_empty(),
        "still listed: {:?}",
        portway.ls()?
    );
    Ok(())
}

fn flows() -> Result<()> {
    let lab = Lab::new()?;
    let web = Container::new(&lab.host, 1)?.serve(&["tcp/8081", "udp/8081"])?;
    let portway = Portway::new(&lab.host)?;
    portway.load("--admission direct")?;
    let spec = format!("9001:{}:8081", web.address);
    portway.publish(&spec)?;
    portway.publish(&format!("{spec}/udp"))?;
    let source = SocketAddr::from((CLIENTS[2], 4444));
    let target = SocketAddr::from((HOST, 9001));
    let mut connection = lab
        .client
        .run(|| Ok(conversation::connect(Some(source), target)?))?;
    conversation::echo_over(&mut connection, "hello")?;
    lab.client.run(|| {
        conversation::udp_echo(Some(source), target, 3, 32).map_err(|silence| anyhow!("{silence}"))
    })?;
    let flows = portway.flows()?;
    for (protocol, packets) in [("tcp", 3), ("udp", 3)] {
        let flow = flows.iter().find(|flow| {
            flow.protocol == protocol
                && flow.client == source.to_string()
                && flow.host == target.to_string()
                && flow.container == format!("{}:8081", web.address)
        });
        ensure!(
            flow.is_some_and(|flow| flow.packets_in >= packets
                && flow.bytes_out > 0
                && flow.age_s < 60.0
                && flow.idle_s <= flow.age_s),
            "{protocol}: {flows:?}"
        );
    }
    ensure!(
        portway.status()?.flows == flows.len() as u64,
        "status counts other flows"
    );
    Ok(())
}

fn ensure_no_process(lab: &Lab) -> Result<()> {
    let processes = lab.host.command("ps").args(["-A", "-o", "comm="]).text()?;
    ensure!(
        !processes.lines().any(|name| name.trim() == "portway"),
        "a process of portway runs: {processes}"
    );
    Ok(())
}
