//! All flows of an IP version, wherever the programs keep them.

use anyhow::Context as _;
use dataplane_common::{
    flow::{Flow, FlowKey},
    pod::IpAddress,
};

use crate::{batch::Batches, dataplane::FamilyMaps};

/// Calls `visit` for each flow, live or over. One that comes, goes or moves meanwhile is visited as it was at
/// some moment, twice, or not at all.
///
/// # Errors
///
/// The kernel refuses, or those of `visit`.
pub fn visit<A: IpAddress>(
    maps: &FamilyMaps<A>,
    mut visit: impl FnMut(&FlowKey<A>, &Flow<A>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    const READING: &str = "cannot read the flows";
    let mut slots = Batches::default();
    while let Some(batch) = slots.read(&maps.slots).context(READING)? {
        for (_, slot) in batch {
            if !slot.is_empty() {
                visit(&slot.key, &slot.flow)?;
            }
        }
    }
    let mut behind = Batches::default();
    while let Some(batch) = behind.read(&maps.spilled).context(READING)? {
        for (key, flow) in batch {
            visit(&key, &flow)?;
        }
    }
    Ok(())
}
