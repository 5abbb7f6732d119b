//! How much memory portway takes, and how full its maps are.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use aya::{
    Pod,
    maps::{HashMap, Map, MapData},
};
use dataplane_common::{
    flow::OuterTuple,
    headers::{Be16, Be32, Ip6},
    layout::maps,
    registry::{Hook, HookKey},
};

use crate::{footprint::Footprint, host::Host, memory, portway::Portway};

/// What is there at a time.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    /// The time since the start.
    pub at: Duration,
    /// The memory of `run`, in bytes, if there is one.
    pub resident: Option<u64>,
    /// That of all maps, in bytes.
    pub charged: u64,
    /// Live flows.
    pub flows: u64,
    /// Rows of `portway ls`.
    pub rows: usize,
    /// Clients' ports that containers see as others.
    pub remapped: usize,
    /// Conversations of others.
    pub foreign: usize,
    /// Interfaces with programs at them.
    pub hooks: usize,
}

/// Reads all of it; `run` is the process id of `portway run`.
///
/// # Errors
/// portway is not loaded.
pub fn read(host: &Host, portway: &Portway<'_>, run: Option<u32>, at: Duration) -> Result<Reading> {
    let pins = Footprint::of(host)?.pins;
    let maps = pins.iter().filter(|pin| {
        // Maps and programs are in folders of their own.
        let folder = pin.parent().and_then(Path::file_name);
        folder.is_some_and(|folder| folder == "maps")
    });
    let charged = maps.map(|pin| memory::charged(&MapData::from_pin(pin)?));
    Ok(Reading {
        at,
        // One that has just ended by itself has none, which is told when it is looked after.
        resident: run.and_then(|pid| memory::resident(pid).ok()),
        charged: charged.sum::<Result<u64>>()?,
        flows: portway.status()?.flows,
        rows: portway.ls()?.len(),
        remapped: count::<OuterTuple<Be32>, Be16>(&pins, maps::V4.remapped)?
            + count::<OuterTuple<Ip6>, Be16>(&pins, maps::V6.remapped)?,
        foreign: count::<OuterTuple<Be32>, u32>(&pins, maps::V4.foreign)?
            + count::<OuterTuple<Ip6>, u32>(&pins, maps::V6.foreign)?,
        hooks: count::<HookKey, Hook>(&pins, maps::HOOKS)?,
    })
}

/// How many entries a pinned map has.
fn count<K: Pod, V: Pod>(pins: &[PathBuf], name: &str) -> Result<usize> {
    let pin = pins.iter().find(|pin| pin.ends_with(name));
    let pin = pin.with_context(|| format!("there is no {name}"))?;
    let map = Map::from_map_data(MapData::from_pin(pin)?)?;
    let map: HashMap<_, K, V> = map.try_into()?;
    Ok(map.keys().flatten().count())
}

impl fmt::Display for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.resident {
            Some(resident) => write!(f, "run {} KiB", resident >> 10)?,
            None => f.write_str("no run")?,
        }
        write!(
            f,
            ", maps {} KiB, {} flows, {} rows, {} hooks, {} remapped, {} foreign",
            self.charged >> 10,
            self.flows,
            self.rows,
            self.hooks,
            self.remapped,
            self.foreign
        )
    }
}
