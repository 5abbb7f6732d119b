//! Packet rates: how many frames reach the other end for each second that the sending CPU works. That CPU
//! makes them, sends them, receives them at the host and hands them on, so its time is all there is to
//! compare; what the sender itself takes is the same for everybody, and most of what the limit takes.

use std::{rc::Rc, time::Duration};

use anyhow::{Context, Error, Result, ensure};
use dataplane_common::headers::Be32;
use portway_bench_ebpf::{SAMPLES, SHORTEST, programs};
use portway_tests::{
    lab::EXTERNAL,
    netns::Netns,
    wait::{self, PATIENCE},
};

use crate::{
    bed::{Bed, INSIDE},
    cpu::Cpus,
    model::{Better, Skipped},
    object::{Constants, Object},
    plan::{Contender, Effort, Measure, Plan, Stage},
    room::{self, Room},
    sender::{Flows, Sender, Traffic},
    verify::Expected,
    way::{Open, Way, iptables},
};

/// What the link adds to each frame, in bytes (IEEE 802.3).
const CHECK_SEQUENCE: usize = 4;

/// The largest number of flows that take turns.
const MANY: u32 = 1 << 20;

/// A few flows.
const FEW: u32 = 64;

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
    /// And back to the client.
    ThereAndBack,
}

/// What the contenders of a scenario have in common.
struct Setting {
    trip: Trip,
    traffic: Traffic,
    sample: Duration,
    cpus: Cpus,
    _room: Room,
}

/// The scenarios.
pub fn plans() -> Vec<Plan> {
    use Trip::{There, ThereAndBack};
    let few = short(Flows::Turns(FEW), 1);
    let long = |length| Traffic { length, ..few };
    let new = |ports| short(Flows::New, ports);
    vec![
        plan("established", true, "64 flows", There, few),
        plan(
            "million",
            false,
            "1,048,576 flows",
            There,
            short(Flows::Turns(MANY), 1),
        ),
        plan("new", true, "Each packet begins a flow", There, new(1)),
        plan(
            "new-1000",
            false,
            "The same with 1,000 published ports",
            There,
            new(1000),
        ),
        plan(
            "new-10000",
            false,
            "The same with 10,000 published ports",
            There,
            new(10_000),
        ),
        plan(
            "new-65000",
            false,
            "The same with 65,000 published ports",
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
    ]
}

/// Short frames.
fn short(flows: Flows, ports: u16) -> Traffic {
    Traffic {
        flows,
        ports,
        length: SHORTEST,
    }
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
    let setting = Rc::new(Setting {
        trip,
        traffic,
        sample: if effort.quick { QUICK_SAMPLE } else { SAMPLE },
        cpus: Cpus::divide()?,
        _room: Room::make()?,
    });
    let mut stage = Stage {
        note: String::new(),
        contenders: Vec::new(),
        skipped: Vec::new(),
    };
    for way in Way::ALL {
        let bed = Bed::new()?;
        if way == Way::Iptables {
            stage.note = note(traffic, &iptables::version(&bed)?);
        }
        match way.open(&bed, traffic.ports) {
            Ok(open) => {
                let contender = Rate::new(way, open, bed, &setting).context(way.name())?;
                stage.contenders.push(Box::new(contender));
            }
            // What there may not be yet.
            Err(error) if way == Way::PortwayXdp => stage.skipped.push(Skipped {
                contender: way.name().to_owned(),
                why: last_line(&error),
            }),
            Err(error) => return Err(error.context(way.name())),
        }
    }
    Ok(stage)
}

/// What a command that has failed said in the end.
fn last_line(error: &Error) -> String {
    let text = format!("{error:#}");
    text.lines().last().unwrap_or_default().to_owned()
}

fn note(traffic: Traffic, iptables: &str) -> String {
    format!(
        "UDP in frames of {} bytes, check sequence included: those that arrive, by the second that the CPU \
         works which sends and receives them. {iptables}.",
        traffic.length + CHECK_SEQUENCE
    )
}

/// A way whose packet rate is measured.
struct Rate {
    way: Way,
    sender: Sender,
    /// Where frames are counted: in the container, or where answers arrive.
    end: Object,
    /// What answers, if answers are measured.
    _echo: Option<Object>,
    _open: Open,
    bed: Bed,
    setting: Rc<Setting>,
    /// How many frames a sample sends.
    count: u32,
    sent: u64,
    arrived: u64,
}

impl Rate {
    /// Has all flows answered once, so that they are established, and checks what arrives.
    fn new(way: Way, open: Open, bed: Bed, setting: &Rc<Setting>) -> Result<Self> {
        let Bed { lab, container } = &bed;
        let mut sender = Sender::new(
            &lab.client,
            INSIDE,
            lab.host.mac(EXTERNAL)?,
            setting.traffic,
            setting.cpus,
        )?;
        let echo = end(&container.netns, programs::ECHO)?;
        let answers = end(&lab.client, programs::SINK)?;
        match setting.traffic.flows {
            // Twice: an answer establishes a flow, and the next packet finds it established.
            Flows::Turns(flows) => sender.send((2 * flows).max(SAMPLES))?,
            Flows::New => sender.send(LEAST)?,
        };
        settle(&answers)?;
        let expected = Expected {
            frame: *sender.frame(),
            ports: setting.traffic.ports,
            container: way
                .translates()
                .then(|| Be32::new(container.address.to_bits())),
            container_mac: container.netns.mac(INSIDE)?,
        };
        expected.check_arrived(&echo.first()?)?;
        expected.check_answered(&answers.first()?)?;
        let (end, echo) = match setting.trip {
            Trip::ThereAndBack => (answers, Some(echo)),
            Trip::There => {
                drop(echo);
                (end(&container.netns, programs::SINK)?, None)
            }
        };
        let mut rate = Self {
            way,
            sender,
            end,
            _echo: echo,
            _open: open,
            bed,
            setting: Rc::clone(setting),
            count: LEAST,
            sent: 0,
            arrived: 0,
        };
        rate.calibrate()?;
        Ok(rate)
    }

    /// Finds how many frames make a sample.
    fn calibrate(&mut self) -> Result<()> {
        while self.count < MOST && self.send()?.took * 4 < self.setting.sample {
            self.count *= 4;
        }
        (self.sent, self.arrived) = (0, 0);
        Ok(())
    }

    /// Sends a sample's frames and counts those that arrive.
    fn send(&mut self) -> Result<Sent> {
        let before = self.end.arrived()?;
        let took = self.sender.send(self.count)?;
        let arrived = settle(&self.end)? - before;
        self.sent += u64::from(self.count);
        self.arrived += arrived;
        if self.way.is_tracked() && self.setting.traffic.flows == Flows::New {
            room::empty(&self.bed.lab.host)?;
        }
        Ok(Sent { arrived, took })
    }
}

/// What has become of a sample's frames.
struct Sent {
    arrived: u64,
    took: Duration,
}

impl Contender for Rate {
    fn name(&self) -> &str {
        self.way.name()
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

/// Puts an endpoint at [`INSIDE`].
fn end(netns: &Netns, program: &str) -> Result<Object> {
    let mut object = Object::load(&Constants {
        out: netns.index(INSIDE)?,
        ..Constants::default()
    })?;
    object.attach_ingress(program, netns, INSIDE)?;
    Ok(object)
}

/// How many frames have arrived once no more do: some may still be in ksoftirqd's hands.
fn settle(end: &Object) -> Result<u64> {
    let mut last = None;
    wait::until("frames to stop arriving", PATIENCE, || {
        let now = end.arrived()?;
        Ok((last.replace(now) == Some(now)).then_some(now))
    })
}
