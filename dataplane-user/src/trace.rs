//! What the programs tell of new flows, when loaded with `--trace`.

use anyhow::Context as _;
use aya::programs::ProgramInfo;
use aya_log::EbpfLogger;
use dataplane_common::layout::programs;
use log::{Log, Metadata, Record};
use rustix::thread::CapabilitySet;

use crate::{instance::Instance, output::say, privileges};

/// The programs' messages.
pub struct Trace {
    logger: EbpfLogger<Printer>,
}

impl Trace {
    /// Taps the messages of an instance's programs.
    pub fn start(instance: &Instance) -> anyhow::Result<Self> {
        let program = ProgramInfo::from_pin(instance.program(programs::FORWARD))
            .context("cannot open the forward program")?;
        // The programs' buffer is found by numbers, which the kernel takes from CAP_SYS_ADMIN only
        // (`bpf_map_get_fd_by_id`, kernel/bpf/syscall.c).
        let logger = privileges::raised(CapabilitySet::SYS_ADMIN, || {
            EbpfLogger::init_from_id_with_logger(program.id(), Printer)
        })?
        .context("cannot tap the programs' messages")?;
        Ok(Self { logger })
    }

    /// Prints what has come since the last time.
    pub fn print(&mut self) {
        self.logger.flush();
    }
}

/// A logger that writes to standard output.
struct Printer;

impl Log for Printer {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        say(format_args!("  {}", record.args()));
    }

    fn flush(&self) {}
}
