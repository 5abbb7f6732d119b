//! Flows: one client address and port talking to one published port.

use core::hint::black_box;

use bytemuck::Pod;

use crate::{
    headers::{Be16, IpProtocol, TcpFlags},
    published::Traffic,
    sequence::{Fit, Progress, Segment},
    settings::Settings,
    state::{Direction, Move, State, Timeouts},
    tables::Route,
};

/// Seconds after which a flow's route is looked up again, without being told of a change.
pub const ROUTE_LIFETIME: u32 = 5;

/// The reply's tuple, so that the reply finds its flow with one lookup.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, bytemuck::Zeroable)]
#[repr(C)]
pub struct FlowKey<A> {
    /// The container's address.
    pub container: A,
    /// The client's address.
    pub client: A,
    /// The container's port.
    pub container_port: Be16,
    /// The client's port as the container sees it: another than the client's own where two flows would
    /// else have the same key.
    pub client_port: Be16,
    /// TCP or UDP.
    pub protocol: IpProtocol,
    /// Zero, as the next: map keys are compared byte by byte. Two fields, because a compiler fills three
    /// bytes by calling `memset`.
    pub padding8: u8,
    /// Zero.
    pub padding16: u16,
}

impl<A: Pod> FlowKey<A> {
    /// Whether both are the same: as `==`, with one branch.
    #[inline(always)]
    pub fn is(&self, other: &Self) -> bool {
        let addresses =
            differ(&self.container, &other.container) | differ(&self.client, &other.client);
        let ports = (self.container_port.raw() ^ other.container_port.raw())
            | (self.client_port.raw() ^ other.client_port.raw());
        addresses | u32::from(ports) | u32::from(self.protocol.0 ^ other.protocol.0) == 0
    }
}

/// The bits in which two addresses differ, all words together.
#[inline(always)]
fn differ<A: Pod>(one: &A, other: &A) -> u32 {
    let words = address_words(one).iter().zip(address_words(other));
    words.enumerate().fold(0, |bits, (index, (one, other))| {
        // Keeps a compiler from loading all words first, for which eBPF has no registers.
        let bits = if index > 0 { black_box(bits) } else { bits };
        bits | (one ^ other)
    })
}

/// An address in words of 32 bits.
#[inline(always)]
pub fn address_words<A: Pod>(address: &A) -> &[u32] {
    bytemuck::cast_slice(core::slice::from_ref(address))
}

/// A conversation as it looks from outside: the client's side and the host's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(C)]
pub struct OuterTuple<A> {
    /// The client's address.
    pub client: A,
    /// The host's address.
    pub host: A,
    /// The client's port.
    pub client_port: Be16,
    /// The host's port.
    pub host_port: Be16,
    /// TCP or UDP.
    pub protocol: IpProtocol,
    /// Zero, as the next.
    pub padding8: u8,
    /// Zero.
    pub padding16: u16,
}

/// Milliseconds after which the kernel has surely taken over a flow that was handed to it: a packet of the
/// client that went up the stack has been confirmed by conntrack on its way out.
pub const HAND_OVER: u32 = 100;

/// Milliseconds for which a look at what the kernel lets through holds: then a packet takes the slow path
/// again, and the firewall has its say on it.
pub const LEASE: u32 = 3_000;

/// Milliseconds from one moment of the monotonic clock to a later one. The programs' clock is coarse and may
/// lag behind the controller's, so a moment may seem to be still to come.
#[inline(always)]
fn millis_between(then: u32, now: u32) -> u32 {
    const LAG: u32 = 1_000;
    let age = now.wrapping_sub(then);
    if age > u32::MAX - LAG { 0 } else { age }
}

/// Everything a flow needs to be translated both ways without asking another table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, bytemuck::Zeroable)]
#[repr(C)]
pub struct Flow<A> {
    /// The host address the client talks to.
    pub host_address: A,
    /// The backend's number.
    pub backend: u32,
    /// The backend's generation; the flow ends when the backend's differs.
    pub generation: u32,
    /// The interface by which the client came and replies leave.
    pub external_ifindex: u32,
    /// [`Settings::epoch`](crate::settings::Settings::epoch) at the last look at routing.
    pub epoch: u32,
    /// When routing was last asked, in seconds of the monotonic clock, as the two below.
    pub routed_at: u32,
    /// When the flow began.
    pub created: u32,
    /// When its last packet came.
    pub last_seen: u32,
    /// The host port the client talks to.
    pub host_port: Be16,
    /// The client's own port.
    pub client_port: Be16,
    /// MTU of the route to the client, in bytes.
    pub external_mtu: u16,
    /// A [`State`] as its number.
    pub state: u8,
    /// [`KEPT`](Self::KEPT) and [`BEGUN_HERE`](Self::BEGUN_HERE), or neither.
    pub marks: u8,
    /// Where its connection is, if it is one of TCP.
    pub progress: Progress,
    /// When a packet of the client was first left to the kernel because admission is not `direct` any more,
    /// in milliseconds of the monotonic clock, as the two below; zero for never. Conntrack knows the flow
    /// soon after.
    pub handed_over_at: u32,
    /// When the kernel was last seen to let a packet of the client through; zero for never.
    pub admitted_in_at: u32,
    /// When the kernel was last seen to let a reply through; zero for never.
    pub admitted_out_at: u32,
    /// The next hop of replies: the client itself, or a gateway.
    pub next_hop: A,
    /// What went through it. Written without atomics: exact as long as each direction stays on one CPU,
    /// which is where a NIC's flow hashing puts it.
    pub traffic: Traffic,
}

impl<A> Flow<A> {
    /// In [`marks`](Self::marks): it is among the flows whose both ends have proved to be there.
    pub const KEPT: u8 = 1;

    /// In [`marks`](Self::marks): it goes, or did when it was last admitted, without the kernel's knowledge.
    pub const BEGUN_HERE: u8 = 2;

    /// Whether it is among the flows whose both ends have proved to be there.
    #[inline(always)]
    pub fn is_kept(&self) -> bool {
        self.marks & Self::KEPT != 0
    }

    /// Whether it goes, or did when it was last admitted, without the kernel's knowledge.
    #[inline(always)]
    pub fn is_begun_here(&self) -> bool {
        self.marks & Self::BEGUN_HERE != 0
    }

    /// How far it has come.
    #[inline(always)]
    pub fn state(&self) -> State {
        State::from_number(self.state)
    }

    /// Whether it has been silent for longer than its state allows. `now` in seconds.
    #[inline(always)]
    pub fn is_expired(&self, timeouts: &Timeouts, now: u32) -> bool {
        // Signed: another CPU may have stamped the next second meanwhile.
        now.wrapping_sub(self.last_seen) as i32 > timeouts.of(self.state()) as i32
    }

    /// Whether no packet can join it any more: its backend is of another `generation`, or it is expired.
    #[inline(always)]
    pub fn is_over(&self, generation: u32, timeouts: &Timeouts, now: u32) -> bool {
        self.generation != generation || self.is_expired(timeouts, now)
    }

    /// Whether routing has to be asked again.
    #[inline(always)]
    pub fn is_route_stale(&self, settings: &Settings, now: u32) -> bool {
        self.epoch != settings.epoch || now.wrapping_sub(self.routed_at) > ROUTE_LIFETIME
    }

    /// Whether the kernel let a packet of its kind through, when last asked, and was asked lately and by the
    /// rules in force. `asked_at` is one of `admitted_in_at` and `admitted_out_at`, `now` in milliseconds.
    #[inline(always)]
    pub fn is_leased(asked_at: u32, settings: &Settings, now: u32) -> bool {
        let age = millis_between(asked_at, now);
        asked_at != 0 && age < LEASE && age < millis_between(settings.rules_since, now)
    }

    /// Whether conntrack knows it by now, where admission is not `direct`: a flow that was begun without
    /// the kernel's knowledge goes on for a moment, until a packet of the client has gone up the stack and
    /// been confirmed there. Before that, nobody but us can translate its replies: the kernel would take
    /// them for a flow of the container's own. `now` in milliseconds.
    #[inline(always)]
    pub fn is_known_to_kernel(&self, settings: &Settings, now: u32) -> bool {
        !self.is_begun_here()
            || self.admitted_in_at != 0
            || (self.handed_over_at != 0 && millis_between(self.handed_over_at, now) > HAND_OVER)
            || millis_between(settings.admission_since, now) > LEASE
    }

    /// Forgets what the kernel has seen of it: from now on it sees nothing.
    #[inline(always)]
    pub fn take_back(&mut self) {
        if self.handed_over_at | self.admitted_in_at != 0 || !self.is_begun_here() {
            self.handed_over_at = 0;
            self.admitted_in_at = 0;
            self.marks |= Self::BEGUN_HERE;
        }
    }

    /// Takes note of a packet: time and state. Counting is the caller's.
    #[inline(always)]
    pub fn observe(&mut self, direction: Direction, segment: Segment, now: u32) -> Observed {
        let state = self.state();
        let next = match self.after(state, direction, segment, now) {
            Move::To(next) => next,
            Move::Ignored => return Observed::Noted,
            Move::Invalid => return Observed::Invalid,
        };
        // A refusal: conntrack forgets such a flow at once, and so its ports are free.
        if state == State::SynSent && next == State::Close && direction == Direction::Reply {
            self.generation = 0;
        }
        // At most one write a second and none where nothing changes: the entry's cache line is shared.
        if self.last_seen != now {
            self.last_seen = now;
        }
        if self.state != next as u8 {
            self.state = next as u8;
        }
        if !self.is_kept() && (next.is_proven() || state.is_proven_by(direction)) {
            Observed::Proven
        } else {
            Observed::Noted
        }
    }

    /// What a packet does: as [`State::after`] has it, if it is where the connection is.
    #[inline(always)]
    fn after(&mut self, state: State, direction: Direction, segment: Segment, now: u32) -> Move {
        let flags = segment.flags;
        let is_opening = state == State::SynRecv;
        if direction == Direction::Forward
            && (is_opening || flags.any(TcpFlags::FIN | TcpFlags::RST))
        {
            match self
                .progress
                .fit(flags, segment.sequence, segment.acknowledgement, is_opening)
            {
                Fit::Exact => {}
                // Of a connection that is closing conntrack checks no reset (`tcp_can_early_drop`).
                Fit::Impossible if is_opening || state == State::Established => {
                    return Move::Invalid;
                }
                Fit::Possible | Fit::Impossible => return Move::Ignored,
            }
        }
        let next = state.after(direction, flags, now.wrapping_sub(self.created));
        if direction == Direction::Reply && flags.any(TcpFlags::SYN) {
            // The container has accepted a SYN that seemed to come amid a connection.
            if flags.any(TcpFlags::ACK) && self.progress.begin(segment) && next == Move::Ignored {
                return Move::To(State::SynRecv);
            }
        } else if direction == Direction::Reply {
            self.progress.follow(segment);
        }
        next
    }
}

/// What taking note of a packet has come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Observed {
    /// Nothing special.
    Noted,
    /// Both sides have proved that they are there, and the flow is not yet among those of which that is
    /// known.
    Proven,
    /// The packet does not belong into the flow's state, and has left no trace.
    Invalid,
}

const _: () = assert!(size_of::<OuterTuple<crate::headers::Be32>>() == 16);
impl<A: Copy> Flow<A> {
    /// Notes the way back to the client.
    #[inline(always)]
    pub fn set_route(&mut self, route: &Route<A>, settings: &Settings, now: u32) {
        self.external_ifindex = route.ifindex;
        self.next_hop = route.next_hop;
        self.external_mtu = route.mtu;
        self.epoch = settings.epoch;
        self.routed_at = now;
    }
}

const _: () = assert!(size_of::<FlowKey<crate::headers::Be32>>() == 16);
const _: () = assert!(size_of::<FlowKey<crate::headers::Ip6>>() == 40);
const _: () = assert!(size_of::<Flow<crate::headers::Be32>>() == 96);
const _: () = assert!(size_of::<Flow<crate::headers::Ip6>>() == 120);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::Be32;

    const SYN: u8 = TcpFlags::SYN;
    const SYN_ACK: u8 = TcpFlags::SYN | TcpFlags::ACK;
    const ACK: u8 = TcpFlags::ACK;
    const FIN_ACK: u8 = TcpFlags::FIN | TcpFlags::ACK;
    const RST: u8 = TcpFlags::RST;

    fn flow() -> Flow<Be32> {
        Flow {
            state: State::SynSent as u8,
            ..bytemuck::Zeroable::zeroed()
        }
    }

    /// Where client and container begin to count.
    const CLIENT: u32 = u32::MAX - 10;
    const CONTAINER: u32 = 5_000;

    /// A segment of the client, `ahead` of the beginning, that acknowledges as much of the container's.
    fn from_client(flags: u8, ahead: u32, acknowledged: u32) -> Segment {
        Segment {
            flags: TcpFlags(flags),
            sequence: CLIENT.wrapping_add(ahead),
            acknowledgement: CONTAINER.wrapping_add(acknowledged),
            payload: 0,
        }
    }

    /// The same of the container.
    fn from_container(flags: u8, ahead: u32, acknowledged: u32) -> Segment {
        Segment {
            flags: TcpFlags(flags),
            sequence: CONTAINER.wrapping_add(ahead),
            acknowledgement: CLIENT.wrapping_add(acknowledged),
            payload: 0,
        }
    }

    /// A connection that both ends have opened, one second after the other.
    fn established() -> Flow<Be32> {
        let mut flow = flow();
        flow.observe(Direction::Forward, from_client(SYN, 0, 0), 1);
        flow.observe(Direction::Reply, from_container(SYN_ACK, 0, 1), 2);
        flow.observe(Direction::Forward, from_client(ACK, 1, 1), 3);
        assert_eq!(flow.state(), State::Established);
        flow
    }

    #[test]
    fn a_packet_leaves_its_time_and_state() {
        let mut flow = flow();
        assert_eq!(
            flow.observe(Direction::Forward, from_client(SYN, 0, 0), 1),
            Observed::Noted,
            "a SYN alone proves nothing"
        );
        assert_eq!(
            flow.observe(Direction::Reply, from_container(SYN_ACK, 0, 1), 2),
            Observed::Noted,
            "nor does its answer"
        );
        let ack = from_client(ACK, 1, 1);
        assert_eq!(flow.observe(Direction::Forward, ack, 3), Observed::Proven);
        flow.marks |= Flow::<Be32>::KEPT;
        assert_eq!(flow.observe(Direction::Forward, ack, 4), Observed::Noted);
        assert_eq!((flow.state(), flow.last_seen), (State::Established, 4));
        assert_eq!(
            flow.observe(Direction::Forward, from_client(SYN_ACK, 1, 1), 5),
            Observed::Invalid
        );
        assert_eq!(flow.last_seen, 4, "no trace");
    }

    #[test]
    fn who_has_not_heard_the_container_proves_nothing() {
        let mut flow = flow();
        flow.observe(Direction::Forward, from_client(SYN, 0, 0), 1);
        flow.observe(Direction::Reply, from_container(SYN_ACK, 0, 1), 2);
        let before = flow;
        for flags in [ACK, FIN_ACK] {
            for acknowledged in [0, 2, u32::MAX] {
                let guess = from_client(flags, 1, acknowledged);
                assert_eq!(flow.observe(Direction::Forward, guess, 3), Observed::Noted);
                assert_eq!(flow, before);
            }
        }
        let ack = from_client(ACK, 1, 1);
        assert_eq!(flow.observe(Direction::Forward, ack, 3), Observed::Proven);
    }

    #[test]
    fn a_reset_or_end_that_is_elsewhere_leaves_no_trace() {
        let mut flow = established();
        let before = flow;
        for ahead in [0, 2, 1 << 30, 1 << 31] {
            for flags in [RST, RST | ACK, FIN_ACK] {
                let forged = from_client(flags, ahead, 0);
                let observed = flow.observe(Direction::Forward, forged, 9);
                let is_behind = ahead == 0 || ahead > 1 << 30;
                let expected = if flags != FIN_ACK && is_behind {
                    Observed::Invalid
                } else {
                    Observed::Noted
                };
                assert_eq!((observed, flow), (expected, before), "{forged:?}");
            }
        }
        for (genuine, state) in [
            (from_client(RST, 1, 0), State::Close),
            (from_client(RST | ACK, 1461, 1), State::Close),
            (from_client(FIN_ACK, 1, 0), State::FinWait),
            (from_client(FIN_ACK, 1461, 1), State::FinWait),
        ] {
            let mut flow = before;
            flow.observe(Direction::Forward, genuine, 9);
            assert_eq!((flow.state(), flow.last_seen), (state, 9), "{genuine:?}");
        }
    }

    #[test]
    fn a_connection_that_the_container_takes_for_a_new_one_is_one() {
        // The end of the last one has not been seen.
        for state in [State::Established, State::FinWait, State::CloseWait] {
            let mut flow = established();
            flow.state = state as u8;
            let again = from_container(SYN_ACK, 0, 1);
            flow.observe(Direction::Reply, again, 3);
            assert_eq!(flow.state(), state, "sent again, it says nothing");
            flow.observe(Direction::Forward, from_client(SYN, 70_000, 0), 4);
            assert_eq!(flow.state(), state, "a SYN alone says nothing");
            flow.observe(Direction::Reply, from_container(SYN_ACK, 90_000, 70_001), 5);
            assert_eq!(flow.state(), State::SynRecv);
            let ack = from_client(ACK, 70_001, 90_001);
            flow.observe(Direction::Forward, ack, 6);
            assert_eq!(flow.state(), State::Established);
            flow.observe(Direction::Forward, from_client(RST, 70_001, 0), 7);
            assert_eq!(flow.state(), State::Close);
        }
    }

    #[test]
    fn silence_ends_a_flow_on_conntracks_schedule() {
        let mut flow = flow();
        for (state, seconds) in [
            (State::SynSent, 120),
            (State::SynRecv, 60),
            (State::Established, 432_000),
            (State::FinWait, 120),
            (State::CloseWait, 60),
            (State::LastAck, 30),
            (State::TimeWait, 120),
            (State::Close, 10),
            (State::Unanswered, 30),
            (State::Answered, 30),
            (State::Stream, 120),
        ] {
            flow.state = state as u8;
            // Across the wrap of the clock, too.
            for last_seen in [0, 1000, u32::MAX - 5] {
                flow.last_seen = last_seen;
                let is_expired = |now: u32| flow.is_expired(&Timeouts::DEFAULT, now);
                // Stamped by another CPU after this one has read the clock.
                assert!(!is_expired(last_seen.wrapping_sub(1)));
                assert!(!is_expired(last_seen.wrapping_add(seconds)), "{state:?}");
                assert!(is_expired(last_seen.wrapping_add(seconds + 1)), "{state:?}");
            }
        }
    }
}
