//! A TCP connection as both ends see it: which segment may come next, and with which numbers.
//!
//! Conntrack drops segments outside of the window and out of turn; portway, like the kernel's own flow
//! table, keeps no window. So the scripts keep to what honest ends send, and add a client's resets that are not
//! where the connection is, of which both take note.

use super::{
    step::{Act, Step, Twist},
    story::Line,
    wire::TcpFields,
};

/// No more data.
pub const FIN: u8 = 0x01;
/// Synchronise.
pub const SYN: u8 = 0x02;
/// Reset.
pub const RST: u8 = 0x04;
/// The acknowledgement counts.
pub const ACK: u8 = 0x10;

/// A SYN's usual option: the largest segment, 1460 bytes.
const LARGEST_SEGMENT: [u8; 4] = [2, 4, 0x05, 0xb4];

/// The longest segment that is repeated: longer ones are left to be segmented by the hardware.
const LONGEST_REPEATED: u16 = 1000;

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
enum Phase {
    /// Nothing has been sent.
    #[default]
    Fresh,
    /// The opener has sent its SYN.
    SynSent,
    /// It has been answered.
    SynReceived,
    /// And acknowledged.
    Established,
    /// Reset.
    Reset,
}

/// One end's half.
#[derive(Debug, Clone, Copy, Default)]
struct Half {
    /// The SYN's sequence number.
    start: u32,
    /// The next sequence number.
    next: u32,
    /// The last segment with data, SYN or FIN: sequence number, control bits, length.
    last: Option<(u32, u8, u16)>,
    /// Whether it has sent FIN.
    is_finished: bool,
    /// How far it has acknowledged its peer's.
    acknowledged: u32,
}

/// A connection.
#[derive(Debug, Clone, Copy, Default)]
pub struct Connection {
    phase: Phase,
    opener: Half,
    other: Half,
    /// How many connections this tuple has had.
    incarnation: u32,
}

/// A segment that may be sent.
#[derive(Debug, Clone)]
pub struct Segment {
    /// Its header.
    pub fields: TcpFields,
    /// Bytes of payload.
    pub payload: u16,
}

impl Connection {
    /// The segment that `step` sends, if it may come now.
    pub fn play(&mut self, line: &Line, step: &Step) -> Option<Segment> {
        let mut connection = *self;
        let segment = connection.send(step, step.from == line.opener)?;
        if step.counts() {
            *self = connection;
        }
        Some(segment)
    }

    fn send(&mut self, step: &Step, is_opener: bool) -> Option<Segment> {
        let may_open = self.phase == Phase::Fresh || self.is_over() && step.counts();
        if step.act == Act::Syn && is_opener && may_open {
            self.open();
        }
        let (own, peer) = self.halves(is_opener);
        let (own, peer) = (*own, *peer);
        let (flags, payload) = self.control(step.act, is_opener)?;
        let sequence = match own.last {
            Some((sequence, ..)) if step.act == Act::Repeat => sequence,
            _ if flags & SYN != 0 => own.start,
            _ => match step.act {
                Act::Forged(ahead) => peer.acknowledged.wrapping_add_signed(ahead.into()),
                _ => own.next,
            },
        };
        let acknowledgement = if flags & ACK == 0 { 0 } else { peer.next };
        if !matches!(
            step.act,
            Act::Forged(_) | Act::Odd(_) | Act::Stray(_) | Act::Repeat
        ) {
            self.advance(is_opener, sequence, flags, payload);
        }
        let mut fields = TcpFields {
            sequence,
            acknowledgement,
            flags,
            options: Vec::new(),
            data_offset: None,
        };
        if matches!(step.act, Act::Syn | Act::SynAck) {
            fields.options.extend(LARGEST_SEGMENT);
        }
        for twist in &step.twists {
            match twist {
                Twist::Flags(flags) => fields.flags |= flags,
                // No-operations.
                Twist::TcpOptions(words) => {
                    fields.options.extend(vec![1; usize::from(*words) * 4]);
                }
                Twist::DataOffset(words) => fields.data_offset = Some(*words),
                _ => {}
            }
        }
        Some(Segment { fields, payload })
    }

    /// The control bits and the length of what an end sends, if it may.
    fn control(&self, act: Act, is_opener: bool) -> Option<(u8, u16)> {
        let own = match is_opener {
            true => &self.opener,
            false => &self.other,
        };
        let is_answered = match is_opener {
            true => self.phase == Phase::SynReceived || self.phase == Phase::Established,
            false => self.phase == Phase::Established,
        };
        Some(match act {
            Act::Syn if is_opener && self.phase == Phase::SynSent => (SYN, 0),
            Act::SynAck
                if !is_opener && matches!(self.phase, Phase::SynSent | Phase::SynReceived) =>
            {
                (SYN | ACK, 0)
            }
            Act::Refuse if !is_opener && self.phase == Phase::SynSent => (RST | ACK, 0),
            Act::Ack if is_answered => (ACK, 0),
            Act::Data(length) if is_answered && !own.is_finished => (ACK, length),
            Act::Fin if is_answered && !own.is_finished => (FIN | ACK, 0),
            Act::Rst if is_answered => (RST | ACK, 0),
            Act::Forged(_) if self.is_open() => (RST, 0),
            Act::Repeat if is_answered || self.phase == Phase::SynReceived => {
                let (_, flags, length) = own.last?;
                // A SYN into an open connection is another matter.
                let is_opening = self.phase == Phase::SynReceived;
                let is_sensible = flags & SYN == 0 || is_opening;
                (is_sensible && length <= LONGEST_REPEATED).then_some((flags, length))?
            }
            Act::Odd(flags) if self.phase > Phase::Fresh => (flags, 0),
            Act::Stray(flags) if self.phase == Phase::Fresh => (flags, 0),
            _ => return None,
        })
    }

    fn halves(&mut self, is_opener: bool) -> (&mut Half, &mut Half) {
        match is_opener {
            true => (&mut self.opener, &mut self.other),
            false => (&mut self.other, &mut self.opener),
        }
    }

    /// Whether both ends may send.
    fn is_open(&self) -> bool {
        let is_finished = self.opener.is_finished || self.other.is_finished;
        self.phase == Phase::Established && !is_finished
    }

    /// Whether both ends are done.
    fn is_over(&self) -> bool {
        let Self { opener, other, .. } = self;
        let is_acknowledged =
            opener.acknowledged == other.next && other.acknowledged == opener.next;
        self.phase == Phase::Reset || opener.is_finished && other.is_finished && is_acknowledged
    }

    /// A new connection, whose numbers are beyond the last one's.
    fn open(&mut self) {
        let start = (self.incarnation + 1).wrapping_mul(0x2000_0000);
        let half = |start| Half {
            start,
            next: start,
            ..Half::default()
        };
        *self = Self {
            phase: Phase::SynSent,
            opener: half(start),
            other: half(start.wrapping_add(0x0800_0000)),
            incarnation: self.incarnation + 1,
        };
    }

    fn advance(&mut self, is_opener: bool, sequence: u32, flags: u8, payload: u16) {
        let (own, peer) = self.halves(is_opener);
        let length = u32::from(payload) + u32::from(flags & (SYN | FIN) != 0);
        if length > 0 {
            own.next = sequence.wrapping_add(length);
            own.last = Some((sequence, flags, payload));
        }
        own.is_finished |= flags & FIN != 0;
        if flags & ACK != 0 {
            own.acknowledged = peer.next;
        }
        self.phase = match self.phase {
            _ if flags & RST != 0 => Phase::Reset,
            Phase::SynSent if !is_opener => Phase::SynReceived,
            Phase::SynReceived if is_opener && flags & SYN == 0 => Phase::Established,
            phase => phase,
        };
    }
}
