//! A step as frames.

use std::net::{IpAddr, SocketAddr};

use super::{
    address::{self, Cast, View},
    packet,
    party::End,
    step::{Act, Error, ErrorKind, Fault, Order, Step, Twist},
    story::{Host, Line, Protocol},
    tap::Offload,
    tcp::Segment,
    wire::{self, Ends, IpFields, Mac},
};

/// A frame to be sent.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What it leaves to the hardware.
    pub offload: Option<Offload>,
}

/// What a step's rendering depends on.
#[derive(Debug, Clone, Copy)]
pub struct Scene<'a> {
    /// The story's addresses.
    pub cast: Cast,
    /// The conversation.
    pub line: &'a Line,
    /// The step.
    pub step: &'a Step,
    /// Its place in the story.
    pub number: usize,
    /// The segment, for TCP.
    pub segment: Option<&'a Segment>,
    /// What the ends have seen of each other.
    pub view: &'a View,
    /// The last packet that the sender got in this conversation.
    pub last: Option<&'a [u8]>,
    /// The sender's own MAC.
    pub own: Mac,
    /// Its gateway's.
    pub gateway: Mac,
}

/// What every packet of a step carries in its IPv4 identification or IPv6 flow label, and its fragments in their
/// identification: the round of the story's address, the step and the copy.
///
/// The round is there because a datagram of which a fragment is missing is waited for for half a minute: one of
/// a later story, of the same address and the same identification, would be put together with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// As [`Cast::round`] has it.
    pub round: u8,
    /// The step's place in its story.
    pub step: usize,
    copy: u8,
}

/// Bits of a stamp for the copy.
const COPY_BITS: u32 = 2;
/// The same for the step.
const STEP_BITS: u32 = u16::BITS - u8::BITS - COPY_BITS;

/// The most steps of a story that stamps can tell apart.
pub const MAX_STEPS: usize = (1 << STEP_BITS) - 1;

impl Stamp {
    /// As a header's field: none is zero.
    fn to_field(self) -> u16 {
        let step = (self.step % MAX_STEPS) as u16 + 1;
        u16::from(self.round) << u8::BITS | step << COPY_BITS | u16::from(self.copy)
    }

    /// From a header's field, which may be somebody else's.
    pub fn from_field(field: u16) -> Option<Self> {
        let [round, rest] = field.to_be_bytes();
        Some(Self {
            round,
            step: usize::from(rest >> COPY_BITS).checked_sub(1)?,
            copy: rest & ((1 << COPY_BITS) - 1),
        })
    }
}

/// What every payload begins with, as far as it is long enough: a mark, the story's number, the step's.
pub const PAYLOAD_LEN: u16 = 8;

const MARK: [u8; 2] = *b"pw";

/// A payload.
fn payload(scene: &Scene<'_>, length: u16) -> Vec<u8> {
    let mut bytes = MARK.to_vec();
    bytes.extend(scene.cast.number.to_be_bytes());
    bytes.extend((scene.number as u16).to_be_bytes());
    bytes.extend((0..length).map(|number| number.wrapping_mul(31) as u8));
    bytes.truncate(length.into());
    bytes
}

/// The story that a payload belongs to.
pub fn story_of(payload: &[u8]) -> Option<u32> {
    let rest = payload.strip_prefix(&MARK)?;
    Some(u32::from_be_bytes(rest.get(..4)?.try_into().ok()?))
}

impl Scene<'_> {
    /// The frames that the step sends; none if it is an error about nothing.
    pub fn frames(&self) -> Vec<Frame> {
        let copies = 0..self.step.copies();
        copies.flat_map(|copy| self.copy(copy)).collect()
    }

    fn copy(&self, copy: u8) -> Vec<Frame> {
        let mut ends = self.cast.ends(self.line, self.step.from, self.view);
        let Some((protocol, mut body)) = self.body(&mut ends) else {
            return Vec::new();
        };
        let stamp = Stamp {
            round: self.cast.round(),
            step: self.number,
            copy,
        };
        let mut fields = IpFields {
            protocol,
            ttl: 64,
            tos: 0,
            stamp: stamp.to_field(),
            dont_fragment: false,
            options: false,
        };
        for twist in &self.step.twists {
            match twist {
                Twist::Ttl(ttl) => fields.ttl = *ttl,
                Twist::Tos(tos) => fields.tos = *tos,
                Twist::Options => fields.options = true,
                Twist::DontFragment => fields.dont_fragment = true,
                _ => {}
            }
        }
        let offload = self.offload(&ends, &fields, &mut body);
        let packets = self.packets(&ends, &fields, &body);
        let frames = packets.into_iter().map(|packet| Frame {
            bytes: self.frame(&packet),
            offload,
        });
        frames.collect()
    }

    /// The protocol and the transport header with its payload. An error goes to where the quoted packet
    /// came from.
    fn body(&self, ends: &mut Ends) -> Option<(u8, Vec<u8>)> {
        if let Act::Error(error) = self.step.act {
            let body = self.error(error, ends)?;
            let is_v4 = ends.source.is_ipv4();
            return Some((if is_v4 { wire::ICMP } else { wire::ICMPV6 }, body));
        }
        if let Some(segment) = self.segment {
            let payload = payload(self, segment.payload);
            return Some((wire::TCP, wire::tcp(ends, &segment.fields, &payload)));
        }
        let Act::Datagram(length) = self.step.act else {
            return None;
        };
        let mut has_checksum = true;
        let mut error = 0;
        for twist in &self.step.twists {
            match twist {
                Twist::NoChecksum => has_checksum = false,
                Twist::UdpLength(difference) => error = *difference,
                _ => {}
            }
        }
        let payload = payload(self, length);
        Some((wire::UDP, wire::udp(ends, &payload, has_checksum, error)))
    }

    fn error(&self, error: Error, ends: &mut Ends) -> Option<Vec<u8>> {
        let last = packet::read(self.last?)?;
        let Error {
            kind,
            quoted,
            fault,
        } = error;
        ends.destination = SocketAddr::new(last.source, 0);
        let end = last.header_len + usize::from(quoted).max(8);
        let mut quote = self.last?[..end.min(self.last?.len())].to_vec();
        match fault {
            Some(Fault::OtherPort) => {
                let port = last.header_len + if self.step.from == End::Client { 0 } else { 2 };
                *quote.get_mut(port)? ^= 0x15;
            }
            Some(Fault::OtherAddress) if self.step.from == End::Client => {
                let other = address::host(Host::Secondary, 0, self.cast.version);
                ends.destination = (other, 0).into();
            }
            Some(Fault::FromRouter) if self.step.from == End::Client => {
                ends.source = (address::router(self.cast.version), 0).into();
            }
            _ => {}
        }
        let (kind, code, rest) = message(kind, ends.source.ip());
        let mut body = wire::icmp(ends, kind, code, rest, &quote);
        if fault == Some(Fault::Checksum) {
            body[2] ^= 0x55;
        }
        Some(body)
    }

    /// What is left to the hardware, and the pseudo-header's sum in the checksum's place.
    fn offload(&self, ends: &Ends, fields: &IpFields, body: &mut [u8]) -> Option<Offload> {
        let segment = self.step.twists.iter().find_map(|twist| match twist {
            Twist::Unfinished => Some(0),
            Twist::Segments(size) => Some(*size),
            _ => None,
        })?;
        let checksum = match self.line.protocol {
            Protocol::Tcp => 16,
            Protocol::Udp => 6,
        };
        let sum = wire::pseudo_header(
            ends.source.ip(),
            ends.destination.ip(),
            fields.protocol,
            body.len(),
        );
        let sum = wire::add(sum, &[]) as u16;
        body.get_mut(checksum..checksum + 2)?
            .copy_from_slice(&sum.to_be_bytes());
        let tags = 4 * self.tags().len();
        let network = wire::ip(ends, fields, &[]).len();
        let transport = match self.line.protocol {
            Protocol::Tcp => usize::from(body[12] >> 4) * 4,
            Protocol::Udp => 8,
        };
        let start = wire::ETHERNET_LEN + tags + network;
        Some(Offload {
            start: start as u16,
            checksum: checksum as u16,
            segment,
            headers: (start + transport) as u16,
            is_v6: ends.source.is_ipv6(),
        })
    }

    fn packets(&self, ends: &Ends, fields: &IpFields, body: &[u8]) -> Vec<Vec<u8>> {
        let pieces = self.step.twists.iter().find_map(|twist| match twist {
            Twist::Fragments(cuts, order) => Some((cuts, *order)),
            _ => None,
        });
        let Some((cuts, order)) = pieces else {
            return vec![wire::ip(ends, fields, body)];
        };
        let cuts: Vec<_> = cuts.iter().map(|cut| usize::from(*cut)).collect();
        let mut packets = wire::fragments(ends, fields, body, &cuts);
        match order {
            Order::Forward => {}
            Order::Backward => packets.reverse(),
            Order::WithoutFirst => drop(packets.remove(0)),
            Order::WithoutLast => drop(packets.pop()),
        }
        packets
    }

    fn frame(&self, packet: &[u8]) -> Vec<u8> {
        let mut destination = self.gateway;
        let mut padding = 0;
        for twist in &self.step.twists {
            match twist {
                // Locally administered, and nobody's.
                Twist::OtherMac => destination = [2, 0x70, 0x77, 0, 0, 1],
                Twist::BroadcastMac => destination = [0xff; 6],
                Twist::MulticastMac => destination = [1, 0, 0x5e, 0, 0, 1],
                Twist::Padding(bytes) => padding = usize::from(*bytes),
                _ => {}
            }
        }
        let mut bytes = wire::ethernet(destination, self.own, self.tags(), packet);
        bytes.extend(vec![0; padding]);
        bytes
    }

    fn tags(&self) -> &[u16] {
        let tags = self.step.twists.iter().find_map(|twist| match twist {
            Twist::Tags(tags) => Some(tags.as_slice()),
            _ => None,
        });
        tags.unwrap_or_default()
    }
}

/// An ICMP error's type, code and the rest of its header.
fn message(kind: ErrorKind, sender: IpAddr) -> (u8, u8, [u8; 4]) {
    let mtu = |mtu: u16| u32::from(mtu).to_be_bytes();
    if sender.is_ipv4() {
        match kind {
            ErrorKind::PortUnreachable => (3, 3, [0; 4]),
            ErrorKind::HostUnreachable => (3, 1, [0; 4]),
            ErrorKind::TooBig(largest) => (3, 4, mtu(largest)),
            ErrorKind::TimeExceeded => (11, 0, [0; 4]),
            ErrorKind::ParameterProblem => (12, 0, [8, 0, 0, 0]),
        }
    } else {
        match kind {
            ErrorKind::PortUnreachable => (1, 4, [0; 4]),
            ErrorKind::HostUnreachable => (1, 3, [0; 4]),
            ErrorKind::TooBig(largest) => (2, 0, mtu(largest)),
            ErrorKind::TimeExceeded => (3, 0, [0; 4]),
            ErrorKind::ParameterProblem => (4, 0, [0, 0, 0, 6]),
        }
    }
}
