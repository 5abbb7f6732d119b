//! A container without Docker: a namespace behind a bridge of the host.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context, Result};
use portway::{hooks::interface_index, netlink::offload};

use crate::{daemon::Daemon, guest, host::Host, netns::Netns, wait::PATIENCE};

/// The bridge of plain containers.
pub const BRIDGE: &str = "br0";

/// The bridge's own address, the containers' gateway; Docker takes its networks elsewhere.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 98, 0, 1);

/// [`GATEWAY`] in IPv6.
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x98, 0, 0, 0, 0, 0, 1);

/// A namespace with an address on the bridge and servers in it.
#[derive(Debug)]
pub struct Container {
    /// Its namespace.
    pub netns: Netns,
    /// Its address.
    pub address: Ipv4Addr,
    /// The host's end of its veth pair.
    pub veth: String,
    /// Its IPv6 address, which ends in the same number.
    pub address_v6: Ipv6Addr,
    servers: Vec<Daemon>,
}

impl Container {
    /// Puts number `number` (1 to 200) on the host's bridge, which is made with the first one.
    ///
    /// # Errors
    /// `ip` fails.
    pub fn new(host: &Host, number: u8) -> Result<Self> {
        let [a, b, c, _] = GATEWAY.octets();
        Self::at(host, number, Ipv4Addr::new(a, b, c, number + 1))
    }

    /// The same with an IPv4 address chosen by the caller, in the bridge's /24.
    ///
    /// # Errors
    /// `ip` fails.
    pub fn at(host: &Host, number: u8, address: Ipv4Addr) -> Result<Self> {
        if host.ip(&format!("link show {BRIDGE}")).is_err() {
            host.ip(&format!("link add {BRIDGE} type bridge"))?;
            host.ip(&format!("address add {GATEWAY}/24 dev {BRIDGE}"))?;
            host.ip(&format!("address add {GATEWAY_V6}/64 dev {BRIDGE}"))?;
            host.ip(&format!("link set {BRIDGE} up"))?;
        }
        let mut segments = GATEWAY_V6.segments();
        segments[7] = address.octets()[3].into();
        let address_v6 = Ipv6Addr::from(segments);
        let netns = Netns::new()?;
        let veth = format!("c{number}");
        netns.ip(&format!(
            "link add eth0 type veth peer name {veth} netns {}",
            host.pid()
        ))?;
        host.ip(&format!("link set {veth} master {BRIDGE} up"))?;
        netns.ip("link set eth0 up")?;
        netns.ip(&format!("address add {address}/24 dev eth0"))?;
        netns.ip(&format!("address add {address_v6}/64 dev eth0"))?;
        netns.ip(&format!("route add default via {GATEWAY}"))?;
        netns.ip(&format!("route add default via {GATEWAY_V6}"))?;
        Ok(Self {
            netns: netns.on(host),
            address,
            veth,
            address_v6,
            servers: Vec::new(),
        })
    }

    /// The same with `http/8080`-like servers running in it.
    ///
    /// # Errors
    /// A server does not start.
    pub fn serve(mut self, endpoints: &[&str]) -> Result<Self> {
        let server = self
            .netns
            .command(guest::program()?)
            .arg("serve")
            .args(endpoints)
            .start()?;
        server.line(guest::READY, PATIENCE)?;
        self.servers.push(server);
        Ok(self)
    }

    /// The clients that its servers saw, in order: one for each connection or datagram.
    pub fn clients(&self, protocol: &str) -> Vec<SocketAddr> {
        let lines = self.servers.iter().flat_map(Daemon::lines);
        lines
            .filter_map(|line| line.text.strip_prefix(protocol)?.trim().parse().ok())
            .collect()
    }

    /// Whether it has GRO.
    ///
    /// # Errors
    /// The kernel's.
    pub fn has_gro(&self) -> Result<bool> {
        self.netns.run(|| offload::gro(interface_index("eth0")?))
    }

    /// Whether it has an XDP program.
    ///
    /// # Errors
    /// The kernel's.
    pub fn has_xdp(&self) -> Result<bool> {
        Ok(self.netns.ip("-o link show eth0")?.contains("prog/xdp"))
    }

    /// Publishes a port the way Docker's rules do, so that there is a slow path.
    ///
    /// # Errors
    /// `iptables` fails.
    pub fn publish_with_iptables(
        &self,
        host: &Host,
        protocol: &str,
        host_port: u16,
        port: u16,
    ) -> Result<()> {
        let to = (self.address, port).into();
        publish_with(host, "iptables", protocol, host_port, to)
    }

    /// The same over IPv6.
    ///
    /// # Errors
    /// `ip6tables` fails.
    pub fn publish_with_ip6tables(
        &self,
        host: &Host,
        protocol: &str,
        host_port: u16,
        port: u16,
    ) -> Result<()> {
        let to = (self.address_v6, port).into();
        publish_with(host, "ip6tables", protocol, host_port, to)
    }
}

fn publish_with(
    host: &Host,
    tool: &str,
    protocol: &str,
    host_port: u16,
    to: SocketAddr,
) -> Result<()> {
    let local = "-m addrtype --dst-type LOCAL";
    for rule in [
        format!(
            "-A PREROUTING -p {protocol} {local} --dport {host_port} ! -i {BRIDGE} \
             -j DNAT --to-destination {to}"
        ),
        format!("-A POSTROUTING -s {} ! -o {BRIDGE} -j MASQUERADE", to.ip()),
    ] {
        host.command(tool)
            .args(["-w", "-t", "nat"])
            .args(rule.split_whitespace())
            .text()
            .context("no slow path")?;
    }
    Ok(())
}
