//! The lab: an outside client and the host under test, joined by the host's external interface.
//!
//! ```text
//! client                 host                        containers
//! eth0 10.99.0.2..5 ---- ext0 10.99.0.1, .11
//!                        br0 10.98.0.1 ------------- 10.98.0.2 ...   (plain namespaces)
//!                        docker0, br-... ----------- 172.17.0.2 ...  (Docker's)
//! ```
//!
//! IPv6 addresses end in the same numbers: 2001:db8:99::1, fd00:98::2.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::Result;

use crate::{
    conversation::{self, Answer, Silence},
    host::Host,
    netns::Netns,
};

/// The host's external interface.
pub const EXTERNAL: &str = "ext0";

/// The host's address that clients use.
pub const HOST: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);

/// A secondary address of the host.
pub const HOST_SECONDARY: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 11);

/// The client's addresses; the first is the host's default gateway.
pub const CLIENTS: [Ipv4Addr; 4] = [
    Ipv4Addr::new(10, 99, 0, 2),
    Ipv4Addr::new(10, 99, 0, 3),
    Ipv4Addr::new(10, 99, 0, 4),
    Ipv4Addr::new(10, 99, 0, 5),
];

/// [`HOST`] in IPv6.
pub const HOST_V6: Ipv6Addr = outside_v6(0x1);

/// [`HOST_SECONDARY`] in IPv6.
pub const HOST_SECONDARY_V6: Ipv6Addr = outside_v6(0x11);

/// [`CLIENTS`] in IPv6.
pub const CLIENTS_V6: [Ipv6Addr; 4] = [outside_v6(2), outside_v6(3), outside_v6(4), outside_v6(5)];

const fn outside_v6(number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0x99, 0, 0, 0, 0, number)
}

/// A client and a host.
#[derive(Debug)]
pub struct Lab {
    /// Everything outside the host.
    pub client: Netns,
    /// The machine under test.
    pub host: Host,
}

impl Lab {
    /// Builds it, in some tens of milliseconds.
    ///
    /// # Errors
    /// Not root, or a piece is missing.
    pub fn new() -> Result<Self> {
        Self::around(Host::new()?)
    }

    /// Builds it around a host.
    ///
    /// # Errors
    /// A piece is missing.
    pub fn around(host: Host) -> Result<Self> {
        let client = Netns::new()?;
        client.ip(&format!(
            "link add eth0 type veth peer name {EXTERNAL} netns {}",
            host.pid()
        ))?;
        client.ip("link set eth0 up")?;
        for address in CLIENTS {
            client.ip(&format!("address add {address}/24 dev eth0"))?;
        }
        host.ip(&format!("link set {EXTERNAL} up"))?;
        for address in [HOST, HOST_SECONDARY] {
            host.ip(&format!("address add {address}/24 dev {EXTERNAL}"))?;
        }
        host.ip(&format!("route add default via {}", CLIENTS[0]))?;
        for address in CLIENTS_V6 {
            client.ip(&format!("address add {address}/64 dev eth0"))?;
        }
        for address in [HOST_V6, HOST_SECONDARY_V6] {
            host.ip(&format!("address add {address}/64 dev {EXTERNAL}"))?;
        }
        host.ip(&format!("route add default via {}", CLIENTS_V6[0]))?;
        client.ip(&format!("route add default via {HOST_V6}"))?;
        // The containers' addresses are nothing to a client, except where a test reaches for them.
        client.ip(&format!("route add default via {HOST}"))?;
        Ok(Self { client, host })
    }

    /// Has the client's kernel finish checksums before it hands packets to the link, as XDP wants them.
    ///
    /// # Errors
    /// There is no ethtool.
    pub fn finish_checksums(&self) -> Result<()> {
        let ethtool = self.client.command("ethtool");
        ethtool.args(["-K", "eth0", "tx", "off"]).text()?;
        Ok(())
    }

    /// `GET /` of the host's `port` from outside.
    ///
    /// # Errors
    /// [`Silence`], which is an outcome like any other.
    pub fn get_from_outside(&self, port: u16) -> Result<Answer, Silence> {
        self.get_from(CLIENTS[0], (HOST, port))
    }

    /// `GET /` of `target` from the client's address `source`.
    ///
    /// # Errors
    /// [`Silence`].
    pub fn get_from(
        &self,
        source: impl Into<IpAddr>,
        target: impl Into<SocketAddr>,
    ) -> Result<Answer, Silence> {
        let target = target.into().to_string();
        get(&self.client, conversation::from_address(source), &target)
    }

    /// `GET /` of `target` by a process of the host itself.
    ///
    /// # Errors
    /// [`Silence`].
    pub fn get_on_host(&self, target: &str) -> Result<Answer, Silence> {
        get(&self.host, None, target)
    }
}

fn get(netns: &Netns, source: Option<SocketAddr>, target: &str) -> Result<Answer, Silence> {
    let outcome = netns.run(|| Ok(conversation::http_get(source, target)));
    outcome.unwrap_or_else(|error| Err(Silence::Other(format!("{error:#}"))))
}
