//! A test bed: a lab with one container, in which nothing happens by itself.

use anyhow::Result;
use portway_tests::{
    container::{BRIDGE, Container, GATEWAY},
    lab::{CLIENTS, EXTERNAL, Lab},
};

use crate::ethtool::turn_gro_on;

/// The client's interface, and the container's.
pub const INSIDE: &str = "eth0";

/// A server in the container that nobody asks.
pub const IDLE: &str = "tcp/1";

/// How long conntrack and portway remember a conversation, in seconds: longer than a scenario takes.
const REMEMBER: &str = "3600";

/// A client, a host and a container.
#[derive(Debug)]
pub struct Bed {
    /// The client and the host.
    pub lab: Lab,
    /// The container.
    pub container: Container,
}

impl Bed {
    /// Builds one.
    ///
    /// # Errors
    /// A piece is missing.
    pub fn new() -> Result<Self> {
        let lab = Lab::new()?;
        // By a process that lives in it, as in every container, portway finds its network namespace.
        let container = Container::new(&lab.host, 1)?.serve(&[IDLE])?;
        let bed = Self { lab, container };
        bed.settle_neighbours()?;
        // NAPI, without which a veth interface drops frames that are redirected to it.
        turn_gro_on(&bed.lab.host, EXTERNAL)?;
        for timeout in [
            "nf_conntrack_udp_timeout",
            "nf_conntrack_udp_timeout_stream",
        ] {
            bed.lab
                .host
                .sysctl(&format!("netfilter/{timeout}"), REMEMBER)?;
        }
        Ok(bed)
    }

    /// Nobody has to ask for a MAC address, now or later.
    fn settle_neighbours(&self) -> Result<()> {
        let Self { lab, container } = self;
        let mac = |bytes: [u8; 6]| bytes.map(|byte| format!("{byte:02x}")).join(":");
        let client = mac(lab.client.mac(INSIDE)?);
        let inside = mac(container.netns.mac(INSIDE)?);
        let bridge = mac(lab.host.mac(BRIDGE)?);
        let (address, veth) = (container.address, &container.veth);
        lab.host.ip(&format!(
            "neighbour replace {} lladdr {client} dev {EXTERNAL} nud permanent",
            CLIENTS[0]
        ))?;
        lab.host.ip(&format!(
            "neighbour replace {address} lladdr {inside} dev {BRIDGE} nud permanent"
        ))?;
        container.netns.ip(&format!(
            "neighbour replace {GATEWAY} lladdr {bridge} dev {INSIDE} nud permanent"
        ))?;
        lab.host
            .command("bridge")
            .args(["fdb", "replace", &inside, "dev", veth, "master", "static"])
            .text()?;
        Ok(())
    }
}
