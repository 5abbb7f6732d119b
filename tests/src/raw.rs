//! UDP datagrams in fragments of one's own making, sent in any order.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};
use nix::libc;
use socket2::{Domain, Protocol, Socket, Type};

/// UDP's protocol number.
const UDP: u8 = libc::IPPROTO_UDP as u8;

/// A datagram to be cut.
#[derive(Debug, Clone)]
pub struct Datagram<'a> {
    /// From whom it claims to be.
    pub source: SocketAddr,
    /// To whom, of the same IP version.
    pub destination: SocketAddr,
    /// Its identification; IPv4 takes the lower half.
    pub id: u32,
    /// What it carries.
    pub payload: &'a [u8],
}

impl Datagram<'_> {
    /// Its fragments with `size` bytes of payload each, a multiple of eight, in order. The kernel computes
    /// IPv4's header checksum.
    pub fn fragments(&self, size: usize) -> Vec<Vec<u8>> {
        let whole = self.udp();
        let count = whole.len().div_ceil(size);
        let pieces = whole.chunks(size).enumerate();
        pieces
            .map(|(index, piece)| {
                let is_last = index + 1 == count;
                [
                    self.header(index * size, piece.len(), is_last),
                    piece.into(),
                ]
                .concat()
            })
            .collect()
    }

    /// A fragment's IP header, and in IPv6 its fragment header.
    fn header(&self, offset: usize, length: usize, is_last: bool) -> Vec<u8> {
        let offset = (offset / 8) as u16;
        if self.source.is_ipv4() {
            let more = if is_last { 0 } else { 0x2000 };
            [
                &[0x45, 0][..],
                &((20 + length) as u16).to_be_bytes(),
                &(self.id as u16).to_be_bytes(),
                &(more | offset).to_be_bytes(),
                &[64, UDP, 0, 0],
                &self.addresses(),
            ]
            .concat()
        } else {
            const FRAGMENT: u8 = libc::IPPROTO_FRAGMENT as u8;
            [
                &[0x60, 0, 0, 0][..],
                &((8 + length) as u16).to_be_bytes(),
                &[FRAGMENT, 64],
                &self.addresses(),
                &[UDP, 0],
                &(offset << 3 | u16::from(!is_last)).to_be_bytes(),
                &self.id.to_be_bytes(),
            ]
            .concat()
        }
    }

    /// Source and destination.
    fn addresses(&self) -> Vec<u8> {
        let ends = [self.source.ip(), self.destination.ip()];
        let bytes = ends.map(|end| match end {
            IpAddr::V4(end) => end.octets().to_vec(),
            IpAddr::V6(end) => end.octets().to_vec(),
        });
        bytes.concat()
    }

    /// Header and payload, with the right checksum.
    fn udp(&self) -> Vec<u8> {
        let length = (8 + self.payload.len()) as u16;
        let mut udp = self.source.port().to_be_bytes().to_vec();
        udp.extend(self.destination.port().to_be_bytes());
        udp.extend(length.to_be_bytes());
        udp.extend([0, 0]);
        udp.extend(self.payload);
        // The same sum for both IP versions: what else their pseudo-headers have is zero.
        let pseudo_header = [&self.addresses()[..], &[0, UDP], &length.to_be_bytes()].concat();
        let checksum = match !sum(&[pseudo_header, udp.clone()].concat()) {
            0 => 0xffff,
            checksum => checksum,
        };
        udp[6..8].copy_from_slice(&checksum.to_be_bytes());
        udp
    }
}

/// One's complement sum (RFC 1071).
fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2);
    let mut sum: u32 = words
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)))
        .sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// A socket that sends packets as they are, from the calling thread's namespace.
#[derive(Debug)]
pub struct Sender(Socket);

impl Sender {
    /// Opens one for the IP version of `address`.
    ///
    /// # Errors
    /// Not root.
    pub fn new(address: IpAddr) -> Result<Self> {
        let domain = Domain::for_address((address, 0).into());
        let protocol = Protocol::from(libc::IPPROTO_RAW);
        let socket = Socket::new(domain, Type::from(libc::SOCK_RAW), Some(protocol));
        Ok(Self(socket.context("cannot open a raw socket")?))
    }

    /// Sends `packets` to `to`, in this order.
    ///
    /// # Errors
    /// The kernel's.
    pub fn send<'a>(
        &self,
        to: IpAddr,
        packets: impl IntoIterator<Item = &'a Vec<u8>>,
    ) -> Result<()> {
        for packet in packets {
            let to = SocketAddr::new(to, 0).into();
            self.0.send_to(packet, &to).context("cannot send")?;
        }
        Ok(())
    }
}
