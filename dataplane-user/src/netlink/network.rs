//! Links, addresses and neighbours at one moment, as plain data.

use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr},
};

use anyhow::Context as _;
use dataplane_common::headers::Mac;
use futures_util::TryStreamExt as _;
use netlink_packet_route::{
    AddressFamily,
    address::{AddressAttribute, AddressMessage},
    link::{InfoKind, LinkAttribute, LinkInfo, LinkLayerType, LinkMessage},
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
    /// The bridge it is a port of.
    pub bridge: Option<u32>,
    /// Its own MAC.
    pub mac: Option<Mac>,
    /// Its MTU, in bytes.
    pub mtu: u32,
    /// What packets on it begin with; none if that is a header that nobody here understands.
    pub framing: Option<Framing>,
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
    /// The host's own IPv4 addresses but those of the loopback network, which no outside packet can
    /// rightly have.
    pub addresses: BTreeSet<Ipv4Addr>,
    /// Known neighbours: interface and address.
    pub neighbours: HashMap<(u32, Ipv4Addr), Mac>,
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

        for family in [AddressFamily::Inet, AddressFamily::Bridge] {
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
                NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => address = Some(*ip),
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
            AddressFamily::Inet if !unusable => {
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
        bridge: None,
        mac: None,
        mtu: 0,
        framing: Framing::of(message.header.link_layer_type),
    };
    let mut is_veth = false;
    let mut is_elsewhere = false;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Controller(index) => link.bridge = Some(*index),
            LinkAttribute::Address(bytes) => link.mac = read_mac(bytes),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::LinkNetNsId(_) => is_elsewhere = true,
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(InfoKind::Bridge) => link.kind = LinkKind::Bridge,
                        LinkInfo::Kind(InfoKind::Veth) => is_veth = true,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    if is_veth && is_elsewhere {
        link.kind = LinkKind::VethToNamespace;
    }
    link
}

fn read_address(message: &AddressMessage) -> Option<Ipv4Addr> {
    // `Local` is the host's own; `Address` is the peer's on point-to-point links, else the same.
    let local = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
            _ => None,
        });
    local.filter(|address| !address.is_loopback())
}

fn read_mac(bytes: &[u8]) -> Option<Mac> {
    bytes.try_into().ok()
}
