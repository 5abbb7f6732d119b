//! Memory of processes, and of maps, in bytes.

use anyhow::Result;
use aya::maps::MapData;

use crate::procfs;

/// What a process has resident.
///
/// # Errors
/// There is no such process.
pub fn resident(pid: u32) -> Result<u64> {
    of_process(pid, "VmRSS")
}

/// The most that it has had resident.
///
/// # Errors
/// There is no such process.
pub fn peak(pid: u32) -> Result<u64> {
    of_process(pid, "VmHWM")
}

/// What a map takes, as the kernel itself accounts for it.
///
/// # Errors
/// The kernel does not tell.
pub fn charged(map: &MapData) -> Result<u64> {
    procfs::of_descriptor(map.fd(), "memlock")
}

/// The kernel's "kB" are 1024 bytes.
fn of_process(pid: u32, name: &str) -> Result<u64> {
    Ok(procfs::of_process(pid, name)? << 10)
}
