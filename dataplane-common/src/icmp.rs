//! The decision for ICMP errors: do they quote a packet of an accelerated flow, and if so, whose is it?
//!
//! Conntrack does not know flows that were admitted by the published-port table alone, so nobody else can
//! give an error about them to the end it is for; path MTU discovery depends on that. Where the kernel admits
//! flows it knows them, and errors are left to it.
//!
//! As to conntrack (`nf_conntrack_inet_error` in net/netfilter/nf_conntrack_proto_icmp.c), an error is
//! related to a flow without being part of it: it keeps no flow alive, changes no state and is not counted as
//! its traffic. One with a wrong checksum is translated without looking, and stays wrong: the end that it
//! reaches discards it, where conntrack would have left it to the host to do so.

use core::mem::offset_of;

use crate::{
    family::{Family, Network},
    flow::{Flow, FlowKey, OuterTuple},
    forward::{Forward, published},
    headers::{Be16, Ethernet, Icmp, IpProtocol, Ports, Tcp, Udp},
    packet::Packet,
    parse::l4,
    reason::Reason,
    reply::{Reply, renew_route},
    settings::Settings,
    tables::Tables,
};

/// Bytes of the transport header that every error quotes at least (RFC 792).
const QUOTED_TRANSPORT: usize = 8;

/// An ICMP error that quotes a TCP segment or UDP datagram.
#[derive(Clone, Copy, Debug)]
pub struct IcmpError<F: Family> {
    /// Its own IP header.
    pub network: Network<F::Address>,
    /// The IP header of the packet that it is about.
    pub quoted: Network<F::Address>,
    /// How far behind the beginning of that header the transport header lies, in bytes.
    transport: usize,
    /// The ports of that packet.
    pub ports: Ports,
}

/// Where the header of the quoted packet begins.
#[inline(always)]
pub const fn quoted_l3<F: Family, P: Packet>() -> usize {
    l4::<F, P>() + size_of::<Icmp>()
}

/// How much of a packet has to be looked at, from its IP header on: up to the quoted transport header,
/// which is TCP's at most.
pub const fn looked_at<F: Family>() -> usize {
    F::HEADER_LEN + size_of::<Icmp>() + F::HEADER_LEN + F::FRAGMENT_HEADER_LEN + size_of::<Tcp>()
}

impl<F: Family> IcmpError<F> {
    /// Bytes before the quoted transport header, its own IP header included.
    #[inline(always)]
    fn before_transport(&self) -> usize {
        F::HEADER_LEN + size_of::<Icmp>() + self.transport
    }

    /// Where the quoted transport header begins.
    #[inline(always)]
    pub fn quoted_l4<P: Packet>(&self) -> usize {
        quoted_l3::<F, P>() + self.transport
    }

    /// Where the checksum of the quoted packet lies, if it is quoted at all. Of a TCP header that is cut
    /// short it is not, and a UDP datagram need not have one.
    #[inline(always)]
    pub fn quoted_checksum<P: Packet>(&self) -> Option<usize> {
        if self.quoted.protocol == IpProtocol::UDP {
            return Some(self.quoted_l4::<P>() + offset_of!(Udp, checksum));
        }
        // All of the header or nothing, as netfilter has it (`tcp_manip_pkt` in net/netfilter/nf_nat_proto.c).
        (self.network.length as usize >= self.before_transport() + size_of::<Tcp>())
            .then_some(self.quoted_l4::<P>() + offset_of!(Tcp, checksum))
    }
}

/// Reads an ICMP error; the caller has found the packet to be ICMP.
#[inline(always)]
pub fn parse_error<F: Family, P: Packet>(packet: &P) -> Result<IcmpError<F>, Reason> {
    let network = F::parse(packet, P::L3)?;
    let icmp: Icmp = packet.load(l4::<F, P>()).ok_or(Reason::Icmp)?;
    if !F::is_error(icmp.kind) {
        return Err(Reason::Icmp);
    }
    let (quoted, transport) = F::quoted(packet, quoted_l3::<F, P>()).ok_or(Reason::Icmp)?;
    let ports = packet
        .load(quoted_l3::<F, P>() + transport)
        .ok_or(Reason::Icmp)?;
    let error = IcmpError {
        network,
        quoted,
        transport,
        ports,
    };
    let is_of_flows = matches!(quoted.protocol, IpProtocol::TCP | IpProtocol::UDP);
    let shortest = error.before_transport() + QUOTED_TRANSPORT;
    if is_of_flows && network.length as usize >= shortest {
        Ok(error)
    } else {
        Err(Reason::Icmp)
    }
}

/// Decides on an error from outside, about a reply. The ports of the decision are those of the quoted packet.
///
/// It must come to the host address of the flow that it quotes, but may come from anywhere and by any
/// external interface: routers on the way send errors, too, from addresses that need not be routed, or
/// not back by that way, and without them path MTU discovery fails. The kernel refuses them only where
/// `rp_filter` is strict. What they prove to know is the flow itself.
#[inline(always)]
pub fn forward_error<F: Family, P: Packet, T: Tables<F>>(
    packet: &P,
    error: &IcmpError<F>,
    tables: &T,
) -> Result<Forward<F>, Reason> {
    if !packet.is_to_host() {
        return Err(Reason::NotToHost);
    }
    let (network, quoted, ports) = (&error.network, &error.quoted, error.ports);
    if network.destination != quoted.source {
        return Err(Reason::Icmp);
    }
    let settings = direct_settings(tables)?;
    let (slot, backend) = published::<F, T>(tables, quoted.protocol, &quoted.source, ports.source)
        .ok_or(Reason::Icmp)?;
    let mut key = FlowKey {
        container: F::from_words(&backend.address),
        client: quoted.destination,
        container_port: slot.port(),
        client_port: ports.destination,
        protocol: quoted.protocol,
        padding8: 0,
        padding16: 0,
    };
    let is_flow = |key: &FlowKey<F::Address>| {
        tables.flow(key).is_some_and(|flow| {
            flow.host_address == quoted.source
                && flow.host_port == ports.source
                && flow.client_port == ports.destination
                && is_alive(tables, &flow, settings)
        })
    };
    if !is_flow(&key) {
        key.client_port = remapped(tables, error);
        if !is_flow(&key) {
            return Err(Reason::Icmp);
        }
    }
    check_sender(tables, network)?;
    if !tables.is_local(&network.destination) {
        return Err(Reason::NotLocal);
    }
    if network.length > backend.mtu {
        return Err(Reason::Mtu);
    }
    if !tables.is_there(backend.ifindex) {
        return Err(Reason::BackendGone);
    }
    Ok(Forward {
        address: key.container,
        ports: Ports {
            source: key.container_port,
            destination: key.client_port,
        },
        mac: backend.mac,
        source_mac: backend.source_mac,
        ifindex: backend.ifindex,
        is_first: false,
    })
}

/// Decides on an error that came in on `ingress`, the host's end of a container's veth pair, about a packet
/// from outside. The ports of the decision are those of the quoted packet.
///
/// It may come from any address behind the container, and leaves with the host's.
#[inline(always)]
pub fn reply_error<F: Family, P: Packet, T: Tables<F>>(
    packet: &P,
    error: &IcmpError<F>,
    tables: &T,
    ingress: u32,
) -> Result<Reply<F>, Reason> {
    let ethernet: Ethernet = packet.load(0).ok_or(Reason::Malformed)?;
    let (network, quoted, ports) = (&error.network, &error.quoted, error.ports);
    if network.destination != quoted.source {
        return Err(Reason::Icmp);
    }
    let settings = direct_settings(tables)?;
    let key = FlowKey {
        container: quoted.destination,
        client: quoted.source,
        container_port: ports.destination,
        client_port: ports.source,
        protocol: quoted.protocol,
        padding8: 0,
        padding16: 0,
    };
    let mut flow = tables.flow(&key).ok_or(Reason::Icmp)?;
    if !is_alive(tables, &flow, settings) {
        return Err(Reason::Icmp);
    }
    let backend = tables.backend(flow.backend).ok_or(Reason::Icmp)?;
    if backend.ifindex != ingress {
        return Err(Reason::WrongInterface);
    }
    if ethernet.destination != backend.source_mac {
        return Err(Reason::NotToHost);
    }
    check_sender(tables, network)?;
    if flow.is_route_stale(settings, tables.now()) {
        let host_address = flow.host_address;
        drop(flow);
        renew_route(tables, &key, backend, settings, &host_address)?;
        flow = tables.flow(&key).ok_or(Reason::Icmp)?;
    }
    if network.length > flow.external_mtu.into() {
        return Err(Reason::Mtu);
    }
    Ok(Reply {
        address: flow.host_address,
        ports: Ports {
            source: flow.client_port,
            destination: flow.host_port,
        },
        ifindex: flow.external_ifindex,
        next_hop: flow.next_hop,
        mtu: flow.external_mtu.into(),
    })
}

/// The settings, where flows are ours alone.
#[inline(always)]
fn direct_settings<F: Family, T: Tables<F>>(tables: &T) -> Result<&Settings, Reason> {
    tables
        .settings()
        .filter(|settings| settings.is_direct())
        .ok_or(Reason::Icmp)
}

#[inline(always)]
fn is_alive<F: Family, T: Tables<F>>(
    tables: &T,
    flow: &Flow<F::Address>,
    settings: &Settings,
) -> bool {
    tables
        .backend(flow.backend)
        .is_some_and(|backend| !flow.is_over(backend.generation, &settings.timeouts, tables.now()))
}

/// The port under which the container sees the client, where it is not the client's own; zero, which no flow
/// has, where it is. A function of its own in the eBPF program, which leaves the stack of the other small.
#[inline(never)]
fn remapped<F: Family, T: Tables<F>>(tables: &T, error: &IcmpError<F>) -> Be16 {
    let tuple = OuterTuple {
        client: error.quoted.destination,
        host: error.quoted.source,
        client_port: error.ports.destination,
        host_port: error.ports.source,
        protocol: error.quoted.protocol,
        padding8: 0,
        padding16: 0,
    };
    tables.remapped(&tuple).unwrap_or_default()
}

/// Whether the kernel would forward what comes from there: neither from one of its own addresses (as
/// `fib_validate_source` in net/ipv4/fib_frontend.c has it) nor from a martian one, and with hops left.
#[inline(always)]
fn check_sender<F: Family, T: Tables<F>>(
    tables: &T,
    network: &Network<F::Address>,
) -> Result<(), Reason> {
    if network.ttl <= 1 {
        return Err(Reason::Ttl);
    }
    if F::is_martian(network.source) || tables.is_local(&network.source) {
        return Err(Reason::Martian);
    }
    Ok(())
}
