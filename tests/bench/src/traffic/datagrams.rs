//! A UDP socket that is only read, as fast as its thread can.

use std::{
    io,
    mem::zeroed,
    net::{Ipv4Addr, UdpSocket},
    os::fd::AsRawFd as _,
    ptr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    libc,
    sys::socket::{setsockopt, sockopt::RcvBufForce},
};
use portway_tests::netns::Netns;

/// Datagrams that are taken from the kernel at once.
const BATCH: usize = 64;

/// Room for one, in bytes.
const ROOM: usize = 2048;

/// Room in the socket, in bytes, for when the reader does not get to run.
const QUEUE: usize = 256 << 20;

/// How long the reader waits before it looks whether it shall end.
const WAIT: Duration = Duration::from_millis(50);

/// A socket with its reader.
#[derive(Debug)]
pub struct Datagrams {
    received: Arc<AtomicU64>,
    end: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

impl Datagrams {
    /// Binds `port` in `container` and reads.
    ///
    /// # Errors
    /// The port is taken.
    pub fn start(container: &Netns, port: u16) -> Result<Self> {
        let socket = container
            .run(|| {
                let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
                setsockopt(&socket, RcvBufForce, &QUEUE)?;
                socket.set_read_timeout(Some(WAIT))?;
                Ok(socket)
            })
            .with_context(|| format!("cannot receive on port {port}"))?;
        let (received, end) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let reader = {
            let (received, end) = (Arc::clone(&received), Arc::clone(&end));
            thread::spawn(move || {
                let mut batch = Batch::new();
                while !end.load(Ordering::Relaxed) {
                    // Nothing has come for a while, or an ICMP error has.
                    let count = batch.receive(&socket).unwrap_or_default();
                    received.fetch_add(count, Ordering::Relaxed);
                }
            })
        };
        Ok(Self {
            received,
            end,
            reader: Some(reader),
        })
    }

    /// How many datagrams have been read so far.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

impl Drop for Datagrams {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// Room for a batch.
struct Batch {
    buffers: Box<[[u8; ROOM]; BATCH]>,
}

impl Batch {
    fn new() -> Self {
        Self {
            buffers: Box::new([[0; ROOM]; BATCH]),
        }
    }

    /// Waits for datagrams and takes those that are there.
    fn receive(&mut self, socket: &UdpSocket) -> io::Result<u64> {
        let mut parts = self.buffers.each_mut().map(|buffer| libc::iovec {
            iov_base: buffer.as_mut_ptr().cast(),
            iov_len: ROOM,
        });
        let mut headers = parts.each_mut().map(|part| {
            // SAFETY: of integers and pointers only: all zeros is a header of no parts and no address.
            let mut header: libc::mmsghdr = unsafe { zeroed() };
            header.msg_hdr.msg_iov = part;
            header.msg_hdr.msg_iovlen = 1;
            header
        });
        // SAFETY: as many headers as said, each with one part, which is a buffer of its own; all of them
        // outlive the call.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                BATCH as u32,
                libc::MSG_WAITFORONE,
                ptr::null_mut(),
            )
        };
        Ok(Errno::result(count)?.unsigned_abs().into())
    }
}
