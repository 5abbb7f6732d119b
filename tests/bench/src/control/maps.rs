//! The kernel's memory for portway's maps.

use anyhow::{Context, Result};
use aya::maps::MapData;
use dataplane_common::layout;
use portway::instance::Instance;
use portway_tests::{host::Host, memory, portway::Portway};

/// What each map of an instance takes, in bytes, as the kernel itself accounts for it.
///
/// # Errors
/// A map is not there.
pub fn memory(host: &Host, portway: &Portway<'_>) -> Result<Vec<(&'static str, u64)>> {
    let sizes = layout::maps::all().map(|name| {
        let map = open(host, portway, name)?;
        let size = memory::charged(&map).context(name)?;
        Ok((name, size))
    });
    sizes.collect()
}

/// What they take together.
pub fn total(sizes: &[(&str, u64)]) -> u64 {
    sizes.iter().map(|(_, size)| size).sum()
}

/// A map of an instance by its name.
///
/// # Errors
/// It is not there.
pub fn open(host: &Host, portway: &Portway<'_>, name: &str) -> Result<MapData> {
    let instance: Instance = portway.instance().parse()?;
    let path = host.file(instance.map(name));
    MapData::from_pin(&path).with_context(|| format!("no map {}", path.display()))
}
