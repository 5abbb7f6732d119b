//! Packet rates: how many frames reach the other end for each second that the sending CPU works. That CPU
//! makes them, sends them, receives them at the host and hands them on, so its time is all there is to
//! compare; what the sender itself takes is the same for everybody, and most of what the limit takes.

use std::{rc::Rc, time::Duration};

use anyhow::{Context, Result, ensure};

use crate::{
    model::Better,
    path::{Path, Paths, Sent},
    plan::{Contender, Effort, Measure, Plan, Stage},
    room::Room,
    sender::{FEW, Flows, MANY, Traffic},
    way::{Way, iptables},
};

/// What the link adds to each frame, in bytes (IEEE 802.3).
const CHECK_SEQUENCE: usize = 4;

/// Frames that are sent at once at most.
const MOST: u32 = 1 << 20;

/// Frames that are sent at once at least.
const LEAST: u32 = 1 << 8;

/// The CPU time that a sample takes about.
const SAMPLE: Duration = Duration::from_millis(1200);

/// The same in a quick run.
const QUICK_SAMPLE: Duration = Duration::from_millis(150);

/// A sample that has lost more than this part of its frames is none.
const TOLERATED: f64 = 0.05;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trip {
    /// From the client into the container.
    There,
    /// And up to a socket in it.
    ToSocket,
    /// And back to the client.
    ThereAndBack,
}

/// The scenarios.
pub fn plans() -> Vec<Plan> {
    use Trip::{There, ThereAndBack, ToSocket};
    let few = Traffic::short(FEW, 1);
    let long = |length| Traffic { length, ..few };
    let new = |ports| Traffic::short(Flows::New, ports);
    vec![
        plan("established", true, "64 flows", There, few),
        plan(
            "many-flows",
            false,
            "1,048,576 flows",
            There,
            Traffic::short(MANY, 1),
        ),
        plan("new-1", true, "Each packet begins a flow", There, new(1)),
        plan(
            "new-1000",
            false,
            "Each packet begins a flow, 1,000 published ports",
            There,
            new(1000),
        ),
        plan(
            "new-10000",
            false,
            "Each packet begins a flow, 10,000 published ports",
            There,
            new(10_000),
        ),
        plan(
            "new-65000",
            false,
            "Each packet begins a flow, 65,000 published ports",
            There,
            new(65_000),
        ),
        plan(
            "size-512",
            false,
            "64 flows of 512-byte frames",
            There,
            long(508),
        ),
        plan(
            "size-1400",
            false,
            "64 flows of 1,400-byte frames",
            There,
            long(1396),
        ),
        plan(
            "echo",
            true,
            "64 flows, each packet answered",
            ThereAndBack,
            few,
        ),
        plan(
            "socket-established",
            false,
            "64 flows, read from a socket",
            ToSocket,
            few,
        ),
        plan(
            "socket-new",
            false,
            "Each packet begins a flow, read from a socket",
            ToSocket,
            new(1),
        ),
    ]
}

fn plan(id: &'static str, quick: bool, title: &'static str, trip: Trip, traffic: Traffic) -> Plan {
    Plan {
        id,
        title,
        quick,
        measures: vec![Measure {
            suffix: "",
            title,
            unit: "Mpps per CPU second",
            better: Better::Higher,
        }],
        prepare: Box::new(move |effort| prepare(effort, trip, traffic)),
    }
}

fn prepare(effort: Effort, trip: Trip, traffic: Traffic) -> Result<Stage> {
    let room = Rc::new(Room::make()?);
    let sample = if effort.quick { QUICK_SAMPLE } else { SAMPLE };
    let mut ways = Way::ALONE.to_vec();
    if trip == Trip::ToSocket {
        // What is not translated gets to no socket.
        ways.retain(|way| way.translates());
    }
    let Paths { there, skipped } = Paths::open(&ways, traffic)?;
    let mut stage = Stage::new(note(traffic, &there)?);
    stage.skipped = skipped;
    for path in there {
        let way = path.way;
        let rate = Rate::new(path, trip, sample, &room).context(way.name())?;
        stage.add(rate);
    }
    Ok(stage)
}

fn note(traffic: Traffic, paths: &[Path]) -> Result<String> {
    let iptables = paths
        .iter()
        .find(|path| path.way == Way::Iptables)
        .map(|path| iptables::version(&path.bed))
        .transpose()?
        .unwrap_or_default();
    Ok(format!(
        "UDP in frames of {} bytes, check sequence included: those that arrive, by the second that the CPU \
         works which sends and receives them. {iptables}.",
        traffic.length + CHECK_SEQUENCE
    ))
}

/// A way whose packet rate is measured.
struct Rate {
    path: Path,
    /// How many frames a sample sends.
    count: u32,
    sent: u64,
    arrived: u64,
    _room: Rc<Room>,
}

impl Rate {
    /// Finds out how many frames take about `sample` of the CPU's time.
    fn new(mut path: Path, trip: Trip, sample: Duration, room: &Rc<Room>) -> Result<Self> {
        match trip {
            Trip::There => path.answer_no_more()?,
            Trip::ToSocket => path.read()?,
            Trip::ThereAndBack => {}
        }
        let mut rate = Self {
            path,
            count: LEAST,
            sent: 0,
            arrived: 0,
            _room: Rc::clone(room),
        };
        while rate.count < MOST && rate.send()?.took * 4 < sample {
            rate.count *= 4;
        }
        (rate.sent, rate.arrived) = (0, 0);
        Ok(rate)
    }

    /// Sends a sample's frames and counts those that arrive.
    fn send(&mut self) -> Result<Sent> {
        let sent = self.path.send(self.count)?;
        self.sent += u64::from(self.count);
        self.arrived += sent.arrived;
        self.path.forget_new_flows()?;
        Ok(sent)
    }
}

impl Contender for Rate {
    fn name(&self) -> &str {
        self.path.way.name()
    }

    fn sample(&mut self) -> Result<Vec<f64>> {
        let Sent { arrived, took } = self.send()?;
        let lost = 1.0 - arrived as f64 / f64::from(self.count);
        ensure!(
            lost <= TOLERATED,
            "of {} frames only {arrived} have arrived",
            self.count
        );
        Ok(vec![arrived as f64 / took.as_secs_f64() / 1e6])
    }

    fn note(&self) -> String {
        let lost = self.sent - self.arrived;
        format!("lost {lost} of {} frames", self.sent)
    }
}
