//! The table of flows in the kernel: buckets, and behind them a hash table for established flows that find no
//! place in theirs. See `dataplane_common::bucket`.

use core::hint::black_box;

use dataplane_common::{
    bucket::{Bucket, LOCKED, MAX_KEPT, NOWHERE, Place, WAYS},
    flow::{Flow, FlowKey},
    tables::TableFull,
};

use crate::{
    atomic::swap,
    kernel::seconds,
    maps::{self, FamilyMaps},
};

/// The flow, wherever it is.
#[inline(never)]
pub fn find<F: FamilyMaps>(key: &FlowKey<F::Address>) -> Option<*mut Flow<F::Address>> {
    let place = place::<F>(key);
    // The words that were hashed are not to be kept on the stack until they are compared.
    let key = black_box(key);
    let bucket = F::buckets().get_ptr_mut(place.bucket)?;
    // SAFETY: the bucket's memory stays one for as long as the program runs. Other CPUs may write to it
    // meanwhile: every field is an integer, valid whatever it holds, and a packet that meets such a moment
    // goes astray alone, as one that meets a change of routes does.
    let bucket = unsafe { &mut *bucket };
    let mut way = place.way;
    if !bucket.slots[way % WAYS].key.is(key) {
        way = bucket.way_of(place.tag);
        if way == NOWHERE || !bucket.slots[way % WAYS].key.is(key) {
            if bucket.has_spilled == 0 {
                return None;
            }
            return F::flows().get_ptr_mut(key);
        }
    }
    Some(&raw mut bucket.slots[way % WAYS].flow)
}

/// Has a flow written into its bucket, in place of the one with its key, if there is one, else of one that is over or
/// has not proved to be real.
#[inline(always)]
pub fn insert<F: FamilyMaps>(
    key: &FlowKey<F::Address>,
    write: impl FnOnce(&mut Flow<F::Address>),
) -> Result<(), TableFull> {
    let place = place::<F>(key);
    let key = black_box(key);
    let bucket = F::buckets().get_ptr_mut(place.bucket).ok_or(TableFull)?;
    // SAFETY: as for `find`.
    let bucket = unsafe { &mut *bucket };
    let turn = swap(&mut bucket.turn, LOCKED);
    if turn == LOCKED {
        return Err(TableFull);
    }
    let mut next = turn;
    let mut way = bucket.way_of(place.tag);
    if way == NOWHERE {
        way = place.way;
        if bucket.tags[way % WAYS] != 0 {
            way = bucket.way_of(0);
        }
        if way == NOWHERE {
            // One that is kept and over by now goes first.
            way = bucket.first_way(turn, true);
            release_if_over::<F>(bucket, way);
            if bucket.is_kept(way) {
                way = bucket.first_way(turn, false);
            }
            next = way as u64 + 1;
        }
    }
    let way = way % WAYS;
    // By chance, one in some billions, the one that has its tag is another, which is kept.
    let is_free = !bucket.is_kept(way) || bucket.slots[way].key.is(key);
    if is_free {
        bucket.tags[way] = 0;
        bucket.set_kept(way, false);
        // Nobody is to find what is being written, neither under its old key nor under its new one.
        let slot = black_box(&mut bucket.slots[way]);
        slot.key.protocol.0 = 0;
        let slot = black_box(slot);
        write(&mut slot.flow);
        let slot = black_box(slot);
        slot.key = *key;
        bucket.tags[way] = place.tag;
    }
    let has_spilled = bucket.has_spilled != 0;
    swap(&mut bucket.turn, next % WAYS as u64);
    if has_spilled {
        // One that is over would be found when this one has gone.
        let _ = F::flows().remove(key);
    }
    if is_free { Ok(()) } else { Err(TableFull) }
}

/// Keeps a flow that has proved to be real.
#[inline(never)]
pub fn keep<F: FamilyMaps>(key: &FlowKey<F::Address>) {
    let place = place::<F>(key);
    let Some(bucket) = F::buckets().get_ptr_mut(place.bucket) else {
        return;
    };
    // SAFETY: as for `find`.
    let bucket = unsafe { &mut *bucket };
    let turn = swap(&mut bucket.turn, LOCKED);
    if turn == LOCKED {
        // Its next packet tries again.
        return;
    }
    let mut next = turn;
    let found = bucket.way_of(place.tag);
    // The remainder and not a comparison: of two registers verifiers before Linux 6.8 learn little from that.
    let way = found % WAYS;
    if found != NOWHERE && bucket.slots[way].key.is(key) {
        if bucket.count_kept() >= MAX_KEPT {
            let other = bucket.first_way(turn, true);
            release_if_over::<F>(bucket, other);
            next = other as u64 + 1;
        }
        bucket.slots[way].flow.marks |= Flow::<F::Address>::KEPT;
        if bucket.count_kept() < MAX_KEPT {
            bucket.set_kept(way, true);
        } else {
            spill::<F>(bucket, way);
        }
    }
    swap(&mut bucket.turn, next % WAYS as u64);
}

/// Moves a flow to the table behind. It is found in either, so it only goes from the one when it is in the
/// other.
#[inline(always)]
fn spill<F: FamilyMaps>(bucket: &mut Bucket<F::Address>, way: usize) {
    let slot = &mut bucket.slots[way];
    let (key, flow) = (&slot.key, &slot.flow);
    if F::flows().insert(key, flow, 0).is_ok() {
        bucket.has_spilled = 1;
        slot.key.protocol.0 = 0;
        bucket.tags[way] = 0;
    } else {
        slot.flow.marks &= !Flow::<F::Address>::KEPT;
    }
}

/// Keeps a flow no longer if it is over.
#[inline(always)]
fn release_if_over<F: FamilyMaps>(bucket: &mut Bucket<F::Address>, way: usize) {
    let flow = &bucket.slots[way].flow;
    let is_over = match (maps::SETTINGS.get(0), maps::BACKENDS.get(flow.backend)) {
        (Some(settings), Some(backend)) => {
            flow.is_over(backend.generation, &settings.timeouts, seconds())
        }
        _ => true,
    };
    if is_over {
        bucket.set_kept(way, false);
    }
}

#[inline(always)]
fn place<F: FamilyMaps>(key: &FlowKey<F::Address>) -> Place {
    Place::of(key, maps::hash_seed(), F::bucket_count())
}
