//! How far a flow has come, as conntrack would see it.
//!
//! TCP's states and moves are those of nf_conntrack (net/netfilter/nf_conntrack_proto_tcp.c), UDP's those of
//! nf_conntrack_proto_udp.c. Which segments are where their connection is [`sequence`](crate::sequence) knows.

use crate::headers::{IpProtocol, TcpFlags};

/// Seconds after its beginning from which a UDP flow with answers counts as a stream
/// (`stream_ts` in nf_conntrack_proto_udp.c).
const STREAM_AGE: u32 = 2;

/// How far a flow has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum State {
    /// TCP: the client has sent SYN.
    SynSent = 0,
    /// TCP: the container has answered with SYN and ACK.
    SynRecv = 1,
    /// TCP: the client has acknowledged that.
    Established = 2,
    /// TCP: one side has sent FIN.
    FinWait = 3,
    /// TCP: the other has acknowledged that.
    CloseWait = 4,
    /// TCP: both have sent FIN.
    LastAck = 5,
    /// TCP: both are acknowledged.
    TimeWait = 6,
    /// TCP: one side has sent RST.
    Close = 7,
    /// TCP: both sides have sent SYN.
    SynSent2 = 8,
    /// UDP: only the client has been heard.
    Unanswered = 9,
    /// UDP: the container has answered.
    Answered = 10,
    /// UDP: both go on talking.
    Stream = 11,
    /// TCP: the client has been heard amid a connection that has not been heard of before, the container has not.
    /// Conntrack has it established, and forgets it sooner than others.
    PickedUp = 12,
}

/// Which way a packet of a flow goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// Client -> container.
    Forward,
    /// Container -> client.
    Reply,
}

/// What a packet does to its flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Move {
    /// The flow is in this state now.
    To(State),
    /// It belongs to the flow, which takes no note of it.
    Ignored,
    /// It does not belong into the flow's state: conntrack calls it invalid and leaves it untranslated.
    Invalid,
}

impl State {
    /// How many there are.
    pub const COUNT: usize = 13;

    /// From its number in [`Flow::state`](crate::flow::Flow::state).
    #[inline(always)]
    pub const fn from_number(number: u8) -> Self {
        match number {
            0 => Self::SynSent,
            1 => Self::SynRecv,
            2 => Self::Established,
            3 => Self::FinWait,
            4 => Self::CloseWait,
            5 => Self::LastAck,
            6 => Self::TimeWait,
            8 => Self::SynSent2,
            9 => Self::Unanswered,
            10 => Self::Answered,
            11 => Self::Stream,
            12 => Self::PickedUp,
            _ => Self::Close,
        }
    }

    /// Where a flow begins.
    #[inline(always)]
    pub const fn first(protocol: IpProtocol) -> Self {
        if protocol.0 == IpProtocol::TCP.0 {
            Self::SynSent
        } else {
            Self::Unanswered
        }
    }

    /// The word by which `portway flows` calls it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::SynSent | Self::SynSent2 | Self::SynRecv | Self::Unanswered | Self::PickedUp => {
                "opening"
            }
            Self::Established | Self::Answered | Self::Stream => "established",
            Self::FinWait | Self::CloseWait | Self::LastAck | Self::TimeWait => "closing",
            Self::Close => "closed",
        }
    }

    /// Whether both sides have proved that they are there, which the source of a flood cannot. A reset
    /// proves nothing: anyone can send one after his own SYN, or have it sent by a port where nobody listens.
    #[inline(always)]
    pub const fn is_proven(self) -> bool {
        !matches!(
            self,
            Self::SynSent
                | Self::SynSent2
                | Self::SynRecv
                | Self::Close
                | Self::Unanswered
                | Self::Answered
                | Self::PickedUp
        )
    }

    /// Whether a packet in this state proves it: one of a client that has heard an answer, as the acknowledgement
    /// that establishes a connection is.
    #[inline(always)]
    pub const fn is_proven_by(self, direction: Direction) -> bool {
        matches!((self, direction), (Self::Answered, Direction::Forward))
    }

    /// Whether a SYN of the client begins another connection (RFC 1122 4.2.2.13).
    #[inline(always)]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::TimeWait | Self::Close)
    }

    /// What a packet does. `age` is the flow's, in seconds.
    #[inline(always)]
    pub fn after(self, direction: Direction, flags: TcpFlags, age: u32) -> Move {
        match self {
            // The usual case first.
            Self::Established if !flags.any(TcpFlags::SYN | TcpFlags::FIN | TcpFlags::RST) => {
                Move::To(Self::Established)
            }
            Self::Stream => Move::To(Self::Stream),
            Self::Unanswered if direction == Direction::Forward => Move::To(Self::Unanswered),
            Self::Unanswered | Self::Answered => Move::To(if age > STREAM_AGE {
                Self::Stream
            } else {
                Self::Answered
            }),
            Self::PickedUp => {
                const TELLING: u8 = TcpFlags::SYN | TcpFlags::FIN | TcpFlags::RST;
                if direction == Direction::Forward && !flags.any(TELLING) {
                    Move::To(Self::PickedUp)
                } else {
                    Self::Established.after_segment(direction, flags)
                }
            }
            tcp => tcp.after_segment(direction, flags),
        }
    }

    #[inline(always)]
    fn after_segment(self, direction: Direction, flags: TcpFlags) -> Move {
        use Direction::{Forward, Reply};
        let is_half_open = matches!(self, Self::SynSent | Self::SynSent2);
        if flags.any(TcpFlags::RST) {
            return Move::To(Self::Close);
        }
        if flags.any(TcpFlags::SYN) {
            return match (direction, flags.any(TcpFlags::ACK)) {
                (Forward, false) if is_half_open => Move::To(self),
                (Forward, false) => Move::Ignored,
                // Both sides have opened at once.
                (Forward, true) if matches!(self, Self::SynRecv | Self::SynSent2) => {
                    Move::To(Self::SynRecv)
                }
                (Forward, true) => Move::Invalid,
                (Reply, false) if is_half_open => Move::To(Self::SynSent2),
                (Reply, false) => Move::Invalid,
                (Reply, true) if is_half_open => Move::To(Self::SynRecv),
                (Reply, true) => Move::Ignored,
            };
        }
        let is_fin = flags.any(TcpFlags::FIN);
        match (self, direction) {
            (Self::SynSent | Self::SynSent2, Reply) if !is_fin => Move::Ignored,
            (Self::SynSent | Self::SynSent2, _) => Move::Invalid,
            (Self::SynRecv | Self::Established, _) if is_fin => Move::To(Self::FinWait),
            (Self::SynRecv, Reply) => Move::To(Self::SynRecv),
            (Self::SynRecv | Self::Established, _) => Move::To(Self::Established),
            (Self::FinWait | Self::CloseWait, _) if is_fin => Move::To(Self::LastAck),
            (Self::FinWait | Self::CloseWait, _) => Move::To(Self::CloseWait),
            (Self::LastAck, _) if is_fin => Move::To(Self::LastAck),
            (Self::LastAck | Self::TimeWait, _) => Move::To(Self::TimeWait),
            // A container that goes on talking has not accepted the client's RST: it was forged, or late, and
            // nothing was known that it could be told by.
            (_, Reply) => Move::To(Self::Established),
            (_, Forward) => Move::To(self),
        }
    }
}

/// Seconds of silence after which a flow is forgotten, by [`State`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Timeouts([u32; 16]);

const _: () = assert!(State::COUNT <= 16);

impl Timeouts {
    /// nf_conntrack's defaults.
    pub const DEFAULT: Self = Self([
        120, 60, 432_000, 120, 60, 30, 120, 10, 120, 30, 30, 120, 300, 0, 0, 0,
    ]);

    /// The time-out of a state.
    #[inline(always)]
    pub fn of(&self, state: State) -> u32 {
        // The mask tells the verifier what it cannot know of an enum.
        self.0[state as usize & 15]
    }

    /// With another time-out for a state.
    #[must_use]
    pub fn with(mut self, state: State, seconds: u32) -> Self {
        self.0[state as usize] = seconds;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYN: TcpFlags = TcpFlags(TcpFlags::SYN);
    const SYN_ACK: TcpFlags = TcpFlags(TcpFlags::SYN | TcpFlags::ACK);
    const ACK: TcpFlags = TcpFlags(TcpFlags::ACK);
    const FIN: TcpFlags = TcpFlags(TcpFlags::FIN | TcpFlags::ACK);
    const RST: TcpFlags = TcpFlags(TcpFlags::RST);
    const NONE: TcpFlags = TcpFlags(0);

    use Direction::{Forward, Reply};
    use State::{
        Answered, Close, CloseWait, Established, FinWait, LastAck, Stream, SynRecv, SynSent,
        SynSent2, TimeWait, Unanswered,
    };

    fn play(first: State, packets: &[(Direction, TcpFlags, Move)]) -> State {
        let mut state = first;
        for (direction, flags, expected) in packets {
            let next = state.after(*direction, *flags, 0);
            assert_eq!(next, *expected, "{state:?} {direction:?} {flags:?}");
            if let Move::To(next) = next {
                state = next;
            }
        }
        state
    }

    #[test]
    fn a_connection_opens_stands_and_closes_from_either_side() {
        for (one, other) in [(Forward, Reply), (Reply, Forward)] {
            let end = play(
                SynSent,
                &[
                    (Forward, SYN, Move::To(SynSent)),
                    (Reply, SYN_ACK, Move::To(SynRecv)),
                    (Reply, SYN_ACK, Move::Ignored),
                    (Forward, ACK, Move::To(Established)),
                    (Reply, ACK, Move::To(Established)),
                    (one, FIN, Move::To(FinWait)),
                    (other, ACK, Move::To(CloseWait)),
                    (other, FIN, Move::To(LastAck)),
                    (one, ACK, Move::To(TimeWait)),
                    (one, ACK, Move::To(TimeWait)),
                ],
            );
            assert!(end.is_over(), "and a new SYN begins another");
        }
    }

    #[test]
    fn what_does_not_belong_into_a_state_is_told_apart() {
        play(
            SynSent,
            &[
                (Forward, ACK, Move::Invalid),
                (Forward, FIN, Move::Invalid),
                (Forward, SYN_ACK, Move::Invalid),
                (Reply, FIN, Move::Invalid),
                (Reply, ACK, Move::Ignored),
                (Reply, SYN, Move::To(SynSent2)),
                (Forward, SYN_ACK, Move::To(SynRecv)),
                (Forward, SYN, Move::Ignored),
                (Forward, ACK, Move::To(Established)),
                (Forward, SYN, Move::Ignored),
                (Forward, SYN_ACK, Move::Invalid),
                (Reply, SYN, Move::Invalid),
            ],
        );
        for closing in [FinWait, CloseWait, LastAck] {
            assert_eq!(closing.after(Forward, SYN, 0), Move::Ignored, "{closing:?}");
            assert!(!closing.is_over());
        }
    }

    #[test]
    fn a_reset_that_the_container_does_not_accept_ends_nothing() {
        play(
            Established,
            &[
                (Forward, RST, Move::To(Close)),
                // Its sender proves nothing.
                (Forward, ACK, Move::To(Close)),
                (Reply, ACK, Move::To(Established)),
                (Reply, RST, Move::To(Close)),
            ],
        );
    }

    #[test]
    fn what_is_picked_up_is_established_by_the_container() {
        play(
            State::PickedUp,
            &[
                (Forward, ACK, Move::To(State::PickedUp)),
                (Forward, SYN, Move::Ignored),
                (Reply, ACK, Move::To(Established)),
                (Forward, ACK, Move::To(Established)),
            ],
        );
        for (flags, end) in [(FIN, FinWait), (RST, Close)] {
            for direction in [Forward, Reply] {
                let next = State::PickedUp.after(direction, flags, 0);
                assert_eq!(next, Move::To(end));
            }
        }
        assert!(!State::PickedUp.is_proven());
    }

    #[test]
    fn a_udp_flow_becomes_a_stream_when_it_goes_on() {
        assert_eq!(Unanswered.after(Forward, NONE, 60), Move::To(Unanswered));
        assert_eq!(Unanswered.after(Reply, NONE, 1), Move::To(Answered));
        assert_eq!(Answered.after(Forward, NONE, 2), Move::To(Answered));
        for direction in [Forward, Reply] {
            assert_eq!(Answered.after(direction, NONE, 3), Move::To(Stream));
            assert_eq!(Stream.after(direction, NONE, 3), Move::To(Stream));
        }
    }

    #[test]
    fn numbers_and_states_are_the_same() {
        for number in 0..State::COUNT as u8 {
            assert_eq!(State::from_number(number) as u8, number);
        }
    }
}
