//! Taking off a program whose link is pinned. aya 0.14 can remove the pin; but the kernel lets go of such a link some
//! time later, and until then the program runs and no other can be attached in its place.

use std::{
    ffi::{CString, c_long},
    fs, io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use crate::syscall::bpf;

/// `BPF_OBJ_GET` and `BPF_LINK_DETACH` of `enum bpf_cmd` (include/uapi/linux/bpf.h).
const OBJ_GET: c_long = 7;
const LINK_DETACH: c_long = 34;

/// The part of `union bpf_attr` for pins.
#[repr(C)]
struct PinAttr {
    path: u64,
    fd: u32,
    flags: u32,
}

/// The part of `union bpf_attr` for detaching.
#[repr(C)]
struct DetachAttr {
    link: u32,
}

const _: () = assert!(size_of::<PinAttr>() == 16);
const _: () = assert!(size_of::<DetachAttr>() == 4);

/// Takes the program of a pinned link off its interface, if that is still there, and removes the pin. Does nothing if
/// there is no such pin.
///
/// # Errors
///
/// The kernel refuses. Where it only refuses to take the program off at once, that goes with the pin, some time later.
pub fn detach(pin: &Path) -> io::Result<()> {
    let link = match get(pin) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        link => link,
    };
    let detached = link.and_then(|link| {
        let mut attr = DetachAttr {
            link: link.as_raw_fd() as u32,
        };
        // SAFETY: `attr` is what this command takes, and the link is open.
        unsafe { bpf(LINK_DETACH, &mut attr) }
    });
    fs::remove_file(pin)?;
    detached.map(drop)
}

/// Opens what is pinned.
fn get(pin: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(pin.as_os_str().as_bytes())?;
    let mut attr = PinAttr {
        path: path.as_ptr() as u64,
        fd: 0,
        flags: 0,
    };
    // SAFETY: `attr` is what this command takes, and the path outlives the call.
    let fd = unsafe { bpf(OBJ_GET, &mut attr) }?;
    // SAFETY: the command has returned a file descriptor that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
