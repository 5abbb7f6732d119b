//! The addresses and ports of a story, which follow from the number under which it is played: no two
//! stories share any, so that each begins with nothing in anybody's tables.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{
    party::{self, End},
    story::{Client, Host, Impostor, Line, Story, Version},
    wire::Ends,
};
use crate::lab;

/// Where routed clients are (RFC 2544's benchmarking network).
const ROUTED: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
/// How many of them there are.
const ROUTED_CLIENTS: u32 = 1 << 17;
/// The same in IPv6 (RFC 5180's benchmarking network).
const ROUTED_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 0);

/// The first and the number of the addresses in the external network that on-link clients share.
pub const ON_LINK: (u8, u8) = (20, 230);
/// How many ports an on-link client has.
pub const ON_LINK_PORTS: u16 = 8;

/// A secondary address of the host's, on its loopback interface.
const ON_LOOPBACK: Ipv4Addr = Ipv4Addr::new(10, 97, 0, 1);
/// The same in IPv6.
const ON_LOOPBACK_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x97, 0, 0, 0, 0, 0, 1);

/// The client's own address, the host's gateway.
pub fn gateway_of_host(version: Version) -> IpAddr {
    match version {
        Version::V4 => lab::CLIENTS[0].into(),
        Version::V6 => lab::CLIENTS_V6[0].into(),
    }
}

/// The addresses that on-link clients share.
pub fn on_link(version: Version) -> impl Iterator<Item = IpAddr> {
    let (first, count) = ON_LINK;
    (first..first + count).map(move |last| in_external(version, last))
}

fn in_external(version: Version, last: u8) -> IpAddr {
    let last_of = |bits: u128| bits & !0xff | u128::from(last);
    match version {
        Version::V4 => Ipv4Addr::from_bits(last_of(lab::HOST.to_bits().into()) as u32).into(),
        Version::V6 => Ipv6Addr::from_bits(last_of(lab::HOST_V6.to_bits())).into(),
    }
}

/// A story's client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cast {
    /// The story's number.
    pub number: u32,
    /// Its IP version.
    pub version: Version,
    client: Client,
}

/// What each end of a conversation has seen of the other: netfilter may give it another port.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// The client, as its container sees it.
    pub client: Option<SocketAddr>,
    /// The container, as its client sees it.
    pub container: Option<SocketAddr>,
}

impl Cast {
    /// The cast of a story that is played under this number.
    pub fn new(number: u32, story: &Story) -> Self {
        Self {
            number,
            version: story.version,
            client: story.client,
        }
    }

    /// The client's address in a conversation.
    pub fn client(&self, line: &Line) -> IpAddr {
        let own = self.number % ROUTED_CLIENTS;
        match (self.client, self.version) {
            (Client::Routed, Version::V4) => Ipv4Addr::from_bits(ROUTED.to_bits() + own).into(),
            (Client::Routed, Version::V6) => {
                Ipv6Addr::from_bits(ROUTED_V6.to_bits() + 1 + u128::from(own)).into()
            }
            (Client::OnLink, version) => {
                let (first, count) = ON_LINK;
                in_external(version, first + (self.number % u32::from(count)) as u8)
            }
            (Client::Impostor(impostor), version) => impostor.address(line, version),
        }
    }

    /// The client's port in a conversation.
    pub fn client_port(&self, line: &Line) -> u16 {
        match self.client {
            Client::OnLink => {
                let round = (self.number / u32::from(ON_LINK.1)) % 8000;
                1024 + round as u16 * ON_LINK_PORTS + line.client_port % ON_LINK_PORTS
            }
            _ => line.client_port,
        }
    }

    /// How many stories before this one an on-link client's address has had, as far as a byte counts. Twins are
    /// not played to for longer ([`FLOWS_OF_TWINS`](super::run::FLOWS_OF_TWINS)).
    pub fn round(&self) -> u8 {
        (self.number / u32::from(ON_LINK.1)) as u8
    }

    /// The client's end of a conversation.
    pub fn client_end(&self, line: &Line) -> SocketAddr {
        (self.client(line), self.client_port(line)).into()
    }

    /// The container's end of a conversation.
    pub fn container_end(&self, line: &Line) -> SocketAddr {
        let container = &party::ALL[line.container];
        (container.address(self.version), line.port).into()
    }

    /// The ends of a packet that `from` sends, as far as it knows the other one.
    pub fn ends(&self, line: &Line, from: End, view: &View) -> Ends {
        let client = self.client_end(line);
        let container = self.container_end(line);
        match from {
            End::Client => Ends {
                source: client,
                destination: match line.opener {
                    End::Client => (
                        host(line.host, line.container, self.version),
                        line.host_port,
                    )
                        .into(),
                    End::Container => view.container.unwrap_or_else(|| {
                        (host(Host::Primary, line.container, self.version), line.port).into()
                    }),
                },
            },
            End::Container => Ends {
                source: container,
                destination: view.client.unwrap_or(client),
            },
        }
    }
}

/// The address by which a client calls the host, or the container that it wants there.
pub fn host(host: Host, container: usize, version: Version) -> IpAddr {
    let container = &party::ALL[container];
    match version {
        Version::V4 => match host {
            Host::Primary => lab::HOST,
            Host::Secondary => lab::HOST_SECONDARY,
            Host::OnLoopback => ON_LOOPBACK,
            Host::Gateway => return party::ALL[0].gateway(version),
            Host::Loopback => Ipv4Addr::LOCALHOST,
            Host::Broadcast => Ipv4Addr::from_bits(lab::HOST.to_bits() | 0xff),
            Host::Multicast => Ipv4Addr::new(224, 0, 0, 1),
            Host::Transit => Ipv4Addr::new(192, 0, 2, 1),
            Host::Container => return container.address(version),
        }
        .into(),
        Version::V6 => match host {
            Host::Primary => lab::HOST_V6,
            Host::Secondary => lab::HOST_SECONDARY_V6,
            Host::OnLoopback => ON_LOOPBACK_V6,
            Host::Gateway => return party::ALL[0].gateway(version),
            Host::Loopback => Ipv6Addr::LOCALHOST,
            Host::Broadcast => Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
            Host::Multicast => Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 2),
            Host::Transit => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
            Host::Container => return container.address(version),
        }
        .into(),
    }
}

/// A router between client and host that sends ICMP errors.
pub fn router(version: Version) -> IpAddr {
    match version {
        Version::V4 => Ipv4Addr::new(203, 0, 113, 1).into(),
        Version::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 99).into(),
    }
}

impl Impostor {
    fn address(self, line: &Line, version: Version) -> IpAddr {
        let container = &party::ALL[line.container];
        let neighbour = match container.address(version) {
            IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits() + 100).into(),
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() + 100).into(),
        };
        let (v4, v6) = match self {
            Self::Host => return host(Host::Primary, line.container, version),
            Self::Gateway => return container.gateway(version),
            Self::Container => return container.address(version),
            Self::Neighbour => return neighbour,
            Self::Loopback => (Ipv4Addr::new(127, 0, 0, 9), Ipv6Addr::LOCALHOST),
            Self::Unspecified => (Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED),
            Self::ThisNetwork => (
                Ipv4Addr::new(0, 1, 2, 3),
                Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x123),
            ),
            Self::Multicast => (
                Ipv4Addr::new(224, 1, 1, 1),
                Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 2),
            ),
            Self::Broadcast => (
                Ipv4Addr::BROADCAST,
                Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
            ),
            Self::Reserved => (
                Ipv4Addr::new(240, 0, 0, 1),
                Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 1),
            ),
        };
        match version {
            Version::V4 => v4.into(),
            Version::V6 => v6.into(),
        }
    }
}
