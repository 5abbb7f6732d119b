//! The kernel's memory for portway's maps.

use std::{
    fs,
    os::fd::{AsFd as _, AsRawFd as _},
};

use anyhow::{Context, Result};
use aya::maps::MapData;
use dataplane_common::layout;
use portway::instance::Instance;
use portway_tests::{host::Host, portway::Portway};

/// What each map of an instance takes, in bytes, as the kernel itself accounts for it (`memlock` of a map's
/// descriptor).
///
/// # Errors
/// A map is not there.
pub fn memory(host: &Host, portway: &Portway<'_>) -> Result<Vec<(&'static str, u64)>> {
    let sizes = layout::maps::all().map(|name| {
        let map = open(host, portway, name)?;
        let info = format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd());
        let info = fs::read_to_string(&info).with_context(|| format!("cannot read {info}"))?;
        let size = memlock(&info).with_context(|| format!("no memlock of {name} in\n{info}"))?;
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

fn memlock(info: &str) -> Option<u64> {
    let value = info
        .lines()
        .find_map(|line| line.strip_prefix("memlock:"))?;
    value.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memlock_is_a_line_of_its_own() {
        let info = "pos:\t0\nflags:\t02000002\nmap_type:\t2\nmemlock:\t8192\nmap_id:\t15\n";
        assert_eq!(memlock(info), Some(8192));
        assert_eq!(memlock("map_type:\t2\n"), None);
    }
}
