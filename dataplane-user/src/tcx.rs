//! Which programs TCX runs at an interface.
//!
//! aya 0.14 opens each of them to tell more of it, for which the kernel wants CAP_SYS_ADMIN
//! (`bpf_prog_get_fd_by_id`, kernel/bpf/syscall.c); their numbers it tells to CAP_NET_ADMIN.

use std::{ffi::c_long, io};

use aya::programs::TcAttachType;
use aya_obj::generated::bpf_attach_type::{BPF_TCX_EGRESS, BPF_TCX_INGRESS};

use crate::syscall::bpf;

/// `BPF_PROG_QUERY` of `enum bpf_cmd` (include/uapi/linux/bpf.h).
const PROG_QUERY: c_long = 16;

/// As many as there can be (`BPF_MPROG_MAX`, include/linux/bpf_mprog.h).
const MAX_PROGRAMS: usize = 64;

/// The part of `union bpf_attr` for queries.
#[repr(C)]
struct QueryAttr {
    ifindex: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    program_ids: u64,
    count: u32,
    padding: u32,
    program_flags: u64,
    link_ids: u64,
    link_flags: u64,
    revision: u64,
}

const _: () = assert!(size_of::<QueryAttr>() == 64);

/// The programs' numbers.
///
/// # Errors
///
/// No such interface, or a kernel without TCX (before Linux 6.6).
pub fn program_ids(ifindex: u32, direction: TcAttachType) -> io::Result<Vec<u32>> {
    let attach_type = match direction {
        TcAttachType::Egress => BPF_TCX_EGRESS,
        TcAttachType::Ingress | TcAttachType::Custom(_) => BPF_TCX_INGRESS,
    };
    let mut ids = vec![0_u32; MAX_PROGRAMS];
    let mut attr = QueryAttr {
        ifindex,
        attach_type: attach_type as u32,
        query_flags: 0,
        attach_flags: 0,
        program_ids: ids.as_mut_ptr() as u64,
        count: MAX_PROGRAMS as u32,
        padding: 0,
        program_flags: 0,
        link_ids: 0,
        link_flags: 0,
        revision: 0,
    };
    // SAFETY: `attr` is what this command takes; the kernel writes at most `count` numbers, for which there is room.
    unsafe { bpf(PROG_QUERY, &mut attr) }?;
    ids.truncate(attr.count as usize);
    Ok(ids)
}
