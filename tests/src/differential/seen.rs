//! What a party receives, in a form that is the same in both twins.
//!
//! MACs become names, the kernel's IP identifications and the ports that netfilter gives at random go, and
//! checksums become a verdict. Everything else stays, byte by byte.

use std::{fmt, net::IpAddr};

use super::{
    packet::{self, Packet},
    tap::{Arrival, Tap},
    wire::{self, ETHERNET_LEN, Mac},
};

/// A frame as it is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    from: Station,
    to: Station,
    tag: Option<u16>,
    /// The packet without its checksums.
    packet: Vec<u8>,
    header: Checksum,
    transport: Checksum,
    /// Payload of each segment that it stands for, or zero.
    segment: u16,
    /// The ports that netfilter has chosen.
    chosen: Vec<Chosen>,
}

impl Seen {
    /// Whether it is an ICMP message that quotes a packet.
    pub fn is_error(&self) -> bool {
        packet::read(&self.packet).is_some_and(|packet| packet.quotes(&self.packet))
    }
}

/// A station by its role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Station {
    /// Whoever received the frame.
    Own,
    /// The host.
    Gateway,
    /// All of them.
    Broadcast,
    /// Anybody else.
    Other,
}

/// What became of a checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Checksum {
    /// It is right, or its completion is left to the hardware.
    Right,
    /// There is none.
    None,
    /// It is not.
    Wrong,
    /// It cannot be seen from this piece of the packet.
    Unseen,
}

impl Checksum {
    fn of(is_right: bool) -> Self {
        if is_right { Self::Right } else { Self::Wrong }
    }
}

/// A port that netfilter has chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chosen {
    Source,
    Destination,
}

/// The ports that an address has, unless netfilter has chosen another; none for a socket of the kernel's
/// choice.
#[derive(Debug, Clone)]
pub struct Expected {
    /// The address.
    pub address: IpAddr,
    /// Its ports.
    pub ports: Vec<u16>,
}

/// An arrival whose headers have been read.
#[derive(Debug)]
pub struct Read {
    arrival: Arrival,
    /// Its headers.
    pub packet: Packet,
    /// Those of the packet that it quotes, if it is an ICMP error, and where that begins.
    pub quoted: Option<(Packet, usize)>,
}

impl Read {
    /// Reads it; other protocols than IP are of no interest.
    pub fn new(arrival: Arrival) -> Option<Self> {
        let ether_type = arrival.bytes.get(12..ETHERNET_LEN)?;
        if ether_type != wire::IPV4.to_be_bytes() && ether_type != wire::IPV6.to_be_bytes() {
            return None;
        }
        let bytes = arrival.bytes.get(ETHERNET_LEN..)?;
        let packet = packet::read(bytes)?;
        if packet.is_neighbours(bytes) {
            return None;
        }
        let quoted = packet.quotes(bytes).then(|| {
            let start = packet.quote();
            Some((packet::read(bytes.get(start..)?)?, start))
        });
        Some(Self {
            packet,
            quoted: quoted.flatten(),
            arrival,
        })
    }

    /// The packet, with its checksum completed and without what Ethernet has padded it with.
    pub fn bytes(&self) -> Vec<u8> {
        let bytes = &self.arrival.bytes[ETHERNET_LEN..];
        let mut bytes = bytes[..self.packet.len.min(bytes.len())].to_vec();
        if let Some((start, offset)) = self.arrival.unfinished {
            let start = usize::from(start) - ETHERNET_LEN;
            let at = start + usize::from(offset);
            // The pseudo-header's sum is in the checksum's place.
            if at + 2 <= bytes.len() {
                // Zero would mean that there is none (RFC 768); `skb_checksum_help` does it for TCP, too.
                let checksum = match !(wire::add(0, &bytes[start..]) as u16) {
                    0 => 0xffff,
                    checksum => checksum,
                };
                bytes[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
            }
        }
        bytes
    }

    /// What is compared, as `tap` has received it.
    pub fn seen(&self, tap: &Tap, expected: &[Expected]) -> Seen {
        let mut bytes = self.bytes();
        let (header, transport) = take_checksums(&self.packet, &mut bytes);
        let chosen = self.take_chosen(&mut bytes, expected);
        // Fragments keep theirs, by which they belong together, unless the kernel has chosen it.
        let is_kernels = expected
            .iter()
            .any(|known| known.address == self.packet.source && known.ports.is_empty());
        match self.packet.source {
            IpAddr::V4(_) if is_kernels || !self.packet.is_fragment => bytes[4..6].fill(0),
            IpAddr::V4(_) => {}
            // The flow label.
            IpAddr::V6(_) => {
                bytes[1] &= 0xf0;
                bytes[2..4].fill(0);
            }
        }
        self.take_fragment_numbers(&mut bytes);
        let station = |at: usize| -> Station {
            let mac: Mac = self.arrival.bytes[at..at + 6]
                .try_into()
                .unwrap_or_default();
            match mac {
                _ if mac == tap.own => Station::Own,
                _ if mac == tap.gateway => Station::Gateway,
                [0xff, 0xff, 0xff, 0xff, 0xff, 0xff] => Station::Broadcast,
                _ => Station::Other,
            }
        };
        Seen {
            to: station(0),
            from: station(6),
            tag: self.arrival.tag,
            packet: bytes,
            header,
            transport,
            segment: self.arrival.segment,
            chosen,
        }
    }

    /// Takes out what numbers an IPv6 packet's fragments: those that netfilter has put together are numbered
    /// anew when they are sent on.
    fn take_fragment_numbers(&self, bytes: &mut [u8]) {
        let quoted = self.quoted.as_ref();
        let places = quoted.map(|(packet, start)| (packet, *start));
        for (packet, start) in [(&self.packet, 0)].into_iter().chain(places) {
            if packet.is_fragment
                && packet.source.is_ipv6()
                && let Some(number) = bytes.get_mut(start + 44..start + 48)
            {
                number.fill(0);
            }
        }
    }

    /// Takes out the ports that netfilter has chosen: any but the expected ones. In a quoted packet, too.
    fn take_chosen(&self, bytes: &mut [u8], expected: &[Expected]) -> Vec<Chosen> {
        let (packet, start) = match &self.quoted {
            Some((quoted, start)) => (quoted, *start),
            None => (&self.packet, 0),
        };
        let mut all = Vec::new();
        if !packet.has_ports() {
            return all;
        }
        for (chosen, address, offset) in [
            (Chosen::Source, packet.source, 0),
            (Chosen::Destination, packet.destination, 2),
        ] {
            let at = start + packet.header_len + offset;
            let known = expected.iter().find(|known| known.address == address);
            if let Some(port) = bytes.get_mut(at..at + 2)
                && let Some(known) = known
                && !known
                    .ports
                    .contains(&u16::from_be_bytes([port[0], port[1]]))
            {
                port.fill(0);
                all.push(chosen);
            }
        }
        // A checksum that could not be verified covers the port, too: a quoted packet's, a fragment's.
        let is_verified = start == 0 && !packet.is_fragment;
        if let Some(checksum) = packet
            .checksum()
            .filter(|_| !is_verified && !all.is_empty())
            && let Some(checksum) = bytes.get_mut(start + checksum..start + checksum + 2)
        {
            checksum.fill(0);
        }
        all
    }
}

/// Takes the checksums out of a packet and tells what they were worth.
fn take_checksums(packet: &Packet, bytes: &mut [u8]) -> (Checksum, Checksum) {
    let mut header = Checksum::None;
    if packet.source.is_ipv4() {
        let is_right = wire::add(0, &bytes[..packet.header_len.min(bytes.len())]) == 0xffff;
        header = Checksum::of(is_right);
        bytes[10..12].fill(0);
    }
    (header, take_transport_checksum(packet, bytes))
}

fn take_transport_checksum(packet: &Packet, bytes: &mut [u8]) -> Checksum {
    let Some(at) = packet.checksum().filter(|at| at + 2 <= bytes.len()) else {
        return Checksum::Unseen;
    };
    if packet.protocol == wire::UDP && bytes[at..at + 2] == [0, 0] {
        return Checksum::None;
    }
    if packet.is_fragment {
        return Checksum::Unseen;
    }
    let body = &bytes[packet.header_len..];
    let pseudo = match packet.protocol {
        wire::ICMP => 0,
        protocol => wire::pseudo_header(packet.source, packet.destination, protocol, body.len()),
    };
    let is_right = wire::add(pseudo, body) == 0xffff;
    bytes[at..at + 2].fill(0);
    Checksum::of(is_right)
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, tag, .. } = self;
        write!(f, "{from:?} to {to:?}")?;
        if let Some(tag) = tag {
            write!(f, ", tag {tag}")?;
        }
        if let Some(packet) = packet::read(&self.packet) {
            let port = |at: usize| {
                let at = packet.header_len + at;
                let port = self.packet.get(at..at + 2).unwrap_or(&[0, 0]);
                u16::from_be_bytes([port[0], port[1]])
            };
            let Packet {
                source,
                destination,
                protocol,
                ..
            } = packet;
            if packet.has_ports() {
                write!(f, ": {source}:{} > {destination}:{}", port(0), port(2))?;
            } else {
                write!(f, ": {source} > {destination}")?;
            }
            write!(f, ", protocol {protocol}, {} bytes", self.packet.len())?;
        }
        let Self {
            header,
            transport,
            segment,
            chosen,
            ..
        } = self;
        write!(f, ", checksums {header:?} {transport:?}")?;
        if *segment > 0 {
            write!(f, ", segments of {segment}")?;
        }
        for chosen in chosen {
            write!(f, ", another {chosen:?} port")?;
        }
        write!(f, "\n      ")?;
        for byte in self.packet.iter().take(72) {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}
