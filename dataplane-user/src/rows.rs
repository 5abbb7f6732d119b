//! Rows of `portway ls` as the pinned map keeps them, and as the rest of the controller sees them.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use anyhow::Context as _;
use dataplane_common::{
    headers::IpProtocol,
    published::Backend,
    registry::{self},
};

use crate::{
    dataplane::{Dataplane, entries},
    netlink::locate::Unreachable,
    publication::{Declined, PortRange, Protocol, Publication, Source},
    text::{decode_text, encode_text},
};

/// SCTP's number (IANA); the dataplane itself has no use for it.
const SCTP: IpProtocol = IpProtocol(132);

/// What has become of a publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Packets take the fast path.
    Active,
    /// Packets take the slow path until the container is found.
    Pending(Waiting),
    /// Packets take the slow path for good.
    Declined(Refusal),
}

/// What a pending publication waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Waiting {
    /// The container's address does not answer.
    #[error("its address does not answer")]
    Silent,
    /// Docker's container has gone, or is going, and Docker has not yet said what comes next.
    #[error("its container has gone")]
    Gone,
    /// The container's address is not on this host.
    #[error(transparent)]
    Elsewhere(Unreachable),
    /// The program that translates replies could not be attached.
    #[error("its interface does not take the reply program")]
    NoHook,
}

/// Why a publication is declined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Portway does not do this kind of publication.
    Kind(Declined),
    /// The container is no container.
    NotVeth,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kind(declined) => declined.fmt(f),
            Self::NotVeth => Unreachable::NotVeth.fmt(f),
        }
    }
}

/// The states with their numbers in [`registry::Row::state`], which later versions must keep.
const STATES: &[(u8, State)] = &[
    (1, State::Active),
    (2, State::Pending(Waiting::Silent)),
    (3, State::Pending(Waiting::Elsewhere(Unreachable::NoRoute))),
    (4, State::Pending(Waiting::Elsewhere(Unreachable::Gateway))),
    (5, State::Pending(Waiting::NoHook)),
    (6, State::Pending(Waiting::Gone)),
    (16, State::Declined(Refusal::Kind(Declined::Sctp))),
    (17, State::Declined(Refusal::Kind(Declined::NoIpv6Address))),
    (18, State::Declined(Refusal::Kind(Declined::NoRules))),
    (19, State::Declined(Refusal::Kind(Declined::Loopback))),
    (20, State::Declined(Refusal::Kind(Declined::Network))),
    (21, State::Declined(Refusal::Kind(Declined::PortTaken))),
    (22, State::Declined(Refusal::Kind(Declined::NoIpv4Address))),
    (23, State::Declined(Refusal::NotVeth)),
];

/// The protocols with their numbers.
const PROTOCOLS: &[(IpProtocol, Protocol)] = &[
    (IpProtocol::TCP, Protocol::Tcp),
    (IpProtocol::UDP, Protocol::Udp),
    (SCTP, Protocol::Sctp),
];

/// The sources with their numbers in [`registry::Row::source`].
const SOURCES: &[(u8, Source)] = &[(1, Source::Docker), (2, Source::Static)];

impl State {
    /// The word by which `portway ls` calls it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Pending(_) => "pending",
            Self::Declined(_) => "declined",
        }
    }

    /// Why it is not active; empty if it is.
    pub fn reason(self) -> String {
        match self {
            Self::Active => String::new(),
            Self::Pending(waiting) => waiting.to_string(),
            Self::Declined(refusal) => refusal.to_string(),
        }
    }
}

/// A row with the backend of the same number.
#[derive(Debug, Clone)]
pub struct Row {
    /// Its number, from 1.
    pub number: u32,
    /// What is published.
    pub publication: Publication,
    /// What has become of it.
    pub state: State,
    /// Where its container is or was.
    pub backend: Backend,
}

impl Row {
    /// Whether packets go to its container. A row that says so with a dead backend is left over from a
    /// process that was killed in the middle of a change.
    pub fn is_live(&self) -> bool {
        self.state == State::Active && self.backend.generation != 0
    }
}

/// All rows, by number.
pub fn read(dataplane: &Dataplane) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (number, row) in entries(&dataplane.rows)? {
        let backend = dataplane
            .backends
            .get(&number, 0)
            .context("cannot read a backend")?;
        let Some((publication, state)) = decode(&row) else {
            tracing::warn!("row {number} has a content this version of portway does not know");
            continue;
        };
        rows.push(Row {
            number,
            publication,
            state,
            backend,
        });
    }
    rows.sort_by_key(|row| row.number);
    Ok(rows)
}

/// Writes a row.
pub fn write(
    dataplane: &mut Dataplane,
    number: u32,
    publication: &Publication,
    state: State,
) -> anyhow::Result<()> {
    dataplane
        .rows
        .insert(number, encode(publication, state), 0)
        .context("cannot write a row")
}

/// As much of a container's name as a row keeps.
pub fn kept_name(name: &str) -> String {
    decode_text(&encode_name(name))
}

fn encode_name(name: &str) -> [u8; 64] {
    encode_text(name)
}

/// The number of an IP protocol.
pub fn protocol_number(protocol: Protocol) -> IpProtocol {
    PROTOCOLS
        .iter()
        .find(|(_, known)| *known == protocol)
        .map_or(SCTP, |(number, _)| *number)
}

/// The protocol with this number.
pub fn protocol(number: IpProtocol) -> Option<Protocol> {
    PROTOCOLS
        .iter()
        .find(|(known, _)| *known == number)
        .map(|(_, protocol)| *protocol)
}

fn encode(publication: &Publication, state: State) -> registry::Row {
    let state = STATES.iter().find(|(_, known)| *known == state);
    let source = SOURCES
        .iter()
        .find(|(_, known)| *known == publication.source);
    registry::Row {
        host_ip: encode_ip(publication.host_ip),
        container_ip: encode_ip(publication.container_ip),
        name: encode_name(&publication.name),
        first_port: publication.host_ports.first,
        last_port: publication.host_ports.last,
        container_port: publication.container_port,
        protocol: protocol_number(publication.protocol).0,
        host_ip_version: ip_version(publication.host_ip),
        container_ip_version: ip_version(publication.container_ip),
        source: source.map_or(0, |(number, _)| *number),
        state: state.map_or(0, |(number, _)| *number),
        reserved: 0,
    }
}

fn decode(row: &registry::Row) -> Option<(Publication, State)> {
    let state = STATES.iter().find(|(number, _)| *number == row.state)?.1;
    let source = SOURCES.iter().find(|(number, _)| *number == row.source)?.1;
    let declined = match state {
        State::Declined(Refusal::Kind(declined)) => Some(declined),
        _ => None,
    };
    let publication = Publication {
        protocol: protocol(IpProtocol(row.protocol))?,
        host_ip: decode_ip(row.host_ip, row.host_ip_version),
        host_ports: PortRange {
            first: row.first_port,
            last: row.last_port,
        },
        container_ip: decode_ip(row.container_ip, row.container_ip_version),
        container_port: row.container_port,
        source,
        name: decode_text(&row.name),
        declined,
    };
    Some((publication, state))
}

fn ip_version(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 4 } else { 6 }
}

fn encode_ip(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&ip.octets());
            bytes
        }
        IpAddr::V6(ip) => ip.octets(),
    }
}

fn decode_ip(bytes: [u8; 16], version: u8) -> IpAddr {
    if version == 6 {
        Ipv6Addr::from(bytes).into()
    } else {
        Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_survives_the_map() {
        for (_, state) in STATES {
            for (host_ip, container_ip) in [
                ("0.0.0.0", "172.17.0.2"),
                ("203.0.113.1", "172.17.0.2"),
                ("::", "fd00::2"),
                ("::", "172.17.0.2"),
            ] {
                for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
                    let declined = match state {
                        State::Declined(Refusal::Kind(declined)) => Some(*declined),
                        _ => None,
                    };
                    let publication = Publication {
                        protocol,
                        host_ip: host_ip.parse().expect("address"),
                        host_ports: PortRange {
                            first: 10_000,
                            last: 20_000,
                        },
                        container_ip: container_ip.parse().expect("address"),
                        container_port: 1,
                        source: Source::Docker,
                        name: "web".into(),
                        declined,
                    };
                    let row = encode(&publication, *state);
                    assert_eq!(decode(&row), Some((publication, *state)));
                }
            }
        }
    }
}
