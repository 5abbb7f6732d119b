//! Links, addresses and neighbours at one moment, as plain data.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use anyhow::Context as _;
use dataplane_common::headers::Mac;
use futures_util::TryStreamExt as _;
use netlink_packet_route::{
    AddressFamily,
    address::{AddressAttribute, AddressFlags, AddressMessage},
    link::{InfoKind, LinkAttribute, LinkInfo, LinkLayerType, LinkMessage, LinkXdp},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
};

use super::Netlink;

/// What a link is, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkKind {
    /// A bridge.
    Bridge,
    /// One end of a veth pair whose other end is in another network namespace.
    VethToNamespace,
    /// Anything else.
    Other,
}

/// A link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: LinkKind,
    /// What brings its packets.
    pub device: Device,
    /// The other end of a veth pair, if that is in another network namespace.
    pub peer: Option<Peer>,
    /// The interface it is a port of: a bridge, or a bond.
    pub bridge: Option<u32>,
    /// The interface whose VLAN it is.
    pub vlan_of: Option<u32>,
    /// Its own MAC.
    pub mac: Option<Mac>,
    /// Its MTU, in bytes.
    pub mtu: u32,
    /// What packets on it begin with; none if that is a header that nobody here understands.
    pub framing: Option<Framing>,
    /// The XDP programs on it, by id.
    pub xdp: Vec<u32>,
}

/// What brings a link's packets, as far as it matters to XDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// The other end of a veth pair.
    Veth,
    /// A virtual machine's host.
    Virtio,
    /// Anything else.
    Other,
}

/// The other end of a veth pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Peer {
    /// Its index there.
    pub ifindex: u32,
    /// Its network namespace, as the kernel numbers it for this one.
    pub namespace: i32,
}

/// What packets on a link begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// An Ethernet header.
    Ethernet,
    /// The IP header.
    Bare,
}

impl Framing {
    /// By the link's type; for bare IP as `dev_is_mac_header_xmit` in include/linux/if_arp.h has it.
    fn of(link: LinkLayerType) -> Option<Self> {
        match link {
            LinkLayerType::Ether => Some(Self::Ethernet),
            LinkLayerType::None
            | LinkLayerType::Rawip
            | LinkLayerType::Ppp
            | LinkLayerType::Tunnel
            | LinkLayerType::Tunnel6
            | LinkLayerType::Sit
            | LinkLayerType::Ipgre
            | LinkLayerType::Ip6gre => Some(Self::Bare),
            _ => None,
        }
    }
}

/// What the kernel knows of the network around the host.
#[derive(Debug, Clone, Default)]
pub struct Network {
    /// Links by index.
    pub links: HashMap<u32, Link>,
    /// The host's own addresses but those that no packet can rightly have that is to be forwarded: of
    /// loopback, and IPv6's link-local ones.
    pub addresses: BTreeSet<IpAddr>,
    /// Known neighbours: interface and address.
    pub neighbours: HashMap<(u32, IpAddr), Mac>,
    /// On which port of a bridge a MAC is: bridge and MAC.
    pub bridge_ports: HashMap<(u32, Mac), u32>,
}

impl Netlink {
    /// Reads it all.
    pub async fn network(&self) -> anyhow::Result<Network> {
        let mut network = Network::default();

        let mut links = self.handle.link().get().execute();
        while let Some(message) = links.try_next().await.context("cannot list interfaces")? {
            let link = read_link(&message);
            network.links.insert(link.index, link);
        }

        let mut addresses = self.handle.address().get().execute();
        while let Some(message) = addresses
            .try_next()
            .await
            .context("cannot list addresses")?
        {
            network.addresses.extend(read_address(&message));
        }

        let families = [
            AddressFamily::Inet,
            AddressFamily::Inet6,
            AddressFamily::Bridge,
        ];
        for family in families {
            let mut neighbours = self
                .handle
                .neighbours()
                .get()
                .set_address_family(family)
                .execute();
            while let Some(message) = neighbours
                .try_next()
                .await
                .context("cannot list neighbours")?
            {
                network.add_neighbour(&message);
            }
        }
        Ok(network)
    }
}

impl Network {
    fn add_neighbour(&mut self, message: &NeighbourMessage) {
        let mut address = None;
        let mut mac = None;
        let mut bridge = None;
        for attribute in &message.attributes {
            match attribute {
                NeighbourAttribute::Destination(destination) => address = neighbour_ip(destination),
                NeighbourAttribute::LinkLayerAddress(bytes) => mac = read_mac(bytes),
                NeighbourAttribute::Controller(index) => bridge = Some(*index),
                _ => {}
            }
        }
        let unusable = matches!(
            message.header.state,
            NeighbourState::Incomplete | NeighbourState::Failed | NeighbourState::None
        );
        let Some(mac) = mac else { return };
        match message.header.family {
            AddressFamily::Inet | AddressFamily::Inet6 if !unusable => {
                if let Some(address) = address {
                    self.neighbours
                        .insert((message.header.ifindex, address), mac);
                }
            }
            AddressFamily::Bridge => {
                if let Some(bridge) = bridge {
                    self.bridge_ports
                        .insert((bridge, mac), message.header.ifindex);
                }
            }
            _ => {}
        }
    }
}

fn read_link(message: &LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        kind: LinkKind::Other,
        device: Device::Other,
        peer: None,
        bridge: None,
        vlan_of: None,
        mac: None,
        mtu: 0,
        framing: Framing::of(message.header.link_layer_type),
        xdp: xdp_programs(message),
    };
    let mut peer = None;
    let mut namespace = None;
    let mut is_vlan = false;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Controller(index) => link.bridge = Some(*index),
            LinkAttribute::Address(bytes) => link.mac = read_mac(bytes),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Link(index) => peer = Some(*index),
            LinkAttribute::LinkNetNsId(id) => namespace = Some(*id),
            LinkAttribute::ParentDevBusName(bus) if bus == "virtio" => {
                link.device = Device::Virtio;
            }
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(InfoKind::Bridge) => link.kind = LinkKind::Bridge,
                        LinkInfo::Kind(InfoKind::Veth) => link.device = Device::Veth,
                        LinkInfo::Kind(InfoKind::Vlan) => is_vlan = true,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    link.vlan_of = peer.filter(|_| is_vlan);
    if link.device == Device::Veth
        && let Some(namespace) = namespace
    {
        link.kind = LinkKind::VethToNamespace;
        link.peer = peer.map(|ifindex| Peer { ifindex, namespace });
    }
    link
}

/// The XDP programs on a link, by id.
pub(super) fn xdp_programs(message: &LinkMessage) -> Vec<u32> {
    let attributes = message.attributes.iter();
    let programs = attributes.flat_map(|attribute| match attribute {
        LinkAttribute::Xdp(programs) => programs.as_slice(),
        _ => &[],
    });
    let mut ids: Vec<_> = programs
        .filter_map(|program| match program {
            // One where there is one, and the others where there are several.
            LinkXdp::ProgId(id)
            | LinkXdp::DrvProgId(id)
            | LinkXdp::SkbProgId(id)
            | LinkXdp::HwProgId(id) => Some(*id),
            _ => None,
        })
        .filter(|id| *id != 0)
        .collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

fn read_address(message: &AddressMessage) -> Option<IpAddr> {
    let mut local = None;
    let mut other = None;
    let mut unusable = false;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => other = Some(*ip),
            // Not known to be the host's alone: the kernel does not take packets to it.
            AddressAttribute::Flags(flags) => {
                unusable = flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed);
            }
            _ => {}
        }
    }
    // `Local` is the host's own; `Address` is the peer's on point-to-point links, else the same, and
    // IPv6 then leaves `Local` out.
    let ip = local.or(other)?;
    let is_reachable = match ip {
        IpAddr::V4(ip) => !ip.is_loopback(),
        IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local(),
    };
    (is_reachable && !unusable).then_some(ip)
}

/// The address of an IP neighbour.
pub(super) fn neighbour_ip(address: &NeighbourAddress) -> Option<IpAddr> {
    match address {
        NeighbourAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        NeighbourAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    }
}

fn read_mac(bytes: &[u8]) -> Option<Mac> {
    bytes.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(attributes: &[AddressAttribute]) -> Option<String> {
        let mut message = AddressMessage::default();
        message.attributes = attributes.to_vec();
        read_address(&message).map(|ip| ip.to_string())
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn the_hosts_own_addresses_are_those_that_packets_can_come_to() {
        use AddressAttribute::{Address, Flags, Local};
        for (attributes, expected) in [
            (
                vec![Address(ip("192.0.2.1")), Local(ip("192.0.2.1"))],
                Some("192.0.2.1"),
            ),
            // Point to point: the peer's, and the host's own.
            (
                vec![Address(ip("192.0.2.9")), Local(ip("192.0.2.1"))],
                Some("192.0.2.1"),
            ),
            (vec![Address(ip("127.0.0.1")), Local(ip("127.0.0.1"))], None),
            (
                vec![Address(ip("2001:db8::1")), Flags(AddressFlags::Permanent)],
                Some("2001:db8::1"),
            ),
            (vec![Address(ip("fd00::1"))], Some("fd00::1")),
            (
                vec![Address(ip("fd00::9")), Local(ip("fd00::1"))],
                Some("fd00::1"),
            ),
            (vec![Address(ip("fe80::1"))], None),
            (vec![Address(ip("::1"))], None),
            (
                vec![Address(ip("fd00::1")), Flags(AddressFlags::Tentative)],
                None,
            ),
            (
                vec![
                    Address(ip("fd00::1")),
                    Flags(AddressFlags::Permanent | AddressFlags::Dadfailed),
                ],
                None,
            ),
        ] {
            assert_eq!(address(&attributes).as_deref(), expected, "{attributes:?}");
        }
    }
}
