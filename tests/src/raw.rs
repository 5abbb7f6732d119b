//! UDP datagrams in fragments of one's own making, sent in any order.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::{Context, Result};
use nix::libc;
use socket2::{Domain, Protocol, Socket, Type};

/// Length of an IPv4 header without options, in bytes.
const IP_HEADER: usize = 20;

/// A datagram to be cut.
#[derive(Debug, Clone)]
pub struct Datagram<'a> {
    /// From whom it claims to be.
    pub source: SocketAddrV4,
    /// To whom.
    pub destination: SocketAddrV4,
    /// IPv4's identification.
    pub id: u16,
    /// What it carries.
    pub payload: &'a [u8],
}

impl Datagram<'_> {
    /// Its fragments with `size` bytes of payload each, a multiple of eight, in order. The kernel computes
    /// the IP header's checksum.
    pub fn fragments(&self, size: usize) -> Vec<Vec<u8>> {
        let whole = self.udp();
        let count = whole.len().div_ceil(size);
        let pieces = whole.chunks(size).enumerate();
        pieces
            .map(|(index, piece)| {
                let more = if index + 1 == count { 0 } else { 0x2000 };
                let fragment = more | (index * size / 8) as u16;
                let mut packet = vec![0x45, 0];
                packet.extend(((IP_HEADER + piece.len()) as u16).to_be_bytes());
                packet.extend(self.id.to_be_bytes());
                packet.extend(fragment.to_be_bytes());
                packet.extend([64, libc::IPPROTO_UDP as u8, 0, 0]);
                packet.extend(self.source.ip().octets());
                packet.extend(self.destination.ip().octets());
                packet.extend(piece);
                packet
            })
            .collect()
    }

    /// Header and payload, with the right checksum.
    fn udp(&self) -> Vec<u8> {
        let length = (8 + self.payload.len()) as u16;
        let mut udp = self.source.port().to_be_bytes().to_vec();
        udp.extend(self.destination.port().to_be_bytes());
        udp.extend(length.to_be_bytes());
        udp.extend([0, 0]);
        udp.extend(self.payload);
        let pseudo_header = [
            &self.source.ip().octets()[..],
            &self.destination.ip().octets(),
            &[0, libc::IPPROTO_UDP as u8],
            &length.to_be_bytes(),
        ]
        .concat();
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
    /// Opens it.
    ///
    /// # Errors
    /// Not root.
    pub fn new() -> Result<Self> {
        let protocol = Protocol::from(libc::IPPROTO_RAW);
        let socket = Socket::new(Domain::IPV4, Type::from(libc::SOCK_RAW), Some(protocol));
        Ok(Self(socket.context("cannot open a raw socket")?))
    }

    /// Sends `packets` to `to`, in this order.
    ///
    /// # Errors
    /// The kernel's.
    pub fn send<'a>(
        &self,
        to: Ipv4Addr,
        packets: impl IntoIterator<Item = &'a Vec<u8>>,
    ) -> Result<()> {
        for packet in packets {
            let to = SocketAddrV4::new(to, 0).into();
            self.0.send_to(packet, &to).context("cannot send")?;
        }
        Ok(())
    }
}
