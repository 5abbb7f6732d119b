//! Where a container is: which interface of the host leads to it, and with which MAC.

use std::net::IpAddr;

use dataplane_common::headers::Mac;

use super::{
    RouteTo,
    network::{LinkKind, Network},
};

/// How to hand a container a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Location {
    /// The host's end of its veth pair.
    pub ifindex: u32,
    /// The interface by which the host routes to it: the bridge, or the veth itself.
    pub route_ifindex: u32,
    /// Its MAC.
    pub mac: Mac,
    /// The MAC it knows the host by.
    pub source_mac: Mac,
    /// The largest packet it takes, in bytes.
    pub mtu: u32,
}

/// What is known of a container's whereabouts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whereabouts {
    /// Here.
    Found(Location),
    /// On this interface, but it has to be asked; with its MAC if that is known.
    Silent(u32, Option<Mac>),
    /// Not where packets can be handed to it.
    Unreachable(Unreachable),
}

/// Why a container cannot be handed packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreachable {
    /// Nothing leads there.
    #[error("no route leads to it")]
    NoRoute,
    /// It is another host's container, or none.
    #[error("it is behind a gateway, not on this host")]
    Gateway,
    /// A virtual machine, a macvlan, a physical neighbour.
    #[error("it is not behind a veth pair of this host")]
    NotVeth,
}

/// Finds the container with this address, to which the kernel has the route `route`.
pub fn locate(network: &Network, route: RouteTo, address: IpAddr) -> Whereabouts {
    let route_ifindex = match route {
        RouteTo::OnLink(ifindex) => ifindex,
        RouteTo::Gateway => return Whereabouts::Unreachable(Unreachable::Gateway),
        RouteTo::None => return Whereabouts::Unreachable(Unreachable::NoRoute),
    };
    let Some(route_link) = network.links.get(&route_ifindex) else {
        return Whereabouts::Unreachable(Unreachable::NoRoute);
    };
    let Some(mac) = network.neighbours.get(&(route_ifindex, address)).copied() else {
        return Whereabouts::Silent(route_ifindex, None);
    };
    let link = match route_link.kind {
        LinkKind::VethToNamespace => route_link,
        LinkKind::Bridge => {
            let port = network.bridge_ports.get(&(route_ifindex, mac));
            match port.and_then(|index| network.links.get(index)) {
                Some(port) if port.kind == LinkKind::VethToNamespace => port,
                Some(_) => return Whereabouts::Unreachable(Unreachable::NotVeth),
                None => return Whereabouts::Silent(route_ifindex, Some(mac)),
            }
        }
        LinkKind::Other => return Whereabouts::Unreachable(Unreachable::NotVeth),
    };
    let Some(source_mac) = route_link.mac else {
        return Whereabouts::Unreachable(Unreachable::NotVeth);
    };
    Whereabouts::Found(Location {
        ifindex: link.index,
        route_ifindex,
        mac,
        source_mac,
        mtu: link.mtu.min(route_link.mtu),
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::netlink::network::{Device, Framing, Link};

    const CONTAINER: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 17, 0, 2));
    const BRIDGE: u32 = 3;
    const VETH: u32 = 7;
    const MAC: Mac = [2, 0, 0, 0, 0, 2];
    const BRIDGE_MAC: Mac = [2, 0, 0, 0, 0, 1];

    fn link(index: u32, kind: LinkKind, mtu: u32) -> (u32, Link) {
        let link = Link {
            index,
            name: format!("if{index}"),
            kind,
            device: Device::Other,
            peer: None,
            bridge: None,
            vlan_of: None,
            mac: Some(BRIDGE_MAC),
            mtu,
            framing: Some(Framing::Ethernet),
            xdp: Vec::new(),
        };
        (index, link)
    }

    fn network() -> Network {
        Network {
            links: [
                link(BRIDGE, LinkKind::Bridge, 1500),
                link(VETH, LinkKind::VethToNamespace, 1400),
                link(9, LinkKind::Other, 1500),
            ]
            .into(),
            neighbours: [((BRIDGE, CONTAINER), MAC)].into(),
            bridge_ports: [((BRIDGE, MAC), VETH)].into(),
            ..Network::default()
        }
    }

    #[test]
    fn a_container_behind_a_bridge_is_found_by_its_mac() {
        assert_eq!(
            locate(&network(), RouteTo::OnLink(BRIDGE), CONTAINER),
            Whereabouts::Found(Location {
                ifindex: VETH,
                route_ifindex: BRIDGE,
                mac: MAC,
                source_mac: BRIDGE_MAC,
                mtu: 1400,
            })
        );
    }

    #[test]
    fn a_container_behind_a_veth_alone_is_found() {
        let mut network = network();
        network.neighbours.insert((VETH, CONTAINER), MAC);
        assert!(matches!(
            locate(&network, RouteTo::OnLink(VETH), CONTAINER),
            Whereabouts::Found(Location {
                ifindex: VETH,
                route_ifindex: VETH,
                ..
            })
        ));
    }

    #[test]
    fn a_silent_container_is_to_be_asked() {
        let mut network = network();
        network.bridge_ports.clear();
        assert_eq!(
            locate(&network, RouteTo::OnLink(BRIDGE), CONTAINER),
            Whereabouts::Silent(BRIDGE, Some(MAC))
        );
        network.neighbours.clear();
        assert_eq!(
            locate(&network, RouteTo::OnLink(BRIDGE), CONTAINER),
            Whereabouts::Silent(BRIDGE, None)
        );
    }

    #[test]
    fn whatever_is_no_container_of_this_host_is_refused() {
        let mut network = network();
        network.neighbours.insert((9, CONTAINER), MAC);
        for (route, why) in [
            (RouteTo::None, Unreachable::NoRoute),
            (RouteTo::OnLink(99), Unreachable::NoRoute),
            (RouteTo::Gateway, Unreachable::Gateway),
            (RouteTo::OnLink(9), Unreachable::NotVeth),
        ] {
            assert_eq!(
                locate(&network, route, CONTAINER),
                Whereabouts::Unreachable(why),
                "{route:?}"
            );
        }
        network.bridge_ports.insert((BRIDGE, MAC), 9);
        assert_eq!(
            locate(&network, RouteTo::OnLink(BRIDGE), CONTAINER),
            Whereabouts::Unreachable(Unreachable::NotVeth)
        );
    }
}
