//! How often the kernel passes a tracepoint, by its own counters (perf_event_open(2)). A program at it is not run each
//! time: not where it has come upon itself, and not above tasks that the kernel is told to keep programs from.

use std::fs;

use anyhow::{Context, Result};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use perf_event::{Builder, Counter, events::Tracepoint};

use crate::netns::{keep_mounts_private, on_thread};

/// What counts, from its making on.
pub struct Passes {
    /// One for each CPU.
    counters: Vec<Counter>,
}

impl Passes {
    /// Begins to count those of `tracepoint`, of the group `group`, whoever it interrupts.
    ///
    /// # Errors
    /// There is no such tracepoint, or the kernel refuses to count.
    pub fn count(group: &str, tracepoint: &str) -> Result<Self> {
        let id = number(group, tracepoint)?;
        let counters = aya::util::online_cpus()
            .map_err(|(_, error)| error)?
            .into_iter()
            .map(|cpu| {
                Builder::new(Tracepoint::with_id(id))
                    .any_pid()
                    .one_cpu(usize::try_from(cpu)?)
                    .include_kernel()
                    .include_hv()
                    .enabled(true)
                    .build()
                    .with_context(|| format!("cannot count {group}:{tracepoint}"))
            })
            .collect::<Result<_>>()?;
        Ok(Self { counters })
    }

    /// How many there have been.
    ///
    /// # Errors
    /// The kernel's.
    pub fn read(&mut self) -> Result<u64> {
        let counts = self.counters.iter_mut().map(Counter::read);
        Ok(counts.sum::<Result<_, _>>()?)
    }
}

/// A tracepoint's number, by a tracefs that is mounted for nobody else to see.
fn number(group: &str, tracepoint: &str) -> Result<u64> {
    let tracefs = tempfile::tempdir()?;
    let id = tracefs
        .path()
        .join(format!("events/{group}/{tracepoint}/id"));
    on_thread(|| {
        unshare(CloneFlags::CLONE_NEWNS)?;
        keep_mounts_private()?;
        let kind = Some("tracefs");
        mount(kind, tracefs.path(), kind, MsFlags::empty(), None::<&str>)?;
        Ok(fs::read_to_string(&id)?.trim().parse()?)
    })
    .with_context(|| format!("cannot look for the tracepoint {group}:{tracepoint}"))
}
