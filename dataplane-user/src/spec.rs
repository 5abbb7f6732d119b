//! SPEC, the command line's way to name a published port: `docker run -p`'s grammar with the
//! container's address in front of its port, and Docker's words where it is refused.
//!
//! ```text
//! publish    [HOST_IP:]HOST_PORT[-END]:CONTAINER_IP:PORT[-END][/tcp|udp]
//! unpublish  [HOST_IP:]HOST_PORT[-END][/tcp|udp]
//! ```
//!
//! An IPv6 address stands in brackets. The container's must, because nothing else tells it from its
//! port; without them a host address is taken for what it is, as `docker run -p ::1:80:80` does.
//!
//! Two things that `-p` has and SPEC has not: an ephemeral host port (`127.0.0.1::80`) and the first
//! free port of a range (`8000-8002:80`). Docker can pick a port because it tells the container's
//! owner which one it took; a static publication says itself where it is to be found.

use std::net::{IpAddr, Ipv4Addr};

use thiserror::Error;

use crate::publication::{Declined, PortRange, Protocol, Publication, Source, any_of_family};

/// Why a SPEC is refused. The first words are Docker's where Docker has any.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SpecError {
    /// Nothing where a port should stand.
    #[error("no port specified: {0}")]
    NoPort(String),
    /// No host port: Docker would pick an ephemeral one.
    #[error("no hostPort specified: {0}: portway picks no ephemeral port, name one")]
    NoHostPort(String),
    /// `docker run -p`'s form, without the container's address.
    #[error(
        "no container address specified: {0}: \
         expected [HOST_IP:]HOST_PORT[-END]:CONTAINER_IP:PORT[-END][/tcp|udp]"
    )]
    NoContainerAddress(String),
    /// Not a port or range of 1 to 65535 for the host.
    #[error("invalid hostPort: {0}")]
    HostPort(String),
    /// Not a port or range of 1 to 65535 for the container.
    #[error("invalid containerPort: {0}")]
    ContainerPort(String),
    /// Ranges of different lengths.
    #[error("invalid ranges specified for container and host Ports: {container} and {host}")]
    Ranges {
        /// The container's ports.
        container: PortRange,
        /// The host's ports.
        host: PortRange,
    },
    /// Docker's "first free port of a range".
    #[error(
        "invalid ranges specified for container and host Ports: {container} and {host}: \
         portway does not pick the first free port of a range, name one"
    )]
    FirstFree {
        /// The container's port.
        container: PortRange,
        /// The host's ports.
        host: PortRange,
    },
    /// Neither tcp nor udp.
    #[error("invalid proto: {0}")]
    Proto(String),
    /// SCTP's CRC32c covers the whole packet: no translation in place.
    #[error("sctp is left to the slow path: publish it with docker run -p")]
    Sctp,
    /// Not an address.
    #[error("invalid IP address: {0}")]
    Address(String),
    /// An address that no host or container can have.
    #[error("invalid IP address: {0}: no container or host has it as its own")]
    AddressKind(IpAddr),
    /// A link-local IPv6 address.
    #[error("invalid IP address: {0}: a link-local address means nothing without its link")]
    LinkLocal(IpAddr),
    /// An IPv6 address that cannot be told from the ports around it.
    #[error("invalid IP address in {0}: write an IPv6 address in brackets, like [fd00::2]")]
    Brackets(String),
    /// IPv4 in front, IPv6 behind, or the other way round.
    #[error(
        "{host} and {container} are of different address families: \
         portway translates IPv4 to IPv4 and IPv6 to IPv6 only"
    )]
    FamilyMix {
        /// The host's address.
        host: IpAddr,
        /// The container's address.
        container: IpAddr,
    },
}

/// The parser of `publish`'s and `--publish`'s argument.
#[derive(Debug, Clone, Copy)]
pub struct Spec;

impl Spec {
    /// Reads `[HOST_IP:]HOST_PORT[-END]:CONTAINER_IP:PORT[-END][/tcp|udp]` into a static publication
    /// without a name. Without HOST_IP it is published on any address of the container's family.
    ///
    /// # Errors
    /// A [`SpecError`] whose text is the whole sentence for the user.
    pub fn parse(spec: &str) -> Result<Publication, SpecError> {
        let (rest, protocol) = split_protocol(spec)?;
        let parts = Parts::split(spec, rest)?;
        let container_ports = parts.last;
        if container_ports.is_empty() {
            return Err(SpecError::NoPort(spec.to_owned()));
        }
        let Some((head, container)) = rsplit_colon(parts.head) else {
            return Err(SpecError::NoContainerAddress(spec.to_owned()));
        };
        if container.is_empty() && !head.contains(':') {
            return Err(SpecError::NoContainerAddress(spec.to_owned()));
        }
        let container_ip = match parse_ip(container) {
            Err(_) if is_torn_ipv6(head, container) => {
                return Err(SpecError::Brackets(spec.to_owned()));
            }
            other => other?,
        };
        if is_never_a_container(container_ip) {
            return Err(SpecError::AddressKind(container_ip));
        }
        if is_link_local(container_ip) {
            return Err(SpecError::LinkLocal(container_ip));
        }
        let (host_ip, host_ports) = parse_host(spec, head)?;
        let container_ports = parse_ports(container_ports)
            .ok_or_else(|| SpecError::ContainerPort(container_ports.to_owned()))?;
        if host_ports.count() != container_ports.count() {
            return Err(if container_ports.count() == 1 {
                SpecError::FirstFree {
                    container: container_ports,
                    host: host_ports,
                }
            } else {
                SpecError::Ranges {
                    container: container_ports,
                    host: host_ports,
                }
            });
        }
        let host_ip = host_ip.unwrap_or_else(|| any_of_family(container_ip));
        if host_ip.is_ipv4() != container_ip.is_ipv4() {
            return Err(SpecError::FamilyMix {
                host: host_ip,
                container: container_ip,
            });
        }
        Ok(Publication {
            protocol,
            host_ip,
            host_ports,
            container_ip,
            container_port: container_ports.first,
            source: Source::Static,
            name: String::new(),
            declined: declined(host_ip),
        })
    }
}

/// What `unpublish` takes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unpublish {
    /// Transport protocol.
    pub protocol: Protocol,
    /// The host address named; none means what was published on any address, of either family.
    pub host_ip: Option<IpAddr>,
    /// The host's ports.
    pub host_ports: PortRange,
}

impl Unpublish {
    /// Reads `[HOST_IP:]HOST_PORT[-END][/tcp|udp]`.
    ///
    /// # Errors
    /// A [`SpecError`] whose text is the whole sentence for the user.
    pub fn parse(spec: &str) -> Result<Self, SpecError> {
        let (rest, protocol) = split_protocol(spec)?;
        if rest.is_empty() {
            return Err(SpecError::NoPort(spec.to_owned()));
        }
        let (host_ip, host_ports) = parse_host(spec, rest)?;
        Ok(Self {
            protocol,
            host_ip,
            host_ports,
        })
    }

    /// Whether `publication` is on the address and protocol named here; ports are the caller's, who
    /// knows what to do with a part of a range.
    pub fn is_on(&self, publication: &Publication) -> bool {
        self.protocol == publication.protocol
            && match self.host_ip {
                Some(ip) => ip == publication.host_ip,
                None => publication.host_ip.is_unspecified(),
            }
    }
}

/// Splits at the first `/`, as Docker does; nothing behind it means tcp.
fn split_protocol(spec: &str) -> Result<(&str, Protocol), SpecError> {
    let (rest, protocol) = spec.split_once('/').unwrap_or((spec, ""));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "" | "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => return Err(SpecError::Sctp),
        _ => return Err(SpecError::Proto(protocol.to_owned())),
    };
    Ok((rest, protocol))
}

/// What stands before and behind the last colon.
struct Parts<'a> {
    head: &'a str,
    last: &'a str,
}

impl<'a> Parts<'a> {
    fn split(spec: &str, rest: &'a str) -> Result<Self, SpecError> {
        if rest.is_empty() {
            return Err(SpecError::NoPort(spec.to_owned()));
        }
        match rsplit_colon(rest) {
            Some((head, last)) => Ok(Self { head, last }),
            None => Err(SpecError::NoContainerAddress(spec.to_owned())),
        }
    }
}

/// Splits at the last colon outside brackets.
fn rsplit_colon(text: &str) -> Option<(&str, &str)> {
    let from = text.rfind(']').unwrap_or(0);
    match text[from..].rfind(':') {
        Some(at) => Some((&text[..from + at], &text[from + at + 1..])),
        // A bracket at the very end is a whole address: its colon is the one before it.
        None => {
            let open = text.rfind('[')?;
            let head = text[..open].strip_suffix(':')?;
            Some((head, &text[open..]))
        }
    }
}

/// Reads `[HOST_IP:]HOST_PORT[-END]`.
fn parse_host(spec: &str, text: &str) -> Result<(Option<IpAddr>, PortRange), SpecError> {
    let (ip, ports) = match rsplit_colon(text) {
        Some((ip, ports)) => (Some(ip), ports),
        None => (None, text),
    };
    // Docker looks at the address first, so that is what it complains about.
    let ip = match ip {
        // `-p :80:80` means any address to Docker as well.
        None | Some("") => None,
        Some(ip) => Some(parse_ip(ip)?),
    };
    if let Some(ip) = ip.filter(|ip| is_never_local(*ip)) {
        return Err(SpecError::AddressKind(ip));
    }
    if let Some(ip) = ip.filter(|ip| is_link_local(*ip)) {
        return Err(SpecError::LinkLocal(ip));
    }
    if ports.is_empty() {
        return Err(SpecError::NoHostPort(spec.to_owned()));
    }
    let ports = parse_ports(ports).ok_or_else(|| SpecError::HostPort(ports.to_owned()))?;
    Ok((ip, ports))
}

/// Reads an address, in brackets or not; an IPv4-mapped IPv6 address is its IPv4 address.
fn parse_ip(text: &str) -> Result<IpAddr, SpecError> {
    let bare = text
        .strip_prefix('[')
        .and_then(|inner| inner.strip_suffix(']'))
        .unwrap_or(text);
    let ip: IpAddr = bare
        .parse()
        .map_err(|_| SpecError::Address(text.to_owned()))?;
    Ok(ip.to_canonical())
}

/// Whether a bad container address looks like the tail of an IPv6 address without brackets, whose
/// other groups are in `head`.
fn is_torn_ipv6(head: &str, container: &str) -> bool {
    container.bytes().all(|byte| byte.is_ascii_hexdigit())
        && (head.ends_with(':') || head.contains("::") || head.matches(':').count() > 1)
}

/// Reads `PORT` or `FIRST-LAST`, each of 1 to 65535.
fn parse_ports(text: &str) -> Option<PortRange> {
    let port = |text: &str| {
        // `u16::from_str` would take a sign.
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        digits
            .then(|| text.parse::<u16>().ok())
            .flatten()
            .filter(|port| *port != 0)
    };
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (port(first)?, port(last)?),
        None => (port(text)?, port(text)?),
    };
    (first <= last).then_some(PortRange { first, last })
}

/// Addresses that are not one of a host's own: a packet to them is no `--dst-type LOCAL` one.
fn is_never_local(ip: IpAddr) -> bool {
    ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// Addresses that no packet can be forwarded to.
fn is_never_a_container(ip: IpAddr) -> bool {
    is_never_local(ip) || ip.is_unspecified() || ip.is_loopback()
}

/// IPv6 addresses that are another's on every link, and that packets are not forwarded from or to.
fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

/// Why a publication on `host_ip` is left to the slow path, if it is.
fn declined(host_ip: IpAddr) -> Option<Declined> {
    host_ip.is_loopback().then_some(Declined::Loopback)
}

#[cfg(test)]
mod tests;
