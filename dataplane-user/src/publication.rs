//! What somebody wants published: one port or a range of ports of a container.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use serde::Serialize;

/// A transport protocol that `-p` can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP: parsed and listed, never accelerated (its CRC32c covers the whole packet).
    Sctp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// Ports `first..=last`, in host byte order, `1 <= first <= last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortRange {
    /// The lowest port.
    pub first: u16,
    /// The highest port, included.
    pub last: u16,
}

impl PortRange {
    /// One port alone.
    pub const fn single(port: u16) -> Self {
        Self {
            first: port,
            last: port,
        }
    }

    /// The number of ports, at least 1.
    pub const fn count(self) -> u32 {
        self.last as u32 - self.first as u32 + 1
    }

    /// The lowest port that both ranges hold.
    pub fn first_shared(self, other: Self) -> Option<u16> {
        let first = self.first.max(other.first);
        (first <= self.last.min(other.last)).then_some(first)
    }
}

/// `80`, or `80-89`.
impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

/// Who asked for a publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// A container started with `-p`.
    Docker,
    /// `portway publish` or `--publish`.
    Static,
}

impl Source {
    /// The word by which `portway ls` calls it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Static => "static",
        }
    }
}

/// Why a publication is left to the slow path for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Declined {
    /// SCTP's checksum covers the whole packet.
    Sctp,
    /// An IPv6 port of a container that has only an IPv4 address: docker-proxy serves it.
    NoIpv6Address,
    /// An IPv4 port of a container that has only an IPv6 address: docker-proxy serves it.
    NoIpv4Address,
    /// An IPv6 port that Docker has no rules for: docker-proxy serves it.
    NoRules,
    /// Published on a loopback address, which no outside packet can reach.
    Loopback,
    /// Docker publishes it through a network that is not a plain NAT bridge (overlay, routed).
    Network,
    /// Somebody else holds the port: Docker has bound what was published by hand before.
    PortTaken,
}

/// One clause, as `portway ls` shows it.
impl fmt::Display for Declined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sctp => "sctp is left to the slow path",
            Self::NoIpv6Address => "the container has no IPv6 address; docker-proxy serves it",
            Self::NoIpv4Address => "the container has no IPv4 address; docker-proxy serves it",
            Self::NoRules => {
                "Docker has no rules for IPv6 (ip6tables is off); docker-proxy serves it"
            }
            Self::Loopback => "published on a loopback address, out of reach from outside",
            Self::Network => "published through a network that is not a NAT bridge",
            Self::PortTaken => "port is already allocated",
        })
    }
}

/// One published port or range; the ports map pairwise onto the container's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Publication {
    /// Transport protocol.
    pub protocol: Protocol,
    /// The host address it is published on; the unspecified address of its family means any.
    pub host_ip: IpAddr,
    /// The host's ports.
    pub host_ports: PortRange,
    /// The container's address.
    pub container_ip: IpAddr,
    /// The container's port that `host_ports.first` leads to.
    pub container_port: u16,
    /// Who asked for it.
    pub source: Source,
    /// The container's name, or empty.
    pub name: String,
    /// Set where the slow path keeps it, with the reason.
    pub declined: Option<Declined>,
}

impl Publication {
    /// What makes it the same one, whatever becomes of it: without name and fate.
    pub fn identity(&self) -> Self {
        Self {
            name: String::new(),
            declined: None,
            ..self.clone()
        }
    }

    /// The container's ports, pairwise to `host_ports`.
    pub const fn container_ports(&self) -> PortRange {
        let span = self.host_ports.last - self.host_ports.first;
        PortRange {
            first: self.container_port,
            last: self.container_port + span,
        }
    }
}

/// The address that means "any" in `ip`'s family.
pub const fn any_of_family(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

/// SPEC's form, `[HOST_IP:]HOST_PORT[-END]:CONTAINER_IP:PORT[-END]/PROTO`. The host address is left
/// out where SPEC would mean the same without it.
impl fmt::Display for Publication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host_ip != any_of_family(self.container_ip) {
            write_ip(f, self.host_ip)?;
            f.write_str(":")?;
        }
        write!(f, "{}:", self.host_ports)?;
        write_ip(f, self.container_ip)?;
        write!(f, ":{}/{}", self.container_ports(), self.protocol)
    }
}

/// An address as it stands before a port: IPv6 in brackets.
fn write_ip(f: &mut fmt::Formatter<'_>, ip: IpAddr) -> fmt::Result {
    match ip {
        IpAddr::V4(ip) => write!(f, "{ip}"),
        IpAddr::V6(ip) => write!(f, "[{ip}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u16, last: u16) -> PortRange {
        PortRange { first, last }
    }

    #[test]
    fn ranges_share_their_lowest_common_port() {
        assert_eq!(range(1, 10).first_shared(range(5, 20)), Some(5));
        assert_eq!(range(5, 20).first_shared(range(1, 10)), Some(5));
        assert_eq!(
            range(1, 65535).first_shared(PortRange::single(80)),
            Some(80)
        );
        assert_eq!(range(1, 10).first_shared(range(11, 20)), None);
    }

    #[test]
    fn a_range_counts_both_ends() {
        assert_eq!(PortRange::single(80).count(), 1);
        assert_eq!(range(1, 65535).count(), 65535);
        assert_eq!(range(10000, 20000).to_string(), "10000-20000");
    }

    #[test]
    fn a_row_that_no_spec_can_say_still_names_both_addresses() {
        let row = Publication {
            protocol: Protocol::Tcp,
            host_ip: IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            host_ports: PortRange::single(9000),
            container_ip: IpAddr::V4(Ipv4Addr::new(172, 17, 0, 2)),
            container_port: 8080,
            source: Source::Docker,
            name: "web".to_owned(),
            declined: Some(Declined::NoIpv6Address),
        };
        assert_eq!(row.to_string(), "[::]:9000:172.17.0.2:8080/tcp");
    }
}
