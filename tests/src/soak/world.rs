//! The host, and all that can happen to it.

use std::{net::IpAddr, sync::MutexGuard, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use nix::sys::signal::Signal;

use super::{
    event::{Denial, Event},
    history::Party,
    lanes::{self, Holder, NETWORKS, PUBLICATIONS, SLOTS, STEADY},
    ledger::Ledger,
    server::FOLDER,
    shared::Shared,
};
use crate::{
    daemon::Daemon,
    docker::{self, Docker, docker},
    image,
    lab::Lab,
    portway::Portway,
    wait::{self, PATIENCE},
};

/// The networks beside Docker's own.
const BLUE: &str = "blue";
const GREEN: &str = "green";

/// The longest time that what a rule denies may still come through: a lease, and what it takes to hear of the rule.
const SILENCED: Duration = Duration::from_secs(4);

/// A container that comes and goes.
#[derive(Debug, Clone, Copy)]
struct Container {
    server: u32,
    is_connected: bool,
}

/// A container that stays.
#[derive(Debug, Clone, Copy)]
struct Steady {
    server: u32,
    address: IpAddr,
}

/// The host.
pub struct World<'a> {
    lab: &'a Lab,
    shared: &'a Shared,
    docker: Docker,
    /// The instance under test.
    pub portway: Portway<'a>,
    run: Option<Daemon>,
    slots: [Option<Container>; SLOTS],
    steady: Vec<Steady>,
    by_hand: Option<usize>,
    denial: Option<Denial>,
    servers: u32,
}

impl<'a> World<'a> {
    /// Starts Docker, the containers that stay, and portway.
    ///
    /// # Errors
    /// Something does not come up.
    pub fn new(lab: &'a Lab, shared: &'a Shared) -> Result<Self> {
        let docker = Docker::start_lasting_without_proxy(&lab.host)?;
        for network in [BLUE, GREEN] {
            docker::docker(&lab.host, &format!("network create {network}"))?;
        }
        // Short, so that what has been given up is over by the end, and table entries come and go.
        for (name, seconds) in [
            ("udp_timeout", 5),
            ("udp_timeout_stream", 10),
            ("tcp_timeout_syn_sent", 5),
            ("tcp_timeout_syn_recv", 5),
            ("tcp_timeout_fin_wait", 5),
            ("tcp_timeout_close_wait", 5),
            ("tcp_timeout_last_ack", 5),
            ("tcp_timeout_time_wait", 5),
            ("tcp_timeout_close", 5),
            ("tcp_timeout_unacknowledged", 5),
        ] {
            lab.host.sysctl(
                &format!("netfilter/nf_conntrack_{name}"),
                &seconds.to_string(),
            )?;
        }
        let mut world = Self {
            portway: Portway::new(&lab.host)?,
            lab,
            shared,
            docker,
            run: None,
            slots: [None; SLOTS],
            steady: Vec::new(),
            by_hand: None,
            denial: None,
            servers: 0,
        };
        for which in 0..STEADY {
            let server = world.start(Holder::Steady(which), "bridge")?;
            shared
                .ledger()
                .history
                .calm(Party::Of(Holder::Steady(which)));
            let address = docker::address(&lab.host, &name(server), "bridge")?.into();
            world.steady.push(Steady { server, address });
        }
        world.portway.load("")?;
        world.start_run()?;
        world.wait_active()?;
        Ok(world)
    }

    /// What happens next; `may_kill` says whether `run` may be killed.
    pub fn choose(&self, random: &mut Rng, may_kill: bool) -> Event {
        let slot = random.usize(..SLOTS);
        let mut events = match self.slots[slot] {
            None => vec![(8, Event::Start(slot))],
            Some(_) => vec![
                (2, Event::Remove(slot)),
                (3, Event::Move(slot)),
                (2, Event::Restart(slot)),
                (2, Event::Connect(slot)),
            ],
        };
        let steady = random.usize(..=STEADY);
        let by_hand = Some(steady).filter(|which| *which < STEADY);
        if by_hand != self.by_hand {
            events.push((3, Event::ByHand(by_hand)));
        }
        events.push(match self.denial {
            None => (
                1,
                // Slot 1 is in another network than Docker's own, and slot 2 has several ports.
                Event::Deny(match random.usize(..3) {
                    0 => Denial::Client,
                    slot => Denial::Slot(slot),
                }),
            ),
            Some(_) => (3, Event::Allow),
        });
        events.push((1, Event::Load));
        match self.run {
            Some(_) if may_kill => events.push((2, Event::Kill)),
            Some(_) => {}
            None => events.push((4, Event::Run)),
        }
        if random.u32(..8) == 0 {
            events.push((2, Event::RestartDocker));
        }
        let total: u32 = events.iter().map(|(weight, _)| weight).sum();
        let mut left = random.u32(..total);
        for (weight, event) in &events {
            match left.checked_sub(*weight) {
                Some(less) => left = less,
                None => return *event,
            }
        }
        Event::Load
    }

    /// Has it happen.
    ///
    /// # Errors
    /// A command fails, or portway does not do what it should.
    pub fn play(&mut self, event: Event) -> Result<()> {
        self.shared.ledger().history.note(format!("{event:?}"));
        match event {
            Event::Start(slot) => self.fill(slot),
            Event::Remove(slot) => self.clear(slot),
            Event::Move(slot) => {
                self.clear(slot)?;
                self.fill(slot)
            }
            Event::Restart(slot) => self.restart(slot),
            Event::Connect(slot) => self.connect(slot),
            Event::ByHand(which) => self.publish_by_hand(which),
            Event::Deny(denial) => self.deny(denial),
            Event::Allow => self.allow(),
            Event::Load => self.portway.load("").map(drop),
            Event::Kill => self.kill_run(),
            Event::Run => self.start_run(),
            Event::RestartDocker => self.restart_docker(),
        }
        .with_context(|| format!("{event:?}"))
    }

    /// The process id of `run`, if there is one.
    pub fn run_pid(&self) -> Option<u32> {
        self.run.as_ref().map(Daemon::pid)
    }

    /// Brings everything back: `run` is there, nothing is denied, each slot has its container, and portway has all of
    /// it active.
    ///
    /// # Errors
    /// It does not come about.
    pub fn restore(&mut self) -> Result<()> {
        if self.denial.is_some() {
            self.play(Event::Allow)?;
        }
        if self.run.is_none() {
            self.play(Event::Run)?;
        }
        for slot in 0..SLOTS {
            if self.slots[slot].is_none() {
                self.play(Event::Start(slot))?;
            }
        }
        self.wait_mode("direct")?;
        self.wait_active()
    }

    /// Takes back everything but the containers that stay.
    ///
    /// # Errors
    /// A command fails.
    pub fn clear_all(&mut self) -> Result<()> {
        if self.by_hand.is_some() {
            self.play(Event::ByHand(None))?;
        }
        for slot in 0..SLOTS {
            if self.slots[slot].is_some() {
                self.play(Event::Remove(slot))?;
            }
        }
        Ok(())
    }

    /// Ends `run`, unloads portway, and ends the containers that stay and Docker.
    ///
    /// # Errors
    /// One of them does not end well.
    pub fn end(mut self) -> Result<()> {
        if let Some(run) = self.run.take() {
            self.portway.interrupt(&run)?;
        }
        self.portway.text("unload")?;
        for steady in &self.steady {
            self.remove(steady.server)?;
        }
        self.docker.down()
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.shared.ledger()
    }

    /// Starts a container; returns its number.
    fn start(&mut self, holder: Holder, network: &str) -> Result<u32> {
        self.servers += 1;
        let server = self.servers;
        self.ledger().history.add_server(server, holder);
        let ports = lanes::of(holder).map(|publication| format!(" -p {}", publication.spec(None)));
        let ports: String = ports.collect();
        let mut command = format!(
            "run -d --name {} --network {network} -v {FOLDER}:{FOLDER}{ports} {} {} tell {server}",
            name(server),
            image::NAME,
            image::GUEST
        );
        // Each listens on everybody's ports, so that what is not for it is seen.
        for publication in PUBLICATIONS {
            for offset in 0..publication.count {
                let service = publication.protocol.word();
                command += &format!(" {service}/{}", publication.port + offset);
            }
        }
        docker(&self.lab.host, &command)?;
        Ok(server)
    }

    fn fill(&mut self, slot: usize) -> Result<()> {
        let server = self.start(Holder::Slot(slot), NETWORKS[slot])?;
        self.slots[slot] = Some(Container {
            server,
            is_connected: false,
        });
        self.settle(slot);
        Ok(())
    }

    fn clear(&mut self, slot: usize) -> Result<()> {
        if let Some(container) = self.slots[slot].take() {
            self.ledger().history.disturb(Party::Of(Holder::Slot(slot)));
            self.remove(container.server)?;
        }
        Ok(())
    }

    fn remove(&self, server: u32) -> Result<()> {
        docker(&self.lab.host, &format!("rm -f {}", name(server))).map(drop)
    }

    fn restart(&mut self, slot: usize) -> Result<()> {
        if let Some(Container { server, .. }) = self.slots[slot] {
            self.ledger().history.disturb(Party::Of(Holder::Slot(slot)));
            let ready = self.greetings(server)?;
            let name = name(server);
            docker(&self.lab.host, &format!("restart -t 0 {name}"))?;
            wait::until_true(&format!("{name} again"), PATIENCE, || {
                Ok(self.greetings(server)? > ready)
            })?;
            self.settle(slot);
        }
        Ok(())
    }

    /// How often a container's servers have come up.
    fn greetings(&self, server: u32) -> Result<usize> {
        Ok(docker(&self.lab.host, &format!("logs {}", name(server)))?
            .lines()
            .count())
    }

    fn connect(&mut self, slot: usize) -> Result<()> {
        if let Some(container) = &mut self.slots[slot] {
            let server = container.server;
            let deed = if container.is_connected {
                "disconnect"
            } else {
                "connect"
            };
            container.is_connected = !container.is_connected;
            self.ledger().history.disturb(Party::Of(Holder::Slot(slot)));
            let name = name(server);
            docker(&self.lab.host, &format!("network {deed} {GREEN} {name}"))?;
            self.settle(slot);
        }
        Ok(())
    }

    /// A slot's container is there, and nobody works on it; but a rule may be about it.
    fn settle(&self, slot: usize) {
        if self.denial != Some(Denial::Slot(slot)) {
            self.ledger().history.calm(Party::Of(Holder::Slot(slot)));
        }
    }

    fn publish_by_hand(&mut self, which: Option<usize>) -> Result<()> {
        if self.by_hand.take().is_some() {
            self.ledger().history.take_back();
            for publication in lanes::of(Holder::ByHand) {
                let (port, protocol) = (publication.host_port, publication.protocol.word());
                self.portway.text(&format!("unpublish {port}/{protocol}"))?;
            }
            self.ledger().history.end_by_hand();
        }
        if let Some(which) = which {
            let Steady { server, address } = self.steady[which];
            self.ledger().history.begin_by_hand(server);
            for publication in lanes::of(Holder::ByHand) {
                let spec = publication.spec(Some(address));
                self.portway.text(&format!("publish {spec}"))?;
            }
            self.by_hand = Some(which);
        }
        Ok(())
    }

    fn deny(&mut self, denial: Denial) -> Result<()> {
        self.ledger().history.disturb(denial.party());
        self.ledger().history.begin_kernel();
        self.iptables("-I", denial)?;
        self.denial = Some(denial);
        if self.run.is_some() {
            self.silence(denial)?;
        }
        Ok(())
    }

    /// `run` hears of the rule, and from some time later on nothing may come through.
    fn silence(&self, denial: Denial) -> Result<()> {
        self.wait_mode("netfilter")?;
        thread::sleep(SILENCED);
        self.ledger().history.deny(denial.party());
        Ok(())
    }

    fn allow(&mut self) -> Result<()> {
        if let Some(denial) = self.denial.take() {
            self.ledger().history.allow(denial.party());
            self.iptables("-D", denial)?;
            if self.run.is_some() {
                self.wait_mode("direct")?;
                self.ledger().history.end_kernel();
            }
            match denial {
                Denial::Client => self.ledger().history.calm(denial.party()),
                Denial::Slot(slot) => {
                    if self.slots[slot].is_some() {
                        self.settle(slot);
                    }
                }
            }
        }
        Ok(())
    }

    fn iptables(&self, deed: &str, denial: Denial) -> Result<()> {
        let args = format!("-w {deed} DOCKER-USER {}", denial.rule());
        let iptables = self.lab.host.command("iptables");
        iptables.args(args.split_whitespace()).text().map(drop)
    }

    /// Waits until portway has everything active that is published.
    fn wait_active(&self) -> Result<()> {
        for publication in PUBLICATIONS {
            let is_published = match publication.holder {
                Holder::Slot(slot) => self.slots[slot].is_some(),
                Holder::Steady(_) => true,
                Holder::ByHand => self.by_hand.is_some(),
            };
            if is_published {
                let protocol = publication.protocol.word();
                self.portway.wait_active(protocol, publication.host_port)?;
            }
        }
        Ok(())
    }

    fn wait_mode(&self, mode: &str) -> Result<()> {
        let mut why = String::new();
        wait::until_true(&format!("{mode} admission"), PATIENCE, || {
            let admission = self.portway.status()?.admission;
            let admission = admission.context("no admission")?;
            let is_it = admission.mode == mode;
            why = admission.why;
            Ok(is_it)
        })
        .with_context(|| why)
    }

    fn kill_run(&mut self) -> Result<()> {
        if let Some(run) = self.run.take() {
            // Without it rules are not heard of.
            if let Some(denial) = self.denial {
                self.ledger().history.allow(denial.party());
            }
            run.signal(Signal::SIGKILL);
            run.wait(PATIENCE)?;
        }
        Ok(())
    }

    fn start_run(&mut self) -> Result<()> {
        let run = self.portway.run_with_docker("")?;
        run.line("portway", PATIENCE)?;
        self.run = Some(run);
        match self.denial {
            Some(denial) => self.silence(denial),
            None => {
                self.wait_mode("direct")?;
                self.ledger().history.end_kernel();
                Ok(())
            }
        }
    }

    fn restart_docker(&mut self) -> Result<()> {
        let slots = (0..SLOTS).map(Holder::Slot);
        let holders = slots.chain((0..STEADY).map(Holder::Steady));
        let holders: Vec<_> = holders.collect();
        for holder in &holders {
            self.ledger().history.disturb(Party::Of(*holder));
        }
        self.docker.down()?;
        self.docker.up(&self.lab.host)?;
        for holder in holders {
            match holder {
                Holder::Slot(slot) if self.slots[slot].is_some() => self.settle(slot),
                Holder::Steady(_) => self.ledger().history.calm(Party::Of(holder)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether `run` is where it should be.
    ///
    /// # Errors
    /// It has ended by itself; with what it said.
    pub fn ensure_running(&self) -> Result<()> {
        if let Some(run) = &self.run {
            ensure!(
                run.ended().is_none(),
                "portway run has ended by itself:\n{}",
                run.said()
            );
        }
        Ok(())
    }
}

/// What Docker calls a container.
fn name(server: u32) -> String {
    format!("c{server}")
}
