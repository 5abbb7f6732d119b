//! The monotonic clock, as coarse as the timer tick. Asking for it takes as long as a look-up in a table, so what
//! it said is kept until the next tick, which `jiffies` tells: that is a plain load.

use aya_ebpf::helpers::{bpf_jiffies64, bpf_ktime_get_coarse_ns};
use dataplane_common::clock;

use crate::maps;

/// The clock, in seconds.
#[inline(always)]
pub fn seconds() -> u32 {
    let Some(known) = maps::CLOCK.get_ptr_mut(0) else {
        return ask();
    };
    // SAFETY: the helper has no preconditions.
    let tick = unsafe { bpf_jiffies64() } as u32;
    // SAFETY: the entry is a single aligned word, whole whenever it is read or written, and what every CPU
    // writes there is true.
    let word = unsafe { known.read_volatile() };
    if (word >> 32) as u32 == tick {
        return word as u32;
    }
    let seconds = ask();
    // SAFETY: as above.
    unsafe { known.write_volatile(u64::from(tick) << 32 | u64::from(seconds)) };
    seconds
}

/// The clock, in milliseconds.
#[inline(always)]
pub fn milliseconds() -> u32 {
    clock::milliseconds(nanoseconds()) as u32
}

#[inline(always)]
fn ask() -> u32 {
    clock::seconds(nanoseconds()) as u32
}

#[inline(always)]
fn nanoseconds() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_coarse_ns() }
}
