//! Tells which of the tests' datagrams the kernel drops, and why.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

use aya_ebpf::{
    Global,
    helpers::bpf_probe_read_kernel,
    macros::{map, raw_tracepoint},
    maps::{PerCpuArray, RingBuf},
    programs::RawTracePointContext,
};
use portway_tests_ebpf::{Dropped, Stamp};

/// See [`constants`](portway_tests_ebpf::constants).
#[unsafe(no_mangle)]
static RUN: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
static SKB_HEAD: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static SKB_TAIL: Global<u32> = Global::new(0);

/// Room for some twenty thousand drops that nobody has read yet, in bytes.
const RING: u32 = 1 << 20;

#[map]
static DROPPED: RingBuf = RingBuf::with_byte_size(RING, 0);

#[map]
static DEALT_WITH: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// `kfree_skb(skb, location, reason)`, include/trace/events/skb.h.
#[raw_tracepoint(tracepoint = "kfree_skb")]
fn tell_dropped(context: RawTracePointContext) -> i32 {
    if let Some(stamp) = stamp(context.arg(0)) {
        let dropped = Dropped {
            stamp,
            location: context.arg(1),
            reason: context.arg(2),
            padding: 0,
        };
        if DROPPED.output::<Dropped>(&dropped, 0).is_err() {
            return 0;
        }
    }
    if let Some(dealt_with) = DEALT_WITH.get_ptr_mut(0) {
        // SAFETY: this CPU's own, in a program that no other of its kind interrupts.
        unsafe { *dealt_with += 1 };
    }
    0
}

/// The stamp at the end of the buffer at `skb`, if it has one of this run.
fn stamp(skb: u64) -> Option<Stamp> {
    let field = |offset: &Global<u32>| skb + u64::from(offset.load());
    // SAFETY: the helper reads whatever address it is given, or says that it cannot; any bytes are valid.
    let stamp = unsafe {
        let head = bpf_probe_read_kernel(field(&SKB_HEAD) as *const u64).ok()?;
        // An offset from `head`, as wherever a pointer takes 64 bits (NET_SKBUFF_DATA_USES_OFFSET).
        let tail = bpf_probe_read_kernel(field(&SKB_TAIL) as *const u32).ok()?;
        let end = head + u64::from(tail);
        bpf_probe_read_kernel((end - size_of::<Stamp>() as u64) as *const Stamp).ok()?
    };
    (stamp.run == RUN.load()).then_some(stamp)
}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses programs that could get here.
    loop {}
}

/// On any other target the program is checked and linted, not run.
#[cfg(not(target_arch = "bpf"))]
fn main() {}

/// The helper that reads the kernel's memory is for GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
