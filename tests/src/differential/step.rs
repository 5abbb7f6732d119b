//! A step of a story: what one party sends at one time.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{class::Class, party::End};

/// Packets that one party sends at one time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// In which conversation.
    pub line: usize,
    /// Who sends.
    pub from: End,
    /// What.
    pub act: Act,
    /// What is odd about it.
    pub twists: Vec<Twist>,
}

/// What a step sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Act {
    /// SYN.
    Syn,
    /// SYN and ACK.
    SynAck,
    /// ACK without data.
    Ack,
    /// Data, this many bytes.
    Data(u16),
    /// FIN.
    Fin,
    /// RST.
    Rst,
    /// A client's RST that is so far ahead of what the container has acknowledged, or behind it.
    Forged(i16),
    /// RST in answer to a SYN.
    Refuse,
    /// The sender's last segment with data, SYN or FIN once more.
    Repeat,
    /// A segment with these control bits, which mean nothing.
    Odd(u8),
    /// A segment with these control bits before there is a connection.
    Stray(u8),
    /// A datagram with this many bytes.
    Datagram(u16),
    /// An ICMP error about the last packet that came in.
    Error(Error),
}

/// An ICMP error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error {
    /// What it says.
    pub kind: ErrorKind,
    /// Bytes of the transport header and payload that it quotes.
    pub quoted: u16,
    /// What is wrong with it.
    pub fault: Option<Fault>,
}

/// What an ICMP error says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ErrorKind {
    /// The port is closed.
    PortUnreachable,
    /// The host cannot be reached.
    HostUnreachable,
    /// The packet is larger than this.
    TooBig(u16),
    /// Its time to live is used up.
    TimeExceeded,
    /// A header makes no sense.
    ParameterProblem,
}

/// What is wrong with an ICMP error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// Its checksum.
    Checksum,
    /// It quotes another port.
    OtherPort,
    /// It goes to another address of the host's.
    OtherAddress,
    /// A router between sends it, not the quoted packet's receiver.
    FromRouter,
}

/// What is odd about a step's packets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Twist {
    /// A time to live.
    Ttl(u8),
    /// DSCP and ECN.
    Tos(u8),
    /// IP options.
    Options,
    /// Fragmentation is forbidden.
    DontFragment,
    /// VLAN tags, outermost first.
    Tags(Vec<u16>),
    /// To another station.
    OtherMac,
    /// To all stations.
    BroadcastMac,
    /// To a group of stations.
    MulticastMac,
    /// Bytes behind the packet, as Ethernet pads short ones.
    Padding(u8),
    /// UDP without a checksum.
    NoChecksum,
    /// A wrong UDP length.
    UdpLength(i16),
    /// A wrong length of the TCP header, in words.
    DataOffset(u8),
    /// Control bits on top: PSH, URG, ECE, CWR.
    Flags(u8),
    /// Words of TCP options.
    TcpOptions(u8),
    /// The checksum is left to the hardware.
    Unfinished,
    /// A packet to be cut into segments of this many bytes of payload.
    Segments(u16),
    /// In fragments, cut after these bytes; sent in this order.
    Fragments(Vec<u16>, Order),
    /// So many times.
    Copies(u8),
}

/// In which order fragments are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// The first one first.
    Forward,
    /// The last one first.
    Backward,
    /// The first one is missing.
    WithoutFirst,
    /// The last one is missing.
    WithoutLast,
}

impl Step {
    /// The classes of traffic that it needs.
    pub fn classes(&self) -> impl Iterator<Item = Class> {
        let from = self.from;
        let twists = self.twists.iter();
        let act = match self.act {
            Act::Error(Error {
                fault: Some(Fault::Checksum),
                ..
            }) => Some(Class::Checksums),
            Act::Error(_) => Some(Class::IcmpErrors),
            Act::Forged(_) => Some(Class::ForgedResets),
            _ => None,
        };
        twists
            .filter_map(move |twist| Class::of_twist(twist, from))
            .chain(act)
    }

    /// How often it is sent.
    pub fn copies(&self) -> u8 {
        let copies = self.twists.iter().find_map(|twist| match twist {
            Twist::Copies(copies) => Some(*copies),
            _ => None,
        });
        copies.unwrap_or(1)
    }

    /// Whether it gets as far as to count for its connection.
    pub fn counts(&self) -> bool {
        !self.twists.iter().any(|twist| match twist {
            // A priority tag is none to the host.
            Twist::Tags(tags) => tags.as_slice() != [0],
            twist => matches!(
                twist,
                Twist::Ttl(0 | 1)
                    | Twist::OtherMac
                    | Twist::BroadcastMac
                    | Twist::MulticastMac
                    | Twist::DataOffset(_)
                    | Twist::Fragments(_, Order::WithoutFirst | Order::WithoutLast)
            ),
        })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} sends {:?}", self.from, self.act)?;
        if !self.twists.is_empty() {
            write!(f, " {:?}", self.twists)?;
        }
        Ok(())
    }
}
