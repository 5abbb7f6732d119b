//! Where a TCP connection is, as the kernel of one of its ends has it.

use std::net::TcpStream;

use nix::{
    Result, getsockopt_impl, libc, setsockopt_impl, sockopt_impl,
    sys::socket::{getsockopt, setsockopt, sockopt::TcpRepair},
};

sockopt_impl!(
    /// Which queue [`QueueSequence`] is about.
    RepairQueue,
    SetOnly,
    libc::IPPROTO_TCP,
    libc::TCP_REPAIR_QUEUE,
    u32
);

sockopt_impl!(
    /// The sequence number at the end of a queue.
    QueueSequence,
    GetOnly,
    libc::IPPROTO_TCP,
    libc::TCP_QUEUE_SEQ,
    u32
);

/// `TCP_RECV_QUEUE` and `TCP_SEND_QUEUE` (include/uapi/linux/tcp.h).
const RECEIVED: u32 = 1;
const SENT: u32 = 2;

/// `TCP_REPAIR_ON` and `TCP_REPAIR_OFF_NO_WP`, -1, which ends it without a segment that probes the window (same file).
const REPAIR: u32 = 1;
const REPAIRED: u32 = u32::MAX;

/// The sequence number that the owner of `stream` sends next, and the one that it expects next. Nothing is sent or
/// changed by asking.
///
/// # Errors
/// Not root, or not connected.
pub fn numbers(stream: &TcpStream) -> Result<[u32; 2]> {
    setsockopt(stream, TcpRepair, &REPAIR)?;
    let numbers = number(stream, SENT).and_then(|next| Ok([next, number(stream, RECEIVED)?]));
    setsockopt(stream, TcpRepair, &REPAIRED)?;
    numbers
}

fn number(stream: &TcpStream, queue: u32) -> Result<u32> {
    setsockopt(stream, RepairQueue, &queue)?;
    getsockopt(stream, QueueSequence)
}
