//! Flows: one client address and port talking to one published port.

use crate::{
    headers::{Be16, IpProtocol, TcpFlags},
    published::Traffic,
    settings::Settings,
    tables::Route,
};

/// Seconds after which a flow's route is looked up again, without being told of a change.
pub const ROUTE_LIFETIME: u32 = 5;

/// The reply's tuple, so that the reply finds its flow with one lookup.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
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

/// How far a flow has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum State {
    /// Only the client has been heard.
    Opening = 0,
    /// The container has answered.
    Established = 1,
    /// One side has sent FIN.
    Closing = 2,
    /// One side has sent RST.
    Closed = 3,
}

impl State {
    /// From its number in [`Flow::state`].
    #[inline(always)]
    pub const fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Opening,
            1 => Self::Established,
            2 => Self::Closing,
            _ => Self::Closed,
        }
    }

    /// The word by which `portway flows` calls it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Opening => "opening",
            Self::Established => "established",
            Self::Closing => "closing",
            Self::Closed => "closed",
        }
    }

    /// Seconds of silence after which a flow in this state is forgotten: nf_conntrack's defaults for the
    /// state it would be in (net/netfilter/nf_conntrack_proto_tcp.c and _udp.c).
    #[inline(always)]
    pub const fn timeout(self, protocol: IpProtocol) -> u32 {
        if protocol.0 == IpProtocol::TCP.0 {
            match self {
                Self::Opening => 120,         // SYN_SENT
                Self::Established => 432_000, // ESTABLISHED
                Self::Closing => 120,         // FIN_WAIT, TIME_WAIT
                Self::Closed => 10,           // CLOSE
            }
        } else {
            match self {
                Self::Opening => 30, // udp_timeout
                _ => 120,            // udp_timeout_stream
            }
        }
    }
}

/// Which way a packet of a flow goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// Client -> container.
    Forward,
    /// Container -> client.
    Reply,
}

/// Everything a flow needs to be translated both ways without asking another table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Flow<A> {
    /// The host address the client talks to.
    pub host_address: A,
    /// The next hop of replies: the client itself, or a gateway.
    pub next_hop: A,
    /// The backend's number.
    pub backend: u32,
    /// The backend's generation; the flow ends when the backend's differs.
    pub generation: u32,
    /// The interface by which the client came and replies leave.
    pub external_ifindex: u32,
    /// [`Settings::epoch`](crate::settings::Settings::epoch) at the last look at routing.
    pub epoch: u32,
    /// The host port the client talks to.
    pub host_port: Be16,
    /// MTU of the route to the client, in bytes.
    pub external_mtu: u16,
    /// A [`State`] as its number.
    pub state: u8,
    /// Zero.
    pub padding: u8,
    /// The client's own port.
    pub client_port: Be16,
    /// When routing was last asked, in seconds of the monotonic clock, as the two below.
    pub routed_at: u32,
    /// When the flow began.
    pub created: u32,
    /// When its last packet came.
    pub last_seen: u32,
    /// When a packet of the client was first left to the kernel because admission is off, in milliseconds
    /// of the monotonic clock; zero for never. Conntrack knows the flow soon after.
    pub handed_over_at: u32,
    /// What went through it. Written without atomics: exact as long as each direction stays on one CPU,
    /// which is where a NIC's flow hashing puts it.
    pub traffic: Traffic,
}

impl<A> Flow<A> {
    /// How far it has come.
    #[inline(always)]
    pub fn state(&self) -> State {
        State::from_number(self.state)
    }

    /// Whether it has been silent for longer than its state allows. `now` in seconds.
    #[inline(always)]
    pub fn is_expired(&self, protocol: IpProtocol, now: u32) -> bool {
        // Signed: another CPU may have stamped the next second meanwhile.
        now.wrapping_sub(self.last_seen) as i32 > self.state().timeout(protocol) as i32
    }

    /// Whether a new SYN on its tuple is another connection.
    #[inline(always)]
    pub fn is_over(&self) -> bool {
        self.state >= State::Closing as u8
    }

    /// Whether routing has to be asked again.
    #[inline(always)]
    pub fn is_route_stale(&self, settings: &Settings, now: u32) -> bool {
        self.epoch != settings.epoch || now.wrapping_sub(self.routed_at) > ROUTE_LIFETIME
    }

    /// Takes note of a packet: time and state. Counting is the caller's.
    #[inline(always)]
    pub fn observe(&mut self, direction: Direction, flags: TcpFlags, now: u32) {
        // At most one write a second and none where nothing changes: the entry's cache line is shared.
        if self.last_seen != now {
            self.last_seen = now;
        }
        let state = match self.state() {
            _ if flags.any(TcpFlags::RST) => State::Closed,
            State::Opening | State::Established if flags.any(TcpFlags::FIN) => State::Closing,
            // A container that goes on talking has not accepted the client's RST: it was forged, or late.
            State::Opening | State::Closed if direction == Direction::Reply => State::Established,
            state => state,
        };
        if self.state != state as u8 {
            self.state = state as u8;
        }
    }
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
const _: () = assert!(size_of::<Flow<crate::headers::Be32>>() == 80);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::Be32;

    const SYN: TcpFlags = TcpFlags(TcpFlags::SYN);
    const ACK: TcpFlags = TcpFlags(TcpFlags::ACK);
    const FIN: TcpFlags = TcpFlags(TcpFlags::FIN | TcpFlags::ACK);
    const RST: TcpFlags = TcpFlags(TcpFlags::RST);

    fn flow() -> Flow<Be32> {
        Flow {
            host_address: Be32::new(1),
            next_hop: Be32::new(2),
            backend: 1,
            generation: 1,
            external_ifindex: 1,
            epoch: 0,
            host_port: Be16::new(1),
            external_mtu: 1500,
            state: State::Opening as u8,
            padding: 0,
            client_port: Be16::new(1),
            routed_at: 0,
            created: 0,
            last_seen: 0,
            handed_over_at: 0,
            traffic: Traffic::default(),
        }
    }

    #[test]
    fn a_tcp_flow_opens_stands_and_closes() {
        let mut flow = flow();
        flow.observe(Direction::Forward, SYN, 1);
        assert_eq!(flow.state(), State::Opening, "a SYN alone proves nothing");
        flow.observe(Direction::Reply, TcpFlags(SYN.0 | ACK.0), 2);
        assert_eq!(flow.state(), State::Established);
        flow.observe(Direction::Forward, FIN, 3);
        assert_eq!(flow.state(), State::Closing);
        flow.observe(Direction::Reply, ACK, 4);
        assert_eq!((flow.state(), flow.last_seen), (State::Closing, 4));
        flow.observe(Direction::Reply, RST, 5);
        assert_eq!(flow.state(), State::Closed);
    }

    #[test]
    fn a_reset_that_the_container_does_not_accept_ends_nothing() {
        let mut flow = flow();
        flow.observe(Direction::Reply, TcpFlags(SYN.0 | ACK.0), 1);
        flow.observe(Direction::Forward, RST, 2);
        assert_eq!(flow.state(), State::Closed);
        flow.observe(Direction::Forward, ACK, 3);
        assert_eq!(flow.state(), State::Closed, "its sender proves nothing");
        flow.observe(Direction::Reply, ACK, 4);
        assert_eq!(flow.state(), State::Established);
    }

    #[test]
    fn silence_ends_a_flow_on_conntracks_schedule() {
        let mut flow = flow();
        for (protocol, state, seconds) in [
            (IpProtocol::TCP, State::Opening, 120),
            (IpProtocol::TCP, State::Established, 432_000),
            (IpProtocol::TCP, State::Closing, 120),
            (IpProtocol::TCP, State::Closed, 10),
            (IpProtocol::UDP, State::Opening, 30),
            (IpProtocol::UDP, State::Established, 120),
        ] {
            flow.state = state as u8;
            // Across the wrap of the clock, too.
            for last_seen in [0, 1000, u32::MAX - 5] {
                flow.last_seen = last_seen;
                // Stamped by another CPU after this one has read the clock.
                assert!(!flow.is_expired(protocol, last_seen.wrapping_sub(1)));
                assert!(
                    !flow.is_expired(protocol, last_seen.wrapping_add(seconds)),
                    "{state:?}"
                );
                assert!(
                    flow.is_expired(protocol, last_seen.wrapping_add(seconds + 1)),
                    "{state:?}"
                );
            }
        }
    }
}
