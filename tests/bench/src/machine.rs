//! What a run ran on, for its report.

use std::{fs, process::Command};

use anyhow::{Context, Result, ensure};
use nix::sys::utsname::uname;

/// Cores, memory, and the hypervisor if there is one.
pub fn machine() -> String {
    let cpuinfo = read("/proc/cpuinfo");
    let cores = cpuinfo
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let flags = field(&cpuinfo, "flags").unwrap_or_default();
    let kind = if flags.split_whitespace().any(|flag| flag == "hypervisor") {
        "virtual machine"
    } else {
        "bare metal"
    };
    let meminfo = read("/proc/meminfo");
    let kilobytes: u64 = field(&meminfo, "MemTotal")
        .and_then(|value| value.split_whitespace().next()?.parse().ok())
        .unwrap_or_default();
    format!("{kind}, {cores} cores, {} GiB", (kilobytes + 524_288) >> 20)
}

/// The CPU's model name.
pub fn cpu() -> String {
    let cpuinfo = read("/proc/cpuinfo");
    field(&cpuinfo, "model name")
        .unwrap_or("unknown")
        .to_owned()
}

/// The kernel's release and version.
///
/// # Errors
/// The kernel does not say.
pub fn kernel() -> Result<String> {
    let name = uname().context("the kernel does not tell its name")?;
    Ok(format!(
        "{} {}",
        name.release().to_string_lossy(),
        name.version().to_string_lossy()
    ))
}

/// The time in UTC, as RFC 3339 has it.
///
/// # Errors
/// `date` fails.
pub fn date() -> Result<String> {
    let output = Command::new("date")
        .args(["-u", "+%Y-%m-%dT%H:%M:%SZ"])
        .output()
        .context("date does not start")?;
    ensure!(output.status.success(), "date fails");
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The value of the first line `name : value`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then_some(value.trim())
    })
}
