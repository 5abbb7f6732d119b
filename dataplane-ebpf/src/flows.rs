//! The table of flows in the kernel: a ring for those that are opening, buckets for those that are kept, and behind
//! them a hash table for those that find no place in theirs. See `dataplane_common::bucket`.

use core::hint::black_box;

use dataplane_common::{
    bucket::{Bucket, LOCKED, NOWHERE, Place, SPILLED, Size, Slot, WAYS},
    flow::{Flow, FlowKey},
    layout::first_of_ring,
    tables::TableFull,
};

use crate::{
    atomic::{fence, fetch_add, swap},
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
    if let Some(index) = bucket.place_in_ring(place)
        && let Some(slot) = ring::<F>(index)
        && slot.key.is(key)
    {
        return Some(&raw mut slot.flow);
    }
    if !bucket.may_have_spilled() {
        return None;
    }
    F::spilled().get_ptr_mut(key)
}

/// Has a flow written into the ring. One with its key, which is over, is forgotten.
#[inline(always)]
pub fn insert<F: FamilyMaps>(
    key: &FlowKey<F::Address>,
    write: impl FnOnce(&mut Flow<F::Address>),
) -> Result<(), TableFull> {
    let place = place::<F>(key);
    let key = black_box(key);
    let bucket = bucket::<F>(place).ok_or(TableFull)?;
    if bucket.way_of(place.tag) != NOWHERE || bucket.may_have_spilled() {
        forget::<F>(key)?;
    }
    let begun = F::begun().get_ptr_mut(0).ok_or(TableFull)?;
    // SAFETY: see `bucket`.
    let number = fetch_add(unsafe { &mut *begun }, 1);
    let index = number as u32 & place.ring_mask;
    let slot = ring::<F>(index).ok_or(TableFull)?;
    // Nobody is to find what is being written, neither under its old key nor under its new one.
    slot.empty();
    let slot = black_box(slot);
    write(&mut slot.flow);
    let slot = black_box(slot);
    // SAFETY: two places that do not overlap. Assigned, it would be moved by a function.
    unsafe { core::ptr::copy_nonoverlapping(key, &raw mut slot.key, 1) };
    let turn = fetch_add(&mut bucket.opened, 1);
    // Another one's tag may be the same, by chance, one in thousands: that one is not found any more.
    let mut way = bucket.opening_of(place);
    if way == NOWHERE {
        way = turn as usize;
    }
    bucket.opening[way % WAYS] = place.opening_tag | index;
    Ok(())
}

/// Has a kept flow found no more.
#[inline(never)]
fn forget<F: FamilyMaps>(key: &FlowKey<F::Address>) -> Result<(), TableFull> {
    let place = place::<F>(key);
    let key = black_box(key);
    let bucket = bucket::<F>(place).ok_or(TableFull)?;
    let unlocked = swap(&mut bucket.lock, LOCKED);
    if unlocked == LOCKED {
        return Err(TableFull);
    }
    let way = bucket.way_of(place.tag);
    if way != NOWHERE
        && let Some(slot) = slot::<F>(place, way)
        && slot.key.is(key)
    {
        bucket.tags[way % WAYS] = 0;
        slot.empty();
    }
    swap(&mut bucket.lock, unlocked);
    if unlocked & SPILLED != 0 {
        let _ = F::spilled().remove(key);
    }
    Ok(())
}

/// Keeps a flow that has proved to be real.
#[inline(never)]
pub fn keep<F: FamilyMaps>(key: &FlowKey<F::Address>) {
    let place = place::<F>(key);
    let key = black_box(key);
    let Some(bucket) = bucket::<F>(place) else {
        return;
    };
    let mut unlocked = swap(&mut bucket.lock, LOCKED);
    if unlocked == LOCKED {
        // Its next packet tries again.
        return;
    }
    if let Some(index) = bucket.place_in_ring(place)
        && let Some(from) = ring::<F>(index)
        && from.key.is(key)
    {
        let way = free_way::<F>(bucket, place, key, &mut unlocked);
        // The remainder and not a comparison: of two registers verifiers before Linux 6.8 learn little from that.
        if way != NOWHERE
            && let Some(to) = slot::<F>(place, way % WAYS)
        {
            bucket.tags[way % WAYS] = 0;
            if settle::<F>(from, to, key) {
                fence(&mut bucket.opened);
                bucket.tags[way % WAYS] = place.tag;
                fence(&mut bucket.opened);
                from.empty();
            }
        } else if spill::<F>(from) {
            unlocked |= SPILLED;
        }
    }
    swap(&mut bucket.lock, unlocked);
}

/// The way where a flow of this bucket is to be kept, if there is one, else [`NOWHERE`]. `unlocked` says which of the
/// kept ones is next to be looked at whether it is over, before and after.
#[inline(always)]
fn free_way<F: FamilyMaps>(
    bucket: &Bucket,
    place: Place,
    key: &FlowKey<F::Address>,
    unlocked: &mut u64,
) -> usize {
    let way = bucket.way_of(place.tag);
    if way != NOWHERE {
        // One tag cannot be that of two.
        let is_its_own = slot::<F>(place, way).is_some_and(|slot| slot.key.is(key));
        return if is_its_own { way } else { NOWHERE };
    }
    if bucket.tags[place.way % WAYS] == 0 {
        return place.way;
    }
    let way = bucket.way_of(0);
    if way != NOWHERE {
        return way;
    }
    let way = *unlocked as usize % WAYS;
    let next = (way + 1) % WAYS;
    *unlocked = *unlocked & SPILLED | next as u64;
    if slot::<F>(place, way).is_some_and(|slot| gives_way(&slot.flow)) {
        way
    } else {
        NOWHERE
    }
}

/// Whether a kept flow is over, or as good as over.
#[inline(always)]
fn gives_way<A>(flow: &Flow<A>) -> bool {
    let (Some(settings), Some(backend)) = (maps::SETTINGS.get(0), maps::BACKENDS.get(flow.backend))
    else {
        return true;
    };
    flow.state().is_over() || flow.is_over(backend.generation, &settings.timeouts, seconds())
}

/// Copies a flow from the ring to a way, and returns whether it was the one with that key all the while.
#[inline(always)]
fn settle<F: FamilyMaps>(
    from: &Slot<F::Address>,
    to: &mut Slot<F::Address>,
    key: &FlowKey<F::Address>,
) -> bool {
    to.empty();
    let (from, to) = (black_box(from), black_box(to));
    // SAFETY: two places that do not overlap. Assigned, it would be moved by a function.
    unsafe { core::ptr::copy_nonoverlapping(&raw const from.flow, &raw mut to.flow, 1) };
    to.flow.marks |= Flow::<F::Address>::KEPT;
    let (from, to) = (black_box(from), black_box(to));
    // A new flow that takes the place in the ring takes the key away first.
    let is_whole = from.key.is(key);
    if is_whole {
        // SAFETY: as above.
        unsafe { core::ptr::copy_nonoverlapping(key, &raw mut to.key, 1) };
    }
    is_whole
}

/// Copies a flow from the ring to the table behind, and returns whether there was room.
#[inline(always)]
fn spill<F: FamilyMaps>(from: &mut Slot<F::Address>) -> bool {
    from.flow.marks |= Flow::<F::Address>::KEPT;
    let (key, flow) = (&from.key, &from.flow);
    let is_there = F::spilled().insert(key, flow, 0).is_ok();
    if is_there {
        from.empty();
    } else {
        from.flow.marks &= !Flow::<F::Address>::KEPT;
    }
    is_there
}

#[inline(always)]
fn place<F: FamilyMaps>(key: &FlowKey<F::Address>) -> Place {
    let size = Size {
        buckets: F::bucket_count(),
        ring: F::ring_size(),
    };
    Place::of(key, maps::hash_seed(), size)
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

/// A slot of the ring.
#[inline(always)]
fn ring<F: FamilyMaps>(index: u32) -> Option<&'static mut Slot<F::Address>> {
    // SAFETY: as for `bucket`.
    F::slots()
        .get_ptr_mut(first_of_ring(F::bucket_count()) + index)
        .map(|slot| unsafe { &mut *slot })
}
