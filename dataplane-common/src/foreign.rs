//! What leaves by an external interface and is not ours: conversations that the host's sockets or the
//! kernel's masquerading have with the outside from a port that is published, too.
//!
//! Their answers come in at the published port. Netfilter asks conntrack before it asks its DNAT rules;
//! here a note of the outgoing packet does it, which [`join`](crate::join) looks for.

use crate::{
    family::Family, flow::OuterTuple, packet::Packet, parse::parse, published::PortSlot,
    tables::Tables,
};

/// Takes note of an outgoing packet whose source port is published. The caller knows that it is no reply
/// of a flow of ours.
#[inline(always)]
pub fn observe_outgoing<F: Family, P: Packet, T: Tables<F>>(packet: &P, tables: &T) {
    let Ok(parsed) = parse::<F, P>(packet) else {
        return;
    };
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
