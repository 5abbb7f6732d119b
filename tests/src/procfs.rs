//! Numbers that the kernel tells by name in /proc, of processes and of descriptors.

use std::{
    fs,
    os::fd::{AsFd, AsRawFd as _},
};

use anyhow::{Context as _, Result};

/// A number in a process's `status` (proc_pid_status(5)).
///
/// # Errors
/// There is no such process, or no such number of it.
pub fn of_process(pid: u32, name: &str) -> Result<u64> {
    read(&format!("/proc/{pid}/status"), name)
}

/// A number in the `fdinfo` of a descriptor of this process (proc_pid_fdinfo(5)).
///
/// # Errors
/// The kernel does not tell it.
pub fn of_descriptor(fd: impl AsFd, name: &str) -> Result<u64> {
    let fd = fd.as_fd().as_raw_fd();
    read(&format!("/proc/self/fdinfo/{fd}"), name)
}

fn read(path: &str, name: &str) -> Result<u64> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    number(&text, name).with_context(|| format!("{path} has no {name}:\n{text}"))
}

fn number(text: &str, name: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_a_line_of_its_own() {
        let text = "pos:\t0\nmap_type:\t2\nmemlock:\t8192\nVmRSS:\t    5284 kB\n";
        assert_eq!(number(text, "memlock"), Some(8192));
        assert_eq!(number(text, "VmRSS"), Some(5284));
        assert_eq!(number(text, "lock"), None);
        assert_eq!(number(text, "map"), None);
    }
}
