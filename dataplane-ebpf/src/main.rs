//! portway's eBPF programs: the kernel's side of the translation core in `dataplane-common`.
//!
//! | module | its job |
//! |---|---|
//! | [`programs`] | the programs: family by EtherType, decide, rewrite, redirect |
//! | [`xdp`] | the program for XDP |
//! | [`pass`] | the program that containers take frames by, in place of GRO |
//! | [`adopt`] | the program that writes flows for the controller |
//! | [`fragments`] | the same for fragments, off the fast path |
//! | [`skb`] | an skb as the core's `Packet` |
//! | [`frame`] | a frame in XDP as the core's `Packet` |
//! | [`bytes`] | where both reach for a packet's bytes |
//! | [`kernel`] | maps and routing as the core's `Tables` |
//! | [`flows`], [`atomic`] | the table of flows; the lock of its buckets |
//! | [`recent`] | what look-ups have found lately |
//! | [`clock`] | the monotonic clock |
//! | [`routing`] | what routing look-ups need of an IP version |
//! | [`maps`] | the maps |
//! | [`trace`] | telling of new flows |
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]

mod adopt;
mod atomic;
mod bytes;
mod clock;
mod flows;
mod fragments;
mod frame;
mod kernel;
mod maps;
mod pass;
mod programs;
mod recent;
mod routing;
mod skb;
mod trace;
mod xdp;

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses programs that could get here.
    loop {}
}

/// On any other target the programs are checked and linted, not run.
#[cfg(not(target_arch = "bpf"))]
fn main() {}

/// The helpers these programs call are for GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
