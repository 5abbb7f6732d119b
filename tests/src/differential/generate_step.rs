//! Random steps of a story.

use fastrand::Rng;

use super::{
    class::{Class, Classes},
    generate::{chance, one_of},
    party::{ALL, End},
    render::PAYLOAD_LEN,
    step::{Act, Error, ErrorKind, Fault, Order, Step, Twist},
    story::{Line, Protocol, Version},
    tcp::{ACK, FIN, RST, SYN},
};

/// The MTU outside.
const MTU: u16 = 1500;

/// Control bits that conntrack calls invalid.
const ODD: [u8; 8] = [
    0,
    SYN | FIN,
    SYN | RST,
    FIN | RST | ACK,
    FIN,
    SYN | FIN | RST | ACK | 0x28,
    0x29,
    SYN | RST | ACK,
];

/// Control bits that begin no connection, though they are valid.
const STRAY: [u8; 4] = [RST, RST | ACK, FIN | ACK, SYN | ACK];

/// How far forged resets are from where the connection is.
const FORGED: [i16; 5] = [-1460, -1, 1, 2, 100];

/// For whom a step is thought up.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    /// The IP version.
    pub version: Version,
    /// The conversation.
    pub line: &'a Line,
    /// Its number.
    pub number: usize,
    /// Who has to send, if not either can.
    pub speaker: Option<End>,
    /// Whether the client is none.
    pub is_impostor: bool,
}

/// A step of a conversation.
pub fn step(random: &mut Rng, classes: &Classes, part: Part<'_>) -> Step {
    let Part {
        line,
        number,
        speaker,
        is_impostor,
        ..
    } = part;
    let other = match line.opener {
        End::Client => End::Container,
        End::Container => End::Client,
    };
    let from = match speaker {
        Some(speaker) => speaker,
        None if chance(random, 45) => other,
        None => line.opener,
    };
    let limit = part.room(from, &[]);
    let mut act = match line.protocol {
        _ if speaker.is_none() && classes.has(Class::IcmpErrors) && chance(random, 6) => {
            Act::Error(error(random, classes))
        }
        Protocol::Udp => Act::Datagram(length(random, limit)),
        Protocol::Tcp if part.may_forge(from, classes) && chance(random, 3) => {
            Act::Forged(one_of(random, &FORGED))
        }
        Protocol::Tcp => segment(random, limit),
    };
    // An impostor's packets are known by their payload alone.
    if is_impostor {
        act = match line.protocol {
            Protocol::Udp => Act::Datagram(length(random, limit).max(PAYLOAD_LEN)),
            Protocol::Tcp => Act::Syn,
        };
    }
    let mut step = Step {
        line: number,
        from,
        act,
        twists: Vec::new(),
    };
    if !matches!(act, Act::Error(_)) {
        while step.twists.len() < 2 && chance(random, 22) {
            let twist = twist(random, &mut step.act);
            let is_played = Class::of_twist(&twist, from).is_none_or(|class| classes.has(class));
            let is_taken = step.twists.iter().any(|other| {
                std::mem::discriminant(other) == std::mem::discriminant(&twist)
                    || stands_alone(other)
                    || stands_alone(&twist)
            });
            if is_played && !is_taken {
                step.twists.push(twist);
            }
        }
        part.fit(&mut step);
    }
    step
}

fn segment(random: &mut Rng, limit: u16) -> Act {
    match random.u8(..100) {
        0..18 => Act::Syn,
        18..36 => Act::SynAck,
        36..50 => Act::Ack,
        50..82 => Act::Data(length(random, limit).max(1)),
        82..88 => Act::Fin,
        88..90 => Act::Rst,
        90..92 => Act::Refuse,
        92..94 => Act::Repeat,
        94..96 => Act::Stray(one_of(random, &STRAY)),
        _ => Act::Odd(one_of(random, &ODD)),
    }
}

fn length(random: &mut Rng, limit: u16) -> u16 {
    match random.u8(..10) {
        0 => random.u16(0..=12),
        1 => limit - random.u16(..8),
        2 => random.u16(1300..=limit.max(1300)).min(limit),
        _ => random.u16(0..600),
    }
}

fn error(random: &mut Rng, classes: &Classes) -> Error {
    let kind = match random.u8(..6) {
        0 => ErrorKind::HostUnreachable,
        1 | 2 => ErrorKind::TooBig(random.u16(576..1500)),
        3 => ErrorKind::TimeExceeded,
        4 => ErrorKind::ParameterProblem,
        _ => ErrorKind::PortUnreachable,
    };
    let faults = [
        Fault::Checksum,
        Fault::OtherPort,
        Fault::OtherAddress,
        Fault::FromRouter,
    ];
    Error {
        kind,
        quoted: one_of(random, &[8, 8, 12, 20, 28, 64, 548]),
        fault: chance(random, 40)
            .then(|| one_of(random, &faults))
            .filter(|fault| match fault {
                Fault::Checksum => classes.has(Class::Checksums),
                // The host itself believes it, and portway with its next look at the route, within seconds.
                Fault::OtherAddress => !matches!(kind, ErrorKind::TooBig(_)),
                _ => true,
            }),
    }
}

fn twist(random: &mut Rng, act: &mut Act) -> Twist {
    match random.u8(..22) {
        0 => Twist::Ttl(one_of(random, &[0, 1, 1, 2, 2, 3, 255])),
        1 => Twist::Tos(random.u8(..)),
        2 => Twist::Options,
        3 | 4 => Twist::DontFragment,
        5 => Twist::Tags(vec![0]),
        6 => Twist::Tags(match random.u8(..3) {
            0 => vec![5],
            1 => vec![5, 0],
            _ => vec![0, 5],
        }),
        7 => Twist::OtherMac,
        8 => Twist::BroadcastMac,
        9 => Twist::MulticastMac,
        10 => Twist::Padding(random.u8(1..32)),
        11 => Twist::NoChecksum,
        12 => Twist::UdpLength(one_of(random, &[-9, 1, 8, 1000])),
        13 => Twist::DataOffset(random.u8(..5)),
        14 => Twist::DataOffset(15),
        15 => Twist::Flags(one_of(random, &[0x08, 0x20, 0x40, 0x80, 0xc0, 0x28])),
        16 => Twist::TcpOptions(random.u8(1..=3)),
        17 => Twist::Unfinished,
        18 => {
            if let Act::Data(length) = act {
                *length = random.u16(1500..8000);
            }
            Twist::Segments(one_of(random, &[536, 1000, 1360, 1448]))
        }
        19 => Twist::Fragments(
            vec![one_of(random, &[8, 16, 24, 64, 512])],
            one_of(
                random,
                &[
                    Order::Forward,
                    Order::Forward,
                    Order::Backward,
                    Order::WithoutFirst,
                    Order::WithoutLast,
                ],
            ),
        ),
        20 => Twist::Fragments(
            vec![16, 80],
            one_of(random, &[Order::Forward, Order::Backward]),
        ),
        _ => Twist::Copies(random.u8(2..=3)),
    }
}

/// Whether a twist goes with no other.
fn stands_alone(twist: &Twist) -> bool {
    matches!(
        twist,
        Twist::Unfinished | Twist::Segments(_) | Twist::Fragments(..) | Twist::UdpLength(_)
    )
}

impl Part<'_> {
    /// Whether a reset may be forged: as a client's, and not where segments may be larger than the container's MTU.
    /// By those the kernel gets to know the connection, and then believes anything of it.
    fn may_forge(&self, from: End, classes: &Classes) -> bool {
        let mtu = ALL[self.line.container].network.mtu;
        from == End::Client && mtu >= MTU && classes.has(Class::ForgedResets)
    }

    /// How long a payload may be that `from` sends.
    fn room(&self, from: End, twists: &[Twist]) -> u16 {
        let mtu = match from {
            End::Client => MTU,
            End::Container => ALL[self.line.container].network.mtu,
        };
        let network = match self.version {
            Version::V4 => 20,
            Version::V6 => 40,
        };
        let transport = match self.line.protocol {
            Protocol::Tcp => 20,
            Protocol::Udp => 8,
        };
        let more = twists.iter().map(|twist| match twist {
            Twist::Options | Twist::Fragments(..) => 8,
            Twist::TcpOptions(words) => u16::from(*words) * 4,
            Twist::Tags(tags) => tags.len() as u16 * 4,
            Twist::Padding(bytes) => u16::from(*bytes),
            _ => 0,
        });
        mtu - network - transport - more.sum::<u16>()
    }

    /// Takes away twists that make no sense of this step, and what is too long to be sent.
    fn fit(&self, step: &mut Step) {
        let line = self.line;
        let is_udp = line.protocol == Protocol::Udp;
        let (act, from) = (step.act, step.from);
        step.twists.retain(|twist| match twist {
            Twist::NoChecksum | Twist::UdpLength(_) => is_udp,
            Twist::DataOffset(_) => matches!(act, Act::Ack),
            Twist::TcpOptions(_) => !is_udp,
            // A bridge floods them, and netfilter takes note of them and translates them on their way: not to be
            // copied.
            Twist::BroadcastMac | Twist::MulticastMac if from == End::Container => false,
            Twist::OtherMac if from == End::Container => {
                ALL[line.container].is_alone()
                    && matches!(act, Act::Datagram(_) | Act::Ack | Act::Data(_))
            }
            // Conntrack also sees these before the kernel drops them, and goes by the others' control bits.
            Twist::Ttl(0 | 1) | Twist::BroadcastMac | Twist::MulticastMac => {
                is_udp || matches!(act, Act::Syn | Act::Ack | Act::Data(_))
            }
            // What has no SYN, FIN or RST only, lest a valid segment becomes an odd one.
            Twist::Flags(_) => matches!(act, Act::Data(_) | Act::Ack),
            Twist::Segments(_) => matches!(act, Act::Data(_)),
            // A first piece without the whole TCP header is an attack (RFC 3128), to be answered or dropped.
            Twist::Fragments(cuts, _) => {
                let is_whole = is_udp || cuts.first().is_some_and(|cut| *cut >= 64);
                is_whole && matches!(act, Act::Data(length) | Act::Datagram(length) if length > 100)
            }
            // Conntrack would lose count.
            Twist::Copies(_) => matches!(act, Act::Datagram(_) | Act::Data(_) | Act::Ack),
            _ => true,
        });
        let is_cut = step
            .twists
            .iter()
            .any(|twist| matches!(twist, Twist::Segments(_)));
        let room = self.room(step.from, &step.twists);
        if let Act::Data(length) | Act::Datagram(length) = &mut step.act
            && !is_cut
        {
            *length = (*length).min(room);
        }
    }
}
