//! From the Docker API's answers to publications. Pure: tested on answers of real daemons.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use bollard::models::{
    ContainerSummary, ContainerSummaryStateEnum, EndpointSettings, Network, PortSummary,
    PortSummaryTypeEnum,
};

use super::{
    gateway::{Candidate, DefaultRoutes, choose},
    ranges::join,
    unsettled::Unsettled,
};
use crate::publication::{Declined, PortRange, Protocol, Publication, Source};

/// What of a network decides whether ports are published on it. None of it ever changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct NetworkKind {
    nat_v4: bool,
    nat_v6: bool,
}

/// The daemon's networks by id.
#[derive(Debug, Clone, Default)]
pub struct Networks {
    by_id: HashMap<String, NetworkKind>,
    has_v6: bool,
}

impl Networks {
    /// From the answer to `/networks`.
    pub fn new(list: &[Network]) -> Self {
        let kind = |network: &Network| {
            // macvlan, ipvlan, host and none publish nothing; overlay publishes through a bridge
            // that the container's list of networks does not show (docker_gwbridge). Nothing is
            // published on an internal network, and nothing by NAT in gateway mode routed (27+).
            let bridge = network.driver.as_deref() == Some("bridge")
                && !network.internal.unwrap_or_default();
            let routed = |family: &str| {
                let option = format!("com.docker.network.bridge.gateway_mode_{family}");
                let mode = network
                    .options
                    .as_ref()
                    .and_then(|options| options.get(&option));
                mode.is_some_and(|mode| mode == "routed" || mode == "isolated")
            };
            NetworkKind {
                nat_v4: bridge && !routed("ipv4"),
                nat_v6: bridge && !routed("ipv6"),
            }
        };
        let by_id = list
            .iter()
            .flat_map(|it| ids(it).map(|id| (id, kind(it))))
            .collect();
        let has_v6 = list.iter().any(|it| it.enable_ipv6.unwrap_or_default());
        Self { by_id, has_v6 }
    }

    /// Whether containers can have IPv6 addresses.
    pub fn have_v6(&self) -> bool {
        self.has_v6
    }

    /// Whether every network of these containers is known.
    pub fn cover(&self, containers: &[ContainerSummary]) -> bool {
        containers
            .iter()
            .filter(|container| has_published(container))
            .flat_map(endpoints)
            .filter_map(|(_, endpoint)| endpoint.network_id.as_ref())
            .all(|id| self.by_id.contains_key(id))
    }

    fn kind(&self, endpoint: &EndpointSettings) -> NetworkKind {
        let none = NetworkKind {
            nat_v4: false,
            nat_v6: false,
        };
        let id = endpoint.network_id.as_ref();
        id.and_then(|id| self.by_id.get(id))
            .copied()
            .unwrap_or(none)
    }
}

/// What containers call a network: its id, but podman before 5 has its name there, which for the default one is not
/// the name that it lists.
fn ids(network: &Network) -> impl Iterator<Item = String> + use<> {
    let name = network.name.as_deref();
    let of_default = (name == Some("bridge")).then_some("podman");
    let names = [network.id.as_deref(), name, of_default];
    names
        .map(|name| name.map(str::to_owned))
        .into_iter()
        .flatten()
}

/// Everything read from the daemon in one go.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The answer to `/containers/json`.
    pub containers: Vec<ContainerSummary>,
    /// The networks, at least those of the containers with published ports.
    pub networks: Networks,
    /// Whether the daemon leaves IPv6 ports to docker-proxy, as it does with ip6tables off.
    pub proxies_v6: bool,
    /// The default routes of the containers that [`ambiguous`] names, by id, where known.
    pub routes: HashMap<String, DefaultRoutes>,
    /// The ids of the ambiguous containers that the daemon could not tell about in time.
    pub undecided: HashSet<String>,
}

/// The ids of the containers that have ports published and more than one network to do it on.
pub fn ambiguous<'a>(
    containers: &'a [ContainerSummary],
    networks: &'a Networks,
) -> impl Iterator<Item = &'a str> {
    let several = |container: &&ContainerSummary| {
        let kinds = || endpoints(container).map(|(_, endpoint)| networks.kind(endpoint));
        kinds().filter(|kind| kind.nat_v4 || kind.nat_v6).count() > 1
    };
    let published = containers
        .iter()
        .filter(|container| has_published(container));
    published
        .filter(several)
        .filter_map(|container| container.id.as_deref())
}

/// The publications of all running containers, in a fixed order; consecutive ports that lead to
/// consecutive ports are one row.
pub fn publications(facts: &Facts, unsettled: &Unsettled) -> Vec<Publication> {
    let mut rows = Vec::new();
    for container in &facts.containers {
        let id = container.id.as_deref().unwrap_or_default();
        let in_doubt = unsettled.container_ended(id) || facts.undecided.contains(id);
        if in_doubt || !has_published(container) {
            continue;
        }
        let routes = facts.routes.get(id).copied().unwrap_or_default();
        let addresses = Addresses {
            proxies_v6: facts.proxies_v6,
            ..Addresses::of(container, &facts.networks, routes, unsettled)
        };
        rows.extend(container_rows(container, addresses));
    }
    join(rows)
}

/// Whether the container runs and Docker lists a host port for it. A paused container keeps its
/// ports; a restarting one has none, though it is listed.
pub(super) fn has_published(container: &ContainerSummary) -> bool {
    let runs = matches!(
        container.state,
        Some(ContainerSummaryStateEnum::RUNNING | ContainerSummaryStateEnum::PAUSED)
    );
    let ports = container.ports.as_deref().unwrap_or_default();
    runs && ports
        .iter()
        .any(|port| port.public_port.is_some_and(|port| port != 0))
}

fn endpoints(container: &ContainerSummary) -> impl Iterator<Item = (&String, &EndpointSettings)> {
    let networks = container
        .network_settings
        .as_ref()
        .and_then(|it| it.networks.as_ref());
    networks.into_iter().flatten()
}

/// Where a container's ports lead to.
#[derive(Debug, Clone, Copy)]
struct Addresses {
    v4: Option<Ipv4Addr>,
    v6: Option<Ipv6Addr>,
    /// An address in a network that does not publish by NAT.
    other: Option<IpAddr>,
    /// As [`Facts::proxies_v6`].
    proxies_v6: bool,
}

impl Addresses {
    fn of(
        container: &ContainerSummary,
        networks: &Networks,
        routes: DefaultRoutes,
        unsettled: &Unsettled,
    ) -> Self {
        let id = container.id.as_deref().unwrap_or_default();
        let mut v4 = Vec::new();
        let mut v6 = Vec::new();
        let mut other = BTreeSet::new();
        for (name, endpoint) in endpoints(container) {
            let network = endpoint.network_id.as_deref().unwrap_or_default();
            if unsettled.endpoint_ended(id, network) {
                continue;
            }
            let kind = networks.kind(endpoint);
            let address_v4 = address::<Ipv4Addr>(endpoint.ip_address.as_ref());
            let address_v6 = address::<Ipv6Addr>(endpoint.global_ipv6_address.as_ref());
            let gateway_v4 = address::<Ipv4Addr>(endpoint.gateway.as_ref());
            let gateway_v6 = address::<Ipv6Addr>(endpoint.ipv6_gateway.as_ref());
            let priority = endpoint.gw_priority.unwrap_or_default();
            let dual_stack = gateway_v4.is_some() && gateway_v6.is_some();
            if let Some(address) = address_v4.filter(|_| kind.nat_v4) {
                let network = name.clone();
                v4.push(Candidate {
                    network,
                    address,
                    gateway: gateway_v4,
                    priority,
                    dual_stack,
                });
            }
            if let Some(address) = address_v6.filter(|_| kind.nat_v6) {
                let network = name.clone();
                v6.push(Candidate {
                    network,
                    address,
                    gateway: gateway_v6,
                    priority,
                    dual_stack,
                });
            }
            other.extend(address_v4.map(IpAddr::V4).or(address_v6.map(IpAddr::V6)));
        }
        Self {
            v4: choose(&v4, routes.v4).map(|it| it.address),
            v6: choose(&v6, routes.v6).map(|it| it.address),
            other: other.first().copied(),
            proxies_v6: false,
        }
    }

    /// Where a port published on `host_ip` leads to, and why it is left to the slow path if it is.
    fn target(self, host_ip: IpAddr, protocol: Protocol) -> Option<(IpAddr, Option<Declined>)> {
        let (v4, v6) = (self.v4.map(IpAddr::V4), self.v6.map(IpAddr::V6));
        let (address, by_family) = match (host_ip, v4, v6) {
            (IpAddr::V4(_), Some(v4), _) => (v4, None),
            (IpAddr::V4(_), None, Some(v6)) => (v6, Some(Declined::NoIpv4Address)),
            (IpAddr::V6(_), _, Some(v6)) => (v6, self.proxies_v6.then_some(Declined::NoRules)),
            (IpAddr::V6(_), Some(v4), None) => (v4, Some(Declined::NoIpv6Address)),
            (_, None, None) => (self.other?, Some(Declined::Network)),
        };
        let declined = if host_ip.is_loopback() {
            Some(Declined::Loopback)
        } else if protocol == Protocol::Sctp {
            Some(Declined::Sctp)
        } else {
            by_family
        };
        Some((address, declined))
    }
}

/// Docker writes an address that is not there as an empty string.
fn address<A: FromStr>(text: Option<&String>) -> Option<A> {
    text.and_then(|text| text.parse().ok())
}

/// One row for each published port and host address of a container.
fn container_rows(container: &ContainerSummary, to: Addresses) -> Vec<Publication> {
    let name = name(container);
    let ports = container.ports.as_deref().unwrap_or_default();
    let row = |port: &PortSummary, host_ip: IpAddr| {
        let protocol = match port.typ? {
            // Docker before 1.13 left the type out for tcp.
            PortSummaryTypeEnum::TCP | PortSummaryTypeEnum::EMPTY => Protocol::Tcp,
            PortSummaryTypeEnum::UDP => Protocol::Udp,
            PortSummaryTypeEnum::SCTP => Protocol::Sctp,
        };
        let host_port = port.public_port.filter(|port| *port != 0)?;
        let (container_ip, declined) = to.target(host_ip, protocol)?;
        Some(Publication {
            protocol,
            host_ip,
            host_ports: PortRange::single(host_port),
            container_ip,
            container_port: port.private_port,
            source: Source::Docker,
            name: name.clone(),
            declined,
        })
    };
    let all = ports.iter().flat_map(|port| {
        host_addresses(port, to)
            .into_iter()
            .filter_map(move |host_ip| row(port, host_ip))
    });
    all.collect()
}

/// The host addresses that a row of the list is about. Docker lists 0.0.0.0 and :: apart; an empty
/// address (podman's API, Docker before 1.13) means any address that the container has a family for.
fn host_addresses(port: &PortSummary, to: Addresses) -> Vec<IpAddr> {
    match port.ip.as_deref() {
        None | Some("") => {
            let v4 = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
            let v6 = to.v6.map(|_| IpAddr::V6(Ipv6Addr::UNSPECIFIED));
            [Some(v4), v6].into_iter().flatten().collect()
        }
        Some(text) => text
            .parse()
            .map(|ip: IpAddr| ip.to_canonical())
            .into_iter()
            .collect(),
    }
}

/// A container's own name: `/web`. `/other/alias` is how it is known to a container linked to it.
fn name(container: &ContainerSummary) -> String {
    let names = container.names.as_deref().unwrap_or_default();
    let own = names
        .iter()
        .map(|name| name.trim_start_matches('/'))
        .find(|name| !name.contains('/'));
    own.unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;
