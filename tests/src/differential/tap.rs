//! A party's raw socket: sends crafted frames and hears every frame that arrives.

use std::{
    io::ErrorKind,
    mem::{MaybeUninit, size_of},
    os::fd::{AsFd, BorrowedFd},
};

use anyhow::{Context, Result, ensure};
use nix::{
    getsockopt_impl, libc,
    net::if_::if_nametoindex,
    setsockopt_impl, sockopt_impl,
    sys::socket::{getsockopt, setsockopt, sockopt::RcvBufForce},
};
use socket2::{Domain, MaybeUninitSlice, MsgHdrMut, Socket, Type};

use super::wire::{ETHERNET_LEN, Mac};
use crate::{netns::Netns, packets::link_address};

/// A party's interface, in its own namespace.
const INTERFACE: &str = "eth0";

/// Bytes that wait to be read, before the kernel drops frames.
const BUFFER: usize = 64 << 20;

/// The longest frame: a segment to be cut, with its virtio header.
const LONGEST: usize = 68 << 10;

/// `struct virtio_net_hdr` in include/uapi/linux/virtio_net.h: flags, kind of segmentation, length of the
/// headers, size of a segment, where checksumming starts and where the checksum goes; in native order.
const VIRTIO_LEN: usize = 10;

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`: the checksum is unfinished.
const NEEDS_CHECKSUM: u8 = 1;
/// `VIRTIO_NET_HDR_GSO_TCPV4`.
const SEGMENTS_TCP4: u8 = 1;
/// `VIRTIO_NET_HDR_GSO_TCPV6`.
const SEGMENTS_TCP6: u8 = 4;

sockopt_impl!(
    /// Frames begin with a `struct virtio_net_hdr`.
    VnetHeaders,
    SetOnly,
    libc::SOL_PACKET,
    libc::PACKET_VNET_HDR,
    bool
);

sockopt_impl!(
    /// A `struct tpacket_auxdata` comes with each frame.
    AuxiliaryData,
    SetOnly,
    libc::SOL_PACKET,
    libc::PACKET_AUXDATA,
    bool
);

sockopt_impl!(
    /// What the interface sends is not heard.
    IgnoreOutgoing,
    SetOnly,
    libc::SOL_PACKET,
    libc::PACKET_IGNORE_OUTGOING,
    bool
);

sockopt_impl!(
    /// `struct tpacket_stats`: frames that have come, and those of them that there was no room for, since it was last read.
    Statistics,
    GetOnly,
    libc::SOL_PACKET,
    libc::PACKET_STATISTICS,
    [u32; 2]
);

/// What a frame leaves to the hardware.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offload {
    /// Where the transport header starts.
    pub start: u16,
    /// Where its checksum lies, from there.
    pub checksum: u16,
    /// Payload of each segment to be cut from it, or zero.
    pub segment: u16,
    /// Length of all headers.
    pub headers: u16,
    /// Whether it is IPv6.
    pub is_v6: bool,
}

/// A frame that has arrived.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// Its bytes from the Ethernet header on, without the tag below.
    pub bytes: Vec<u8>,
    /// The tag that the kernel has taken off.
    pub tag: Option<u16>,
    /// Where the unfinished checksum starts and lies, if it is.
    pub unfinished: Option<(u16, u16)>,
    /// Payload of each segment that it stands for, or zero.
    pub segment: u16,
}

/// Room for the longest frame, to be used again and again.
#[derive(Debug)]
pub struct Buffer(Vec<u8>);

impl Default for Buffer {
    fn default() -> Self {
        Self(vec![0; LONGEST])
    }
}

/// A raw socket on a party's interface.
#[derive(Debug)]
pub struct Tap {
    socket: Socket,
    /// The party's own address.
    pub own: Mac,
    /// The address of its gateway, the host.
    pub gateway: Mac,
}

impl Tap {
    /// Opens one in `netns`, whose gateway has the address `gateway`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(netns: &Netns, gateway: Mac) -> Result<Self> {
        let socket = netns.run(|| open().context("cannot open a raw socket"))?;
        Ok(Self {
            socket,
            own: netns.mac(INTERFACE)?,
            gateway,
        })
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// The kernel's.
    pub fn send(&self, frame: &[u8], offload: Option<Offload>) -> Result<()> {
        let header = offload.map_or([0; VIRTIO_LEN], |offload| offload.header());
        let message = [header.as_slice(), frame].concat();
        let sent = self.socket.send(&message).context("cannot send a frame")?;
        ensure!(sent == message.len(), "a frame was cut short");
        Ok(())
    }

    /// The next frame that has arrived, by way of `buffer`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn receive(&self, buffer: &mut Buffer) -> Result<Option<Arrival>> {
        let Buffer(buffer) = buffer;
        let mut control = [MaybeUninit::new(0_u8); 64];
        let (length, control_len) = {
            // SAFETY: bytes that are initialised may be seen as bytes that need not be, as long as
            // nobody uninitialises them; the kernel only writes.
            let bytes = unsafe {
                &mut *(std::ptr::from_mut(buffer.as_mut_slice()) as *mut [MaybeUninit<u8>])
            };
            let mut buffers = [MaybeUninitSlice::new(bytes)];
            let mut message = MsgHdrMut::new()
                .with_buffers(&mut buffers)
                .with_control(&mut control);
            match self.socket.recvmsg(&mut message, libc::MSG_DONTWAIT) {
                Ok(length) => (length, message.control_len()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                // The interface went down and up again, at the lab's beginning.
                Err(error) if error.raw_os_error() == Some(libc::ENETDOWN) => return Ok(None),
                Err(error) => return Err(error).context("cannot receive a frame"),
            }
        };
        // SAFETY: initialised above, and written by the kernel since.
        let control = control.map(|byte| unsafe { byte.assume_init() });
        ensure!(length >= VIRTIO_LEN + ETHERNET_LEN, "a frame too short");
        let (header, frame) = buffer[..length].split_at(VIRTIO_LEN);
        let word = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        Ok(Some(Arrival {
            bytes: frame.to_vec(),
            tag: tag(&control[..control_len]),
            unfinished: (header[0] & NEEDS_CHECKSUM != 0).then(|| (word(6), word(8))),
            segment: word(4),
        }))
    }

    /// How many frames the kernel had no room for, since the last time.
    ///
    /// # Errors
    /// The kernel's.
    pub fn lost(&self) -> Result<u32> {
        let [_, lost] =
            getsockopt(&self.socket, Statistics).context("no statistics of a raw socket")?;
        Ok(lost)
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Offload {
    fn header(self) -> [u8; VIRTIO_LEN] {
        let kind = match (self.segment, self.is_v6) {
            (0, _) => 0,
            (_, false) => SEGMENTS_TCP4,
            (_, true) => SEGMENTS_TCP6,
        };
        let mut bytes = [NEEDS_CHECKSUM, kind, 0, 0, 0, 0, 0, 0, 0, 0];
        let words = [self.headers, self.segment, self.start, self.checksum];
        for (place, word) in bytes[2..].chunks_exact_mut(2).zip(words) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }
}

fn open() -> Result<Socket> {
    let all = (libc::ETH_P_ALL as u16).to_be();
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(i32::from(all).into()))?;
    // Before it is bound, so that no frame comes in another form.
    setsockopt(&socket, VnetHeaders, &true)?;
    setsockopt(&socket, AuxiliaryData, &true)?;
    setsockopt(&socket, IgnoreOutgoing, &true)?;
    setsockopt(&socket, RcvBufForce, &BUFFER)?;
    socket.bind(&link_address(if_nametoindex(INTERFACE)?, all)?)?;
    Ok(socket)
}

/// The VLAN tag in a frame's `struct tpacket_auxdata`: status, length, captured length, offsets of the
/// link's and the network's headers, tag, its EtherType; behind a `struct cmsghdr`.
fn tag(control: &[u8]) -> Option<u16> {
    let auxdata = control.get(size_of::<libc::cmsghdr>()..)?;
    let status = u32::from_ne_bytes(auxdata.get(..4)?.try_into().ok()?);
    let tag = u16::from_ne_bytes(auxdata.get(16..18)?.try_into().ok()?);
    (status & libc::TP_STATUS_VLAN_VALID != 0).then_some(tag)
}
