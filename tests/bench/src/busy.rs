//! How much of its CPUs' time a machine has worked.

use std::{fs, time::Duration};

use anyhow::{Context, Result};

/// What the numbers in /proc/stat count: hundredths of a second (`USER_HZ`).
const TICK: Duration = Duration::from_millis(10);

/// Idle and iowait among a line's numbers (proc_stat(5)).
const IDLE: [usize; 2] = [3, 4];

/// Time that others had the CPUs, where this is a virtual machine.
const STEAL: usize = 7;

/// Guests' time is in the user's already.
const GUEST: usize = 8;

/// The CPU time that the whole machine has spent at work so far: processes, interrupts, everything.
///
/// # Errors
/// The kernel does not say.
pub fn time() -> Result<Duration> {
    let stat = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    in_stat(&stat).context("/proc/stat without the CPUs' times")
}

fn in_stat(stat: &str) -> Option<Duration> {
    let all = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks = all.split_whitespace().take(GUEST).enumerate();
    let mut busy = Duration::ZERO;
    for (at, ticks) in ticks {
        if !IDLE.contains(&at) && at != STEAL {
            busy += TICK * ticks.parse().ok()?;
        }
    }
    Some(busy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_is_what_is_neither_idle_nor_somebody_elses() {
        let stat = "cpu  100 20 3 771154 9331 0 40 391 50 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(in_stat(stat), Some(Duration::from_millis(1630)));
        assert_eq!(in_stat("cpu0 1 1 1 1 1 1 1 1 1 1\n"), None);
    }
}
