//! Memory with a million live flows: the kernel's for portway's maps, and that of `portway run`.

use std::{cmp::Reverse, time::Duration};

use anyhow::{Context, Result, ensure};
use aya::maps::{HashMap, Map, MapData};
use dataplane_common::{
    flow::{Flow, FlowKey},
    headers::Be32,
    layout::maps::V4,
};
use portway_tests::{host::Host, memory, portway::Portway, wait};

use crate::{
    bed::Bed,
    contenders::PORTWAY_AUTO,
    control::maps,
    cpu::Cpus,
    model::Better,
    path::{Path, Paths},
    plan::{Contender, Effort, Measure, Plan, Stage},
    room::Room,
    sender::{MANY, Traffic},
    way::{Open, Way, portway},
};

/// So many have to be live.
const LIVE: u64 = 1_000_000;

/// 2^20 flows.
const TRAFFIC: Traffic = Traffic::short(MANY, 1);

/// `portway load` with room for them.
const LOAD: &str = "--admission direct --max-flows 1048576";

/// No UDP flow lives through a silence of so many seconds.
const SILENCE: u32 = 10_000;

/// How long `portway run` may take to look at all flows.
const SWEEP: Duration = Duration::from_secs(60);

/// How many maps are told by their names.
const TOLD: usize = 4;

const MEGABYTE: f64 = 1e6;

/// The scenario.
pub fn plan() -> Plan {
    Plan {
        id: "memory",
        title: "Memory with a million live flows",
        quick: false,
        measures: vec![
            Measure {
                suffix: "-maps",
                title: "The kernel's memory for portway's maps",
                unit: "MB",
                better: Better::Lower,
            },
            Measure {
                suffix: "-run",
                title: "Memory of `portway run`",
                unit: "MB",
                better: Better::Lower,
            },
        ],
        prepare: Box::new(prepare),
    }
}

fn prepare(_: Effort) -> Result<Stage> {
    let room = Room::make()?;
    let bed = Bed::new()?;
    let instance = portway::open(&bed, TRAFFIC.published(), LOAD)?;
    let open = Open::Portway(instance.clone());
    let path = Path::new(Way::PortwayAuto, open, bed, TRAFFIC, Cpus::divide()?)?;
    let mut paths = Paths {
        there: vec![path],
        skipped: Vec::new(),
    };
    paths.establish(TRAFFIC.flows)?;
    let mut stage = Stage::new(format!(
        "`portway load {LOAD}`, then as many flows, established by answers. Maps: the memory that the kernel \
         says they lock, of all of portway's. `portway run`: the most that was resident while it looked at all \
         flows."
    ));
    stage.add(Memory {
        paths,
        instance,
        largest: Vec::new(),
        _room: room,
    });
    Ok(stage)
}

struct Memory {
    paths: Paths,
    instance: String,
    /// Names and sizes in bytes.
    largest: Vec<(&'static str, u64)>,
    _room: Room,
}

impl Contender for Memory {
    fn name(&self) -> &str {
        PORTWAY_AUTO
    }

    fn sample(&mut self) -> Result<Vec<f64>> {
        let host = &self.paths.there[0].bed.lab.host;
        let portway = Portway::again(host, &self.instance)?;
        let live = portway.status()?.flows;
        ensure!(live >= LIVE, "only {live} flows are live");
        let mut sizes = maps::memory(host, &portway)?;
        let resident = sweeping(host, &portway)?;
        let kernel = maps::total(&sizes);
        sizes.sort_by_key(|(_, size)| Reverse(*size));
        self.largest = sizes;
        self.largest.truncate(TOLD);
        Ok(vec![kernel as f64 / MEGABYTE, resident as f64 / MEGABYTE])
    }

    fn note(&self) -> String {
        let maps = self.largest.iter();
        let maps: Vec<_> = maps
            .map(|(name, size)| format!("{name} {:.1} MB", *size as f64 / MEGABYTE))
            .collect();
        format!("the largest maps: {}", maps.join(", "))
    }
}

/// The most memory, in bytes, that `portway run` has had resident when it has swept all flows.
fn sweeping(host: &Host, portway: &Portway<'_>) -> Result<u64> {
    let flows = Map::from_map_data(maps::open(host, portway, V4.spilled)?)?;
    let mut flows: HashMap<MapData, FlowKey<Be32>, Flow<Be32>> = flows.try_into()?;
    // When the last one is over and gone, all others have been looked at.
    let key = flows.keys().last().context("no flows")??;
    let mut over = flows.get(&key, 0)?;
    over.last_seen = over.last_seen.wrapping_sub(SILENCE);
    flows.insert(key, over, 0)?;
    let run = portway.run("--no-docker")?;
    wait::until_true("the sweep of all flows", SWEEP, || {
        Ok(flows.get(&key, 0).is_err())
    })?;
    let resident = memory::peak(run.pid())?;
    portway.interrupt(&run)?;
    Ok(resident)
}
