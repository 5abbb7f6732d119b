//! SIGINT and SIGTERM: the end of a command that would go on. And moments when no signal may come.

use anyhow::Context as _;
use nix::sys::signal::{SigSet, SigmaskHow};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Catches the signals from its making on; without it they kill the process.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Begins to catch them.
    pub fn catch() -> anyhow::Result<Self> {
        let catch = |kind| signal(kind).context("cannot catch signals");
        Ok(Self {
            interrupt: catch(SignalKind::interrupt())?,
            terminate: catch(SignalKind::terminate())?,
        })
    }

    /// Waits for one.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Keeps all signals away from this thread while it lives; they come afterwards. The verifier gives a program up
/// when one comes, and whoever loads it has to begin anew.
pub struct Quiet {
    before: SigSet,
}

impl Quiet {
    /// From now on.
    pub fn begin() -> anyhow::Result<Self> {
        let before = SigSet::all()
            .thread_swap_mask(SigmaskHow::SIG_BLOCK)
            .context("cannot block signals")?;
        Ok(Self { before })
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // What was in force before can be again.
        let _ = self.before.thread_set_mask();
    }
}
