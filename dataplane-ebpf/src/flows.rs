//! The table of flows in the kernel: buckets, and behind them a hash table for established flows that find no
//! place in theirs. See `dataplane_common::bucket`.

use core::hint::black_box;

use dataplane_common::{
    bucket::{Bucket, LOCKED, MAX_KEPT, NOWHERE, Place, Slot, WAYS},
    flow::{Flow, FlowKey},
    tables::TableFull,
};

use crate::{
    atomic::swap,
    clock::seconds,
    maps::{self, FamilyMaps},
};

/// The flow, wherever it is. A function of its own in the eBPF program, which leaves the stack of the others small.
#[inline(never)]
pub fn find<F: FamilyMaps>(key: &FlowKey<F::Address>) -> Option<*mut Flow<F::Address>> {
    find_inline::<F>(key)
}

/// The same as part of the caller.
#[inline(always)]
pub fn find_inline<F: FamilyMaps>(key: &FlowKey<F::Address>) -> Option<*mut Flow<F::Address>> {
    let place = place::<F>(key);
    // The words that were hashed are not to be kept on the stack until they are compared.
    let key = black_box(key);
    let bucket = bucket::<F>(place)?;
    let mut way = place.way;
    if bucket.tags[way % WAYS] != place.tag {
        way = bucket.way_of(place.tag);
    }
    if way != NOWHERE {
        let slot = slot::<F>(place, way)?;
        if slot.key.is(key) {
            return Some(&raw mut slot.flow);
        }
    }
    if bucket.has_spilled == 0 {
        return None;
    }
    F::spilled().get_ptr_mut(key)
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
    let bucket = bucket::<F>(place).ok_or(TableFull)?;
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
            if bucket.count_kept() >= MAX_KEPT {
                release_if_over::<F>(bucket, place, bucket.first_way(turn, true));
            }
            way = bucket.first_way(turn, false);
            next = way as u64 + 1;
        }
    }
    let way = way % WAYS;
    // By chance, one in some billions, the one that has its tag is another, which is kept.
    let slot = slot::<F>(place, way).filter(|slot| !bucket.is_kept(way) || slot.key.is(key));
    let is_free = slot.is_some();
    if let Some(slot) = slot {
        bucket.tags[way] = 0;
        bucket.set_kept(way, false);
        // Nobody is to find what is being written, neither under its old key nor under its new one.
        let slot = black_box(slot);
        slot.empty();
        let slot = black_box(slot);
        write(&mut slot.flow);
        let slot = black_box(slot);
        // SAFETY: two places that do not overlap. Assigned, it would be moved by a function.
        unsafe { core::ptr::copy_nonoverlapping(key, &raw mut slot.key, 1) };
        bucket.tags[way] = place.tag;
    }
    let has_spilled = bucket.has_spilled != 0;
    swap(&mut bucket.turn, next % WAYS as u64);
    if has_spilled {
        // One that is over would be found when this one has gone.
        let _ = F::spilled().remove(key);
    }
    if is_free { Ok(()) } else { Err(TableFull) }
}

/// Keeps a flow that has proved to be real.
#[inline(never)]
pub fn keep<F: FamilyMaps>(key: &FlowKey<F::Address>) {
    let place = place::<F>(key);
    let Some(bucket) = bucket::<F>(place) else {
        return;
    };
    let turn = swap(&mut bucket.turn, LOCKED);
    if turn == LOCKED {
        // Its next packet tries again.
        return;
    }
    let mut next = turn;
    let found = bucket.way_of(place.tag);
    // The remainder and not a comparison: of two registers verifiers before Linux 6.8 learn little from that.
    let way = found % WAYS;
    if found != NOWHERE
        && let Some(slot) = slot::<F>(place, way)
        && slot.key.is(key)
    {
        if bucket.count_kept() >= MAX_KEPT {
            let other = bucket.first_way(turn, true);
            release_if_over::<F>(bucket, place, other);
            next = other as u64 + 1;
        }
        slot.flow.marks |= Flow::<F::Address>::KEPT;
        if bucket.count_kept() < MAX_KEPT {
            bucket.set_kept(way, true);
        } else {
            spill::<F>(bucket, slot, way);
        }
    }
    swap(&mut bucket.turn, next % WAYS as u64);
}

/// Moves a flow to the table behind. It is found in either, so it only goes from the one when it is in the
/// other.
#[inline(always)]
fn spill<F: FamilyMaps>(bucket: &mut Bucket, slot: &mut Slot<F::Address>, way: usize) {
    let (key, flow) = (&slot.key, &slot.flow);
    if F::spilled().insert(key, flow, 0).is_ok() {
        bucket.has_spilled = 1;
        slot.empty();
        bucket.tags[way] = 0;
    } else {
        slot.flow.marks &= !Flow::<F::Address>::KEPT;
    }
}

/// Keeps a flow no longer if it is over.
#[inline(always)]
fn release_if_over<F: FamilyMaps>(bucket: &mut Bucket, place: Place, way: usize) {
    let is_over = slot::<F>(place, way).is_none_or(|slot| {
        let flow = &slot.flow;
        match (maps::SETTINGS.get(0), maps::BACKENDS.get(flow.backend)) {
            (Some(settings), Some(backend)) => {
                flow.is_over(backend.generation, &settings.timeouts, seconds())
            }
            _ => true,
        }
    });
    if is_over {
        bucket.set_kept(way, false);
    }
}

#[inline(always)]
fn place<F: FamilyMaps>(key: &FlowKey<F::Address>) -> Place {
    Place::of(key, maps::hash_seed(), F::bucket_count())
}

#[inline(always)]
fn bucket<F: FamilyMaps>(place: Place) -> Option<&'static mut Bucket> {
    // SAFETY: an array's memory stays one for as long as the program runs. Other CPUs may write to it
    // meanwhile: every field is an integer, valid whatever it holds, and a packet that meets such a moment
    // goes astray alone, as one that meets a change of routes does.
    F::buckets()
        .get_ptr_mut(place.bucket)
        .map(|bucket| unsafe { &mut *bucket })
}

#[inline(always)]
fn slot<F: FamilyMaps>(place: Place, way: usize) -> Option<&'static mut Slot<F::Address>> {
    // SAFETY: as for `bucket`.
    F::slots()
        .get_ptr_mut(place.slot(way))
        .map(|slot| unsafe { &mut *slot })
}
