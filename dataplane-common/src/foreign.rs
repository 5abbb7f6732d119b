//! What leaves by an external interface and is not ours: conversations that the host's sockets or the
//! kernel's masquerading have with the outside from a port that is published, too.
//!
//! Their answers come in at the published port. Netfilter asks conntrack before it asks its DNAT rules;
//! here a note of the outgoing packet does it, which [`join`](crate::join) looks for.

use crate::{
    family::Family,
    flow::OuterTuple,
    fragment,
    packet::Packet,
    parse::{Parsed, parse},
    published::PortSlot,
    reason::Reason,
    tables::Tables,
};

/// Takes note of an outgoing packet whose source port is published. The caller knows that it is no reply
/// of a flow of ours.
#[inline(always)]
pub fn observe_outgoing<F: Family, P: Packet, T: Tables<F>>(packet: &P, tables: &T) {
    match parse::<F, P>(packet) {
        Ok(parsed) => note(&parsed, tables),
        Err(Reason::Fragment) => observe_fragment::<F, P, T>(packet, tables),
        Err(_) => {}
    }
}

/// The same of a fragment, which tells something only if it is its datagram's first.
#[inline(never)]
fn observe_fragment<F: Family, P: Packet, T: Tables<F>>(packet: &P, tables: &T) {
    if let Ok(piece) = fragment::piece::<F, P, T>(packet, tables, 0)
        && piece.is_first()
        && let Ok(parsed) = fragment::parse_first::<F, P>(packet, &piece)
    {
        note(&parsed, tables);
    }
}

#[inline(always)]
fn note<F: Family, T: Tables<F>>(parsed: &Parsed<F>, tables: &T) {
    let (network, ports) = (&parsed.network, parsed.ports);
    if tables.port(network.protocol, ports.source) == PortSlot::EMPTY {
        return;
    }
    let tuple = OuterTuple {
        client: network.destination,
        host: network.source,
        client_port: ports.destination,
        host_port: ports.source,
        protocol: network.protocol,
        padding8: 0,
        padding16: 0,
    };
    let now = tables.now();
    // One write a second is enough, and none is cheaper.
    if tables.foreign_since(&tuple) != Some(now) {
        tables.note_foreign(&tuple, now);
    }
}
