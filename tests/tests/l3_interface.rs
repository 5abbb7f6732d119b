//! Clients behind an interface without an Ethernet header, a VPN's for example, are served as well.

use std::{
    net::{Ipv4Addr, SocketAddr},
    process::ExitCode,
};

use anyhow::{Result, ensure};
use portway_tests::{
    container::Container,
    conversation::{self, Datagrams},
    harness::{self, Test},
    lab::Lab,
    portway::Portway,
    tun::Tunnel,
};

const HOST: Ipv4Addr = Ipv4Addr::new(10, 97, 0, 1);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 97, 0, 2);

fn main() -> ExitCode {
    harness::run([
        Test::of_portway("a_tunnel_is_an_external_interface", || tunnel("direct")),
        Test::of_portway("a_tunnel_where_the_firewall_admits", || tunnel("netfilter")),
    ])
}

fn tunnel(admission: &str) -> Result<()> {
    let lab = Lab::new()?;
    let _tunnel = Tunnel::new("tun0", &lab.host, &lab.client)?;
    for (netns, own, peer) in [(&*lab.host, HOST, CLIENT), (&lab.client, CLIENT, HOST)] {
        netns.ip(&format!("address add {own} peer {peer} dev tun0"))?;
    }
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
