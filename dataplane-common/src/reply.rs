//! The decision for a packet from a container: is it the reply of one of our flows?

use crate::{
    family::Family,
    flow::{Direction, FlowKey, HAND_OVER, State},
    headers::{Ethernet, Ports},
    packet::Packet,
    parse::{Parsed, parse},
    reason::Reason,
    settings::Admission,
    tables::Tables,
};

/// A packet from a container that goes to its client.
#[derive(Clone, Copy, Debug)]
pub struct Reply<F: Family> {
    /// The packet.
    pub parsed: Parsed<F>,
    /// Its new source address.
    pub address: F::Address,
    /// Its new ports.
    pub ports: Ports,
    /// The external interface it leaves by.
    pub ifindex: u32,
    /// The neighbour there that gets it.
    pub next_hop: F::Address,
}

/// Decides on a packet that came in on `ingress`, the host's end of a container's veth pair.
#[inline(always)]
pub fn reply<F: Family, P: Packet, T: Tables<F>>(
    packet: &P,
    tables: &T,
    ingress: u32,
) -> Result<Reply<F>, Reason> {
    let parsed = parse::<F, P>(packet)?;
    let ethernet: Ethernet = packet.load(0).ok_or(Reason::Malformed)?;
    let network = &parsed.network;
    let key = FlowKey {
        container: network.source,
        client: network.destination,
        container_port: parsed.ports.source,
        client_port: parsed.ports.destination,
        protocol: network.protocol,
        padding8: 0,
        padding16: 0,
    };
    let (reply, backend, is_answered) = tables
        .with_flow(&key, |flow| {
            let settings = tables.settings();
            // While conntrack has not seen a packet of it, nobody but us can translate its replies: the
            // kernel would take them for a flow of the container's own.
            let is_admitted = Admission::from_number(settings.admission) == Admission::Direct;
            if flow.handed_over_at != 0 {
                if is_admitted {
                    flow.handed_over_at = 0;
                } else if tables.now_millis().wrapping_sub(flow.handed_over_at) as i32
                    > HAND_OVER as i32
                {
                    return Err(Reason::Admission);
                }
            }
            let now = tables.now();
            let backend = tables.backend(flow.backend).ok_or(Reason::NotAReply)?;
            if flow.generation != backend.generation || flow.is_expired(network.protocol, now) {
                return Err(Reason::NotAReply);
            }
            if backend.ifindex != ingress {
                return Err(Reason::WrongInterface);
            }
            // A frame to another station on the bridge is not for the host to route.
            if ethernet.destination != backend.source_mac {
                return Err(Reason::NotAReply);
            }
            if network.ttl <= 1 {
                return Err(Reason::Ttl);
            }
            if flow.is_route_stale(&settings, now) {
                if !tables.is_local(flow.host_address) {
                    return Err(Reason::NotLocal);
                }
                let route = tables.route(backend.route_ifindex, key.container, key.client)?;
                flow.set_route(&route, &settings, now);
            }
            if !parsed.fits(u32::from(flow.external_mtu)) {
                return Err(Reason::Mtu);
            }
            let before = flow.state();
            flow.observe(Direction::Reply, parsed.flags, now);
            let is_answered = before != State::Established && flow.state() == State::Established;
            flow.traffic.count_out(network.length);
            let reply = Reply {
                parsed,
                address: flow.host_address,
                ports: Ports {
                    source: flow.host_port,
                    destination: flow.client_port,
                },
                ifindex: flow.external_ifindex,
                next_hop: flow.next_hop,
            };
            Ok((reply, flow.backend, is_answered))
        })
        .unwrap_or(Err(Reason::NotAReply))?;
    if is_answered {
        tables.establish(&key);
    }
    tables.with_traffic(backend, |traffic| traffic.count_out(network.length));
    Ok(reply)
}
