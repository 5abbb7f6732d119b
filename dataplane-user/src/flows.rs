//! All flows of an IP version, wherever the programs keep them.

use std::hash::Hash;

use anyhow::Context as _;
use aya::Pod;
use dataplane_common::{
    bucket::Bucket,
    flow::{Flow, FlowKey, OuterTuple},
    published::BoundPort,
};

use crate::{batch::Batches, dataplane::FamilyMaps};

/// Calls `visit` for each flow, live or over. One that comes, goes or moves meanwhile is visited as it was at
/// some moment, twice, or not at all.
///
/// # Errors
///
/// The kernel refuses, or those of `visit`.
pub fn visit<A>(
    maps: &FamilyMaps<A>,
    mut visit: impl FnMut(&FlowKey<A>, &Flow<A>) -> anyhow::Result<()>,
) -> anyhow::Result<()>
where
    A: Pod,
    BoundPort<A>: Pod,
    Bucket<A>: Pod,
    FlowKey<A>: Pod + Eq + Hash,
    Flow<A>: Pod,
    OuterTuple<A>: Pod,
{
    const READING: &str = "cannot read the flows";
    let mut buckets = Batches::default();
    while let Some(batch) = buckets.read(&maps.buckets).context(READING)? {
        for (_, bucket) in batch {
            for slot in bucket.flows() {
                visit(&slot.key, &slot.flow)?;
            }
        }
    }
    let mut behind = Batches::default();
    while let Some(batch) = behind.read(&maps.flows).context(READING)? {
        for (key, flow) in batch {
            visit(&key, &flow)?;
        }
    }
    Ok(())
}
