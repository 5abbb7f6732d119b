//! The interface that a program's packets leave by.

use aya_ebpf::{Global, helpers::bpf_redirect};

/// Its index.
#[unsafe(no_mangle)]
static OUT: Global<u32> = Global::new(0);

/// Has the packet leave there, once the program has returned what this returns.
#[inline(always)]
pub fn redirect() -> i64 {
    // SAFETY: a helper without pointers.
    unsafe { bpf_redirect(OUT.load(), 0) }
}
