//! The core as the tests compile it and the programs as the kernel runs them say the same of any bytes.
//!
//! Both see the same random traffic, and remember the same of it: verdict, bytes and counter are compared
//! packet by packet, flows now and then. `PORTWAY_PACKETS` says how many packets, `PORTWAY_SEED` which.

use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use dataplane_common::{
    family::{Family as _, V4, V6},
    headers::{EtherType, Ports},
    packet::Packet as _,
    reason::{Counter, Reason},
    settings::Admission,
    state::{State, Timeouts},
    testing::{
        buffer::{Buffer, ETHERNET, ether_type},
        programs::{Verdict, run_forward, run_reply},
        world::World,
    },
};
use portway_tests::{
    harness::{self, Test},
    lab::Lab,
    portway::Portway,
    rig::{self, EXTERNAL_MAC, Made, PASS, Program, REDIRECT, Rig, Version, clock},
    setting::{self, setting},
};

use traffic::{Random, Sent, next};

mod traffic;

/// How many packets, unless the caller says otherwise.
const PACKETS: u64 = 250_000;

/// Every so many packets the tables are compared and emptied.
const ROUND: u64 = 20_000;

/// The index of its counter.
const NO_ROUTE: usize = Reason::NoRoute as usize;

/// `TC_ACT_SHOT`.
const SHOT: i32 = 2;

fn main() -> ExitCode {
    harness::run([Test::of_portway("core_equals_program", compare)])
}

fn compare() -> Result<()> {
    let packets = setting("PORTWAY_PACKETS")?.unwrap_or(PACKETS);
    let seed = setting::seed("PORTWAY_SEED")?;
    println!("{packets} packets of PORTWAY_SEED={seed}");
    let lab = Lab::new()?;
    let container = rig::lay_out(&lab)?;
    let portway = Portway::new(&lab.host)?;
    Rig::new(&lab, &portway, &container)?.run(|rig| {
        let mut random = Random(seed);
        let mut pair = Pair::new(rig)?;
        for number in 0..packets {
            if number % ROUND == 0 {
                pair.compare_tables()
                    .and_then(|()| pair.start_over(&mut random))
                    .with_context(|| format!("before packet {number}"))?;
            } else if number % ROUND == ROUND / 2 {
                pair.change_admission(&mut random)?;
            }
            pair.step(&mut random)
                .with_context(|| format!("packet {number} of PORTWAY_SEED={seed}"))?;
        }
        pair.compare_tables()?;
        pair.report();
        ensure!(
            pair.skipped < packets / 20,
            "{} packets were fragments or met a tick of the clock: too few are compared",
            pair.skipped
        );
        Ok(())
    })
}

/// Programs and core, with what each remembers.
struct Pair<'a, 'b> {
    rig: &'a mut Rig<'b>,
    v4: World<V4>,
    v6: World<V6>,
    counts: Vec<u64>,
    seen: Vec<u64>,
    skipped: u64,
}

impl<'a, 'b> Pair<'a, 'b> {
    fn new(rig: &'a mut Rig<'b>) -> Result<Self> {
        Ok(Self {
            v4: V4::world(rig)?,
            v6: V6::world(rig)?,
            counts: rig.counters()?,
            seen: vec![0; Counter::ALL.len()],
            rig,
            skipped: 0,
        })
    }

    /// One packet through both.
    fn step(&mut self, random: &mut Random) -> Result<()> {
        let sent = if random.percent(50) {
            next(random, &self.v4)
        } else {
            next(random, &self.v6)
        };
        let before = clock()?;
        let made = self
            .rig
            .test(sent.program, &sent.frame, sent.segment_size)?;
        let after = clock()?;
        let Some(made) = made else {
            // Shorter than the header that its EtherType promises.
            ensure!(
                sent.frame.len() < ETHERNET + V6::HEADER_LEN,
                "refused: {sent:02x?}"
            );
            return Ok(());
        };
        if self.is_between(before, after) {
            self.skipped += 1;
            return self.follow();
        }
        let (verdict, packet) = self.judge(&sent, &made, before)?;
        // What becomes of a fragment depends on others, which the kernel holds for it.
        if verdict == Verdict::Passed(Reason::Fragment) {
            self.skipped += 1;
            return self.follow();
        }
        self.check(verdict, &packet, &made)
            .with_context(|| format!("the core says {verdict:?} of {sent:02x?}"))
    }

    /// Whether the program may have read another time than the core would.
    fn is_between(&self, before: u64, after: u64) -> bool {
        let unit = if self.v4.settings.admission == Admission::Direct as u32 {
            1000
        } else {
            1
        };
        before / unit != after / unit
    }

    fn judge(&mut self, sent: &Sent, made: &Made, now: u64) -> Result<(Verdict, Buffer)> {
        let mut packet = Buffer::new(sent.frame.clone());
        packet.segment_size = sent.segment_size;
        packet.is_to_host = sent.frame.starts_with(&EXTERNAL_MAC);
        let has_no_route = self.rig.counter(Reason::NoRoute)? != self.counts[NO_ROUTE];
        let asked = Asked {
            rig: self.rig,
            program: sent.program,
            made,
            now,
            has_no_route,
        };
        let verdict = match ether_type(&packet) {
            Some(EtherType::IPV4) => asked.ask(&mut self.v4, &mut packet),
            Some(EtherType::IPV6) => asked.ask(&mut self.v6, &mut packet),
            _ => Verdict::Passed(Reason::NotIp),
        };
        Ok((verdict, packet))
    }

    fn check(&mut self, verdict: Verdict, packet: &Buffer, made: &Made) -> Result<()> {
        let action = match verdict {
            Verdict::Forwarded(ifindex) | Verdict::ErrorForwarded(ifindex) => {
                ensure!(ifindex == self.rig.veth, "to interface {ifindex}");
                REDIRECT
            }
            Verdict::Replied(ifindex) | Verdict::ErrorReplied(ifindex) => {
                ensure!(ifindex == self.rig.external, "to interface {ifindex}");
                REDIRECT
            }
            Verdict::Passed(_) => PASS,
            Verdict::Dropped => SHOT,
        };
        let counter = verdict.counter();
        self.counts[counter as usize] += 1;
        self.seen[counter as usize] += 1;
        if self.rig.counter(counter)? != self.counts[counter as usize] {
            let now = self.rig.counters()?;
            let counted = Counter::ALL
                .iter()
                .find(|other| now[**other as usize] > self.counts[**other as usize]);
            bail!(
                "the program counts it as {counted:?} and returns {}",
                made.action
            );
        }
        ensure!(made.action == action, "the program returns {}", made.action);
        ensure!(
            made.bytes == packet.bytes,
            "core    {:02x?}\nprogram {:02x?}",
            packet.bytes,
            made.bytes
        );
        Ok(())
    }

    /// Lets the core remember what the programs do.
    fn follow(&mut self) -> Result<()> {
        V4::follow(self.rig, &self.v4)?;
        V6::follow(self.rig, &self.v6)?;
        self.counts = self.rig.counters()?;
        Ok(())
    }

    /// Forgets everything on both sides, and lets time-outs come soon.
    fn start_over(&mut self, random: &mut Random) -> Result<()> {
        V4::forget(self.rig)?;
        V6::forget(self.rig)?;
        self.follow()?;
        let mut timeouts = Timeouts::DEFAULT;
        for number in 0..State::COUNT as u8 {
            timeouts = timeouts.with(State::from_number(number), random.below(3) as u32);
        }
        self.set_admission(Admission::Direct, timeouts)
    }

    /// Somebody else admits flows from now on; the kernel has let some of them through.
    fn change_admission(&mut self, random: &mut Random) -> Result<()> {
        let admission = if random.percent(60) {
            Admission::Netfilter
        } else {
            Admission::Off
        };
        self.set_admission(admission, Timeouts::DEFAULT)?;
        let now = clock()? as u32 + 1;
        V4::change_flows(self.rig, |flow| {
            flow.admitted_in_at = if random.percent(70) { now } else { 0 };
        })?;
        V6::change_flows(self.rig, |flow| {
            flow.admitted_out_at = if random.percent(70) { now } else { 0 };
        })?;
        self.follow()
    }

    fn set_admission(&mut self, admission: Admission, timeouts: Timeouts) -> Result<()> {
        let mut settings = self.v4.settings;
        settings.admission = admission as u32;
        settings.rules_since = clock()? as u32;
        settings.admission_since = settings.rules_since;
        settings.tcp_liberal = 1;
        settings.timeouts = timeouts;
        self.rig.tables.set_settings(settings)?;
        (self.v4.settings, self.v6.settings) = (settings, settings);
        Ok(())
    }

    fn compare_tables(&self) -> Result<()> {
        let programs = self.rig.counters()?;
        ensure!(programs == self.counts, "the programs have counted more");
        same_tables::<V4>(self.rig, &self.v4)?;
        same_tables::<V6>(self.rig, &self.v6)
    }

    fn report(&self) {
        println!(
            "{} packets not compared: fragments, or at a tick of the clock",
            self.skipped
        );
        for counter in Counter::ALL {
            println!("{:>9}  {}", self.seen[*counter as usize], counter.word());
        }
    }
}

/// A packet that a program has had, for the core.
struct Asked<'a, 'b> {
    rig: &'a Rig<'b>,
    program: Program,
    made: &'a Made,
    now: u64,
    has_no_route: bool,
}

impl Asked<'_, '_> {
    fn ask<V: Version>(&self, world: &mut World<V>, packet: &mut Buffer) -> Verdict {
        world.millis.set(self.now);
        self.follow_route(world, packet);
        match self.program {
            Program::Forward => {
                self.follow_port(world, packet);
                run_forward(world, packet, self.rig.external)
            }
            Program::Reply => run_reply(world, packet, self.rig.veth),
        }
    }

    /// Lets the core know the way to a source that it has not met: to most there is one, and of the others
    /// (addresses of all or any stations of a link) the program knows.
    fn follow_route<V: Version>(&self, world: &mut World<V>, packet: &Buffer) {
        let Ok(network) = V::parse(packet, ETHERNET) else {
            return;
        };
        let source = network.source;
        if self.has_no_route && !V::CLIENTS.contains(&source) {
            world.routes.insert(source, Err(Reason::NoRoute));
        }
        let route = V::route(self.rig, source);
        world.routes.entry(source).or_insert(Ok(route));
    }

    /// Lets the core draw the port that the program has drawn for a client.
    fn follow_port<V: Version>(&self, world: &World<V>, packet: &Buffer) {
        let at = ETHERNET + V::HEADER_LEN;
        let made = Buffer::<ETHERNET>::new(self.made.bytes.clone());
        if let (Some(own), Some(given)) = (packet.load::<Ports>(at), made.load::<Ports>(at)) {
            // The first of the range that it is drawn from.
            let first = match own.source.get() {
                0..512 => 1,
                512..1024 => 600,
                1024.. => 1024,
            };
            let given = u32::from(given.source.get());
            world.random.set(given.wrapping_sub(first));
        }
    }
}

fn same_tables<V: Version>(rig: &Rig<'_>, world: &World<V>) -> Result<()> {
    let theirs = V::world(rig)?;
    for (name, core, programs) in [
        ("established", &world.flows, &theirs.flows),
        ("opening", &world.opening, &theirs.opening),
    ] {
        let (core, programs) = (core.borrow(), programs.borrow());
        for (key, flow) in core.iter() {
            ensure!(
                programs.get(key) == Some(flow),
                "{name} {key:?}: core {flow:?}, programs {:?}",
                programs.get(key)
            );
        }
        ensure!(core.len() == programs.len(), "{name}: programs know more");
    }
    ensure!(
        *world.remapped.borrow() == *theirs.remapped.borrow(),
        "other ports given"
    );
    Ok(())
}
