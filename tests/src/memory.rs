//! Memory of processes, and of maps.

use std::{
    fs,
    os::fd::{AsFd as _, AsRawFd as _},
};

use anyhow::{Context, Result};
use aya::maps::MapData;

/// What a process has, in KiB.
///
/// # Errors
/// There is no such process.
pub fn resident(pid: u32) -> Result<u64> {
    field(&format!("/proc/{pid}/status"), "VmRSS:")
}

/// What a map is charged for, in KiB.
///
/// # Errors
/// The kernel does not tell.
pub fn charged(map: &MapData) -> Result<u64> {
    let fd = map.fd().as_fd().as_raw_fd();
    Ok(field(&format!("/proc/self/fdinfo/{fd}"), "memlock:")? >> 10)
}

/// The number behind a name.
fn field(path: &str, name: &str) -> Result<u64> {
    let text = fs::read_to_string(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.split_whitespace().next());
    let number = number.with_context(|| format!("{path} has no {name}"))?;
    Ok(number.parse()?)
}
