//! Reading a packet's headers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::wire;

/// Where things are in a packet, from its IP header on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// TCP, UDP, ICMP.
    pub protocol: u8,
    /// Length of the IP header, with options and extensions.
    pub header_len: usize,
    /// Length of the packet as its header has it.
    pub len: usize,
    /// The IPv4 identification or IPv6 flow label's lower half.
    pub stamp: u16,
    /// Whether it is a fragment.
    pub is_fragment: bool,
    /// Whether it begins with the transport header.
    pub is_first: bool,
}

impl Packet {
    /// Whether it is an ICMP message that quotes a packet.
    pub fn quotes(&self, bytes: &[u8]) -> bool {
        let kind = bytes.get(self.header_len).copied();
        self.is_first
            && match self.protocol {
                wire::ICMP => matches!(kind, Some(3 | 4 | 5 | 11 | 12)),
                wire::ICMPV6 => matches!(kind, Some(1..=4)),
                _ => false,
            }
    }

    /// Whether it is IPv6's neighbour discovery, or about groups.
    pub fn is_neighbours(&self, bytes: &[u8]) -> bool {
        let kind = bytes.get(self.header_len).copied();
        // Its reports come with options in a header of their own.
        self.protocol == 0 || self.protocol == wire::ICMPV6 && matches!(kind, Some(130..=137 | 143))
    }

    /// Where the packet lies that an ICMP error quotes.
    pub fn quote(&self) -> usize {
        self.header_len + 8
    }

    /// Whether it has ports.
    pub fn has_ports(&self) -> bool {
        self.is_first && matches!(self.protocol, wire::TCP | wire::UDP)
    }

    /// Where the transport checksum lies.
    pub fn checksum(&self) -> Option<usize> {
        let at = match self.protocol {
            wire::TCP => 16,
            wire::UDP => 6,
            wire::ICMP | wire::ICMPV6 => 2,
            _ => return None,
        };
        self.is_first.then_some(self.header_len + at)
    }

    /// Where the payload of TCP or UDP begins.
    pub fn payload(&self, bytes: &[u8]) -> Option<usize> {
        let length = match self.protocol {
            wire::TCP => usize::from(bytes.get(self.header_len + 12)? >> 4) * 4,
            wire::UDP => 8,
            _ => return None,
        };
        self.is_first.then_some(self.header_len + length)
    }
}

/// Reads a packet, which may be cut short behind its IP header.
pub fn read(bytes: &[u8]) -> Option<Packet> {
    match bytes.first()? >> 4 {
        4 => read_v4(bytes),
        6 => read_v6(bytes),
        _ => None,
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn read_v4(bytes: &[u8]) -> Option<Packet> {
    let address = |at: usize| -> Option<IpAddr> {
        let octets: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
        Some(Ipv4Addr::from(octets).into())
    };
    let fragment = word(bytes, 6)?;
    Some(Packet {
        source: address(12)?,
        destination: address(16)?,
        protocol: bytes[9],
        header_len: usize::from(bytes[0] & 0xf) * 4,
        len: word(bytes, 2)?.into(),
        stamp: word(bytes, 4)?,
        is_fragment: fragment & 0x3fff != 0,
        is_first: fragment & 0x1fff == 0,
    })
}

fn read_v6(bytes: &[u8]) -> Option<Packet> {
    let address = |at: usize| -> Option<IpAddr> {
        let octets: [u8; 16] = bytes.get(at..at + 16)?.try_into().ok()?;
        Some(Ipv6Addr::from(octets).into())
    };
    let mut packet = Packet {
        source: address(8)?,
        destination: address(24)?,
        protocol: bytes[6],
        header_len: 40,
        len: 40 + usize::from(word(bytes, 4)?),
        stamp: word(bytes, 2)?,
        is_fragment: false,
        is_first: true,
    };
    if packet.protocol == wire::FRAGMENT {
        packet.protocol = *bytes.get(40)?;
        packet.header_len = 48;
        packet.is_fragment = true;
        packet.is_first = word(bytes, 42)? & 0xfff8 == 0;
    }
    Some(packet)
}
