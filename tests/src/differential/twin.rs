//! One of the twins: a lab with a real Docker daemon, its containers, and a raw socket for every party.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};

use super::{
    address::ON_LINK,
    party::{ALL, CONTAINERS, Container, HOST_ON_LOOPBACK, PARTIES, SMALL_NETWORK, SMALL_SUBNET},
    tap::Tap,
};
use crate::{
    docker::{self, DockerLab},
    image::GUEST,
    lab::{CLIENTS, EXTERNAL, HOST, Lab},
    netns::Netns,
    portway::Portway,
    wait::{self, PATIENCE},
};

/// A container with real servers, for conversations of real sockets.
const SERVER: &str = "server";
/// The host's ports that lead to it: HTTP, TCP echo, UDP echo.
pub const SERVED: [(&str, u16); 3] = [("http", 9300), ("tcp", 9301), ("udp", 9302)];

/// A lab whose raw parties do nothing by themselves.
#[derive(Debug)]
pub struct Twin {
    /// The lab.
    pub lab: DockerLab,
    /// The client's socket, then the containers'.
    pub taps: [Tap; PARTIES],
}

impl Twin {
    /// Builds it.
    ///
    /// # Errors
    /// A piece is missing.
    pub fn new() -> Result<Self> {
        let lab = DockerLab::new()?;
        quieten(&lab)?;
        docker::docker(
            &lab.host,
            &format!(
                "network create --subnet {SMALL_SUBNET} -o com.docker.network.driver.mtu={} \
                 -o com.docker.network.bridge.name={} {SMALL_NETWORK}",
                ALL[CONTAINERS - 1].mtu,
                ALL[CONTAINERS - 1].bridge
            ),
        )?;
        let mut taps = vec![Tap::new(&lab.client, lab.host.mac(EXTERNAL)?)?];
        for container in &ALL {
            taps.push(start(&lab, container)?);
        }
        let served = SERVED.map(|(service, port)| {
            let protocol = if service == "udp" { "/udp" } else { "" };
            (
                format!("-p {port}:{port}{protocol}"),
                format!("{service}/{port}"),
            )
        });
        let publish: Vec<_> = served.iter().map(|(publish, _)| publish.as_str()).collect();
        let serve: Vec<_> = served.iter().map(|(_, serve)| serve.as_str()).collect();
        docker::docker(
            &lab.host,
            &format!(
                "run -d --name {SERVER} {} echo {GUEST} serve {}",
                publish.join(" "),
                serve.join(" ")
            ),
        )?;
        let taps = taps.try_into().ok().context("another number of parties")?;
        Ok(Self { lab, taps })
    }

    /// Waits until `portway` has all ports that containers publish to the outside.
    ///
    /// # Errors
    /// They do not come.
    pub fn wait_published(&self, portway: &Portway<'_>) -> Result<()> {
        let publications = ALL.iter().flat_map(|container| container.publications);
        let raw = publications.flat_map(|publication| {
            let host = publication.host.unwrap_or(Ipv4Addr::UNSPECIFIED);
            let port = publication.host_port;
            [("tcp", host, port), ("udp", host, port)]
        });
        let outside = raw.filter(|(_, host, _)| !host.is_loopback());
        let served = SERVED.map(|(service, port)| {
            let protocol = if service == "udp" { "udp" } else { "tcp" };
            (protocol, Ipv4Addr::UNSPECIFIED, port)
        });
        let wanted: Vec<_> = outside.chain(served).collect();
        wait::until_true("portway having every port active", PATIENCE, || {
            let rows = portway.ls().unwrap_or_default();
            Ok(wanted.iter().all(|(protocol, host, port)| {
                rows.iter().any(|row| {
                    row.state == "active"
                        && row.protocol == *protocol
                        && row.host_ip == host.to_string()
                        && (row.host_port..=row.host_port_end).contains(port)
                })
            }))
        })
        .with_context(|| portway.text("ls").unwrap_or_default())
    }
}

/// Has nobody answer but the parties themselves, and the kernel answer every time it should.
fn quieten(lab: &Lab) -> Result<()> {
    // The stories' clients are not the client's own addresses. What comes for them goes no further.
    lab.client.sysctl("ipv4/ip_forward", "0")?;
    let host = &lab.host;
    // The kernel sends some kinds of ICMP errors less often than they are due.
    host.sysctl("ipv4/icmp_ratemask", "0")?;
    for interface in ["all", "default", EXTERNAL] {
        host.sysctl(&format!("ipv4/conf/{interface}/send_redirects"), "0")?;
    }
    host.ip(&format!("address add {HOST_ON_LOOPBACK}/32 dev lo"))?;
    let mac = lab.client.mac("eth0")?.map(|byte| format!("{byte:02x}"));
    let mac = mac.join(":");
    let [a, b, c, _] = HOST.octets();
    let (first, count) = ON_LINK;
    let on_link = (first..first + count).map(|last| Ipv4Addr::new(a, b, c, last));
    let commands: Vec<_> = on_link
        .chain([CLIENTS[0]])
        .map(|address| {
            format!("neigh replace {address} lladdr {mac} dev {EXTERNAL} nud permanent\n")
        })
        .collect();
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), commands.concat())?;
    host.command("ip").arg("-batch").arg(file.path()).text()?;
    Ok(())
}

/// Starts a container and opens its raw socket. Its kernel hears the real clients only.
fn start(lab: &DockerLab, container: &Container) -> Result<Tap> {
    let Container {
        name,
        network,
        bridge,
        address,
        ..
    } = container;
    let publish: Vec<_> = container
        .publications
        .iter()
        .map(super::party::Publication::docker_args)
        .collect();
    docker::docker(
        &lab.host,
        &format!(
            "run -d --name {name} --network {network} {} echo {GUEST} serve",
            publish.join(" ")
        ),
    )?;
    let given = docker::address(&lab.host, name, network)?;
    anyhow::ensure!(given == *address, "{name} has the address {given}");
    let pid = docker::docker(&lab.host, &format!("inspect -f {{{{.State.Pid}}}} {name}"))?;
    let netns = Netns::at(&lab.host.file(format!("/proc/{pid}/ns/net")))?;
    let [a, b, c, _] = CLIENTS[0].octets();
    netns
        .command("iptables")
        .args(["-w", "-t", "raw", "-A", "PREROUTING", "!", "-s"])
        .args([&format!("{a}.{b}.{c}.0/29"), "-j", "DROP"])
        .text()?;
    Tap::new(&netns, lab.host.mac(bridge)?)
}
