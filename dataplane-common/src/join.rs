//! Finding a packet's flow, or beginning it.
//!
//! What is not for every packet is a function of its own in the eBPF program, and none of these calls another
//! that needs much stack: 512 bytes are all there is. They return single words, because the verifier wants
//! to know every bit of what comes back.

use core::hint::black_box;

use crate::{
    family::Family,
    flow::{Flow, FlowKey, Observed, OuterTuple},
    headers::{Be16, TcpFlags},
    parse::Parsed,
    published::{Backend, PortSlot, Traffic},
    reason::Reason,
    sequence::{Progress, Segment},
    settings::{Admission, Settings},
    state::{Direction, State},
    tables::{Route, TableFull, Tables},
};

/// Seconds for which a conversation that somebody else on this host has begun is theirs after their last
/// packet: as long as conntrack keeps a UDP stream (`nf_conntrack_udp_timeout_stream`).
pub const FOREIGN_LIFETIME: u32 = 120;

/// How many ports are tried for a client whose own is taken.
const REMAP_ATTEMPTS: u32 = 4;

/// What the flow table says of a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// It belongs to a live flow.
    Accepted,
    /// It belongs to a live flow that must not be accelerated just now.
    Refused(Reason),
    /// Its reply would look like that of another live flow.
    Collides,
    /// It belongs to a live flow whose route has to be looked up again before it goes on. Where a later hook sees it
    /// again if there is none, it has not been taken into the flow yet.
    Stale,
    /// There is no such flow, or it is over.
    Not,
}

/// The flow that a packet belongs to.
#[derive(Clone, Copy)]
pub(crate) struct Joined {
    /// The port under which the container sees the client.
    pub(crate) client_port: Be16,
    /// Whether the packet is its first.
    pub(crate) is_first: bool,
}

/// A packet to a published port, with all that has been looked up for it.
pub(crate) struct Candidate<'a, F: Family> {
    /// The packet.
    pub(crate) parsed: &'a Parsed<F>,
    /// What is published at its destination.
    pub(crate) slot: PortSlot,
    /// Where that is.
    pub(crate) backend: &'a Backend,
    /// The controller's settings.
    pub(crate) settings: &'a Settings,
    /// The interface it came in on.
    pub(crate) ingress: u32,
    /// The time, in seconds.
    pub(crate) now: u32,
}

impl<F: Family> Candidate<'_, F> {
    /// Finds the packet's flow, or begins it.
    #[inline(always)]
    pub(crate) fn join<T: Tables<F>>(&self, tables: &T) -> Result<Joined, Reason> {
        let own_port = self.parsed.ports.source;
        let mut key = self.key(own_port);
        if !self.settings.is_direct()
            && self.parsed.flags.any(TcpFlags::FIN | TcpFlags::RST)
            && self.end_of_ours(tables, &key)
        {
            return Ok(Joined {
                client_port: own_port,
                is_first: false,
            });
        }
        match Admission::from_number(self.settings.admission) {
            Admission::Direct => {
                // Also where its own port is free by now: a flow keeps the port that it was given.
                self.find_given_port(tables, &mut key);
                let mut known = self.continue_flow(tables, &key);
                if known == Known::Stale {
                    self.renew_route(tables, &key)?;
                    known = if T::IS_SEEN_AGAIN {
                        self.continue_flow(tables, &key)
                    } else {
                        Known::Accepted
                    };
                }
                let is_first = match known {
                    Known::Accepted => false,
                    Known::Refused(reason) => return Err(reason),
                    Known::Stale => return Err(Reason::NoRoute),
                    known => {
                        let is_own_port_taken = known == Known::Collides;
                        self.begin(tables, &mut key, is_own_port_taken)?;
                        true
                    }
                };
                Ok(Joined {
                    client_port: key.client_port,
                    is_first,
                })
            }
            Admission::Netfilter => {
                match self.continue_by_lease(tables, &key) {
                    Known::Accepted => {}
                    Known::Refused(reason) => return Err(reason),
                    Known::Stale if T::IS_SEEN_AGAIN => return Err(Reason::NoRoute),
                    Known::Stale => self.renew_route(tables, &key)?,
                    // The kernel tells the two apart by itself.
                    Known::Collides => return Err(Reason::ReplyCollision),
                    Known::Not if T::IS_SEEN_AGAIN => return Err(Reason::Lease),
                    Known::Not => {
                        self.begin(tables, &mut key, false)?;
                        // It is noted, for the case that the kernel admits it.
                        return Err(Reason::Lease);
                    }
                }
                Ok(Joined {
                    client_port: own_port,
                    is_first: false,
                })
            }
            Admission::Off => {
                if !T::IS_SEEN_AGAIN {
                    self.hand_over(tables, &key);
                }
                Err(Reason::Admission)
            }
        }
    }

    /// Begins a flow, under another port of its client if its own is taken.
    #[inline(always)]
    fn begin<T: Tables<F>>(
        &self,
        tables: &T,
        key: &mut FlowKey<F::Address>,
        is_own_port_taken: bool,
    ) -> Result<(), Reason> {
        let mut route = Route::to(self.parsed.network.source);
        self.admit(tables, &mut route)?;
        if is_own_port_taken && !self.take_another_port(tables, key) {
            return Err(Reason::ReplyCollision);
        }
        self.insert_flow(tables, key, &route)
    }

    #[inline(always)]
    fn key(&self, client_port: Be16) -> FlowKey<F::Address> {
        FlowKey {
            container: F::from_words(&self.backend.address),
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
        backend.is_none_or(|backend| {
            flow.is_over(backend.generation, &self.settings.timeouts, self.now)
        })
    }

    /// Whether the packet has a flow's addresses and ports.
    #[inline(always)]
    fn belongs_to(&self, flow: &Flow<F::Address>) -> bool {
        flow.host_address == self.parsed.network.destination
            && flow.host_port == self.parsed.ports.destination
            && flow.client_port == self.parsed.ports.source
    }

    /// Why the packet does not go on in this flow, if so.
    #[inline(always)]
    pub(crate) fn exclude<T: Tables<F>>(
        &self,
        tables: &T,
        flow: &Flow<F::Address>,
    ) -> Option<Known> {
        if self.is_dead(tables, flow) {
            return Some(Known::Not);
        }
        if !self.belongs_to(flow) {
            return Some(Known::Collides);
        }
        // Another connection of the same tuple.
        if self.parsed.flags.opens() && flow.state().is_over() {
            return Some(Known::Not);
        }
        None
    }

    /// Takes the packet into its flow, if there is one.
    #[inline(always)]
    fn continue_flow<T: Tables<F>>(&self, tables: &T, key: &FlowKey<F::Address>) -> Known {
        let Some(mut flow) = tables.flow(key) else {
            return Known::Not;
        };
        if let Some(known) = self.exclude(tables, &flow) {
            return known;
        }
        flow.take_back();
        let (known, observed) = self.take_into::<T>(&mut flow, self.parsed.segment());
        drop(flow);
        if observed == Observed::Proven {
            tables.establish(key);
        }
        known
    }

    /// Takes a packet into its flow. Of where it is in its connection `segment` says as much as has to be known.
    #[inline(always)]
    pub(crate) fn take_into<T: Tables<F>>(
        &self,
        flow: &mut Flow<F::Address>,
        segment: Segment,
    ) -> (Known, Observed) {
        let is_stale = flow.is_route_stale(self.settings, self.now);
        if is_stale && T::IS_SEEN_AGAIN {
            return (Known::Stale, Observed::Noted);
        }
        if !is_stale && flow.external_ifindex != self.ingress {
            return (Known::Refused(Reason::ReversePath), Observed::Noted);
        }
        let observed = flow.observe(Direction::Forward, segment, self.now);
        if observed == Observed::Invalid {
            return (Known::Refused(Reason::TcpState), observed);
        }
        flow.traffic.count_in(self.parsed.network.length);
        let known = if is_stale {
            Known::Stale
        } else {
            Known::Accepted
        };
        (known, observed)
    }

    /// Looks a flow's route up again.
    #[inline(never)]
    fn renew_route<T: Tables<F>>(
        &self,
        tables: &T,
        key: &FlowKey<F::Address>,
    ) -> Result<(), Reason> {
        if !tables.is_local(&self.parsed.network.destination) {
            return Err(Reason::NotLocal);
        }
        let mut route = Route::to(self.parsed.network.source);
        self.route(tables, &mut route)?;
        if let Some(mut flow) = tables.flow(key) {
            flow.set_route(&route, self.settings, self.now);
        }
        Ok(())
    }

    /// Takes note that a packet of a flow goes up the stack: conntrack picks the flow up there, and
    /// translates its replies from now on. Until then nobody but us can.
    #[inline(always)]
    fn hand_over<T: Tables<F>>(&self, tables: &T, key: &FlowKey<F::Address>) {
        if let Some(mut flow) = tables.flow(key)
            && self.belongs_to(&flow)
            && flow.handed_over_at == 0
        {
            flow.handed_over_at = tables.now_millis().max(1);
        }
    }

    /// Writes the port that the client was given here into the key, if its flow is still alive.
    #[inline(always)]
    fn find_given_port<T: Tables<F>>(&self, tables: &T, key: &mut FlowKey<F::Address>) {
        let network = &self.parsed.network;
        if tables.has_remapped(network.protocol, self.parsed.ports.destination) {
            self.look_up_given_port(tables, key);
        }
    }

    /// The same, where some client was given one.
    #[inline(never)]
    fn look_up_given_port<T: Tables<F>>(&self, tables: &T, key: &mut FlowKey<F::Address>) {
        let own = key.client_port;
        let Some(given) = tables.remapped(&self.outer_tuple()) else {
            return;
        };
        key.client_port = given;
        let is_alive = tables
            .flow(key)
            .is_some_and(|flow| self.belongs_to(&flow) && !self.is_dead(tables, &flow));
        if !is_alive {
            key.client_port = own;
        }
    }

    /// Gives the client a port under which the container sees no other, as netfilter has it where another
    /// flow has taken the client's own, and writes it into the key. Returns whether there is one.
    #[inline(never)]
    fn take_another_port<T: Tables<F>>(&self, tables: &T, key: &mut FlowKey<F::Address>) -> bool {
        let start = tables.random();
        for attempt in 0..REMAP_ATTEMPTS {
            let number = start.wrapping_add(attempt);
            key.client_port = alternative_port(self.parsed.ports.source, number);
            if self.is_free(tables, key) {
                let remapped = tables.remap(&self.outer_tuple(), key.client_port);
                return remapped.is_ok();
            }
        }
        false
    }

    /// Whether no live flow has this key.
    #[inline(never)]
    fn is_free<T: Tables<F>>(&self, tables: &T, key: &FlowKey<F::Address>) -> bool {
        match tables.flow(key) {
            Some(flow) => self.is_dead(tables, &flow),
            None => true,
        }
    }

    /// Whether this packet may begin a flow; if so, writes the way back to its client.
    #[inline(never)]
    fn admit<T: Tables<F>>(&self, tables: &T, route: &mut Route<F::Address>) -> Result<(), Reason> {
        let network = &self.parsed.network;
        if !tables.is_local(&self.parsed.network.destination) {
            return Err(Reason::NotLocal);
        }
        let is_direct = self.settings.is_direct();
        // Where the kernel is asked it knows the connection, or what else to make of the segment.
        let begins = if is_direct {
            self.parsed.flags.opens()
        } else {
            !self.parsed.flags.any(TcpFlags::FIN | TcpFlags::RST)
        };
        if self.parsed.is_tcp() && !begins {
            return Err(Reason::NoFlow);
        }
        if F::is_martian(network.source) {
            return Err(Reason::Martian);
        }
        if is_direct && self.is_foreign(tables) {
            return Err(Reason::Foreign);
        }
        self.route(tables, route)
    }

    /// Whether somebody else on this host has begun this conversation.
    #[inline(always)]
    fn is_foreign<T: Tables<F>>(&self, tables: &T) -> bool {
        let tuple = self.outer_tuple();
        let Some(since) = tables.foreign_since(&tuple) else {
            return false;
        };
        if self.now.wrapping_sub(since) as i32 > FOREIGN_LIFETIME as i32 {
            return false;
        }
        // What comes in keeps it theirs as well.
        if since != self.now {
            tables.note_foreign(&tuple, self.now);
        }
        true
    }

    /// Puts a flow into the table that only its client has been heard of.
    #[inline(never)]
    fn insert_flow<T: Tables<F>>(
        &self,
        tables: &T,
        key: &FlowKey<F::Address>,
        route: &Route<F::Address>,
    ) -> Result<(), Reason> {
        let network = &self.parsed.network;
        let state = if self.parsed.is_tcp() && !self.parsed.flags.opens() {
            State::PickedUp
        } else {
            State::first(network.protocol)
        };
        let marks = if self.settings.is_direct() {
            Flow::<F::Address>::BEGUN_HERE
        } else {
            0
        };
        // Field by field: as a whole it would be made on the stack first.
        let write = |flow: &mut Flow<F::Address>| {
            flow.host_address = network.destination;
            flow.next_hop = route.next_hop;
            flow.backend = self.slot.backend();
            flow.generation = self.backend.generation;
            flow.external_ifindex = self.ingress;
            flow.epoch = self.settings.epoch;
            flow.host_port = self.parsed.ports.destination;
            flow.external_mtu = route.mtu;
            flow.state = state as u8;
            flow.marks = marks;
            flow.client_port = self.parsed.ports.source;
            flow.progress = Progress::UNKNOWN;
            flow.routed_at = self.now;
            flow.created = self.now;
            flow.last_seen = self.now;
            flow.handed_over_at = 0;
            flow.admitted_in_at = 0;
            flow.admitted_out_at = 0;
            // A compiler that knew it would have `memset` write it.
            let none = black_box(0);
            flow.traffic = Traffic {
                packets_in: none,
                bytes_in: none,
                packets_out: none,
                bytes_out: none,
            };
            flow.traffic.count_in(network.length);
        };
        tables
            .insert_flow(key, write)
            .map_err(|TableFull| Reason::TableFull)
    }

    /// Writes the way back to the client, if there is a way to the container. It must leave by the interface
    /// the packet came in on: strict reverse-path filtering (RFC 3704 2.2). It also keeps out whoever claims
    /// an address of the host or of a container, since the way back to those is not by an external interface.
    #[inline(always)]
    fn route<T: Tables<F>>(&self, tables: &T, route: &mut Route<F::Address>) -> Result<(), Reason> {
        // With no controller to follow it, a container may have gone unnoticed.
        if !tables.is_there(self.backend.ifindex) {
            return Err(Reason::BackendGone);
        }
        let container = F::from_words(&self.backend.address);
        let client = &self.parsed.network.source;
        tables.route(self.backend.route_ifindex, &container, client, route)?;
        if route.ifindex == self.ingress {
            Ok(())
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
