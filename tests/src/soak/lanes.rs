//! What is published, to whom.

use std::net::{IpAddr, SocketAddr};

use crate::lab::{HOST, HOST_SECONDARY, HOST_SECONDARY_V6, HOST_V6};

/// Who has a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Holder {
    /// A container of Docker's that comes and goes, of this place.
    Slot(usize),
    /// A container of Docker's that stays.
    Steady(usize),
    /// One of those that stay, by `portway publish`.
    ByHand,
}

/// TCP or UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// As Docker writes it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// Published ports that follow each other.
#[derive(Debug, Clone, Copy)]
pub struct Publication {
    /// Whose they are.
    pub holder: Holder,
    /// Of what.
    pub protocol: Protocol,
    /// The first one on the host.
    pub host_port: u16,
    /// The first one in the container.
    pub port: u16,
    /// How many.
    pub count: u16,
    /// Whether IPv6 clients ask for them too.
    pub has_v6: bool,
}

const fn publication(
    holder: Holder,
    protocol: Protocol,
    host_port: u16,
    port: u16,
    count: u16,
    has_v6: bool,
) -> Publication {
    Publication {
        holder,
        protocol,
        host_port,
        port,
        count,
        has_v6,
    }
}

/// All of them. No two have a container's port in common: what comes to another's is seen there.
pub const PUBLICATIONS: [Publication; 13] = {
    use Holder::{ByHand, Slot, Steady};
    use Protocol::{Tcp, Udp};
    [
        publication(Slot(0), Udp, 9000, 7000, 1, false),
        publication(Slot(0), Tcp, 9001, 7001, 1, false),
        publication(Slot(1), Udp, 9010, 7010, 1, false),
        publication(Slot(1), Tcp, 9011, 7011, 1, false),
        publication(Slot(2), Udp, 9020, 7020, 4, false),
        publication(Slot(3), Udp, 9030, 7030, 1, true),
        publication(Slot(3), Tcp, 9031, 7031, 1, true),
        publication(Steady(0), Udp, 9100, 7100, 1, true),
        publication(Steady(0), Tcp, 9101, 7101, 1, true),
        publication(Steady(1), Udp, 9110, 7110, 1, false),
        publication(Steady(1), Tcp, 9111, 7111, 1, false),
        publication(ByHand, Udp, 9200, 7200, 1, false),
        publication(ByHand, Tcp, 9201, 7201, 1, false),
    ]
};

/// Containers that come and go.
pub const SLOTS: usize = 4;

/// Containers that stay.
pub const STEADY: usize = 2;

/// The network of each slot: one has another than Docker's own, whose containers have no IPv6 address.
pub const NETWORKS: [&str; SLOTS] = ["bridge", "blue", "bridge", "bridge"];

impl Publication {
    /// What `docker run -p` says of it, or what stands for it in `portway publish` to `container`.
    pub fn spec(&self, container: Option<IpAddr>) -> String {
        let range = |first: u16| match self.count {
            1 => first.to_string(),
            count => format!("{first}-{}", first + count - 1),
        };
        let container = container.map(|address| format!("{address}:"));
        format!(
            "{}:{}{}/{}",
            range(self.host_port),
            container.unwrap_or_default(),
            range(self.port),
            self.protocol.word()
        )
    }
}

/// Those of one holder.
pub fn of(holder: Holder) -> impl Iterator<Item = &'static Publication> {
    PUBLICATIONS
        .iter()
        .filter(move |publication| publication.holder == holder)
}

/// A published port as clients of one IP version know it.
#[derive(Debug, Clone, Copy)]
pub struct Lane {
    /// Whose it is.
    pub holder: Holder,
    /// Of what.
    pub protocol: Protocol,
    /// On the host.
    pub host_port: u16,
    /// In the container.
    pub port: u16,
    /// Of which IP version.
    pub is_v6: bool,
}

impl Lane {
    /// Where its clients ask: at any address of the host.
    pub fn target(&self, number: usize) -> SocketAddr {
        let addresses: [IpAddr; 2] = if self.is_v6 {
            [HOST_V6.into(), HOST_SECONDARY_V6.into()]
        } else {
            [HOST.into(), HOST_SECONDARY.into()]
        };
        (addresses[number % addresses.len()], self.host_port).into()
    }
}

/// All of them.
pub fn lanes() -> Vec<Lane> {
    let mut lanes = Vec::new();
    for publication in PUBLICATIONS {
        for offset in 0..publication.count {
            for is_v6 in [false, true] {
                if is_v6 && !publication.has_v6 {
                    continue;
                }
                lanes.push(Lane {
                    holder: publication.holder,
                    protocol: publication.protocol,
                    host_port: publication.host_port + offset,
                    port: publication.port + offset,
                    is_v6,
                });
            }
        }
    }
    lanes
}
