//! When to look again: the kernel's notifications, boiled down to what has to be redone.

use std::{collections::HashSet, future::pending, net::IpAddr};

use anyhow::Context as _;
use dataplane_common::headers::Mac;
use futures_util::{StreamExt as _, stream::BoxStream};
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour::{NeighbourAttribute, NeighbourMessage},
};
use rtnetlink::MulticastGroup;

use super::{netdev, network::neighbour_ip};

/// A change in the network around the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Links, their qdiscs, or the host's addresses or routes.
    Topology,
    /// A neighbour has been learned, has moved or is gone.
    Neighbour(IpAddr),
    /// A MAC has been learned on a bridge port, has moved or is gone.
    BridgePort(Mac),
    /// A device can do more in XDP than before, or less.
    Device,
}

/// The kernel's notifications, from now on.
pub struct Watch {
    messages: BoxStream<'static, NetlinkMessage<RouteNetlinkMessage>>,
    /// Of what rtnetlink does not tell: whether a container still takes frames from XDP.
    devices: Option<netdev::Watch>,
}

impl Watch {
    /// Subscribes; changes after this call are not missed.
    pub fn start() -> anyhow::Result<Self> {
        let (connection, _, messages) = rtnetlink::new_multicast_connection(&[
            MulticastGroup::Link,
            MulticastGroup::Neigh,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv4Rule,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv6Route,
            MulticastGroup::Ipv6Rule,
            // Qdiscs and filters: ours may be removed.
            MulticastGroup::Tc,
        ])
        .context("cannot subscribe to the kernel's notifications")?;
        tokio::spawn(connection);
        let messages = messages.map(|(message, _)| message).boxed();
        Ok(Self {
            messages,
            devices: netdev::Watch::start()?,
        })
    }

    /// Waits for the next change. `None` if the kernel has closed the connection.
    pub async fn next(&mut self) -> Option<Change> {
        let Self { messages, devices } = self;
        let device_changed = async {
            match devices {
                Some(devices) => devices.next().await,
                None => pending().await,
            }
        };
        let network_changed = async {
            loop {
                if let Some(change) = classify(&messages.next().await?.payload) {
                    return Some(change);
                }
            }
        };
        tokio::select! {
            change = network_changed => change,
            () = device_changed => Some(Change::Device),
        }
    }
}

fn classify(payload: &NetlinkPayload<RouteNetlinkMessage>) -> Option<Change> {
    match payload {
        NetlinkPayload::InnerMessage(
            RouteNetlinkMessage::NewNeighbour(message) | RouteNetlinkMessage::DelNeighbour(message),
        ) => classify_neighbour(message),
        NetlinkPayload::InnerMessage(_) => Some(Change::Topology),
        // The socket overran: anything may have changed.
        NetlinkPayload::Error(_) | NetlinkPayload::Overrun(_) => Some(Change::Topology),
        _ => None,
    }
}

fn classify_neighbour(message: &NeighbourMessage) -> Option<Change> {
    message
        .attributes
        .iter()
        .find_map(|attribute| match (message.header.family, attribute) {
            (
                AddressFamily::Inet | AddressFamily::Inet6,
                NeighbourAttribute::Destination(address),
            ) => neighbour_ip(address).map(Change::Neighbour),
            (AddressFamily::Bridge, NeighbourAttribute::LinkLayerAddress(bytes)) => {
                bytes.as_slice().try_into().ok().map(Change::BridgePort)
            }
            _ => None,
        })
}

/// What the controller depends on; changes elsewhere do not concern it.
#[derive(Debug, Clone, Default)]
pub struct Interest {
    /// Addresses of containers.
    pub addresses: HashSet<IpAddr>,
    /// MACs of containers.
    pub macs: HashSet<Mac>,
}

impl Interest {
    /// Whether to look again after this change.
    pub fn concerns(&self, change: &Change) -> bool {
        match change {
            Change::Topology | Change::Device => true,
            Change::Neighbour(address) => self.addresses.contains(address),
            // A MAC that is learned may be one whose owner is being looked for.
            Change::BridgePort(mac) => self.macs.contains(mac),
        }
    }
}
