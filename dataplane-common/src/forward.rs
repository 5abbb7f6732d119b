//! The decision for a packet from outside: does it go straight to a container, and to which?
//!
//! Nothing of the packet is written here. All checks come before the first write
//! ([`rewrite`](crate::rewrite)), so that a packet left to the slow path is left untouched.

use crate::{
    family::Family,
    headers::{Be16, IpProtocol, Mac, Ports},
    join::Candidate,
    packet::Packet,
    parse::Parsed,
    published::{Backend, PortSlot},
    reason::Reason,
    tables::Tables,
};

/// Where a packet from outside goes.
#[derive(Clone, Copy, Debug)]
pub struct Forward<F: Family> {
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
    parsed: &Parsed<F>,
    tables: &T,
    ingress: u32,
) -> Result<Forward<F>, Reason> {
    if !packet.is_to_host() {
        return Err(Reason::NotToHost);
    }
    let network = &parsed.network;
    let (slot, backend) = published::<F, T>(
        tables,
        network.protocol,
        &network.destination,
        parsed.ports.destination,
    )
    .ok_or(Reason::NotPublished)?;
    let settings = tables.settings().ok_or(Reason::Admission)?;
    if network.ttl <= 1 {
        return Err(Reason::Ttl);
    }
    if !parsed.fits(backend.mtu) {
        return Err(Reason::Mtu);
    }
    if !tables.can_reach(slot.backend()) {
        return Err(Reason::BackendGone);
    }
    let candidate = Candidate {
        parsed,
        slot,
        backend,
        settings,
        ingress,
        now: tables.now(),
    };
    let joined = candidate.join(tables)?;
    tables.with_traffic(slot.backend(), |traffic| traffic.count_in(network.length));
    Ok(Forward {
        address: F::from_words(&backend.address),
        ports: Ports {
            source: joined.client_port,
            destination: slot.port(),
        },
        mac: backend.mac,
        source_mac: backend.source_mac,
        ifindex: backend.ifindex,
        is_first: joined.is_first,
    })
}

/// What is published at a port of an address of the host, if its backend is alive. Whether the address is
/// the host's at all is for the caller to ask.
#[inline(always)]
pub(crate) fn published<'a, F: Family, T: Tables<F>>(
    tables: &'a T,
    protocol: IpProtocol,
    address: &F::Address,
    port: Be16,
) -> Option<(PortSlot, &'a Backend)> {
    let mut slot = tables.port(protocol, port);
    if slot.has_bound() {
        let bound = tables.bound_port(protocol, address, port);
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
