//! Ctrl-C and `portway unload`: afterwards everything is as before, connections go on, and nothing of
//! portway remains.

use std::{
    collections::BTreeSet,
    net::{SocketAddr, TcpStream},
};

use anyhow::{Context, Result, ensure};

use super::Scenario;
use crate::{
    conversation::{self, echo_over},
    footprint::{self, Footprint},
    guest::GREETING,
    host::Host,
    image::GUEST,
    iptables,
    lab::{CLIENTS, HOST},
    pass::words,
    portway::Portway,
    stage::Stage,
};

/// The sysctls of a network namespace that keep their values by themselves.
const SYSCTLS: &str =
    r"^net\.(ipv[46]\.(conf|neigh|ip_|tcp_|route)|core\.|netfilter\.nf_conntrack_(max|tcp))";

pub(super) const SCENARIO: Scenario = Scenario {
    number: 7,
    name: "unload",
    title: "Ctrl-C and unload leave everything as it was",
    play,
};

fn play(stage: &mut Stage<'_>) -> Result<()> {
    let command = format!("echo {GUEST} serve http/8080 tcp/8081");
    stage.docker(&format!(
        "run -d --name web -p 9000:8080 -p 9001:8081 {command}"
    ))?;
    let host = &stage.lab.host;
    footprint::ensure_none(host)?;
    let before = configuration(host)?;
    let mut connection = connect(stage)?;
    answers(stage, "without portway", &mut connection)?;

    // `portway run` until Ctrl-C.
    let portway = Portway::new(host)?;
    let run = stage.start_portway(&portway)?;
    portway.wait_active("tcp", 9000)?;
    portway.wait_active("tcp", 9001)?;
    answers(stage, "with portway", &mut connection)?;
    let mut younger = connect(stage)?;
    ensure_fast(stage, &portway)?;
    stage.end_portway(&portway, &run)?;
    answers(stage, "after Ctrl-C", &mut connection)?;
    answers(stage, "after Ctrl-C", &mut younger)?;
    as_before(stage, "after Ctrl-C", &before)?;

    // `portway load`, then `portway run` adopts: its Ctrl-C unloads nothing. `portway unload` does.
    stage.report.command("portway load");
    portway.load("")?;
    let run = stage.start_portway(&portway)?;
    portway.wait_active("tcp", 9000)?;
    portway.interrupt(&run)?;
    let status = portway.status()?;
    ensure!(
        status.loaded,
        "Ctrl-C has unloaded what this run had only adopted"
    );
    let mut youngest = connect(stage)?;
    ensure_fast(stage, &portway)?;
    let footprint = Footprint::of(host)?;
    stage.report.command("portway unload");
    portway.text("unload")?;
    footprint.wait_gone(host)?;
    stage.report.seen(
        "after unload",
        "links, maps, programs, pins, qdiscs",
        "none left",
    );
    for connection in [&mut connection, &mut younger, &mut youngest] {
        answers(stage, "after unload", connection)?;
    }
    as_before(stage, "after unload", &before)?;
    stage.remove("web")
}

/// An open connection to the published echo server.
fn connect(stage: &Stage<'_>) -> Result<TcpStream> {
    stage.lab.client.run(|| {
        let source = conversation::from_address(CLIENTS[0]);
        let target = SocketAddr::from((HOST, 9001));
        conversation::connect(source, target).context("no connection to the echo server")
    })
}

/// Both a new conversation and one that is open get their answers.
fn answers(stage: &mut Stage<'_>, pass: &str, connection: &mut TcpStream) -> Result<()> {
    let outcome = words(stage.lab.get_from_outside(9000));
    ensure!(
        outcome == GREETING,
        "{pass}: outside -> host:9000: {outcome}"
    );
    stage.report.seen(pass, "outside -> host:9000", &outcome);
    let source = connection.local_addr()?;
    echo_over(connection, pass).with_context(|| format!("{pass}: the connection from {source}"))?;
    let what = format!("connection open since before, {source}");
    stage.report.seen(pass, &what, "goes on");
    Ok(())
}

/// A new conversation takes the fast path.
fn ensure_fast(stage: &mut Stage<'_>, portway: &Portway<'_>) -> Result<()> {
    let before = portway.status()?.counter("forwarded");
    let outcome = words(stage.lab.get_from_outside(9000));
    ensure!(
        outcome == GREETING,
        "with portway: outside -> host:9000: {outcome}"
    );
    let forwarded = portway.status()?.counter("forwarded") - before;
    ensure!(forwarded > 0, "the fast path was not used");
    let outcome = format!("{forwarded} packets forwarded");
    stage.report.seen("with portway", "fast path", &outcome);
    Ok(())
}

fn as_before(stage: &mut Stage<'_>, pass: &str, before: &BTreeSet<String>) -> Result<()> {
    let now = configuration(&stage.lab.host)?;
    let gone: Vec<_> = before.difference(&now).collect();
    let new: Vec<_> = now.difference(before).collect();
    ensure!(
        gone.is_empty() && new.is_empty(),
        "{pass}: not as before; new: {new:#?}, gone: {gone:#?}"
    );
    let what = "links, addresses, routes, qdiscs, rules, sysctls";
    stage.report.seen(pass, what, "as before");
    Ok(())
}

/// What an operator could find changed, in lines.
fn configuration(host: &Host) -> Result<BTreeSet<String>> {
    let mut all: BTreeSet<_> = iptables::rules(host)?.into_iter().collect();
    let mut add = |text: String| all.extend(text.lines().map(str::to_owned));
    for args in [
        "-o link show",
        "-o address show",
        "-o route show table all",
        "rule show",
    ] {
        add(host.ip(args)?);
    }
    for args in [["qdisc", "show"], ["filter", "show"]] {
        add(host.command("tc").args(args).text()?);
    }
    // What it cannot read it says on stderr.
    let sysctl = host.command("sysctl").args(["-a", "--pattern", SYSCTLS]);
    add(sysctl.output()?.stdout);
    Ok(all)
}
