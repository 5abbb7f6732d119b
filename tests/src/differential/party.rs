//! Who takes part: the client outside, and the containers.

use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

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

/// A container of both twins.
#[derive(Debug)]
pub struct Container {
    /// Its name.
    pub name: &'static str,
    /// The Docker network that it is in.
    pub network: &'static str,
    /// That network's bridge.
    pub bridge: &'static str,
    /// Its address, the first that Docker gives.
    pub address: Ipv4Addr,
    /// The host's address on its bridge.
    pub gateway: Ipv4Addr,
    /// The MTU of its network.
    pub mtu: u16,
    /// What `docker run -p` publishes, for TCP and UDP each.
    pub publications: &'static [Publication],
}

/// A published port.
#[derive(Debug, Clone, Copy)]
pub struct Publication {
    /// The host's address, or any.
    pub host: Option<Ipv4Addr>,
    /// The host's port.
    pub host_port: u16,
    /// The container's port.
    pub port: u16,
}

/// A secondary address of the host's, on its loopback interface.
pub const HOST_ON_LOOPBACK: Ipv4Addr = Ipv4Addr::new(10, 97, 0, 1);

/// A Docker network with a smaller MTU.
pub const SMALL_NETWORK: &str = "small";
/// Its addresses.
pub const SMALL_SUBNET: &str = "172.30.0.0/24";

const fn any(host_port: u16, port: u16) -> Publication {
    Publication {
        host: None,
        host_port,
        port,
    }
}

const fn bound(host: Ipv4Addr, host_port: u16, port: u16) -> Publication {
    Publication {
        host: Some(host),
        host_port,
        port,
    }
}

/// The containers, in the order in which they are started.
pub const ALL: [Container; CONTAINERS] = [
    Container {
        name: "web",
        network: "bridge",
        bridge: "docker0",
        address: Ipv4Addr::new(172, 17, 0, 2),
        gateway: Ipv4Addr::new(172, 17, 0, 1),
        mtu: 1500,
        publications: &[
            any(9000, 8080),
            any(9001, 8080),
            bound(crate::lab::HOST, 9100, 8100),
            bound(Ipv4Addr::LOCALHOST, 9200, 8200),
        ],
    },
    Container {
        name: "api",
        network: "bridge",
        bridge: "docker0",
        address: Ipv4Addr::new(172, 17, 0, 3),
        gateway: Ipv4Addr::new(172, 17, 0, 1),
        mtu: 1500,
        publications: &[
            any(9002, 9002),
            // The port that the other container is masqueraded under.
            any(8100, 9002),
            bound(crate::lab::HOST_SECONDARY, 9100, 8100),
        ],
    },
    Container {
        name: "dns",
        network: SMALL_NETWORK,
        bridge: "br-small",
        address: Ipv4Addr::new(172, 30, 0, 2),
        gateway: Ipv4Addr::new(172, 30, 0, 1),
        mtu: 1400,
        publications: &[
            any(53, 53),
            any(9003, 80),
            bound(crate::lab::HOST_SECONDARY, 9004, 80),
        ],
    },
];

/// Who serves a port of the host, and on which of its own.
pub fn serves(host: IpAddr, host_port: u16) -> Option<(usize, u16)> {
    ALL.iter().enumerate().find_map(|(number, container)| {
        let publication = container.publications.iter().find(|publication| {
            let is_local = [
                crate::lab::HOST,
                crate::lab::HOST_SECONDARY,
                HOST_ON_LOOPBACK,
                ALL[0].gateway,
            ]
            .iter()
            .any(|local| IpAddr::from(*local) == host);
            publication.host_port == host_port
                && is_local
                && publication
                    .host
                    .is_none_or(|bound| IpAddr::from(bound) == host)
        })?;
        Some((number, publication.port))
    })
}

/// Whether a container has its network for itself.
pub fn is_alone(container: usize) -> bool {
    let network = ALL[container].network;
    ALL.iter().filter(|other| other.network == network).count() == 1
}

impl Publication {
    /// The arguments of `docker run` that publish it for TCP and UDP.
    pub fn docker_args(&self) -> String {
        let Self {
            host_port, port, ..
        } = self;
        let host = self.host.map(|host| format!("{host}:")).unwrap_or_default();
        format!("-p {host}{host_port}:{port} -p {host}{host_port}:{port}/udp")
    }
}
