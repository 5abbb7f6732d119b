//! A story: one client's conversations, step by step. Everything a random script says is in here; what it
//! looks like on the wire follows from it and from the number under which it is played.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    address,
    class::Class,
    party::{self, End},
    tcp::Connection,
};

/// Bytes of IP and TCP headers with all the options that are played.
const LONGEST_HEADERS: u16 = 60;

/// A client, whom it talks to, and what is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Story {
    /// Where the client is.
    pub client: Client,
    /// The conversations.
    pub lines: Vec<Line>,
    /// What is sent, in this order.
    pub steps: Vec<Step>,
}

/// A client's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Client {
    /// Behind the host's gateway.
    Routed,
    /// In the external interface's own network.
    OnLink,
    /// One that no client can have, or that is somebody else's: what it sends still comes from outside.
    Impostor(Impostor),
}

/// An address that a client should not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Impostor {
    /// The host's own.
    Host,
    /// The host's on its bridge.
    Gateway,
    /// The container's that serves the port.
    Container,
    /// Another in the containers' network.
    Neighbour,
    /// Loopback.
    Loopback,
    /// 0.0.0.0 or ::.
    Unspecified,
    /// "This network", 0.1.2.3.
    ThisNetwork,
    /// A multicast group.
    Multicast,
    /// A broadcast address.
    Broadcast,
    /// The reserved 240.0.0.1.
    Reserved,
}

/// What the client calls its peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Host {
    /// The host's first address.
    Primary,
    /// A secondary address.
    Secondary,
    /// One on its loopback interface.
    OnLoopback,
    /// Its address on the default bridge.
    Gateway,
    /// 127.0.0.1.
    Loopback,
    /// The external network's broadcast address.
    Broadcast,
    /// A multicast group.
    Multicast,
    /// Somewhere behind the host.
    Transit,
    /// The container itself, past the host's ports.
    Container,
}

/// TCP or UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// What they speak.
    pub protocol: Protocol,
    /// Who begins.
    pub opener: End,
    /// The client's port. On-link clients share addresses and use its lowest bits only.
    pub client_port: u16,
    /// Whom the client talks to. A container that begins is masqueraded as the host's first address.
    pub host: Host,
    /// On which port.
    pub host_port: u16,
    /// The container that answers or begins.
    pub container: usize,
    /// Its port.
    pub port: u16,
}

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

impl Story {
    /// Whether two honest ends could have made this traffic, as far as conntrack keeps count of it and
    /// portway does not: the order of TCP's segments.
    pub fn is_plausible(&self) -> bool {
        let mut connections = vec![Connection::default(); self.lines.len()];
        let mut lines = self.lines.iter().enumerate();
        let is_twice = lines
            .any(|(number, line)| self.lines[..number].iter().any(|other| other.is_same(line)));
        !is_twice
            && self.steps.iter().all(|step| {
                let line = &self.lines[step.line];
                line.protocol == Protocol::Udp || connections[step.line].play(line, step).is_some()
            })
    }

    /// The classes of traffic that it needs.
    pub fn classes(&self) -> Vec<Class> {
        let mut classes: Vec<_> = self.steps.iter().flat_map(Step::classes).collect();
        if matches!(self.client, Client::Impostor(_)) {
            classes.push(Class::Impostors);
        }
        if self.crosses() {
            classes.push(Class::Crossed);
        }
        let alike = self.steps.iter().filter(|step| {
            let line = &self.lines[step.line];
            let others = self.lines.iter().filter(|other| other.looks_like(line));
            others.count() > 1
        });
        for step in alike {
            if step.act == Act::Refuse {
                classes.push(Class::RefusedAlike);
            }
            if step.is_for_kernel(&self.lines[step.line]) {
                classes.push(Class::Split);
            }
        }
        classes
    }

    /// Whether a container sends on ports on which its client has not reached it, or two ends both begin a
    /// conversation on the same ports.
    fn crosses(&self) -> bool {
        let is_early = self.steps.iter().enumerate().any(|(number, step)| {
            let is_own = |before: &&Step| before.line == step.line && before.from != step.from;
            let line = &self.lines[step.line];
            let mut before = self.steps[..number].iter().filter(is_own);
            step.from != line.opener && !before.any(|before| before.arrives(line))
        });
        let is_crossed =
            |one: &Line, other: &Line| one.opener != other.opener && one.looks_like(other);
        is_early
            || self
                .lines
                .iter()
                .any(|one| self.lines.iter().any(|other| is_crossed(one, other)))
    }
}

impl Line {
    /// Whether the client sends on the same tuple.
    pub fn is_same(&self, other: &Self) -> bool {
        self.protocol == other.protocol
            && self.client_port == other.client_port
            && (self.host, self.host_port) == (other.host, other.host_port)
    }

    /// Whether the container sends on the same tuple.
    fn looks_like(&self, other: &Self) -> bool {
        self.protocol == other.protocol
            && self.client_port == other.client_port
            && (self.container, self.port) == (other.container, other.port)
    }
}

impl Step {
    /// Whether portway leaves it to the kernel, though it belongs to a conversation.
    fn is_for_kernel(&self, line: &Line) -> bool {
        let is_twisted = self.twists.iter().any(|twist| {
            matches!(
                twist,
                Twist::Ttl(_) | Twist::Options | Twist::Tags(_) | Twist::Segments(_)
            )
        });
        let is_long = match self.act {
            Act::Data(length) | Act::Datagram(length) => {
                length + LONGEST_HEADERS > party::ALL[line.container].mtu
            }
            _ => false,
        };
        // The host's answer makes the rest of the conversation the host's.
        let is_stray = matches!(self.act, Act::Stray(_));
        is_twisted || is_stray || is_long || matches!(line.host, Host::Loopback | Host::Container)
    }

    /// The classes of traffic that it needs.
    pub fn classes(&self) -> impl Iterator<Item = Class> {
        let from = self.from;
        let twists = self.twists.iter();
        let act = matches!(self.act, Act::Error(_)).then_some(Class::IcmpErrors);
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

    /// Whether it surely reaches the other end, if that is published.
    pub fn arrives(&self, line: &Line) -> bool {
        let is_odd = |twist: &Twist| {
            matches!(
                twist,
                Twist::Ttl(_) | Twist::UdpLength(_) | Twist::DontFragment
            )
        };
        let is_valid = !matches!(self.act, Act::Odd(_) | Act::Stray(_) | Act::Error(_));
        let is_served = line.host == Host::Container
            || party::serves(address::host(line), line.host_port).is_some();
        let is_reachable = !matches!(line.host, Host::Loopback) && is_served;
        self.counts() && is_valid && is_reachable && !self.twists.iter().any(is_odd)
    }

    /// Whether it gets as far as to count for its connection.
    pub fn counts(&self) -> bool {
        !self.twists.iter().any(|twist| {
            matches!(
                twist,
                Twist::Ttl(0 | 1)
                    | Twist::OtherMac
                    | Twist::BroadcastMac
                    | Twist::MulticastMac
                    | Twist::Tags(_)
                    | Twist::DataOffset(_)
                    | Twist::Fragments(_, Order::WithoutFirst | Order::WithoutLast)
            )
        })
    }
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?} client", self.client)?;
        for (number, line) in self.lines.iter().enumerate() {
            writeln!(f, "line {number}: {line}")?;
        }
        for (number, step) in self.steps.iter().enumerate() {
            writeln!(f, "step {number}: line {}: {step}", step.line)?;
        }
        Ok(())
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            protocol,
            client_port,
            host,
            host_port,
            port,
            ..
        } = self;
        let container = party::ALL[self.container].name;
        match self.opener {
            End::Client => write!(
                f,
                "{protocol:?} client:{client_port} -> {host:?}:{host_port}, answered by {container}:{port}"
            ),
            End::Container => write!(f, "{protocol:?} {container}:{port} -> client:{client_port}"),
        }
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
