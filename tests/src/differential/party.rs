//! Who takes part: the client outside, and the containers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::{
    address,
    story::{Host, Version},
};

/// How many containers there are.
pub const CONTAINERS: usize = 3;

/// Everybody: the client, then the containers.
pub const PARTIES: usize = 1 + CONTAINERS;

/// An end of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// The client outside.
    Client,
    /// The container that serves the port.
    Container,
}

/// A Docker network.
#[derive(Debug, PartialEq, Eq)]
pub struct Network {
    /// What Docker calls it.
    pub name: &'static str,
    /// Its bridge.
    pub bridge: &'static str,
    /// The host's address there.
    gateway: Ipv4Addr,
    /// The same in IPv6.
    gateway_v6: Ipv6Addr,
    /// Its MTU.
    pub mtu: u16,
}

/// A container of both twins.
#[derive(Debug)]
pub struct Container {
    /// Its name.
    pub name: &'static str,
    /// The network that it is in.
    pub network: &'static Network,
    address: Ipv4Addr,
    address_v6: Ipv6Addr,
    /// What `docker run -p` publishes, for TCP and UDP each.
    pub publications: &'static [Publication],
}

/// A published port.
#[derive(Debug, Clone, Copy)]
pub struct Publication {
    /// The host's address, or any.
    pub host: Option<Host>,
    /// The host's port.
    pub host_port: u16,
    /// The container's port.
    pub port: u16,
}

/// Docker's own network.
pub const DEFAULT: Network = Network {
    name: "bridge",
    bridge: "docker0",
    gateway: Ipv4Addr::new(172, 17, 0, 1),
    gateway_v6: Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 1),
    mtu: 1500,
};
/// A network with a smaller MTU.
pub const SMALL: Network = Network {
    name: "small",
    bridge: "br-small",
    gateway: Ipv4Addr::new(172, 30, 0, 1),
    gateway_v6: Ipv6Addr::new(0xfd00, 0x30, 0, 0, 0, 0, 0, 1),
    mtu: 1400,
};
/// Its addresses.
pub const SMALL_SUBNETS: [&str; 2] = ["172.30.0.0/24", "fd00:30::/64"];

/// The host's addresses.
const HOSTS: [Host; 4] = [
    Host::Primary,
    Host::Secondary,
    Host::OnLoopback,
    Host::Gateway,
];

const fn any(host_port: u16, port: u16) -> Publication {
    Publication {
        host: None,
        host_port,
        port,
    }
}

const fn bound(host: Host, host_port: u16, port: u16) -> Publication {
    Publication {
        host: Some(host),
        host_port,
        port,
    }
}

/// The containers, in the order in which they are started, which gives them their addresses.
pub const ALL: [Container; CONTAINERS] = [
    Container {
        name: "web",
        network: &DEFAULT,
        address: Ipv4Addr::new(172, 17, 0, 2),
        address_v6: Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0x242, 0xac11, 2),
        publications: &[
            any(9000, 8080),
            any(9001, 8080),
            bound(Host::Primary, 9100, 8100),
            bound(Host::Loopback, 9200, 8200),
        ],
    },
    Container {
        name: "api",
        network: &DEFAULT,
        address: Ipv4Addr::new(172, 17, 0, 3),
        address_v6: Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0x242, 0xac11, 3),
        publications: &[
            any(9002, 9002),
            // The port that the other container is masqueraded under.
            any(8100, 9002),
            bound(Host::Secondary, 9100, 8100),
        ],
    },
    Container {
        name: "dns",
        network: &SMALL,
        address: Ipv4Addr::new(172, 30, 0, 2),
        address_v6: Ipv6Addr::new(0xfd00, 0x30, 0, 0, 0, 0, 0, 2),
        publications: &[any(53, 53), any(9003, 80), bound(Host::Secondary, 9004, 80)],
    },
];

/// Who serves a port of the host, and on which of its own.
pub fn serves(host: Host, host_port: u16) -> Option<(usize, u16)> {
    ALL.iter().enumerate().find_map(|(number, container)| {
        let publication = container.publications.iter().find(|publication| {
            publication.host_port == host_port
                && HOSTS.contains(&host)
                && publication.host.is_none_or(|bound| bound == host)
        })?;
        Some((number, publication.port))
    })
}

impl Container {
    /// Its address.
    pub fn address(&self, version: Version) -> IpAddr {
        match version {
            Version::V4 => self.address.into(),
            Version::V6 => self.address_v6.into(),
        }
    }

    /// The host's address on its bridge.
    pub fn gateway(&self, version: Version) -> IpAddr {
        match version {
            Version::V4 => self.network.gateway.into(),
            Version::V6 => self.network.gateway_v6.into(),
        }
    }

    /// Whether an address is the host's on its bridge.
    pub fn is_gateway(&self, address: IpAddr) -> bool {
        [Version::V4, Version::V6]
            .iter()
            .any(|version| self.gateway(*version) == address)
    }

    /// Whether it has its network for itself.
    pub fn is_alone(&self) -> bool {
        let others = ALL.iter().filter(|other| other.network == self.network);
        others.count() == 1
    }
}

impl Publication {
    /// The arguments of `docker run` that publish it for TCP and UDP.
    pub fn docker_args(&self) -> String {
        let Self {
            host,
            host_port,
            port,
        } = self;
        let hosts = match host {
            None => vec![String::new()],
            Some(host) => [Version::V4, Version::V6]
                .map(|version| match address::host(*host, 0, version) {
                    IpAddr::V4(address) => format!("{address}:"),
                    IpAddr::V6(address) => format!("[{address}]:"),
                })
                .into(),
        };
        let published: Vec<_> = hosts
            .iter()
            .map(|host| format!("-p {host}{host_port}:{port} -p {host}{host_port}:{port}/udp"))
            .collect();
        published.join(" ")
    }
}
