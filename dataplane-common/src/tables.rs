//! How the core reaches what lies outside the packet: the maps, the clock, the routing table.

use core::ops::DerefMut;

use crate::{
    family::Family,
    flow::{Flow, FlowKey, OuterTuple},
    fragment::{Datagram, FragmentKey},
    headers::{Be16, IpProtocol},
    published::{Backend, PortSlot, Traffic},
    reason::Reason,
    settings::Settings,
};

/// The way back to a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Route<A> {
    /// The interface it leaves by.
    pub ifindex: u32,
    /// The neighbour on that link: the client itself, or a gateway.
    pub next_hop: A,
    /// The route's MTU, in bytes.
    pub mtu: u16,
}

impl<A> Route<A> {
    /// Straight to `client`, by an interface that is still to be found out.
    #[inline(always)]
    pub fn to(client: A) -> Self {
        Self {
            ifindex: 0,
            next_hop: client,
            mtu: 0,
        }
    }
}

/// A table would not take another entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TableFull;

/// What the core asks of its surroundings, for packets of one family.
pub trait Tables<F: Family> {
    /// Whether another program sees the packets that are let pass here, and decides on them anew. Then they
    /// leave no traces here: what is to be noted of them is noted there.
    const IS_SEEN_AGAIN: bool = false;

    /// Whether this program can hand packets to the backend with this number.
    fn can_reach(&self, _backend: u32) -> bool {
        true
    }

    /// The controller's settings; none only where the map is broken.
    fn settings(&self) -> Option<&Settings>;

    /// The monotonic clock, in seconds.
    fn now(&self) -> u32;

    /// The monotonic clock, in milliseconds.
    fn now_millis(&self) -> u32;

    /// What is published on a port of all addresses.
    fn port(&self, protocol: IpProtocol, port: Be16) -> PortSlot;

    /// What is published on a port of one address.
    fn bound_port(&self, protocol: IpProtocol, address: &F::Address, port: Be16) -> PortSlot;

    /// Whether the host itself has this address (iptables' `--dst-type LOCAL`).
    fn is_local(&self, address: &F::Address) -> bool;

    /// The backend with this number, dead or alive.
    fn backend(&self, number: u32) -> Option<&Backend>;

    /// The flow, if there is one, established or not.
    fn flow(&self, key: &FlowKey<F::Address>) -> Option<impl DerefMut<Target = Flow<F::Address>>>;

    /// Adds a flow that only its client has been heard of, in place of any other with its key. `write` writes
    /// every field of it, where it is to stay.
    fn insert_flow(
        &self,
        key: &FlowKey<F::Address>,
        write: impl FnOnce(&mut Flow<F::Address>),
    ) -> Result<(), TableFull>;

    /// Keeps a flow among the established ones, now that its container has answered. A flood of new
    /// flows does not reach it there.
    fn establish(&self, key: &FlowKey<F::Address>);

    /// Whether the container behind a port of the host may see any client under another port than its own.
    fn has_remapped(&self, protocol: IpProtocol, port: Be16) -> bool;

    /// The port that the container sees a client under, where it is not the client's own.
    fn remapped(&self, tuple: &OuterTuple<F::Address>) -> Option<Be16>;

    /// Notes such a port.
    fn remap(&self, tuple: &OuterTuple<F::Address>, port: Be16) -> Result<(), TableFull>;

    /// When somebody else on this host last sent a packet in this conversation, if ever.
    fn foreign_since(&self, tuple: &OuterTuple<F::Address>) -> Option<u32>;

    /// Notes that somebody else on this host has sent a packet in this conversation.
    fn note_foreign(&self, tuple: &OuterTuple<F::Address>, now: u32);

    /// The datagram whose fragments have this in common, if any of them has come.
    fn datagram(&self, key: &FragmentKey<F::Address>) -> Option<impl DerefMut<Target = Datagram>>;

    /// Notes a datagram, in place of any other with its key.
    fn note_datagram(
        &self,
        key: &FragmentKey<F::Address>,
        datagram: &Datagram,
    ) -> Result<(), TableFull>;

    /// Forgets a datagram.
    fn forget_datagram(&self, key: &FragmentKey<F::Address>);

    /// Any number.
    fn random(&self) -> u32;

    /// Calls `with` on the traffic counters of a backend.
    fn with_traffic(&self, backend: u32, with: impl FnOnce(&mut Traffic));

    /// Whether there is an interface with this index.
    fn is_there(&self, ifindex: u32) -> bool;

    /// Asks the routing table for the way from `container`, behind interface `from`, to `client`, and
    /// writes it.
    fn route(
        &self,
        from: u32,
        container: &F::Address,
        client: &F::Address,
        route: &mut Route<F::Address>,
    ) -> Result<(), Reason>;
}
