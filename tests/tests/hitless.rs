//! No connection breaks and no datagram is lost when portway comes, goes, is killed, upgraded or started anew, nor
//! when Docker's daemon is, over and over under live traffic.
//!
//! `PORTWAY_HITLESS_CYCLES` is how often, `PORTWAY_HITLESS_WITHOUT=1` plays the same without portway, for
//! comparison. What has become of the traffic is printed.

use std::{
    collections::BTreeSet,
    env,
    net::Ipv4Addr,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use portway_tests::{
    container::Container,
    daemon::Daemon,
    docker::{self, Docker},
    footprint::Footprint,
    harness::{self, Test},
    lab::Lab,
    live::{Amount, Live, Route},
    netns::Netns,
    portway::{self, Flow, Portway},
    setting::setting,
    wait::{self, PATIENCE},
};

/// Cycles, unless somebody wants more.
const CYCLES: u32 = 2;

/// Half of the traffic: one half begins before portway comes, the other one when it is there.
const HALF: Amount = Amount {
    busy: 100,
    idle: 25,
    flows: 25,
};

/// The published ports, of TCP and UDP, and the container's.
const HOST_PORTS: [u16; 2] = [9000, 9001];
const PORTS: [u16; 2] = [7000, 7001];

/// The longest time between two steps of a cycle, in milliseconds: long enough for everybody to speak.
const DWELL: u64 = 100;

fn main() -> ExitCode {
    harness::run([
        Test::with_docker("load_and_unload", load_and_unload),
        Test::with_docker("run_killed", run_killed),
        Test::with_docker("run_started_anew", run_started_anew),
        Test::with_docker("upgraded", upgraded),
        Test::with_docker("dockerd_restarted", dockerd_restarted),
        Test::with_docker(
            "dockerd_restarted_without_live_restore",
            dockerd_restarted_without_live_restore,
        ),
    ])
}

/// With the rules that Docker would have, and no docker-proxy that has the ports for itself.
fn load_and_unload() -> Result<()> {
    let lab = Lab::new()?;
    let container = plain_container(&lab)?;
    let mut play = Play::new(&lab, container.netns.clone())?;
    let portway = Portway::new(&lab.host)?;
    play.cycles(|play, _| {
        if is_without() {
            return play.begin_rest();
        }
        portway.load("--admission direct")?;
        publish(&portway, container.address)?;
        play.begin_rest()?;
        play.ensure_fast(&portway)?;
        unload(&lab, &portway)
    })?;
    play.end("load and unload")
}

fn run_killed() -> Result<()> {
    let lab = Lab::new()?;
    let _docker = Docker::start(&lab.host)?;
    let mut play = Play::with_docker(&lab)?;
    let portway = Portway::new(&lab.host)?;
    play.cycles(|play, cycle| {
        if is_without() {
            return play.begin_rest();
        }
        let run = portway.run_with_docker("")?;
        if cycle == 0 {
            wait_active(&portway)?;
            play.begin_rest()?;
        }
        // While it comes up, or when it is at work.
        dwell();
        run.signal(Signal::SIGKILL);
        run.wait(PATIENCE)?;
        Ok(())
    })?;
    if !is_without() {
        let run = portway.run_with_docker("")?;
        wait_active(&portway)?;
        play.ensure_fast(&portway)?;
        portway.interrupt(&run)?;
        unload(&lab, &portway)?;
    }
    play.end("run killed")
}

fn run_started_anew() -> Result<()> {
    let lab = Lab::new()?;
    let _docker = Docker::start(&lab.host)?;
    let mut play = Play::with_docker(&lab)?;
    let portway = Portway::new(&lab.host)?;
    play.cycles(|play, _| {
        if is_without() {
            return play.begin_rest();
        }
        let run = portway.run_with_docker("")?;
        wait_active(&portway)?;
        play.begin_rest()?;
        play.ensure_fast(&portway)?;
        end_run(&lab, &portway, &run)
    })?;
    play.end("run started anew")
}

/// Two builds of one layout take each other's places, while a `run` goes on.
fn upgraded() -> Result<()> {
    let lab = Lab::new()?;
    let _docker = Docker::start(&lab.host)?;
    let mut play = Play::with_docker(&lab)?;
    let portway = Portway::new(&lab.host)?;
    let folder = tempfile::tempdir()?;
    let other = Portway::again(&lab.host, portway.instance())?
        .with_program(portway::other_build(folder.path())?);
    let builds = [&other, &portway];
    let mut run = None;
    if !is_without() {
        portway.load("")?;
        run = Some(portway.run_with_docker("")?);
        wait_active(&portway)?;
    }
    play.begin_rest()?;
    play.cycles(|play, cycle| {
        if is_without() {
            return Ok(());
        }
        let before = clients(lasting(&portway)?);
        ensure!(!before.is_empty(), "no flows to be kept");
        let said = builds[cycle as usize % 2].load("")?;
        ensure!(said.starts_with("upgraded"), "{said}");
        play.ensure_fast(&portway)?;
        let after = clients(portway.flows()?);
        let lost: Vec<_> = before.difference(&after).collect();
        ensure!(
            lost.is_empty(),
            "of {} flows not kept: {lost:?}",
            before.len()
        );
        Ok(())
    })?;
    if let Some(run) = run {
        portway.interrupt(&run)?;
        unload(&lab, &portway)?;
    }
    play.end("upgraded")
}

/// The clients of flows, by protocol.
fn clients(flows: Vec<Flow>) -> BTreeSet<(String, String)> {
    let clients = flows.into_iter().map(|flow| (flow.protocol, flow.client));
    clients.collect()
}

/// Flows that have no reason to end within seconds: those of TCP that are established, those of UDP in use.
fn lasting(portway: &Portway<'_>) -> Result<Vec<Flow>> {
    const IN_USE: f64 = 5.0;
    let mut flows = portway.flows()?;
    flows.retain(|flow| {
        flow.state == "established" && (flow.protocol == "tcp" || flow.idle_s < IN_USE)
    });
    Ok(flows)
}

/// Docker's container stays.
fn dockerd_restarted() -> Result<()> {
    let lab = Lab::new()?;
    let mut docker = Docker::start_with_live_restore(&lab.host, true)?;
    let mut play = Play::with_docker(&lab)?;
    let portway = Portway::new(&lab.host)?;
    let mut run = None;
    if !is_without() {
        run = Some(portway.run_with_docker("")?);
        wait_active(&portway)?;
    }
    play.begin_rest()?;
    play.cycles(|_, _| restart(&mut docker, &lab))?;
    if let Some(run) = run {
        play.ensure_fast(&portway)?;
        end_run(&lab, &portway, &run)?;
    }
    play.end("dockerd restarted, with live-restore")
}

/// Docker's container is started anew with its daemon; what stays is one beside it.
fn dockerd_restarted_without_live_restore() -> Result<()> {
    let lab = Lab::new()?;
    let mut docker = Docker::start_with_live_restore(&lab.host, false)?;
    docker::docker(
        &lab.host,
        "run -d --name other --restart always -p 9002:8080 echo",
    )?;
    let container = plain_container(&lab)?;
    // Docker has its host forward nothing but its own.
    let allow = "-w -I DOCKER-USER -j ACCEPT".split_whitespace();
    lab.host.command("iptables").args(allow).text()?;

    let mut play = Play::new(&lab, container.netns.clone())?;
    let portway = Portway::new(&lab.host)?;
    let mut run = None;
    if !is_without() {
        run = Some(portway.run_with_docker("")?);
        wait_loaded(&portway)?;
        publish(&portway, container.address)?;
    }
    play.begin_rest()?;
    play.cycles(|_, _| restart(&mut docker, &lab))?;
    if let Some(run) = run {
        play.ensure_fast(&portway)?;
        end_run(&lab, &portway, &run)?;
    }
    play.end("dockerd restarted, without live-restore")
}

/// Has a daemon end, and some time later one like it.
fn restart(docker: &mut Docker, lab: &Lab) -> Result<()> {
    docker.down()?;
    dwell();
    docker.up(&lab.host)
}

/// Ends a `run` that has loaded, of which nothing is to be left.
fn end_run(lab: &Lab, portway: &Portway<'_>, run: &Daemon) -> Result<()> {
    let footprint = Footprint::of(&lab.host)?;
    portway.interrupt(run)?;
    footprint.wait_gone(&lab.host)
}

/// Cycles under live traffic.
struct Play {
    live: Live,
    is_whole: bool,
    /// What `portway ls` lists.
    rows: Option<usize>,
    cycles: u32,
    took: Duration,
}

impl Play {
    /// Traffic to a container of Docker's.
    fn with_docker(lab: &Lab) -> Result<Self> {
        let ports = format!(
            "-p {}:{} -p {}:{}/udp",
            HOST_PORTS[0], PORTS[0], HOST_PORTS[1], PORTS[1]
        );
        docker::docker(&lab.host, &format!("run -d --name web {ports} echo"))?;
        Self::new(lab, docker::netns(&lab.host, "web")?)
    }

    /// Traffic to a container, of which one half begins.
    fn new(lab: &Lab, container: Netns) -> Result<Self> {
        let mut live = Live::new(Route {
            client: lab.client.clone(),
            container,
            host_ports: HOST_PORTS,
            ports: PORTS,
        })?;
        live.begin(HALF)?;
        Ok(Self {
            live,
            is_whole: false,
            rows: None,
            cycles: 0,
            took: Duration::ZERO,
        })
    }

    /// The other half of the traffic begins, once.
    fn begin_rest(&mut self) -> Result<()> {
        if !self.is_whole {
            self.live.begin(HALF)?;
            self.is_whole = true;
        }
        Ok(())
    }

    /// Plays `cycle` as often as is wanted, at random distances.
    fn cycles(&mut self, mut cycle: impl FnMut(&mut Self, u32) -> Result<()>) -> Result<()> {
        let cycles = setting("PORTWAY_HITLESS_CYCLES")?.unwrap_or(CYCLES);
        let start = Instant::now();
        for number in 0..cycles {
            cycle(self, number).with_context(|| format!("cycle {number}"))?;
            dwell();
        }
        self.took = start.elapsed();
        self.cycles = cycles;
        Ok(())
    }

    /// Waits until the traffic goes by portway, both ways, and demands that it has no more rows than before.
    fn ensure_fast(&mut self, portway: &Portway<'_>) -> Result<()> {
        let before = portway.status()?;
        wait::until_true("traffic on the fast path", PATIENCE, || {
            Ok(portway.status()?.since(&before).both_ways())
        })
        .with_context(|| portway.text("status").unwrap_or_default())?;
        let rows = portway.ls()?.len();
        let known = *self.rows.get_or_insert(rows);
        ensure!(rows == known, "{rows} rows, not {known}");
        Ok(())
    }

    /// Ends the traffic, tells what has become of it and demands that nothing is missing.
    fn end(self, what: &str) -> Result<()> {
        let tally = self.live.end()?;
        let with = if is_without() { "without" } else { "with" };
        println!(
            "{what}, {with} portway: {} cycles in {} s: {tally}",
            self.cycles,
            self.took.as_secs()
        );
        tally.ensure_whole()
    }
}

/// Whether there is to be no portway.
fn is_without() -> bool {
    env::var_os("PORTWAY_HITLESS_WITHOUT").is_some()
}

/// Some time, in which everybody speaks, or not.
fn dwell() {
    thread::sleep(Duration::from_millis(fastrand::u64(0..=DWELL)));
}

/// A container that is not Docker's, and its slow path.
fn plain_container(lab: &Lab) -> Result<Container> {
    let container = Container::new(&lab.host, 1)?;
    for (index, protocol) in ["tcp", "udp"].into_iter().enumerate() {
        container.publish_with_iptables(&lab.host, protocol, HOST_PORTS[index], PORTS[index])?;
    }
    Ok(container)
}

fn publish(portway: &Portway<'_>, container: Ipv4Addr) -> Result<()> {
    let [tcp, udp] = HOST_PORTS;
    portway.publish(&format!("{tcp}:{container}:{}", PORTS[0]))?;
    portway.publish(&format!("{udp}:{container}:{}/udp", PORTS[1]))
}

/// The kernel's verifier takes its time.
fn wait_loaded(portway: &Portway<'_>) -> Result<()> {
    wait::until_true("portway being loaded", 3 * PATIENCE, || {
        Ok(portway.status().is_ok_and(|status| status.loaded))
    })
}

fn wait_active(portway: &Portway<'_>) -> Result<()> {
    wait_loaded(portway)?;
    portway.wait_active("tcp", HOST_PORTS[0])?;
    portway.wait_active("udp", HOST_PORTS[1])?;
    Ok(())
}

fn unload(lab: &Lab, portway: &Portway<'_>) -> Result<()> {
    let footprint = Footprint::of(&lab.host)?;
    portway.text("unload")?;
    footprint.wait_gone(&lab.host)
}
