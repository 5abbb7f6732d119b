//! A link made of two tun devices, without Ethernet, or tap devices, with it, and a thread that carries packets
//! from each to the other.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::{
        fd::{AsFd as _, AsRawFd as _},
        unix::fs::OpenOptionsExt as _,
    },
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use crate::netns::Netns;

/// How often the thread looks whether it is still wanted, in milliseconds.
const TICK: u16 = 20;

/// What a packet on the link begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The IP header.
    Tun,
    /// The Ethernet header. Its driver has native XDP, and its packets have finished checksums.
    Tap,
}

/// The link; it goes when this is dropped.
#[derive(Debug)]
pub struct Tunnel {
    is_over: Arc<AtomicBool>,
    carrier: Option<JoinHandle<()>>,
}

impl Tunnel {
    /// Makes a device called `name` in both namespaces, up, and joins them.
    ///
    /// # Errors
    /// The kernel has no tun devices.
    pub fn new(kind: Kind, name: &str, one: &Netns, other: &Netns) -> Result<Self> {
        let files = [device(kind, name, one)?, device(kind, name, other)?];
        let is_over = Arc::new(AtomicBool::new(false));
        let carrier = thread::spawn({
            let is_over = Arc::clone(&is_over);
            move || carry(files, &is_over)
        });
        Ok(Self {
            is_over,
            carrier: Some(carrier),
        })
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(carrier) = self.carrier.take() {
            let _ = carrier.join();
        }
    }
}

/// Carries packets until told to end. What one side does not take is lost, as on any link.
fn carry(mut files: [File; 2], is_over: &AtomicBool) {
    let mut packet = vec![0; 1 << 16];
    while !is_over.load(Ordering::Relaxed) {
        let mut wanted = files
            .each_ref()
            .map(|file| PollFd::new(file.as_fd(), PollFlags::POLLIN));
        if poll(&mut wanted, PollTimeout::from(TICK)).is_err() {
            return;
        }
        let ready = wanted.map(|fd| fd.any().unwrap_or(false));
        for (index, is_ready) in ready.into_iter().enumerate() {
            if is_ready && let Ok(length) = files[index].read(&mut packet) {
                let _ = files[1 - index].write(&packet[..length]);
            }
        }
    }
}

/// A device without a header of its own before its packets.
fn device(kind: Kind, name: &str, netns: &Netns) -> Result<File> {
    let flag = match kind {
        Kind::Tun => libc::IFF_TUN,
        Kind::Tap => libc::IFF_TAP,
    };
    let file = netns.run(|| {
        // A write that may wait is not given to the driver's XDP (`tun_can_build_skb`, drivers/net/tun.c).
        let file = File::options()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/net/tun")
            .context("cannot open /dev/net/tun")?;
        // SAFETY: integers and arrays of them, which may be zero.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from.cast_signed();
        }
        request.ifr_ifru.ifru_flags = (flag | libc::IFF_NO_PI) as i16;
        // SAFETY: TUNSETIFF takes an ifreq, which outlives the call.
        let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &request) };
        Errno::result(result).context("cannot make a tun device")?;
        Ok(file)
    })?;
    netns.ip(&format!("link set {name} up"))?;
    Ok(file)
}
