//! Clients behind an interface without an Ethernet header, a VPN's for example, are served as well.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::ExitCode,
};

use anyhow::{Result, ensure};
use dataplane_common::headers::IpProtocol;
use portway_tests::{
    container::Container,
    conversation::{self, ANSWER_LIMIT, Datagrams},
    harness::{self, Test},
    lab::Lab,
    packets::{Errors, icmp_error, segment, send},
    portway::{self, Portway},
    tun::{Kind, Tunnel},
};

const HOST: Ipv4Addr = Ipv4Addr::new(10, 97, 0, 1);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 97, 0, 2);

fn main() -> ExitCode {
    harness::run([
        Test::of_portway("a_tunnel_is_an_external_interface", || tunnel("direct")),
        Test::of_portway("a_tunnel_where_the_firewall_admits", || tunnel("netfilter")),
        Test::of_portway("a_tunnel_that_comes_later", later),
        Test::of_portway("icmp_errors_through_a_tunnel", errors),
    ])
}

/// A tunnel between the lab's host and its client.
fn dig(lab: &Lab) -> Result<Tunnel> {
    let tunnel = Tunnel::new(Kind::Tun, "tun0", &lab.host, &lab.client)?;
    for (netns, own, peer) in [(&*lab.host, HOST, CLIENT), (&lab.client, CLIENT, HOST)] {
        netns.ip(&format!("address add {own} peer {peer} dev tun0"))?;
    }
    Ok(tunnel)
}

fn tunnel(admission: &str) -> Result<()> {
    let lab = Lab::new()?;
    let _tunnel = dig(&lab)?;
    let container = Container::new(&lab.host, 1)?.serve(&["tcp/8081", "udp/8080"])?;
    for (protocol, port) in [("tcp", 8081), ("udp", 8080)] {
        container.publish_with_iptables(&lab.host, protocol, 9000, port)?;
    }
    let portway = Portway::new(&lab.host)?;
    portway.load(&format!("--admission {admission} --external tun0"))?;
    let address = container.address;
    portway.publish(&format!("9000:{address}:8081"))?;
    portway.publish(&format!("9000:{address}:8080/udp"))?;
    let target = SocketAddr::from((HOST, 9000));
    let ((), udp) = portway.measure(|| {
        lab.client.run(|| {
            let mut datagrams = Datagrams::new(conversation::from_address(CLIENT), target)?;
            for length in [4, 100, 1000, 1472].repeat(5) {
                datagrams.echo(length)?;
            }
            Ok(())
        })
    })?;
    let (bulk, tcp) = portway.measure(|| {
        lab.client
            .run(|| conversation::bulk_echo(conversation::from_address(CLIENT), target, 1 << 20))
    })?;
    ensure!(udp.forwarded >= 18 && udp.replied >= 18, "UDP: {udp:?}");
    ensure!(tcp.both_ways(), "TCP: {bulk:?} {tcp:?}");
    let seen = ["tcp", "udp"].map(|protocol| container.clients(protocol));
    ensure!(
        seen.iter().flatten().all(|seen| seen.ip() == CLIENT),
        "{seen:?}"
    );
    Ok(())
}

/// Its programs are loaded when it comes, and another build's take their places with the others'.
fn later() -> Result<()> {
    let lab = Lab::new()?;
    let container = Container::new(&lab.host, 1)?.serve(&["udp/8080"])?;
    let portway = Portway::new(&lab.host)?;
    portway.load("--admission direct")?;
    portway.publish(&format!("9000:{}:8080/udp", container.address))?;
    let _tunnel = dig(&lab)?;
    let folder = tempfile::tempdir()?;
    let other = Portway::again(&lab.host, portway.instance())?
        .with_program(portway::other_build(folder.path())?);
    for (build, word) in [(&portway, "already loaded"), (&other, "upgraded")] {
        let said = build.load("--admission direct --external tun0")?;
        ensure!(said.starts_with(word), "{said}");
        let ((), udp) = portway.measure(|| {
            lab.client.run(|| {
                let target = SocketAddr::from((HOST, 9000));
                Ok(Datagrams::new(conversation::from_address(CLIENT), target)?.echo(100)?)
            })
        })?;
        ensure!(udp.forwarded == 1 && udp.replied == 1, "{word}: {udp:?}");
    }
    Ok(())
}

/// Made by hand, about a question and its answer.
fn errors() -> Result<()> {
    const UDP: IpProtocol = IpProtocol::UDP;
    const PROHIBITED: (u8, u8) = (3, 13);
    let lab = Lab::new()?;
    let _tunnel = dig(&lab)?;
    let container = Container::new(&lab.host, 1)?.serve(&["udp/8080"])?;
    let portway = Portway::new(&lab.host)?;
    portway.load("--admission direct --external tun0")?;
    portway.publish(&format!("9000:{}:8080/udp", container.address))?;
    let client = SocketAddr::from((CLIENT, 5000));
    let published = SocketAddr::from((HOST, 9000));
    let served = SocketAddr::from((container.address, 8080));
    let answer = lab
        .client
        .run(|| Ok(conversation::udp_echo(Some(client), published, 1, 32)))?;
    ensure!(answer.is_ok(), "{answer:?}");

    let [into_container, to_client] =
        [&container.netns, &lab.client].map(|netns| Errors::of(netns, CLIENT.into(), ANSWER_LIMIT));
    let error = |from: IpAddr, to: SocketAddr, ttl, quoted: [SocketAddr; 2]| {
        let quoted = segment(UDP, quoted[0], quoted[1], &[0; 32]);
        icmp_error(from, to.ip(), ttl, PROHIBITED, &quoted)
    };
    send(
        &lab.client,
        &error(CLIENT.into(), published, 50, [published, client]),
    )?;
    let seen = into_container?.next()?;
    let expected = error(CLIENT.into(), served, 49, [served, client]);
    ensure!(seen == expected, "{seen:02x?}, expected {expected:02x?}");

    send(
        &container.netns,
        &error(served.ip(), client, 50, [client, served]),
    )?;
    let seen = to_client?.next()?;
    let expected = error(HOST.into(), client, 49, [client, published]);
    ensure!(seen == expected, "{seen:02x?}, expected {expected:02x?}");
    let status = portway.status()?;
    for counter in ["forwarded", "replied", "icmp_forwarded", "icmp_replied"] {
        ensure!(status.counter(counter) == 1, "{:?}", status.counters);
    }
    Ok(())
}
