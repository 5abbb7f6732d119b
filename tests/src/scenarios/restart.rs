//! A container comes back with another address and MAC while somebody else has its old address: the
//! port follows at once, and nothing goes to the new owner.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, bail, ensure};

use super::Scenario;
use crate::{
    conversation::{self, Datagrams},
    docker::{self, Events},
    guest::GREETING,
    image::GUEST,
    iptables,
    lab::{CLIENTS, HOST},
    pass::words,
    portway::Portway,
    stage::Stage,
    wait::{self, PATIENCE},
};

pub(super) const SCENARIO: Scenario = Scenario {
    number: 6,
    name: "restart",
    title: "A restarted container with a new address and MAC",
    play,
};

/// How soon after Docker's event a port is active again.
const LIMIT: Duration = Duration::from_millis(100);

/// Restarts that are measured: the machine may be busy during one, so the median counts.
const ROUNDS: usize = 3;

/// The servers of the container and of whoever gets its address.
const SERVERS: &str = "serve http/8080 udp/8080";

fn play(stage: &mut Stage<'_>) -> Result<()> {
    stage.docker("network create --subnet 10.97.0.0/24 own")?;
    let run = format!(
        "run -d --name web --network own -p 9000:8080 -p 9000:8080/udp echo {GUEST} {SERVERS}"
    );
    stage.docker(&run)?;
    let host = &stage.lab.host;
    let events = Events::listen(host)?;

    restart(stage, "without portway", None, &events)?;

    let portway = Portway::new(host)?;
    let run = stage.start_portway(&portway)?;
    portway.wait_active("tcp", 9000)?;
    portway.wait_active("udp", 9000)?;
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let took = restart(stage, "with portway", Some(&portway), &events)
            .with_context(|| format!("with portway; it says:\n{}", run.said()))?;
        times.push(took);
    }
    times.sort();
    ensure!(
        times[ROUNDS / 2] <= wait::here(LIMIT) || !stage.lab.docker.engine().tells_at_once(),
        "the port took {times:?} after Docker's event; portway says:\n{}",
        run.said()
    );
    stage.report.command("portway ls");
    stage.report.quote(&portway.text("ls")?);
    stage.end_portway(&portway, &run)?;
    stage.remove("web")?;
    stage.docker("network rm own")?;
    Ok(())
}

/// Restarts `web` on another address under traffic; returns how long after Docker's event portway had
/// the port active again.
fn restart(
    stage: &mut Stage<'_>,
    pass: &str,
    portway: Option<&Portway<'_>>,
    events: &Events,
) -> Result<Duration> {
    let lab = stage.lab;
    let host = &lab.host;
    let old = docker::address(host, "web", "own")?;
    let old_mac = docker::mac(host, "web", "own")?;
    let stop = AtomicBool::new(false);
    let (took, intruded) = thread::scope(|scope| {
        // A client that does not know of the restart: one socket, so one flow, that goes on all the time.
        let client = scope.spawn(|| lab.client.run(|| knock(&stop)));
        let swapped = swap_address(stage, pass, portway, events, &old.to_string());
        stop.store(true, Ordering::Relaxed);
        let sent = client.join().unwrap_or_else(|_| Ok(0));
        let took = swapped?;
        ensure!(sent? > 0, "the client sent nothing");
        // What the old address's next owner has seen, all through the swap.
        Ok((took, docker::docker(host, "logs intruder")?))
    })?;
    let new = docker::address(host, "web", "own")?;
    let mac = docker::mac(host, "web", "own")?;
    ensure!(
        new != old && mac != old_mac,
        "the container came back as {new} ({mac}), as it was: this checks nothing"
    );
    let what = format!("web {old} -> {new}");
    stage
        .report
        .seen(pass, &what, &format!("{old_mac} -> {mac}"));

    let dnat = iptables::dnat_packets(host, "tcp", 9000)?;
    let outcome = wait::until("an answer of the restarted container", PATIENCE, || {
        Ok(Some(words(lab.get_from_outside(9000))).filter(|answer| answer == GREETING))
    })?;
    let what = format!("outside {} -> host:9000", CLIENTS[0]);
    stage.report.seen(pass, &what, &outcome);
    if portway.is_some() {
        // Only what portway promises: Docker alone has let packets of live flows go astray, and where the kernel
        // admits flows that is what it does.
        let is_portways = lab.docker.engine().admission() == "direct";
        let strangers: Vec<_> = intruded.lines().filter(|line| *line != "ready").collect();
        ensure!(
            strangers.is_empty() || !is_portways,
            "the new owner of {old} was sent packets of the old one's clients: {strangers:?}"
        );
        ensure!(
            iptables::dnat_packets(host, "tcp", 9000)? == dnat,
            "the restarted container's port took the slow path"
        );
        let what = format!("packets to the new owner of {old}");
        stage.report.seen(pass, &what, &strangers.len().to_string());
        let what = "port active after Docker's event";
        stage
            .report
            .seen(pass, what, &format!("{} ms", took.as_millis()));
    }
    stage.remove("intruder")?;
    Ok(took)
}

/// Stops `web`, gives its address away, starts it.
fn swap_address(
    stage: &mut Stage<'_>,
    pass: &str,
    portway: Option<&Portway<'_>>,
    events: &Events,
    old: &str,
) -> Result<Duration> {
    let host = &stage.lab.host;
    let begin = SystemTime::now();
    stage
        .report
        .seen(pass, "docker stop web; docker run intruder", old);
    docker::docker(host, "stop web")?;
    docker::docker(
        host,
        &format!(
            "run -d --name intruder --network own --ip {old} -e GREETING=Intruder echo {GUEST} {SERVERS}"
        ),
    )?;
    let Some(portway) = portway else {
        docker::docker(host, "start web")?;
        return Ok(Duration::ZERO);
    };
    thread::scope(|scope| {
        // Looks all the time while Docker's command line is still at work.
        let follower = scope.spawn(|| {
            wait::until("the port on a new address", PATIENCE, || {
                let port = portway.port("tcp", 9000)?;
                let moved = port.filter(|port| port.container_ip != old && port.state == "active");
                Ok(moved.map(|_| SystemTime::now()))
            })
        });
        docker::docker(host, "start web")?;
        let active = match follower.join() {
            Ok(active) => active?,
            Err(_) => bail!("the look at portway panicked"),
        };
        let start = events.container("start", "web", begin)?;
        Ok(active.duration_since(start.at()).unwrap_or_default())
    })
}

/// Sends datagrams from one port until told to stop; returns how many.
fn knock(stop: &AtomicBool) -> Result<u32> {
    let target = SocketAddr::from((HOST, 9000));
    let mut client = Datagrams::new(conversation::from_address(CLIENTS[1]), target)?;
    while !stop.load(Ordering::Relaxed) {
        // Answers and refusals alike: a real client goes on.
        let _ = client.send(32);
        thread::sleep(Duration::from_millis(2));
    }
    Ok(client.sent)
}
