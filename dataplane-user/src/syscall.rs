//! bpf(2), for what aya 0.14 does not have.

use std::{ffi::c_long, io, ptr};

use nix::libc;

/// Calls it. Returns what the command does: a file descriptor, say.
///
/// # Errors
///
/// The kernel refuses.
///
/// # Safety
///
/// `attr` is what `command` takes, and what it points to is there.
pub unsafe fn bpf<A>(command: c_long, attr: &mut A) -> io::Result<c_long> {
    // SAFETY: the size is that of `attr`; for its content the caller answers.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, ptr::from_mut(attr), size_of::<A>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}
