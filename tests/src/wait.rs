//! Waiting for a condition, never for a time.

use std::{
    env,
    sync::LazyLock,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// How long a test waits for something that happens at once on an idle machine.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// The pause between two looks at a condition.
const INTERVAL: Duration = Duration::from_millis(5);

/// How many times longer everything may take on this machine than on others: what PORTWAY_SLOWNESS says, as where
/// the CPU is emulated.
pub fn slowness() -> u32 {
    static SLOWNESS: LazyLock<u32> = LazyLock::new(|| {
        let slowness = env::var("PORTWAY_SLOWNESS").ok();
        slowness.and_then(|times| times.parse().ok()).unwrap_or(1)
    });
    *SLOWNESS
}

/// `limit` as it is on this machine.
pub fn here(limit: Duration) -> Duration {
    limit * slowness()
}

/// Looks until `probe` finds something, `patience` at most.
///
/// # Errors
/// What `probe` itself reports, and a time-out naming `what` was waited for.
pub fn until<T>(
    what: &str,
    patience: Duration,
    mut probe: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let patience = here(patience);
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = probe().with_context(|| format!("waiting for {what}"))? {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            bail!("{what}: not within {patience:?}");
        }
        thread::sleep(INTERVAL);
    }
}

/// Looks until `probe` is true, `patience` at most.
///
/// # Errors
/// As [`until`].
pub fn until_true(
    what: &str,
    patience: Duration,
    mut probe: impl FnMut() -> Result<bool>,
) -> Result<()> {
    until(what, patience, || Ok(probe()?.then_some(())))
}
