//! The kernel's own path is the oracle: the same conversations give the same answers without portway and
//! with it, and the containers see the same clients.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::ExitCode,
};

use anyhow::{Result, ensure};
use portway_tests::{
    container::Container,
    conversation::{self, Datagrams},
    harness::{self, Test},
    iptables,
    lab::{CLIENTS, HOST, HOST_SECONDARY, Lab},
    pass::words,
    portway::Portway,
};

fn main() -> ExitCode {
    harness::run([
        Test::of_portway("conversations_of_many_kinds", many_kinds),
        Test::of_portway(
            "one_client_port_to_two_host_ports_of_one_container",
            colliding_replies,
        ),
    ])
}

/// Lengths of UDP payloads: tiny, odd, as long as a frame takes, and fragmented.
const LENGTHS: [usize; 7] = [4, 5, 100, 511, 1472, 1473, 5000];

fn many_kinds() -> Result<()> {
    let lab = Lab::new()?;
    let web = Container::new(&lab.host, 1)?.serve(&["http/8080", "tcp/8081", "udp/8080"])?;
    let second = Container::new(&lab.host, 2)?.serve(&["http/8080"])?;
    for (container, protocol, host_port, port) in [
        (&web, "tcp", 9000, 8080),
        (&web, "tcp", 9001, 8081),
        (&web, "udp", 9000, 8080),
        (&second, "tcp", 9002, 8080),
        // Published, but nobody listens there.
        (&second, "tcp", 9003, 8088),
    ] {
        container.publish_with_iptables(&lab.host, protocol, host_port, port)?;
    }
    let mut before = Vec::new();
    converse(&lab, &mut before)?;
    let clients_before = [clients(&web, "tcp"), clients(&web, "udp")];
    ensure!(
        clients_before[0].len() == CLIENTS.len(),
        "the oracle itself fails: {before:#?}"
    );

    let portway = Portway::new(&lab.host)?;
    portway.load("--admission direct")?;
    for spec in [
        format!("9000:{}:8080", web.address),
        format!("9001:{}:8081", web.address),
        format!("9000:{}:8080/udp", web.address),
        format!("9002:{}:8080", second.address),
        format!("9003:{}:8088", second.address),
    ] {
        portway.publish(&spec)?;
    }
    let dnat = || -> Result<Vec<_>> {
        let ports = [("tcp", 9000), ("tcp", 9001), ("tcp", 9002)];
        let counted =
            ports.map(|(protocol, port)| iptables::dnat_packets(&lab.host, protocol, port));
        counted.into_iter().collect()
    };
    let counted = dnat()?;
    let mut after = Vec::new();
    let ((), used) = portway.measure(|| converse(&lab, &mut after))?;
    let differences: Vec<_> = before.iter().zip(&after).filter(|(a, b)| a != b).collect();
    ensure!(
        differences.is_empty() && before.len() == after.len(),
        "without and with portway: {differences:#?}"
    );
    let clients_after = [clients(&web, "tcp"), clients(&web, "udp")];
    ensure!(
        clients_before == clients_after,
        "{clients_before:?}, with portway {clients_after:?}"
    );
    ensure!(used.both_ways(), "{used:?}");
    ensure!(
        counted == dnat()?,
        "TCP went through iptables: {counted:?}, now {:?}",
        dnat()?
    );
    Ok(())
}

fn converse(lab: &Lab, outcomes: &mut Vec<(String, String)>) -> Result<()> {
    for client in CLIENTS {
        for (address, port) in [
            (HOST, 9000),
            (HOST_SECONDARY, 9000),
            (HOST, 9002),
            (HOST, 9003),
            (HOST, 9004),
            (HOST, 8080),
        ] {
            let outcome = words(lab.get_from(client, (address, port)));
            outcomes.push((format!("http {client} -> {address}:{port}"), outcome));
        }
        let bulk = lab.client.run(|| {
            let source = conversation::from_address(client);
            Ok(conversation::bulk_echo(
                source,
                (HOST, 9001).into(),
                3 << 20,
            ))
        })?;
        outcomes.push((format!("bulk {client}"), format!("{bulk:?}")));
        for (address, port) in [(HOST, 9000), (HOST_SECONDARY, 9000)] {
            for length in LENGTHS {
                let outcome = lab
                    .client
                    .run(|| udp(client, (address, port).into(), length))?;
                let what = format!("udp {client} -> {address}:{port}, {length} bytes");
                outcomes.push((what, outcome));
            }
        }
    }
    Ok(())
}

fn udp(client: Ipv4Addr, target: SocketAddr, length: usize) -> Result<String> {
    let mut datagrams = Datagrams::new(conversation::from_address(client), target)?;
    // A small one first makes the flow.
    let first = datagrams.echo(8);
    let rest = datagrams.echo(length);
    Ok(format!("{first:?}, {rest:?}"))
}

fn clients(container: &Container, protocol: &str) -> BTreeSet<IpAddr> {
    let clients = container.clients(protocol);
    clients.into_iter().map(|client| client.ip()).collect()
}

/// The replies of both flows look the same as they leave the container, unless one is given another
/// source port, as netfilter does.
fn colliding_replies() -> Result<()> {
    let lab = Lab::new()?;
    let dns = Container::new(&lab.host, 1)?.serve(&["udp/8080", "tcp/8081"])?;
    let portway = Portway::new(&lab.host)?;
    for (protocol, port) in [("udp", 8080), ("tcp", 8081)] {
        for host_port in [9000, 9001] {
            dns.publish_with_iptables(&lab.host, protocol, host_port, port)?;
        }
    }
    let without = both(&lab, SocketAddr::from((CLIENTS[0], 5555)))?;
    portway.load("--admission direct")?;
    for host_port in [9000, 9001] {
        portway.publish(&format!("{host_port}:{}:8080/udp", dns.address))?;
        portway.publish(&format!("{host_port}:{}:8081", dns.address))?;
    }
    // Another port than before: netfilter remembers the first.
    let with = both(&lab, SocketAddr::from((CLIENTS[0], 5556)))?;
    ensure!(
        without == with,
        "without portway {without:?}, with {with:?}"
    );
    Ok(())
}

/// Talks to both ports in turns, over UDP and TCP.
fn both(lab: &Lab, source: SocketAddr) -> Result<Vec<String>> {
    let targets = [9000, 9001].map(|port| SocketAddr::from((HOST, port)));
    lab.client.run(|| {
        // A connected socket hears its own target only.
        let mut sockets = Vec::new();
        let mut connections = Vec::new();
        for target in targets {
            sockets.push(Datagrams::sharing(source, target)?);
            connections.push(conversation::connect(Some(source), target));
        }
        let mut outcomes = Vec::new();
        for turn in 0..3 {
            for socket in &mut sockets {
                outcomes.push(format!("udp {turn}: {:?}", socket.echo(32)));
            }
            for connection in &mut connections {
                let echo = match connection {
                    Ok(connection) => conversation::echo_over(connection, "hello").is_ok(),
                    Err(_) => false,
                };
                outcomes.push(format!("tcp {turn}: {echo}"));
            }
        }
        Ok(outcomes)
    })
}
