//! Where a TCP connection is, as the kernel of one of its ends has it.

use std::{
    io,
    net::TcpStream,
    os::fd::{AsRawFd, RawFd},
};

use nix::libc;

/// `TCP_RECV_QUEUE` and `TCP_SEND_QUEUE` (include/uapi/linux/tcp.h).
const RECEIVED: i32 = 1;
const SENT: i32 = 2;

/// Values of `TCP_REPAIR`: the last ends it without a segment that probes the window.
const REPAIR: i32 = 1;
const REPAIRED: i32 = -1;

/// The sequence number that the owner of `stream` sends next, and the one that it expects next. Nothing is sent or
/// changed by asking.
///
/// # Errors
/// Not root, or not connected.
pub fn numbers(stream: &TcpStream) -> io::Result<[u32; 2]> {
    let socket = stream.as_raw_fd();
    set(socket, libc::TCP_REPAIR, REPAIR)?;
    let numbers = number(socket, SENT).and_then(|next| Ok([next, number(socket, RECEIVED)?]));
    set(socket, libc::TCP_REPAIR, REPAIRED)?;
    numbers
}

/// The sequence number at the end of a queue.
fn number(socket: RawFd, queue: i32) -> io::Result<u32> {
    set(socket, libc::TCP_REPAIR_QUEUE, queue)?;
    let mut number = 0_u32;
    let mut length = size_of::<u32>() as libc::socklen_t;
    // SAFETY: the option is a number of this size, which is written in its place.
    let result = unsafe {
        libc::getsockopt(
            socket,
            libc::IPPROTO_TCP,
            libc::TCP_QUEUE_SEQ,
            (&raw mut number).cast(),
            &raw mut length,
        )
    };
    succeeded(result)?;
    Ok(number)
}

fn set(socket: RawFd, option: i32, value: i32) -> io::Result<()> {
    let length = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the kernel reads the value, which is of this size.
    let result = unsafe {
        libc::setsockopt(
            socket,
            libc::IPPROTO_TCP,
            option,
            (&raw const value).cast(),
            length,
        )
    };
    succeeded(result)
}

fn succeeded(result: i32) -> io::Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
