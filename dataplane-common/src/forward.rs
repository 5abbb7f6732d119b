//! The decision for a packet from outside: does it go straight to a container, and to which?
//!
//! Nothing of the packet is written here. All checks come before the first write
//! ([`rewrite`](crate::rewrite)), so that a packet left to the slow path is left untouched.

use crate::{
    family::Family,
    flow::{Direction, Flow, FlowKey, State},
    headers::{Be16, Mac},
    packet::Packet,
    parse::{Parsed, parse},
    published::{Backend, BoundPort, PortSlot, Traffic},
    reason::Reason,
    settings::{Admission, Settings},
    tables::{Route, TableFull, Tables},
};

/// Seconds after which a flow's route is looked up again, without being told of a change.
pub const ROUTE_LIFETIME: u32 = 5;

/// A packet from outside that goes to a container.
#[derive(Clone, Copy, Debug)]
pub struct Forward<F: Family> {
    /// The packet.
    pub parsed: Parsed<F>,
    /// Its new destination address.
    pub address: F::Address,
    /// Its new destination port.
    pub port: Be16,
    /// The container's MAC.
    pub mac: Mac,
    /// The MAC the container sees as sender.
    pub source_mac: Mac,
    /// The host's end of the container's veth pair.
    pub ifindex: u32,
    /// Whether it is the first of its flow.
    pub is_first: bool,
}

/// Decides on a packet that came in on the external interface `ingress`.
#[inline(always)]
pub fn forward<F: Family, P: Packet, T: Tables<F>>(
    packet: &P,
    tables: &T,
    ingress: u32,
) -> Result<Forward<F>, Reason> {
    if !packet.is_to_host() {
        return Err(Reason::NotToHost);
    }
    let parsed = parse::<F, P>(packet)?;
    let (slot, backend) = published::<F, T>(tables, &parsed).ok_or(Reason::NotPublished)?;
    let settings = tables.settings();
    if Admission::from_number(settings.admission) != Admission::Direct {
        return Err(Reason::Admission);
    }
    if parsed.network.ttl <= 1 {
        return Err(Reason::Ttl);
    }
    if !parsed.fits(backend.mtu) {
        return Err(Reason::Mtu);
    }
    let packet = Candidate {
        parsed: &parsed,
        slot,
        backend,
        address: F::from_words(&backend.address),
        settings,
        ingress,
        now: tables.now(),
    };
    let is_first = match packet.continue_flow(tables) {
        Known::Accepted => false,
        Known::Refused(reason) => return Err(reason),
        Known::Not => {
            packet.begin_flow(tables)?;
            true
        }
    };
    tables.with_traffic(slot.backend(), |traffic| {
        traffic.count_in(parsed.network.length)
    });
    Ok(Forward {
        parsed,
        address: packet.address,
        port: slot.port(),
        mac: backend.mac,
        source_mac: backend.source_mac,
        ifindex: backend.ifindex,
        is_first,
    })
}

/// What is published at the packet's destination, if its backend is alive.
#[inline(always)]
fn published<'a, F: Family, T: Tables<F>>(
    tables: &'a T,
    parsed: &Parsed<F>,
) -> Option<(PortSlot, &'a Backend)> {
    let (protocol, port) = (parsed.network.protocol, parsed.ports.destination);
    let mut slot = tables.port(protocol, port);
    if slot.has_bound() {
        let bound = tables.bound_port(&BoundPort {
            address: parsed.network.destination,
            port,
            protocol,
            padding: 0,
        });
        if bound != PortSlot::EMPTY {
            slot = bound;
        }
    }
    if slot.backend() == 0 {
        return None;
    }
    let backend = tables.backend(slot.backend())?;
    (backend.generation != 0).then_some((slot, backend))
}

/// What the flow table says of a packet.
enum Known {
    /// It belongs to a live flow.
    Accepted,
    /// It belongs to a live flow, or runs into one, and must not be accelerated.
    Refused(Reason),
    /// There is no such flow, or it is over.
    Not,
}

/// A packet to a published port, with all that has been looked up for it.
struct Candidate<'a, F: Family> {
    parsed: &'a Parsed<F>,
    slot: PortSlot,
    backend: &'a Backend,
    address: F::Address,
    settings: Settings,
    ingress: u32,
    now: u32,
}

impl<F: Family> Candidate<'_, F> {
    #[inline(always)]
    fn key(&self) -> FlowKey<F::Address> {
        FlowKey {
            container: self.address,
            client: self.parsed.network.source,
            container_port: self.slot.port(),
            client_port: self.parsed.ports.source,
            protocol: self.parsed.network.protocol,
            padding: [0; 3],
        }
    }

    #[inline(always)]
    fn continue_flow<T: Tables<F>>(&self, tables: &T) -> Known {
        tables
            .with_flow(&self.key(), |flow| {
                // Another publication may lead to the same port of the same container.
                let backend = if flow.backend == self.slot.backend() {
                    Some(self.backend)
                } else {
                    tables.backend(flow.backend)
                };
                let is_over = backend.is_none_or(|backend| flow.generation != backend.generation)
                    || flow.is_expired(self.parsed.network.protocol, self.now)
                    || (self.parsed.flags.opens() && flow.is_over());
                if is_over {
                    return Known::Not;
                }
                if flow.host_address != self.parsed.network.destination
                    || flow.host_port != self.parsed.ports.destination
                {
                    return Known::Refused(Reason::ReplyCollision);
                }
                if is_route_stale(flow, &self.settings, self.now) {
                    if !tables.is_local(flow.host_address) {
                        return Known::Refused(Reason::NotLocal);
                    }
                    match self.route(tables) {
                        Ok(route) => set_route(flow, &route, &self.settings, self.now),
                        Err(reason) => return Known::Refused(reason),
                    }
                } else if flow.external_ifindex != self.ingress {
                    return Known::Refused(Reason::ReversePath);
                }
                flow.observe(Direction::Forward, self.parsed.flags, self.now);
                flow.traffic.count_in(self.parsed.network.length);
                Known::Accepted
            })
            .unwrap_or(Known::Not)
    }

    #[inline(always)]
    fn begin_flow<T: Tables<F>>(&self, tables: &T) -> Result<(), Reason> {
        let network = &self.parsed.network;
        if !tables.is_local(network.destination) {
            return Err(Reason::NotLocal);
        }
        if self.parsed.is_tcp() && !self.parsed.flags.opens() {
            return Err(Reason::NoFlow);
        }
        if F::is_martian(network.source) {
            return Err(Reason::Martian);
        }
        let route = self.route(tables)?;
        let mut traffic = Traffic::default();
        traffic.count_in(network.length);
        let flow = Flow {
            host_address: network.destination,
            next_hop: route.next_hop,
            backend: self.slot.backend(),
            generation: self.backend.generation,
            external_ifindex: self.ingress,
            epoch: self.settings.epoch,
            host_port: self.parsed.ports.destination,
            external_mtu: route.mtu,
            state: State::Opening as u8,
            padding: [0; 3],
            routed_at: self.now,
            created: self.now,
            last_seen: self.now,
            reserved: 0,
            traffic,
        };
        tables
            .insert_flow(&self.key(), &flow)
            .map_err(|TableFull| Reason::TableFull)
    }

    /// The way back to the client, which must leave by the interface the packet came in on: strict
    /// reverse-path filtering (RFC 3704 2.2). It also keeps out whoever claims an address of the host
    /// or of a container, since the way back to those is not by an external interface.
    #[inline(always)]
    fn route<T: Tables<F>>(&self, tables: &T) -> Result<Route<F::Address>, Reason> {
        let route = tables.route(
            self.backend.route_ifindex,
            self.address,
            self.parsed.network.source,
        )?;
        if route.ifindex == self.ingress {
            Ok(route)
        } else {
            Err(Reason::ReversePath)
        }
    }
}

/// Whether routing has to be asked again for a flow.
#[inline(always)]
pub(crate) fn is_route_stale<A>(flow: &Flow<A>, settings: &Settings, now: u32) -> bool {
    flow.epoch != settings.epoch || now.wrapping_sub(flow.routed_at) > ROUTE_LIFETIME
}

/// Notes the way back to the client.
#[inline(always)]
pub(crate) fn set_route<A: Copy>(
    flow: &mut Flow<A>,
    route: &Route<A>,
    settings: &Settings,
    now: u32,
) {
    flow.external_ifindex = route.ifindex;
    flow.next_hop = route.next_hop;
    flow.external_mtu = route.mtu;
    flow.epoch = settings.epoch;
    flow.routed_at = now;
}
