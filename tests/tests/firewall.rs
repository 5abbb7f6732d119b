//! What the host's firewall keeps out stays out, portway or not.

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use portway_tests::{
    conversation::{self, Silence, echo_over},
    docker::{self, DockerLab},
    harness::{self, Test},
    image::GUEST,
    lab::{CLIENTS, HOST},
    portway::Portway,
    wait::{self, PATIENCE},
};

fn main() -> ExitCode {
    harness::run([
        Test::with_docker("a_rule_of_the_users_keeps_its_say", there_before),
        Test::with_docker("a_rule_added_while_portway_runs_takes_effect", added_later),
    ])
}

/// Where a firewall may drop what a client sends to containers; the first is where Docker's documentation
/// has it.
const CHAINS: [&str; 3] = [
    "-t filter DOCKER-USER",
    "-t mangle FORWARD",
    "-t raw PREROUTING",
];

/// Adds (`-I`) or takes away (`-D`) a rule that shuts one client out.
fn shut_out(lab: &DockerLab, action: &str, chain: &str) -> Result<()> {
    let (table, chain) = chain.rsplit_once(' ').context("no chain")?;
    let rule = format!("-w {table} {action} {chain} -s {} -j DROP", CLIENTS[1]);
    let iptables = lab.host.command("iptables");
    iptables.args(rule.split_whitespace()).text()?;
    Ok(())
}

fn there_before() -> Result<()> {
    let lab = DockerLab::new()?;
    docker::docker(&lab.host, "run -d --name web -p 9000:8080 echo")?;
    for chain in CHAINS {
        shut_out(&lab, "-I", chain)?;
        let portway = Portway::new(&lab.host)?;
        let run = portway.run_with_docker("")?;
        portway.wait_active("tcp", 9000)?;
        expect_shut_out(&lab).context(chain)?;
        let admission = portway.status()?.admission;
        ensure!(
            admission
                .as_ref()
                .is_some_and(|admission| admission.mode != "direct" && !admission.why.is_empty()),
            "{chain}: {admission:?}"
        );
        portway.interrupt(&run)?;
        expect_shut_out(&lab).context(chain)?;
        shut_out(&lab, "-D", chain)?;
    }
    Ok(())
}

fn added_later() -> Result<()> {
    let lab = DockerLab::new()?;
    docker::docker(
        &lab.host,
        &format!(
            "run -d --name web -p 9000:8080 -p 9001:8081 echo {GUEST} serve http/8080 tcp/8081"
        ),
    )?;
    let portway = Portway::new(&lab.host)?;
    let run = portway.run_with_docker("")?;
    portway.wait_active("tcp", 9000)?;
    portway.wait_active("tcp", 9001)?;
    let (mut connection, used) = portway.measure(|| {
        ensure!(
            lab.get_from(CLIENTS[1], (HOST, 9000)).is_ok(),
            "shut out too early"
        );
        lab.client.run(|| {
            let source = conversation::from_address(CLIENTS[1]);
            Ok(conversation::connect(source, (HOST, 9001).into())?)
        })
    })?;
    echo_over(&mut connection, "before")?;
    ensure!(
        used.both_ways(),
        "not the fast path to begin with: {used:?}"
    );

    shut_out(&lab, "-I", CHAINS[0])?;
    wait::until_true("the end of direct admission", PATIENCE, || {
        let admission = portway.status()?.admission;
        Ok(admission.is_some_and(|admission| admission.mode != "direct"))
    })?;
    expect_shut_out(&lab)?;
    ensure!(
        echo_over(&mut connection, "after").is_err(),
        "a connection of the client that was shut out goes on"
    );

    // The way back.
    shut_out(&lab, "-D", CHAINS[0])?;
    wait::until_true("direct admission again", PATIENCE, || {
        let admission = portway.status()?.admission;
        Ok(admission.is_some_and(|admission| admission.mode == "direct"))
    })?;
    let (answer, used) = portway.measure(|| Ok(lab.get_from(CLIENTS[1], (HOST, 9000))))?;
    ensure!(answer.is_ok() && used.both_ways(), "{answer:?}, {used:?}");
    portway.interrupt(&run)
}

/// One client gets no answer, another does.
fn expect_shut_out(lab: &DockerLab) -> Result<()> {
    let shut_out = lab.get_from(CLIENTS[1], (HOST, 9000));
    ensure!(shut_out == Err(Silence::NoAnswer), "let in: {shut_out:?}");
    let other = lab.get_from(CLIENTS[0], (HOST, 9000));
    ensure!(other.is_ok(), "another client is shut out too: {other:?}");
    Ok(())
}
