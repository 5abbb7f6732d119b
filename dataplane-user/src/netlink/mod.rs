//! What the kernel says of links, addresses, routes and neighbours, over rtnetlink, and of what devices can do,
//! over generic netlink.
//!
//! | module | its job |
//! |---|---|
//! | [`network`] | all of it at one moment, as plain data |
//! | [`locate`] | where a container is, found in that data |
//! | [`watch`] | when to look again |
//! | [`namespace`] | the network namespaces at the other ends of veth pairs |
//! | [`netdev`] | what devices can do in XDP |
//! | [`offload`] | GRO and its like |
//! | [`generic`] | generic netlink, by which these two are asked |
//! | [`connection`] | a socket for those who ask and wait |

pub mod connection;
pub mod generic;
pub mod locate;
pub mod namespace;
pub mod netdev;
pub mod network;
pub mod offload;
pub mod watch;

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use anyhow::{Context as _, bail};
use futures_util::TryStreamExt as _;
use netlink_packet_route::{
    neighbour::{NeighbourFlags, NeighbourState},
    route::{RouteAttribute, RouteMessage, RouteType},
    tc::{TcAttribute, TcHandle, TcMessage},
};
use rtnetlink::{Handle, RouteMessageBuilder};

use dataplane_common::headers::Mac;
use network::xdp_programs;

/// A connection to the kernel's rtnetlink of this network namespace.
#[derive(Debug, Clone)]
pub struct Netlink {
    handle: Handle,
}

/// Where the kernel would send a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteTo {
    /// Straight to a neighbour on this interface.
    OnLink(u32),
    /// To a gateway.
    Gateway,
    /// Nowhere, or to the host itself.
    None,
}

impl Netlink {
    /// Opens the connection; it lives on the current tokio runtime.
    pub fn connect() -> anyhow::Result<Self> {
        let (connection, handle, _) =
            rtnetlink::new_connection().context("cannot open a netlink socket")?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// Asks the routing table where packets to `address` go.
    pub async fn route_to(&self, address: IpAddr) -> anyhow::Result<RouteTo> {
        let query = match address {
            IpAddr::V4(address) => RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(address, 32)
                .build(),
            IpAddr::V6(address) => RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(address, 128)
                .build(),
        };
        let mut answers = self.handle.route().get(query).execute();
        let route = match answers.try_next().await {
            Ok(Some(route)) => route,
            // Unreachable, prohibited and the like come as errors.
            Ok(None) | Err(rtnetlink::Error::NetlinkError(_)) => return Ok(RouteTo::None),
            Err(error) => return Err(error).context("cannot ask for a route"),
        };
        if route.header.kind != RouteType::Unicast {
            return Ok(RouteTo::None);
        }
        let has_gateway = route.attributes.iter().any(|attribute| {
            matches!(
                attribute,
                RouteAttribute::Gateway(_) | RouteAttribute::Via(_)
            )
        });
        Ok(match oif(&route) {
            _ if has_gateway => RouteTo::Gateway,
            Some(ifindex) => RouteTo::OnLink(ifindex),
            None => RouteTo::None,
        })
    }

    /// The interfaces of the main table's default routes, of IPv4 and IPv6.
    pub async fn default_interfaces(&self) -> anyhow::Result<BTreeSet<u32>> {
        let mut interfaces = BTreeSet::new();
        for query in [
            RouteMessageBuilder::<Ipv4Addr>::new().build(),
            RouteMessageBuilder::<Ipv6Addr>::new().build(),
        ] {
            self.add_default_interfaces(query, &mut interfaces).await?;
        }
        Ok(interfaces)
    }

    async fn add_default_interfaces(
        &self,
        query: RouteMessage,
        interfaces: &mut BTreeSet<u32>,
    ) -> anyhow::Result<()> {
        let mut routes = self.handle.route().get(query).execute();
        while let Some(route) = routes.try_next().await.context("cannot list routes")? {
            let is_default = route.header.destination_prefix_length == 0
                && route.header.kind == RouteType::Unicast
                && route.header.table == nix::libc::RT_TABLE_MAIN;
            if is_default {
                interfaces.extend(oif(&route));
                for attribute in &route.attributes {
                    if let RouteAttribute::MultiPath(hops) = attribute {
                        interfaces.extend(hops.iter().map(|hop| hop.interface_index));
                    }
                }
            }
        }
        Ok(())
    }

    /// Has the kernel ask for a neighbour's MAC. Its answer, if one comes, changes the neighbour table,
    /// and teaches the bridge in between on which port the neighbour is.
    pub async fn probe(&self, ifindex: u32, address: IpAddr, known: Option<Mac>) {
        let neighbours = self.handle.neighbours();
        let request = || neighbours.add(ifindex, address).replace();
        let requests = match known {
            // A known neighbour is asked again by itself, which also works through a bridge that has
            // forgotten its port: it floods what it cannot place.
            Some(mac) => vec![
                request()
                    .link_layer_address(&mac)
                    .state(NeighbourState::Probe),
            ],
            // While it waits for an answer the kernel asks but once a second. Forgetting that makes it
            // ask at once: a container that has just come up did not hear the last time.
            None => vec![
                request().state(NeighbourState::None),
                request()
                    .state(NeighbourState::None)
                    .flags(NeighbourFlags::Use),
            ],
        };
        for request in requests {
            if let Err(error) = request.execute().await {
                tracing::debug!("probing {address} on interface {ifindex}: {error}");
            }
        }
    }

    /// Whether an interface has a clsact qdisc.
    pub async fn has_clsact(&self, ifindex: u32) -> anyhow::Result<bool> {
        let mut qdiscs = self.handle.qdisc().get().execute();
        while let Some(qdisc) = qdiscs.try_next().await.context("cannot list qdiscs")? {
            let is_clsact = qdisc
                .attributes
                .iter()
                .any(|attribute| matches!(attribute, TcAttribute::Kind(kind) if kind == "clsact"));
            if qdisc.header.index == ifindex as i32 && is_clsact {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether an interface's clsact qdisc has a filter of this priority.
    pub async fn has_filter(
        &self,
        ifindex: u32,
        is_ingress: bool,
        priority: u16,
    ) -> anyhow::Result<bool> {
        let request = self.handle.traffic_filter(ifindex as i32).get();
        let mut filters = if is_ingress {
            request.ingress().execute()
        } else {
            request.egress().execute()
        };
        loop {
            match filters.try_next().await {
                Ok(Some(filter)) => {
                    // The upper half of `tcm_info` (include/uapi/linux/pkt_sched.h).
                    if filter.header.info >> 16 == u32::from(priority) {
                        return Ok(true);
                    }
                }
                // Without the qdisc the kernel refuses to list its filters.
                Ok(None) | Err(rtnetlink::Error::NetlinkError(_)) => return Ok(false),
                Err(error) => return Err(error).context("cannot list filters"),
            }
        }
    }

    /// Removes an interface's clsact qdisc if nobody has a filter there any more.
    pub async fn remove_unused_clsact(&self, ifindex: u32) -> anyhow::Result<()> {
        let index = ifindex as i32;
        if !self.has_clsact(ifindex).await? {
            return Ok(());
        }
        let filters = || self.handle.traffic_filter(index).get();
        for request in [filters().ingress(), filters().egress()] {
            if request
                .execute()
                .try_next()
                .await
                .context("cannot list filters")?
                .is_some()
            {
                return Ok(());
            }
        }
        let mut request = self.handle.qdisc().del(index);
        *request.message_mut() = clsact(index);
        request
            .execute()
            .await
            .with_context(|| format!("cannot remove the clsact qdisc of interface {ifindex}"))
    }

    /// The XDP programs on an interface, by id; none if it is gone.
    pub async fn xdp_programs(&self, ifindex: u32) -> anyhow::Result<Vec<u32>> {
        let mut links = self.handle.link().get().match_index(ifindex).execute();
        match links.try_next().await {
            Ok(link) => Ok(link.map_or_else(Vec::new, |link| xdp_programs(&link))),
            Err(rtnetlink::Error::NetlinkError(_)) => Ok(Vec::new()),
            Err(error) => Err(error).context("cannot ask for an interface"),
        }
    }

    /// The index of the interface of this name, if it is one that clients can come in by.
    pub async fn external_interface(&self, name: &str) -> anyhow::Result<u32> {
        let network = self.network().await?;
        let Some(link) = network.links.values().find(|link| link.name == name) else {
            let mut known: Vec<_> = network.links.values().map(|link| &*link.name).collect();
            known.sort_unstable();
            bail!("no interface named {name}: there are {}", known.join(", "));
        };
        if link.framing.is_none() {
            bail!(
                "{name} carries neither Ethernet frames nor bare IP packets: portway cannot accelerate it"
            );
        }
        Ok(link.index)
    }
}

fn oif(route: &RouteMessage) -> Option<u32> {
    route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => Some(*index),
            _ => None,
        })
}

fn clsact(index: i32) -> TcMessage {
    let mut message = TcMessage::with_index(index);
    message.header.parent = TcHandle::CLSACT;
    message.header.handle = TcHandle {
        major: u16::MAX,
        minor: 0,
    };
    message
}
