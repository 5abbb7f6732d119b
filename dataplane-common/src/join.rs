//! Finding a packet's flow, or beginning it.

use crate::{
    family::Family,
    flow::{Direction, Flow, FlowKey, OuterTuple, State},
    headers::Be16,
    parse::Parsed,
    published::{Backend, PortSlot, Traffic},
    reason::Reason,
    settings::Settings,
    tables::{Route, TableFull, Tables},
};

/// Seconds for which a conversation that somebody else on this host has begun is theirs after their last
/// packet: as long as conntrack keeps a UDP stream (`nf_conntrack_udp_timeout_stream`).
pub const FOREIGN_LIFETIME: u32 = 120;

/// How many ports are tried for a client whose own is taken.
const REMAP_ATTEMPTS: u32 = 4;

/// What the flow table says of a packet.
enum Known {
    /// It belongs to a live flow.
    Accepted,
    /// It belongs to a live flow that must not be accelerated just now.
    Refused(Reason),
    /// Its reply would look like that of another live flow.
    Collides,
    /// There is no such flow, or it is over.
    Not,
}

/// The flow that a packet belongs to: the port the container sees the client under, and whether the packet
/// is its first. One word without padding, because a function of an eBPF program cannot return more, and
/// the verifier looks at every bit that it returns.
#[derive(Clone, Copy)]
pub(crate) struct Joined(u32);

impl Joined {
    const FIRST: u32 = 1 << 16;

    #[inline(always)]
    fn existing(client_port: Be16) -> Self {
        Self(client_port.raw().into())
    }

    #[inline(always)]
    fn first(client_port: Be16) -> Self {
        Self(u32::from(client_port.raw()) | Self::FIRST)
    }

    #[inline(always)]
    pub(crate) fn client_port(self) -> Be16 {
        Be16::from_raw(self.0 as u16)
    }

    #[inline(always)]
    pub(crate) fn is_first(self) -> bool {
        self.0 & Self::FIRST != 0
    }
}

/// A packet to a published port, with all that has been looked up for it.
pub(crate) struct Candidate<'a, F: Family> {
    /// The packet.
    pub(crate) parsed: &'a Parsed<F>,
    /// What is published at its destination.
    pub(crate) slot: PortSlot,
    /// Where that is.
    pub(crate) backend: &'a Backend,
    /// The container's address.
    pub(crate) address: F::Address,
    /// The controller's settings.
    pub(crate) settings: Settings,
    /// The interface it came in on.
    pub(crate) ingress: u32,
    /// The time, in seconds.
    pub(crate) now: u32,
}

impl<F: Family> Candidate<'_, F> {
    #[inline(always)]
    fn key(&self, client_port: Be16) -> FlowKey<F::Address> {
        FlowKey {
            container: self.address,
            client: self.parsed.network.source,
            container_port: self.slot.port(),
            client_port,
            protocol: self.parsed.network.protocol,
            padding8: 0,
            padding16: 0,
        }
    }

    #[inline(always)]
    fn outer_tuple(&self) -> OuterTuple<F::Address> {
        OuterTuple {
            client: self.parsed.network.source,
            host: self.parsed.network.destination,
            client_port: self.parsed.ports.source,
            host_port: self.parsed.ports.destination,
            protocol: self.parsed.network.protocol,
            padding8: 0,
            padding16: 0,
        }
    }

    /// Whether a flow is dead: its container has gone, or it has been silent for too long.
    #[inline(always)]
    fn is_dead<T: Tables<F>>(&self, tables: &T, flow: &Flow<F::Address>) -> bool {
        // Another publication may lead to the same port of the same container.
        let backend = if flow.backend == self.slot.backend() {
            Some(self.backend)
        } else {
            tables.backend(flow.backend)
        };
        backend.is_none_or(|backend| flow.generation != backend.generation)
            || flow.is_expired(self.parsed.network.protocol, self.now)
    }

    /// Looks for the packet's flow under a port of the client.
    #[inline(always)]
    fn continue_flow<T: Tables<F>>(&self, tables: &T, client_port: Be16) -> Known {
        tables
            .with_flow(&self.key(client_port), |flow| {
                if self.is_dead(tables, flow) {
                    return Known::Not;
                }
                if !self.belongs_to(flow) {
                    return Known::Collides;
                }
                // Another connection of the same tuple.
                if self.parsed.flags.opens() && flow.is_over() {
                    return Known::Not;
                }
                if flow.handed_over_at != 0 {
                    flow.handed_over_at = 0;
                }
                if flow.is_route_stale(&self.settings, self.now) {
                    if !tables.is_local(flow.host_address) {
                        return Known::Refused(Reason::NotLocal);
                    }
                    match self.route(tables) {
                        Ok(route) => flow.set_route(&route, &self.settings, self.now),
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

    /// Takes note that a packet of a flow goes up the stack: conntrack picks the flow up there, and
    /// translates its replies from now on. Until then nobody but us can.
    #[inline(always)]
    pub(crate) fn hand_over<T: Tables<F>>(&self, tables: &T) {
        tables.with_flow(&self.key(self.parsed.ports.source), |flow| {
            if self.belongs_to(flow) && flow.handed_over_at == 0 {
                flow.handed_over_at = tables.now_millis().max(1);
            }
        });
    }

    /// Whether the packet has a flow's addresses and ports.
    #[inline(always)]
    fn belongs_to(&self, flow: &Flow<F::Address>) -> bool {
        flow.host_address == self.parsed.network.destination
            && flow.host_port == self.parsed.ports.destination
            && flow.client_port == self.parsed.ports.source
    }

    /// Finds the packet's flow, or begins it.
    #[inline(always)]
    pub(crate) fn join<T: Tables<F>>(&self, tables: &T) -> Result<Joined, Reason> {
        let mut client_port = self.parsed.ports.source;
        let mut is_own_port_taken = false;
        for is_remapped in [false, true] {
            match self.continue_flow(tables, client_port) {
                Known::Accepted => return Ok(Joined::existing(client_port)),
                Known::Refused(reason) => return Err(reason),
                Known::Not => {}
                Known::Collides => is_own_port_taken |= !is_remapped,
            }
            // Also where its own port is free by now: a flow keeps the port that it was given.
            match tables.remapped(&self.outer_tuple()) {
                Some(port) => client_port = port,
                None => break,
            }
        }
        self.begin(tables, is_own_port_taken)
    }

    /// Begins a flow. Where another one has the client's own port taken, the container sees the client
    /// under another, as netfilter has it. A function of its own in the eBPF program, which leaves the
    /// stack of the fast path small.
    #[inline(never)]
    fn begin<T: Tables<F>>(&self, tables: &T, is_own_port_taken: bool) -> Result<Joined, Reason> {
        let route = self.admit(tables)?;
        let mut client_port = self.parsed.ports.source;
        if is_own_port_taken {
            client_port = self.free_port(tables).ok_or(Reason::ReplyCollision)?;
            tables
                .remap(&self.outer_tuple(), client_port)
                .map_err(|TableFull| Reason::TableFull)?;
        }
        self.insert_flow(tables, client_port, &route)
    }

    /// A port under which the container sees no other client.
    #[inline(always)]
    fn free_port<T: Tables<F>>(&self, tables: &T) -> Option<Be16> {
        let start = tables.random();
        for attempt in 0..REMAP_ATTEMPTS {
            let port = alternative_port(self.parsed.ports.source, start.wrapping_add(attempt));
            let is_free = tables
                .with_flow(&self.key(port), |flow| self.is_dead(tables, flow))
                .unwrap_or(true);
            if is_free {
                return Some(port);
            }
        }
        None
    }

    /// Whether this packet may begin a flow; if so, the way back to its client.
    #[inline(always)]
    fn admit<T: Tables<F>>(&self, tables: &T) -> Result<Route<F::Address>, Reason> {
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
        let tuple = self.outer_tuple();
        if let Some(since) = tables.foreign_since(&tuple)
            && self.now.wrapping_sub(since) as i32 <= FOREIGN_LIFETIME as i32
        {
            // What comes in keeps it theirs as well.
            if since != self.now {
                tables.note_foreign(&tuple, self.now);
            }
            return Err(Reason::Foreign);
        }
        self.route(tables)
    }

    #[inline(always)]
    fn insert_flow<T: Tables<F>>(
        &self,
        tables: &T,
        client_port: Be16,
        route: &Route<F::Address>,
    ) -> Result<Joined, Reason> {
        let network = &self.parsed.network;
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
            padding: 0,
            client_port: self.parsed.ports.source,
            routed_at: self.now,
            created: self.now,
            last_seen: self.now,
            handed_over_at: 0,
            traffic,
        };
        tables
            .insert_flow(&self.key(client_port), &flow)
            .map_err(|TableFull| Reason::TableFull)?;
        Ok(Joined::first(client_port))
    }

    /// The way back to the client, if there is a way to the container. It must leave by the interface the
    /// packet came in on: strict reverse-path filtering (RFC 3704 2.2). It also keeps out whoever claims an
    /// address of the host or of a container, since the way back to those is not by an external interface.
    #[inline(always)]
    fn route<T: Tables<F>>(&self, tables: &T) -> Result<Route<F::Address>, Reason> {
        // With no controller to follow it, a container may have gone unnoticed.
        if !tables.is_there(self.backend.ifindex) {
            return Err(Reason::BackendGone);
        }
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

/// Another port for a client, chosen by any `number` from the range that netfilter would take it from
/// (`nf_nat_l4proto_unique_tuple` in net/netfilter/nf_nat_core.c): what is privileged stays so.
#[inline(always)]
fn alternative_port(own: Be16, number: u32) -> Be16 {
    let (first, count) = match own.get() {
        0..512 => (1, 511),
        512..1024 => (600, 424),
        1024.. => (1024, 64512),
    };
    Be16::new((first + number % count) as u16)
}
