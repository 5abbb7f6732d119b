//! The bench's eBPF programs.
//!
//! | module | its job |
//! |---|---|
//! | [`send`] | making frames and sending them |
//! | [`endpoint`] | what receives them: counts, and drops or answers |
//! | [`limit`] | the least that can be done between the two |
//! | [`out`] | where packets leave |
//! | [`packet`] | the headers of a packet: all packet `unsafe` is there |
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

mod endpoint;
mod limit;
mod out;
mod packet;
mod send;

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
