//! The bench's own servers and clients, and the scenarios that are made of them.

use std::{
    net::{SocketAddr, UdpSocket},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use portway_bench::{
    contenders::{DOCKER_PROXY, IPTABLES, NFT, PORTWAY_AUTO},
    plan::Effort,
    runner, scenarios,
    traffic::{
        bulk, connections,
        datagrams::Datagrams,
        requests,
        server::{Servers, Service},
    },
};
use portway_tests::{
    container::Container,
    harness::{self, Test},
    lab::Lab,
    requirement::Requirement::{Kernel, Root},
    wait::{self, PATIENCE},
};

/// The first port of the servers.
const PORT: u16 = 500;

/// How long clients talk.
const WHILE: Duration = Duration::from_millis(200);

fn main() -> ExitCode {
    harness::run([
        Test::new("each_server_has_its_client", &[Root, Kernel], talk),
        Test::new("no_datagram_is_missed", &[Root, Kernel], datagrams),
        Test::with_docker("each_way_leads_to_a_socket", ways),
    ])
}

/// From the host to a container, with nobody in between.
fn talk() -> Result<()> {
    let lab = Lab::new()?;
    let container = Container::new(&lab.host, 1)?;
    let servers = Servers::start(&container.netns, PORT)?;
    let to = |service: Service| SocketAddr::from((container.address, PORT + service.index()));
    let sent = lab.host.run(|| bulk::send(to(Service::Sink), WHILE))?;
    ensure!(sent.bytes > 0 && sent.took >= WHILE, "{sent:?}");
    let received = lab.host.run(|| bulk::receive(to(Service::Source), WHILE))?;
    ensure!(received.bytes > 0 && received.took >= WHILE, "{received:?}");
    let answers = lab
        .host
        .run(|| requests::talk(to(Service::Answers), 8, WHILE))?;
    let (p50, p99) = (answers.percentile(0.5), answers.percentile(0.99));
    ensure!(answers.rate() > 0.0 && 0.0 < p50 && p50 <= p99);
    let rate = lab
        .host
        .run(|| connections::rate(to(Service::OneAnswer), WHILE))?;
    ensure!(rate > 0.0, "no connection came to its end");
    // Their threads end, else this does not.
    drop(servers);
    let refused = lab
        .host
        .run(|| Ok(connections::rate(to(Service::OneAnswer), WHILE)));
    ensure!(refused?.is_err(), "there still is a server");
    Ok(())
}

fn datagrams() -> Result<()> {
    const COUNT: u64 = 10_000;
    let lab = Lab::new()?;
    let container = Container::new(&lab.host, 1)?;
    let socket = Datagrams::start(&container.netns, PORT)?;
    lab.host.run(|| {
        let sender = UdpSocket::bind("0.0.0.0:0")?;
        sender.connect((container.address, PORT))?;
        for _ in 0..COUNT {
            sender.send(b"datagram")?;
        }
        Ok(())
    })?;
    wait::until_true("all datagrams", PATIENCE, || Ok(socket.received() == COUNT))
}

fn ways() -> Result<()> {
    let effort = Effort {
        quick: true,
        rounds: 1,
    };
    let plan = scenarios::all()
        .into_iter()
        .find(|plan| plan.id == "tcp-connect");
    let plan = plan.context("no scenario tcp-connect")?;
    let scenario = runner::run(&plan, effort, "test")?
        .pop()
        .context("nothing measured")?;
    for contender in [IPTABLES, NFT, PORTWAY_AUTO, DOCKER_PROXY] {
        let series = scenario.of(contender);
        let series = series.with_context(|| format!("{contender} is missing"))?;
        ensure!(series.samples.iter().all(|rate| *rate > 0.0), "{series:?}");
    }
    Ok(())
}
