//! What `portway --json` prints: the contract that programs rely on. A missing field fails to parse.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde::Deserialize;

/// A row of `portway ls --json`.
#[derive(Debug, Clone, Deserialize)]
pub struct Port {
    /// "tcp" or "udp".
    pub protocol: String,
    /// The host's address; `0.0.0.0` for any.
    pub host_ip: String,
    /// First host port.
    pub host_port: u16,
    /// Last host port.
    pub host_port_end: u16,
    /// The container's address.
    pub container_ip: String,
    /// The container's port that belongs to the first host port.
    pub container_port: u16,
    /// "docker", "static" or "label".
    pub source: String,
    /// The container's name, if one is known.
    pub name: Option<String>,
    /// "active", "pending" or "declined".
    pub state: String,
    /// Why it is not active.
    pub reason: Option<String>,
    /// Packets from clients.
    pub packets_in: u64,
    /// Packets to clients.
    pub packets_out: u64,
    /// Bytes from clients.
    pub bytes_in: u64,
    /// Bytes to clients.
    pub bytes_out: u64,
}

/// `portway status --json`.
#[derive(Debug, Clone, Deserialize)]
pub struct Status {
    /// Whether the programs are attached.
    pub loaded: bool,
    /// The instance's name.
    pub instance: String,
    /// portway's version.
    pub version: String,
    /// What admits a flow.
    pub admission: Option<Admission>,
    /// Where clients come from.
    pub external: Vec<External>,
    /// How many ports are published.
    pub ports: u64,
    /// How many flows live.
    pub flows: u64,
    /// Packets by reason, and those "forwarded" and "replied".
    pub counters: BTreeMap<String, u64>,
}

/// What admits a flow, and why so.
#[derive(Debug, Clone, Deserialize)]
pub struct Admission {
    /// "direct" or "netfilter".
    pub mode: String,
    /// The sentence for the user.
    pub why: String,
}

/// An external interface.
#[derive(Debug, Clone, Deserialize)]
pub struct External {
    /// Its name.
    pub interface: String,
    /// "xdp", "xdp-generic", "tcx", "clsact".
    pub hooks: Vec<String>,
    /// Whether XDP is taken.
    pub xdp: Xdp,
}

/// Whether XDP is taken on an interface, and why so.
#[derive(Debug, Clone, Deserialize)]
pub struct Xdp {
    /// "native", "generic" or "off".
    pub mode: String,
    /// "tcp" and "udp", or one of them.
    pub protocols: Vec<String>,
    /// The sentence for the user.
    pub why: String,
}

/// A row of `portway flows --json`.
#[derive(Debug, Clone, Deserialize)]
pub struct Flow {
    /// "tcp" or "udp".
    pub protocol: String,
    /// ADDRESS:PORT.
    pub client: String,
    /// ADDRESS:PORT, as the client calls it.
    pub host: String,
    /// ADDRESS:PORT.
    pub container: String,
    /// What is known of the conversation.
    pub state: String,
    /// Seconds since its first packet.
    pub age_s: f64,
    /// Seconds since its last packet.
    pub idle_s: f64,
    /// Packets from the client.
    pub packets_in: u64,
    /// Packets to the client.
    pub packets_out: u64,
    /// Bytes from the client.
    pub bytes_in: u64,
    /// Bytes to the client.
    pub bytes_out: u64,
}

/// Packets that took the fast path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Used {
    /// From clients.
    pub forwarded: u64,
    /// Those from clients that XDP handed over.
    pub by_xdp: u64,
    /// To clients.
    pub replied: u64,
}

impl Used {
    /// Not a packet.
    pub const NOTHING: Self = Self {
        forwarded: 0,
        by_xdp: 0,
        replied: 0,
    };

    /// Whether both ways were used.
    pub fn both_ways(self) -> bool {
        self.forwarded > 0 && self.replied > 0
    }
}

impl Status {
    /// What went through since `before`.
    pub fn since(&self, before: &Self) -> Used {
        let up = |name| self.counter(name).saturating_sub(before.counter(name));
        Used {
            forwarded: up("forwarded"),
            by_xdp: up("forwarded_xdp"),
            replied: up("replied"),
        }
    }

    /// An external interface.
    ///
    /// # Errors
    /// It is none.
    pub fn external(&self, interface: &str) -> Result<&External> {
        let mut external = self.external.iter();
        external
            .find(|external| external.interface == interface)
            .with_context(|| format!("{interface} is not among {:?}", self.external))
    }

    /// A counter; one that is not listed has counted nothing.
    pub fn counter(&self, name: &str) -> u64 {
        self.counters.get(name).copied().unwrap_or_default()
    }
}
