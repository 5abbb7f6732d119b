//! The time that eBPF programs take for a packet, as the kernel itself measures it while traffic passes
//! (`BPF_ENABLE_STATS`). It includes what the measuring takes, some 20 ns a run.

use std::{fs, rc::Rc, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use aya::{
    programs::{ProgramFd, ProgramInfo},
    sys::{Stats, enable_stats},
};
use dataplane_common::layout;
use portway::instance::Instance;
use portway_bench_ebpf::programs;
use portway_tests::procfs;

use crate::{
    model::Better,
    path::{Path, Paths},
    plan::{Contender, Effort, Measure, Plan, Stage},
    room::Room,
    sender::{FEW, Flows, MANY, Traffic},
    way::{Open, Way},
};

/// The ways that are made of eBPF programs.
const WAYS: [Way; 3] = [Way::Limit, Way::PortwayTc, Way::PortwayXdp];

/// Frames of a sample.
const COUNT: u32 = 1 << 18;

/// Whom packets come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    Client,
    Container,
}

/// The scenarios.
pub fn plans() -> Vec<Plan> {
    vec![
        plan("program-established", "Programs' time, 64 flows", FEW),
        plan(
            "program-many-flows",
            "Programs' time, 1,048,576 flows",
            MANY,
        ),
        plan(
            "program-new-1",
            "Programs' time, each packet begins a flow",
            Flows::New,
        ),
    ]
}

fn plan(id: &'static str, title: &'static str, flows: Flows) -> Plan {
    let measure = |suffix, title| Measure {
        suffix,
        title,
        unit: "ns",
        better: Better::Lower,
    };
    Plan {
        id,
        title,
        quick: false,
        measures: vec![
            measure("-forward", "eBPF programs' time for a packet from a client"),
            measure("-reply", "eBPF programs' time for a reply"),
        ],
        prepare: Box::new(move |_: Effort| prepare(flows)),
    }
}

fn prepare(flows: Flows) -> Result<Stage> {
    let room = Rc::new(Room::make()?);
    let Paths { there, skipped } = Paths::open(&WAYS, Traffic::short(flows, 1))?;
    let contenders = there.into_iter().map(|path| -> Result<Box<dyn Contender>> {
        Ok(Box::new(Programs {
            forward: programs_on(&path, From::Client)?,
            reply: programs_on(&path, From::Container)?,
            path,
            _room: Rc::clone(&room),
        }))
    });
    Ok(Stage {
        note: "As the kernel measures it (BPF_ENABLE_STATS), which itself takes some 20 ns for each run of a \
               program; all programs that a packet meets together."
            .to_owned(),
        contenders: contenders.collect::<Result<_>>()?,
        skipped,
    })
}

/// The programs that packets meet on their way.
struct Programs {
    forward: Vec<ProgramFd>,
    reply: Vec<ProgramFd>,
    path: Path,
    _room: Rc<Room>,
}

/// The programs that packets from one side meet.
fn programs_on(path: &Path, from: From) -> Result<Vec<ProgramFd>> {
    match &path.open {
        Open::Limit(limit) => {
            let name = match from {
                From::Client => programs::LIMIT,
                From::Container => programs::LIMIT_REPLY,
            };
            Ok(vec![limit.object.fd(name)?.try_clone()?])
        }
        Open::Portway(instance) => {
            let instance: Instance = instance.parse()?;
            let folder = path.bed.lab.host.file(instance.program(""));
            let pins = fs::read_dir(&folder)
                .with_context(|| format!("no programs in {}", folder.display()))?;
            let mut found = Vec::new();
            for pin in pins {
                let pin = pin?;
                if sees(&pin.file_name().to_string_lossy()) == from {
                    found.push(ProgramInfo::from_pin(pin.path())?.fd()?);
                }
            }
            Ok(found)
        }
        Open::Host => bail!("no programs on this way"),
    }
}

/// Whose packets a program of portway sees where the kernel is not asked.
fn sees(program: &str) -> From {
    use layout::programs::{EGRESS, EGRESS_L3, REPLY};
    match program {
        REPLY | EGRESS | EGRESS_L3 => From::Container,
        _ => From::Client,
    }
}

impl Contender for Programs {
    fn name(&self) -> &str {
        self.path.way.name()
    }

    fn sample(&mut self) -> Result<Vec<f64>> {
        let before = [run_time(&self.forward)?, run_time(&self.reply)?];
        let stats = enable_stats(Stats::RunTime)?;
        let sent = self.path.send(COUNT)?;
        drop(stats);
        let after = [run_time(&self.forward)?, run_time(&self.reply)?];
        ensure!(
            sent.arrived == u64::from(COUNT),
            "of {COUNT} frames only {} have been answered",
            sent.arrived
        );
        let took = before.into_iter().zip(after);
        Ok(took
            .map(|(before, after)| (after - before).as_nanos() as f64 / f64::from(COUNT))
            .collect())
    }
}

/// How long programs have run since they were loaded, while that was measured.
fn run_time(programs: &[ProgramFd]) -> Result<Duration> {
    programs
        .iter()
        .map(|program| procfs::of_descriptor(program, "run_time_ns").map(Duration::from_nanos))
        .sum()
}
