//! Conntrack of a namespace, as portway asks it.

use anyhow::{Context, Result, ensure};
use portway::conntrack::{Conntrack, Entry, Outcome};

use crate::netns::Netns;

/// Does `work` with the conntrack of `netns`.
///
/// # Errors
/// The kernel has none, or those of `work`.
pub fn on<T: Send>(
    netns: &Netns,
    work: impl FnOnce(&mut Conntrack) -> Result<T> + Send,
) -> Result<T> {
    netns.run(|| work(&mut Conntrack::open()?.context("this kernel has no conntrack")?))
}

/// Does `work` and demands that every entry has this outcome.
///
/// # Errors
/// One has another.
pub fn all(
    wanted: Outcome,
    work: impl FnOnce(&mut dyn FnMut(&Entry, Outcome)) -> Result<()>,
) -> Result<()> {
    let mut first = None;
    work(&mut |entry, outcome| {
        if outcome != wanted {
            first.get_or_insert((*entry, outcome));
        }
    })?;
    ensure!(first.is_none(), "not {wanted:?} but {first:?}");
    Ok(())
}
