//! Packets as bytes, written here from the RFCs and not by portway's own code, which is under test.

use std::net::{IpAddr, SocketAddr};

/// An Ethernet address.
pub type Mac = [u8; 6];

/// IPv4, in an Ethernet header.
pub const IPV4: u16 = 0x0800;
/// IPv6, in an Ethernet header.
pub const IPV6: u16 = 0x86dd;
/// A VLAN tag (IEEE 802.1Q).
pub const VLAN: u16 = 0x8100;

/// ICMP, in an IPv4 header.
pub const ICMP: u8 = 1;
/// TCP, in an IP header.
pub const TCP: u8 = 6;
/// UDP, in an IP header.
pub const UDP: u8 = 17;
/// ICMPv6, in an IPv6 header.
pub const ICMPV6: u8 = 58;
/// A fragment's extension header, in an IPv6 header.
pub const FRAGMENT: u8 = 44;

/// Length of an Ethernet header without tags.
pub const ETHERNET_LEN: usize = 14;

/// The IPv4 flag that forbids fragmentation.
const DONT_FRAGMENT: u16 = 0x4000;
/// The IPv4 flag that announces more fragments.
const MORE_FRAGMENTS: u16 = 0x2000;

/// Both ends of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// Who sends it.
    pub source: SocketAddr,
    /// Who is to get it.
    pub destination: SocketAddr,
}

/// What goes into an IP header besides the addresses.
#[derive(Debug, Clone, Copy)]
pub struct IpFields {
    /// TCP, UDP, ICMP.
    pub protocol: u8,
    /// Time to live or hop limit.
    pub ttl: u8,
    /// DSCP and ECN.
    pub tos: u8,
    /// The IPv4 identification or IPv6 flow label.
    pub stamp: u16,
    /// Whether fragmentation is forbidden (IPv4).
    pub dont_fragment: bool,
    /// Whether there are options: two no-operations, a router alert (RFC 2113) reads them all (IPv4).
    pub options: bool,
}

/// A TCP header's fields, ports and checksum aside.
#[derive(Debug, Clone)]
pub struct TcpFields {
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgement: u32,
    /// Control bits.
    pub flags: u8,
    /// Options, a multiple of four bytes.
    pub options: Vec<u8>,
    /// The header's length in words, where it is not what it should be.
    pub data_offset: Option<u8>,
}

/// The ones' complement sum of RFC 1071 over `bytes`, on top of `sum`.
pub fn add(sum: u32, bytes: &[u8]) -> u32 {
    let words = bytes.chunks(2).map(|word| match word {
        [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
        [high] => u32::from(*high) << 8,
        _ => 0,
    });
    fold(words.fold(sum, u32::wrapping_add)).into()
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The sum of a pseudo-header (RFC 9293 3.1, RFC 8200 8.1).
pub fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, length: usize) -> u32 {
    let sum = add(0, &octets(source));
    let sum = add(sum, &octets(destination));
    sum + u32::from(protocol) + length as u32
}

/// The checksum of a transport header and its payload whose checksum field is zero.
pub fn transport_checksum(ends: &Ends, protocol: u8, body: &[u8]) -> u16 {
    let sum = match protocol {
        ICMP => 0,
        _ => pseudo_header(
            ends.source.ip(),
            ends.destination.ip(),
            protocol,
            body.len(),
        ),
    };
    !(add(sum, body) as u16)
}

/// A TCP segment.
pub fn tcp(ends: &Ends, fields: &TcpFields, payload: &[u8]) -> Vec<u8> {
    let length = 20 + fields.options.len();
    let offset = fields.data_offset.unwrap_or((length / 4) as u8);
    let mut bytes = ports(ends);
    bytes.extend(fields.sequence.to_be_bytes());
    bytes.extend(fields.acknowledgement.to_be_bytes());
    bytes.extend([offset << 4, fields.flags]);
    // The window, the checksum, the urgent pointer.
    bytes.extend([0xff, 0xff, 0, 0, 0, 0]);
    bytes.extend(&fields.options);
    bytes.extend(payload);
    let checksum = transport_checksum(ends, TCP, &bytes);
    bytes[16..18].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

/// A UDP datagram with a checksum or without, whose length field is wrong by `error`.
pub fn udp(ends: &Ends, payload: &[u8], has_checksum: bool, error: i16) -> Vec<u8> {
    let length = (8 + payload.len() as u16).wrapping_add_signed(error);
    let mut bytes = ports(ends);
    bytes.extend(length.to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(payload);
    if has_checksum {
        let checksum = match transport_checksum(ends, UDP, &bytes) {
            0 => 0xffff,
            checksum => checksum,
        };
        bytes[6..8].copy_from_slice(&checksum.to_be_bytes());
    }
    bytes
}

/// An ICMP message with `rest`, the four bytes after the checksum, and what follows.
pub fn icmp(ends: &Ends, kind: u8, code: u8, rest: [u8; 4], quote: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind, code, 0, 0];
    bytes.extend(rest);
    bytes.extend(quote);
    let protocol = if ends.source.is_ipv4() { ICMP } else { ICMPV6 };
    let checksum = transport_checksum(ends, protocol, &bytes);
    bytes[2..4].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

/// A whole IP packet.
pub fn ip(ends: &Ends, fields: &IpFields, body: &[u8]) -> Vec<u8> {
    piece(ends, fields, body, 0, false)
}

/// The packet in fragments, cut after each of `cuts` bytes of its body, multiples of eight.
pub fn fragments(ends: &Ends, fields: &IpFields, body: &[u8], cuts: &[usize]) -> Vec<Vec<u8>> {
    let mut starts = vec![0];
    starts.extend(cuts.iter().copied().filter(|cut| *cut < body.len()));
    let ends_of = starts[1..]
        .iter()
        .copied()
        .chain(std::iter::once(body.len()));
    let spans = starts.iter().copied().zip(ends_of);
    spans
        .map(|(start, end)| piece(ends, fields, &body[start..end], start, end < body.len()))
        .collect()
}

fn piece(ends: &Ends, fields: &IpFields, body: &[u8], offset: usize, more: bool) -> Vec<u8> {
    if ends.source.is_ipv6() {
        return piece_v6(ends, fields, body, offset, more);
    }
    let options: &[u8] = if fields.options {
        &[0x94, 4, 0, 0, 1, 1, 1, 0]
    } else {
        &[]
    };
    let header_len = 20 + options.len();
    let mut flags = (offset / 8) as u16;
    if more {
        flags |= MORE_FRAGMENTS;
    }
    if fields.dont_fragment {
        flags |= DONT_FRAGMENT;
    }
    let mut bytes = vec![0x40 | (header_len / 4) as u8, fields.tos];
    bytes.extend(((header_len + body.len()) as u16).to_be_bytes());
    bytes.extend(fields.stamp.to_be_bytes());
    bytes.extend(flags.to_be_bytes());
    bytes.extend([fields.ttl, fields.protocol, 0, 0]);
    bytes.extend(octets(ends.source.ip()));
    bytes.extend(octets(ends.destination.ip()));
    bytes.extend(options);
    let checksum = !(add(0, &bytes) as u16);
    bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
    bytes.extend(body);
    bytes
}

fn piece_v6(ends: &Ends, fields: &IpFields, body: &[u8], offset: usize, more: bool) -> Vec<u8> {
    let is_fragment = offset > 0 || more;
    let extension = if is_fragment { 8 } else { 0 };
    let first = 6 << 28 | u32::from(fields.tos) << 20 | u32::from(fields.stamp);
    let mut bytes = first.to_be_bytes().to_vec();
    bytes.extend(((extension + body.len()) as u16).to_be_bytes());
    let next = if is_fragment {
        FRAGMENT
    } else {
        fields.protocol
    };
    bytes.extend([next, fields.ttl]);
    bytes.extend(octets(ends.source.ip()));
    bytes.extend(octets(ends.destination.ip()));
    if is_fragment {
        bytes.extend([fields.protocol, 0]);
        bytes.extend((offset as u16 | u16::from(more)).to_be_bytes());
        bytes.extend(u32::from(fields.stamp).to_be_bytes());
    }
    bytes.extend(body);
    bytes
}

/// A frame with VLAN tags, outermost first.
pub fn ethernet(destination: Mac, source: Mac, tags: &[u16], packet: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(ETHERNET_LEN + 4 * tags.len() + packet.len());
    bytes.extend(destination);
    bytes.extend(source);
    for tag in tags {
        bytes.extend(VLAN.to_be_bytes());
        bytes.extend(tag.to_be_bytes());
    }
    let is_v6 = packet.first().is_some_and(|first| first >> 4 == 6);
    bytes.extend(if is_v6 { IPV6 } else { IPV4 }.to_be_bytes());
    bytes.extend(packet);
    bytes
}

fn ports(ends: &Ends) -> Vec<u8> {
    let mut bytes = ends.source.port().to_be_bytes().to_vec();
    bytes.extend(ends.destination.port().to_be_bytes());
    bytes
}

/// An address as it lies in a header.
pub fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
