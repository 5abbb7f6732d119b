//! One of the twins: a lab with a real Docker daemon, its containers, and a raw socket for every party.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use super::{
    address,
    party::{ALL, CONTAINERS, Container, PARTIES, Publication, SMALL, SMALL_SUBNETS},
    story::{Host, Version},
    tap::Tap,
};
use crate::{
    docker::{self, DockerLab},
    image::GUEST,
    lab::{CLIENTS, EXTERNAL, Lab},
    netns::Netns,
    portway::Portway,
    wait,
};

/// A container with real servers, for conversations of real sockets.
const SERVER: &str = "server";
/// The host's ports that lead to it: HTTP, TCP echo, UDP echo.
pub const SERVED: [(&str, u16); 3] = [("http", 9300), ("tcp", 9301), ("udp", 9302)];

/// How long portway may take to load and to find every container, on a machine that has more to do.
const LIMIT: Duration = Duration::from_secs(60);

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
        let lab = DockerLab::with_ipv6(true)?;
        for version in [Version::V4, Version::V6] {
            let address = address::host(Host::OnLoopback, 0, version);
            lab.host.ip(&format!("address add {address} dev lo"))?;
        }
        quieten(&lab)?;
        let [subnet, subnet_v6] = SMALL_SUBNETS;
        docker::docker(
            &lab.host,
            &format!(
                "network create --subnet {subnet} --ipv6 --subnet {subnet_v6} \
                 -o com.docker.network.driver.mtu={} \
                 -o com.docker.network.bridge.name={} {}",
                SMALL.mtu, SMALL.bridge, SMALL.name
            ),
        )?;
        let mut taps = Vec::with_capacity(1 + CONTAINERS);
        taps.push(Tap::new(&lab.client, lab.host.mac(EXTERNAL)?)?);
        for container in &ALL {
            taps.push(start(&lab, container)?);
        }
        start_server(&lab)?;
        let taps = taps.try_into().ok().context("another number of parties")?;
        Ok(Self { lab, taps })
    }

    /// Waits until `portway` has all ports that containers publish to the outside.
    ///
    /// # Errors
    /// They do not come.
    pub fn wait_published(&self, portway: &Portway<'_>, versions: &[Version]) -> Result<()> {
        let publications = ALL.iter().flat_map(|container| container.publications);
        let outside: Vec<_> = publications
            .filter(|publication| publication.host != Some(Host::Loopback))
            .collect();
        let mut wanted = Vec::new();
        for version in versions {
            let any: IpAddr = match version {
                Version::V4 => Ipv4Addr::UNSPECIFIED.into(),
                Version::V6 => Ipv6Addr::UNSPECIFIED.into(),
            };
            for publication in &outside {
                let host = publication
                    .host
                    .map_or(any, |host| address::host(host, 0, *version));
                wanted.extend(
                    ["tcp", "udp"]
                        .map(|protocol| (protocol, host.to_string(), publication.host_port)),
                );
            }
        }
        wait::until_true("portway having every port active", LIMIT, || {
            let rows = portway.ls().unwrap_or_default();
            Ok(wanted.iter().all(|(protocol, host, port)| {
                rows.iter().any(|row| {
                    row.state == "active"
                        && row.protocol == *protocol
                        && row.host_ip == *host
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
    let own = address::gateway_of_host(Version::V6);
    drop_in(&lab.client, "ip6tables", &format!("! -d {own}"))?;
    let host = &lab.host;
    // The kernel sends some kinds of ICMP errors less often than they are due.
    host.sysctl("ipv4/icmp_ratemask", "0")?;
    host.sysctl("ipv6/icmp/ratelimit", "0")?;
    // What tells a story's packets is not to be in the kernel's own.
    host.sysctl("ipv6/auto_flowlabels", "0")?;
    for interface in ["all", "default", EXTERNAL] {
        host.sysctl(&format!("ipv4/conf/{interface}/send_redirects"), "0")?;
    }
    let mac = lab.client.mac("eth0")?.map(|byte| format!("{byte:02x}"));
    let mac = mac.join(":");
    let versions = [Version::V4, Version::V6];
    let neighbours = versions
        .into_iter()
        .flat_map(|version| address::on_link(version).chain([address::gateway_of_host(version)]));
    let commands: String = neighbours
        .map(|address| {
            format!("neigh replace {address} lladdr {mac} dev {EXTERNAL} nud permanent\n")
        })
        .collect();
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), commands)?;
    host.command("ip").arg("-batch").arg(file.path()).text()?;
    Ok(())
}

/// Starts a container and opens its raw socket. Its kernel hears the real clients only.
fn start(lab: &DockerLab, container: &Container) -> Result<Tap> {
    let Container { name, network, .. } = container;
    let publish: Vec<_> = container
        .publications
        .iter()
        .map(Publication::docker_args)
        .collect();
    let publish = publish.join(" ");
    docker::docker(
        &lab.host,
        &format!(
            "run -d --name {name} --network {} {publish} echo {GUEST} serve",
            network.name
        ),
    )?;
    let pid = docker::docker(&lab.host, &format!("inspect -f {{{{.State.Pid}}}} {name}"))?;
    let netns = Netns::at(&lab.host.file(format!("/proc/{pid}/ns/net")))?;
    let addresses = netns.ip("-o address show dev eth0")?;
    for version in [Version::V4, Version::V6] {
        let expected = container.address(version);
        ensure!(
            addresses.contains(&format!(" {expected}/")),
            "{name} does not have the address {expected}: {addresses}"
        );
    }
    let [a, b, c, _] = CLIENTS[0].octets();
    drop_in(&netns, "iptables", &format!("! -s {a}.{b}.{c}.0/29"))?;
    drop_in(&netns, "ip6tables", "")?;
    Tap::new(&netns, lab.host.mac(network.bridge)?)
}

/// Has a namespace's kernel not hear packets, but for those by which neighbours find it.
fn drop_in(netns: &Netns, program: &str, packets: &str) -> Result<()> {
    let append = |rule: &str| -> Result<()> {
        let command = netns.command(program);
        let command = command.args(["-w", "-t", "raw", "-A", "PREROUTING"]);
        command.args(rule.split_whitespace()).text()?;
        Ok(())
    };
    if program == "ip6tables" {
        for kind in ["neighbour-solicitation", "neighbour-advertisement"] {
            append(&format!("-p icmpv6 --icmpv6-type {kind} -j ACCEPT"))?;
        }
    }
    append(&format!("{packets} -j DROP"))
}

/// Starts the container with real servers.
fn start_server(lab: &DockerLab) -> Result<()> {
    let served = SERVED.map(|(service, port)| {
        let protocol = if service == "udp" { "/udp" } else { "" };
        (
            format!("-p {port}:{port}{protocol}"),
            format!("{service}/{port}"),
        )
    });
    let [publish, serve] = [0, 1].map(|which| {
        let words: Vec<_> = served
            .iter()
            .map(|(publish, serve)| if which == 0 { publish } else { serve }.as_str())
            .collect();
        words.join(" ")
    });
    docker::docker(
        &lab.host,
        &format!("run -d --name {SERVER} {publish} echo {GUEST} serve {serve}"),
    )?;
    Ok(())
}
