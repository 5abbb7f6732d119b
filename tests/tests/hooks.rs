//! Either kind of TC hook does the same, and goes without a trace.

use std::{net::Ipv4Addr, process::ExitCode};

use anyhow::{Context as _, Result, ensure};
use portway_tests::{
    container::Container,
    conversation,
    footprint::{self, Footprint},
    harness::{self, Test},
    kernel,
    lab::{CLIENTS, EXTERNAL, HOST, Lab},
    portway::Portway,
    wait::{self, PATIENCE},
};

fn main() -> ExitCode {
    harness::run([
        Test::of_portway("tcx", tcx),
        Test::of_portway("clsact", || through("clsact")),
        Test::of_portway("load_and_unload_can_be_repeated", repeated),
        Test::of_portway("somebody_elses_clsact_stays", others_clsact),
        Test::of_portway(
            "a_clsact_filter_that_was_removed_comes_back",
            removed_clsact,
        ),
        Test::of_portway("a_container_takes_its_hooks_with_it", || {
            gone("auto")?;
            gone("clsact")
        }),
        Test::of_portway("hooks_outlast_a_default_route", default_route),
    ])
}

/// Where the kernel has it; else it is said, and nothing is left.
fn tcx() -> Result<()> {
    if kernel::release() >= kernel::TCX {
        return through("tcx");
    }
    let lab = Lab::new()?;
    let load = format!("load --external {EXTERNAL} --tc-hook tcx");
    let refused = Portway::new(&lab.host)?.output(&load)?;
    ensure!(
        refused.code() == 1 && refused.stderr.contains("this kernel has no TCX"),
        "{refused}"
    );
    footprint::ensure_none(&lab.host)
}

/// A filter removed by hand, with its qdisc: `run` attaches it again.
fn removed_clsact() -> Result<()> {
    let lab = Lab::new()?;
    let web = Container::new(&lab.host, 1)?.serve(&["http/8080"])?;
    let portway = Portway::new(&lab.host)?;
    let run = portway.run(&format!(
        "--no-docker --admission direct --tc-hook clsact --publish 9000:{}:8080",
        web.address
    ))?;
    portway.wait_active("tcp", 9000)?;
    for (count, interface) in [EXTERNAL, "c1"].into_iter().enumerate() {
        let tc = lab.host.command("tc");
        tc.args(["qdisc", "del", "dev", interface, "clsact"])
            .text()?;
        // Any change in the network makes it look.
        let address = format!("address add 10.99.1.{count}/32 dev {EXTERNAL}");
        lab.host.ip(&address)?;
        wait::until_true(interface, PATIENCE, || {
            let (answer, used) = portway.measure(|| Ok(lab.get_from_outside(9000)))?;
            Ok(answer.is_ok() && used.both_ways())
        })?;
    }
    portway.interrupt(&run)
}

/// A container goes, with all that hung on its interface: `run` finds nothing wrong with that, and goes on.
fn gone(hook: &str) -> Result<()> {
    let lab = Lab::new()?;
    let [web, stays] =
        [1, 2].map(|number| Container::new(&lab.host, number)?.serve(&["http/8080"]));
    let (web, stays) = (web?, stays?);
    let address = web.address;
    let portway = Portway::new(&lab.host)?;
    let run = portway.run(&format!(
        "--no-docker --admission direct --tc-hook {hook} --publish 9000:{address}:8080 --publish 9001:{}:8080",
        stays.address
    ))?;
    for port in [9000, 9001] {
        portway.wait_active("tcp", port)?;
    }
    drop(web);
    let is_active =
        || Ok::<_, anyhow::Error>(portway.port("tcp", 9000)?.context("no port")?.state == "active");
    wait::until_true("an end of its port", PATIENCE, || Ok(!is_active()?))?;
    let _again = Container::at(&lab.host, 1, address)?.serve(&["http/8080"])?;
    portway.wait_active("tcp", 9000)?;
    for port in [9000, 9001] {
        let (answer, used) = portway.measure(|| Ok(lab.get_from_outside(port)))?;
        ensure!(
            answer.is_ok() && used.both_ways(),
            "{hook}: {answer:?}, {used:?}"
        );
    }
    let lines = run.lines();
    let failure = lines.iter().find(|line| line.text.contains("trying again"));
    ensure!(failure.is_none(), "{hook}: {failure:?}");
    portway.interrupt(&run)?;
    footprint::ensure_none(&lab.host)
}

/// Clients still come while the default route is away, as it is when a link flaps.
fn default_route() -> Result<()> {
    let lab = Lab::new()?;
    let web = Container::new(&lab.host, 1)?.serve(&["http/8080"])?;
    let portway = Portway::new(&lab.host)?;
    let run = portway.run(&format!(
        "--no-docker --admission direct --publish 9000:{}:8080",
        web.address
    ))?;
    portway.wait_active("tcp", 9000)?;
    lab.host.ip("route del default")?;
    // When this address counts, the missing route has been seen as well.
    let later = Ipv4Addr::new(10, 99, 0, 78);
    lab.host
        .ip(&format!("address add {later}/24 dev {EXTERNAL}"))?;
    wait::until_true("the new address on the fast path", PATIENCE, || {
        let (answer, used) = portway.measure(|| Ok(lab.get_from(CLIENTS[0], (later, 9000))))?;
        Ok(answer.is_ok() && used.both_ways())
    })?;
    portway.interrupt(&run)
}

fn through(hook: &str) -> Result<()> {
    let lab = Lab::new()?;
    let web = Container::new(&lab.host, 1)?.serve(&["http/8080", "tcp/8081", "udp/8080"])?;
    let portway = Portway::new(&lab.host)?;
    portway.load(&format!("--admission direct --tc-hook {hook}"))?;
    let status = portway.status()?;
    ensure!(
        status.external.len() == 1
            && status.external[0].interface == EXTERNAL
            && status.external[0].hooks == [hook],
        "{:?}",
        status.external
    );
    for (port, spec) in [(9000, "8080"), (9001, "8081"), (9000, "8080/udp")] {
        portway.publish(&format!("{port}:{}:{spec}", web.address))?;
    }
    let (answers, used) = portway.measure(|| {
        let get = lab.get_from_outside(9000).is_ok();
        lab.client.run(|| {
            conversation::bulk_echo(None, (HOST, 9001).into(), 4 << 20)?;
            let udp = conversation::udp_echo(None, (HOST, 9000).into(), 10, 512);
            Ok((get, udp.is_ok()))
        })
    })?;
    ensure!(
        answers == (true, true) && used.both_ways(),
        "{answers:?}, {used:?}"
    );
    let footprint = Footprint::of(&lab.host)?;
    ensure!(
        footprint.programs() > 0,
        "nothing found loaded: {footprint}"
    );
    portway.text("unload")?;
    footprint.wait_gone(&lab.host)
}

fn repeated() -> Result<()> {
    let lab = Lab::new()?;
    let web = Container::new(&lab.host, 1)?.serve(&["http/8080"])?;
    let portway = Portway::new(&lab.host)?;
    for _ in 0..2 {
        portway.load("--admission direct")?;
        portway.publish(&format!("9000:{}:8080", web.address))?;
        // Does nothing, to the published port as well.
        portway.load("--admission direct")?;
        let (answer, used) = portway.measure(|| Ok(lab.get_from_outside(9000)))?;
        ensure!(answer.is_ok() && used.both_ways(), "{answer:?}, {used:?}");
        let footprint = Footprint::of(&lab.host)?;
        portway.text("unload")?;
        footprint.wait_gone(&lab.host)?;
        portway.text("unload")?;
        footprint::ensure_none(&lab.host)?;
    }
    Ok(())
}

fn others_clsact() -> Result<()> {
    let lab = Lab::new()?;
    let tc = |args: &str| lab.host.command("tc").args(args.split_whitespace()).text();
    tc(&format!("qdisc add dev {EXTERNAL} clsact"))?;
    let before = tc("qdisc show")?;
    let portway = Portway::new(&lab.host)?;
    portway.load("--admission direct --tc-hook clsact")?;
    portway.text("unload")?;
    let after = tc("qdisc show")?;
    ensure!(
        before == after,
        "the qdiscs are not as before:\n{after}\nbut were:\n{before}"
    );
    Ok(())
}
