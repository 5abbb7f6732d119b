//! All flows of an IP version, wherever the programs keep them.

use anyhow::Context as _;
use dataplane_common::{
    bucket::{Place, Size},
    flow::{Flow, FlowKey},
    layout::first_of_ring,
    pod::IpAddress,
};

use crate::{
    batch::{Batches, read_range},
    dataplane::FamilyMaps,
};

/// Slots that are read together.
const AT_ONCE: u32 = 4096;

/// Calls `visit` for each flow that packets can find, live or over. One that comes, goes or moves meanwhile is
/// visited as it was at some moment, twice, or not at all. `hash_seed` is that of the programs.
///
/// # Errors
///
/// The kernel refuses, or those of `visit`.
pub fn visit<A: IpAddress>(
    maps: &FamilyMaps<A>,
    hash_seed: u64,
    mut visit: impl FnMut(&FlowKey<A>, &Flow<A>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    const READING: &str = "cannot read the flows";
    let buckets = read_range(&maps.buckets, 0, maps.buckets.len()).context(READING)?;
    let ring = first_of_ring(maps.buckets.len());
    let size = Size {
        buckets: maps.buckets.len(),
        ring: maps.slots.len() - ring,
    };
    // In the order in which flows move, so that none is missed by that.
    for part in [ring..maps.slots.len(), 0..ring] {
        for first in part.clone().step_by(AT_ONCE as usize) {
            let count = AT_ONCE.min(part.end - first);
            let slots = read_range(&maps.slots, first, count).context(READING)?;
            for (number, slot) in (first..).zip(&slots) {
                if slot.is_empty() {
                    continue;
                }
                let is_found = number < ring || {
                    let place = Place::of(&slot.key, hash_seed, size);
                    buckets[place.bucket as usize].place_in_ring(place) == Some(number - ring)
                };
                if is_found {
                    visit(&slot.key, &slot.flow)?;
                }
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
