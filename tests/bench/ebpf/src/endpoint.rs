//! The ends: the container, which drops or answers what it receives, and the client, which receives answers.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
    helpers::bpf_skb_load_bytes,
    macros::{classifier, map},
    maps::{Array, PerCpuArray},
    programs::TcContext,
};
use portway_bench_ebpf::{SAMPLES, SHORTEST, Sample};

use crate::{out, packet::Within};

/// How many frames have arrived.
#[map]
static ARRIVED: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// The first of them.
#[map]
static FIRST: Array<Sample> = Array::with_max_entries(SAMPLES, 0);

/// Counts and drops.
#[classifier]
pub fn sink(context: TcContext) -> i32 {
    match receive(&context) {
        Some(_) => TC_ACT_SHOT,
        None => TC_ACT_UNSPEC,
    }
}

/// Counts and answers.
#[classifier]
pub fn echo(context: TcContext) -> i32 {
    let Some(within) = receive(&context) else {
        return TC_ACT_UNSPEC;
    };
    within.set(within.get().answer());
    out::redirect() as i32
}

/// Counts a frame if it is one of the bench's, and keeps it if it is one of the first.
#[inline(always)]
fn receive(context: &TcContext) -> Option<Within> {
    let within = Within::tc(context).filter(Within::is_ours)?;
    let arrived = ARRIVED.get_ptr_mut(0)?;
    // SAFETY: the entry is this CPU's own, and programs at one hook do not interrupt each other.
    let before = unsafe {
        let before = *arrived;
        *arrived = before + 1;
        before
    };
    if before < SAMPLES.into() {
        keep(context, before as u32);
    }
    Some(within)
}

/// Copies a frame's beginning.
#[inline(always)]
fn keep(context: &TcContext, index: u32) {
    let Some(sample) = FIRST.get_ptr_mut(index) else {
        return;
    };
    // SAFETY: `sample` is an entry of the map, which nobody reads while frames arrive, and has room for as
    // many bytes.
    unsafe {
        (*sample).length = context.len();
        bpf_skb_load_bytes(
            context.as_ptr().cast(),
            0,
            (*sample).bytes.as_mut_ptr().cast(),
            SHORTEST as u32,
        );
    }
}
