//! A story: one client's conversations, step by step. Everything a random script says is in here; what it
//! looks like on the wire follows from it and from the number under which it is played.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    party::{self, End},
    step::Step,
};

/// A client, whom it talks to, and what is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Story {
    /// The IP version of all its packets.
    pub version: Version,
    /// Where the client is.
    pub client: Client,
    /// The conversations.
    pub lines: Vec<Line>,
    /// What is sent, in this order.
    pub steps: Vec<Step>,
}

/// A version of IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Version {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A client's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Client {
    /// Behind the host's gateway.
    Routed,
    /// In the external interface's own network.
    OnLink,
    /// One that no client can have, or that is somebody else's: what it sends still comes from outside.
    Impostor(Impostor),
}

/// An address that a client should not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Impostor {
    /// The host's own.
    Host,
    /// The host's on its bridge.
    Gateway,
    /// The container's that serves the port.
    Container,
    /// Another in the containers' network.
    Neighbour,
    /// Loopback.
    Loopback,
    /// 0.0.0.0 or ::.
    Unspecified,
    /// "This network", 0.1.2.3; a link-local address in IPv6.
    ThisNetwork,
    /// A multicast group.
    Multicast,
    /// The broadcast address; all nodes in IPv6.
    Broadcast,
    /// The reserved 240.0.0.1; the discard prefix in IPv6.
    Reserved,
}

/// What the client calls its peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Host {
    /// The host's first address.
    Primary,
    /// A secondary address.
    Secondary,
    /// One on its loopback interface.
    OnLoopback,
    /// Its address on the default bridge.
    Gateway,
    /// The loopback address.
    Loopback,
    /// The external network's broadcast address; all nodes in IPv6.
    Broadcast,
    /// A multicast group.
    Multicast,
    /// Somewhere behind the host.
    Transit,
    /// The container itself, past the host's ports.
    Container,
}

/// TCP or UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// What they speak.
    pub protocol: Protocol,
    /// Who begins.
    pub opener: End,
    /// The client's port. On-link clients share addresses and use its lowest bits only.
    pub client_port: u16,
    /// Whom the client talks to. A container that begins is masqueraded as the host's first address.
    pub host: Host,
    /// On which port.
    pub host_port: u16,
    /// The container that answers or begins.
    pub container: usize,
    /// Its port.
    pub port: u16,
}

impl Line {
    /// Whether the client sends on the same tuple.
    pub fn is_same(&self, other: &Self) -> bool {
        self.protocol == other.protocol
            && self.client_port == other.client_port
            && (self.host, self.host_port) == (other.host, other.host_port)
    }

    /// Whether the container begins this conversation on ports on which the client begins the other one: on
    /// the container's side, or on the host's, where it is masqueraded under its own port.
    pub fn crosses(&self, other: &Self) -> bool {
        let is_masquerade = self.client_port == other.client_port && self.port == other.host_port;
        self.opener == End::Container
            && other.opener == End::Client
            && self.protocol == other.protocol
            && (self.looks_like(other) || is_masquerade)
    }

    /// Whether the container sends on the same tuple.
    pub fn looks_like(&self, other: &Self) -> bool {
        self.protocol == other.protocol
            && self.client_port == other.client_port
            && (self.container, self.port) == (other.container, other.port)
    }
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?}, {:?} client", self.version, self.client)?;
        for (number, line) in self.lines.iter().enumerate() {
            writeln!(f, "line {number}: {line}")?;
        }
        for (number, step) in self.steps.iter().enumerate() {
            writeln!(f, "step {number}: line {}: {step}", step.line)?;
        }
        Ok(())
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            protocol,
            client_port,
            host,
            host_port,
            port,
            ..
        } = self;
        let container = party::ALL[self.container].name;
        match self.opener {
            End::Client => write!(
                f,
                "{protocol:?} client:{client_port} -> {host:?}:{host_port}, answered by {container}:{port}"
            ),
            End::Container => write!(f, "{protocol:?} {container}:{port} -> client:{client_port}"),
        }
    }
}
