//! The decision for a packet from outside: does it go straight to a container, and to which?
//!
//! Nothing of the packet is written here. All checks come before the first write
//! ([`rewrite`](crate::rewrite)), so that a packet left to the slow path is left untouched.

use crate::{
    family::Family,
    headers::{Mac, Ports},
    join::Candidate,
    packet::Packet,
    parse::{Parsed, parse},
    published::{Backend, BoundPort, PortSlot},
    reason::Reason,
    settings::Admission,
    tables::Tables,
};

/// A packet from outside that goes to a container.
#[derive(Clone, Copy, Debug)]
pub struct Forward<F: Family> {
    /// The packet.
    pub parsed: Parsed<F>,
    /// Its new destination address.
    pub address: F::Address,
    /// Its new ports.
    pub ports: Ports,
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
    if Admission::from_number(settings.admission) != Admission::Direct {
        packet.hand_over(tables);
        return Err(Reason::Admission);
    }
    let joined = packet.join(tables)?;
    tables.with_traffic(slot.backend(), |traffic| {
        traffic.count_in(parsed.network.length)
    });
    Ok(Forward {
        parsed,
        address: packet.address,
        ports: Ports {
            source: joined.client_port(),
            destination: slot.port(),
        },
        mac: backend.mac,
        source_mac: backend.source_mac,
        ifindex: backend.ifindex,
        is_first: joined.is_first(),
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
