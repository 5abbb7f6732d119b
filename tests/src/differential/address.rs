//! The addresses and ports of a story, which follow from the number under which it is played: no two
//! stories share any, so that each begins with nothing in anybody's tables.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::{
    party::{self, HOST_ON_LOOPBACK},
    story::{Client, Host, Impostor, Line},
    wire::Ends,
};
use crate::{
    differential::party::End,
    lab::{HOST, HOST_SECONDARY},
};

/// Where routed clients are (RFC 2544's benchmarking network).
const ROUTED: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
/// How many of them there are.
pub const ROUTED_CLIENTS: u32 = 1 << 17;

/// The first and the number of the addresses in the external network that on-link clients share.
pub const ON_LINK: (u8, u8) = (20, 230);
/// How many ports an on-link client has.
const ON_LINK_PORTS: u16 = 8;

/// A router between client and host that sends ICMP errors.
pub const ROUTER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);

/// A story's client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cast {
    /// The story's number.
    pub number: u32,
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
    /// The cast of the story with this number.
    pub fn new(number: u32, client: Client) -> Self {
        Self { number, client }
    }

    /// The client's address in a conversation.
    pub fn client(&self, line: &Line) -> IpAddr {
        let container = &party::ALL[line.container];
        let address = match self.client {
            Client::Routed => Ipv4Addr::from_bits(ROUTED.to_bits() + self.number % ROUTED_CLIENTS),
            Client::OnLink => {
                let (first, count) = ON_LINK;
                let [a, b, c, _] = HOST.octets();
                let own = first + (self.number % u32::from(count)) as u8;
                Ipv4Addr::new(a, b, c, own)
            }
            Client::Impostor(impostor) => match impostor {
                Impostor::Host => HOST,
                Impostor::Gateway => container.gateway,
                Impostor::Container => container.address,
                Impostor::Neighbour => Ipv4Addr::from_bits(container.address.to_bits() + 100),
                Impostor::Loopback => Ipv4Addr::new(127, 0, 0, 9),
                Impostor::Unspecified => Ipv4Addr::UNSPECIFIED,
                Impostor::ThisNetwork => Ipv4Addr::new(0, 1, 2, 3),
                Impostor::Multicast => Ipv4Addr::new(224, 1, 1, 1),
                Impostor::Broadcast => Ipv4Addr::BROADCAST,
                Impostor::Reserved => Ipv4Addr::new(240, 0, 0, 1),
            },
        };
        address.into()
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

    /// The client's end of a conversation.
    pub fn client_end(&self, line: &Line) -> SocketAddr {
        (self.client(line), self.client_port(line)).into()
    }

    /// The ends of a packet that `from` sends, as far as it knows the other one.
    pub fn ends(&self, line: &Line, from: End, view: &View) -> Ends {
        let client = self.client_end(line);
        let container = container_end(line);
        match from {
            End::Client => Ends {
                source: client,
                destination: match line.opener {
                    End::Client => host_end(line),
                    End::Container => view.container.unwrap_or((HOST, line.port).into()),
                },
            },
            End::Container => Ends {
                source: container,
                destination: view.client.unwrap_or(client),
            },
        }
    }
}

/// The container's end of a conversation.
pub fn container_end(line: &Line) -> SocketAddr {
    (party::ALL[line.container].address, line.port).into()
}

/// What the client calls its peer.
pub fn host_end(line: &Line) -> SocketAddr {
    (host(line), line.host_port).into()
}

/// The address by which the client calls its peer.
pub fn host(line: &Line) -> IpAddr {
    let address = match line.host {
        Host::Primary => HOST,
        Host::Secondary => HOST_SECONDARY,
        Host::OnLoopback => HOST_ON_LOOPBACK,
        Host::Gateway => party::ALL[0].gateway,
        Host::Loopback => Ipv4Addr::LOCALHOST,
        Host::Broadcast => Ipv4Addr::from_bits(HOST.to_bits() | 0xff),
        Host::Multicast => Ipv4Addr::new(224, 0, 0, 1),
        Host::Transit => Ipv4Addr::new(192, 0, 2, 1),
        Host::Container => party::ALL[line.container].address,
    };
    address.into()
}
