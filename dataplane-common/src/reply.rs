//! The decision for a packet from a container: is it the reply of one of our flows?

use crate::{
    family::Family,
    flow::{FlowKey, Observed},
    headers::{Ethernet, Ports},
    lease,
    packet::Packet,
    parse::Parsed,
    published::Backend,
    reason::Reason,
    settings::{Admission, Settings},
    state::Direction,
    tables::{Route, Tables},
};

/// Where a packet from a container goes.
#[derive(Clone, Copy, Debug)]
pub struct Reply<F: Family> {
    /// Its new source address.
    pub address: F::Address,
    /// Its new ports.
    pub ports: Ports,
    /// The external interface it leaves by.
    pub ifindex: u32,
    /// The neighbour there that gets it.
    pub next_hop: F::Address,
    /// The MTU of the route to the client, in bytes.
    pub mtu: u32,
}

/// Decides on a packet that came in on `ingress`, the host's end of a container's veth pair.
#[inline(always)]
pub fn reply<F: Family, P: Packet, T: Tables<F>>(
    packet: &P,
    parsed: &Parsed<F>,
    tables: &T,
    ingress: u32,
) -> Result<Reply<F>, Reason> {
    let ethernet: Ethernet = packet.load(0).ok_or(Reason::Malformed)?;
    let settings = tables.settings().ok_or(Reason::Admission)?;
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
    let mut flow = tables.flow(&key).ok_or(Reason::NotAReply)?;
    let now = tables.now();
    let backend = tables.backend(flow.backend).ok_or(Reason::NotAReply)?;
    if flow.is_over(backend.generation, &settings.timeouts, now) {
        return Err(Reason::NotAReply);
    }
    if backend.ifindex != ingress {
        return Err(Reason::WrongInterface);
    }
    // A frame to another station on the bridge is not for the host to route.
    if ethernet.destination != backend.source_mac {
        return Err(Reason::NotAReply);
    }
    match Admission::from_number(settings.admission) {
        Admission::Direct => flow.take_back(),
        Admission::Netfilter => {
            lease::check_reply(&mut flow, parsed, settings, now, tables.now_millis())?;
        }
        Admission::Off => {
            if flow.is_known_to_kernel(settings, tables.now_millis()) {
                return Err(Reason::Admission);
            }
        }
    }
    if network.ttl <= 1 {
        return Err(Reason::Ttl);
    }
    if flow.is_route_stale(settings, now) {
        let host_address = flow.host_address;
        drop(flow);
        renew_route(tables, &key, backend, settings, &host_address)?;
        flow = tables.flow(&key).ok_or(Reason::NotAReply)?;
    }
    if !parsed.fits(u32::from(flow.external_mtu)) {
        return Err(Reason::Mtu);
    }
    let observed = flow.observe(Direction::Reply, parsed.segment(), now);
    if observed == Observed::Invalid {
        return Err(Reason::TcpState);
    }
    flow.traffic.count_out(network.length);
    let reply = Reply {
        address: flow.host_address,
        ports: Ports {
            source: flow.host_port,
            destination: flow.client_port,
        },
        ifindex: flow.external_ifindex,
        next_hop: flow.next_hop,
        mtu: flow.external_mtu.into(),
    };
    let backend = flow.backend;
    drop(flow);
    if observed == Observed::Proven {
        tables.establish(&key);
    }
    tables.with_traffic(backend, |traffic| traffic.count_out(network.length));
    Ok(reply)
}

/// Looks a flow's route up again. A function of its own in the eBPF program, which leaves the stack of the
/// fast path small.
#[inline(never)]
pub(crate) fn renew_route<F: Family, T: Tables<F>>(
    tables: &T,
    key: &FlowKey<F::Address>,
    backend: &Backend,
    settings: &Settings,
    host_address: &F::Address,
) -> Result<(), Reason> {
    if !tables.is_local(host_address) {
        return Err(Reason::NotLocal);
    }
    let mut route = Route::to(key.client);
    tables.route(
        backend.route_ifindex,
        &key.container,
        &key.client,
        &mut route,
    )?;
    // It may have given way to another one meanwhile.
    let mut flow = tables.flow(key).ok_or(Reason::NotAReply)?;
    flow.set_route(&route, settings, tables.now());
    Ok(())
}
