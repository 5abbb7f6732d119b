//! Who reaches what, row by row: with portway as without it, and only packets from outside to a port that is
//! published at their destination are accelerated.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    process::ExitCode,
};

use anyhow::{Context, Result, ensure};
use portway_tests::{
    conversation::{self, ANSWER_LIMIT, Silence},
    docker::{self, DockerLab},
    harness::{self, Test},
    image::GUEST,
    lab::{CLIENTS, CLIENTS_V6, HOST, HOST_SECONDARY, HOST_V6, Lab},
    pass::words,
    portway::Portway,
};

fn main() -> ExitCode {
    harness::run([
        Test::with_dockerd("from_outside", || rows(&OUTSIDE)),
        Test::with_dockerd("from_the_host", || rows(&HOST_ITSELF)),
        Test::with_dockerd("from_containers", || rows(&CONTAINERS)),
        Test::with_dockerd("over_ipv6", || rows(&IPV6)),
        Test::with_dockerd("what_publishes_nothing", || rows(&NOTHING)),
    ])
}

/// A row of the table: who reaches what, and whether that is portway's.
struct Row {
    what: &'static str,
    is_accelerated: bool,
    play: fn(&Lab) -> Result<String>,
}

const fn accelerated(what: &'static str, play: fn(&Lab) -> Result<String>) -> Row {
    Row {
        what,
        is_accelerated: true,
        play,
    }
}

const fn passed(what: &'static str, play: fn(&Lab) -> Result<String>) -> Row {
    Row {
        what,
        is_accelerated: false,
        play,
    }
}

/// What Docker runs: `web` with ports on any address, on one and on loopback, and others around it.
const CONTAINERS_RUN: [&str; 11] = [
    "network create --ipv6 --subnet fd00:77::/64 other",
    "network create --internal inner",
    "network create plain",
    "run -d --name web -p 9000:8080 -p 10.99.0.11:9001:8080 -p 127.0.0.1:9002:8080 \
     -p 9000:8081/udp echo GUEST serve http/8080 udp/8081",
    "run -d --name beside echo",
    "run -d --name elsewhere --network other echo",
    "run -d --name six --network other -p 9006:8080 echo",
    "run -d --name four --network plain -p 9008:8080 echo",
    "run -d --name inner --network inner -p 9003:8080 echo",
    "run -d --name hosts --network host -p 9004:8080 echo GUEST serve http/9007",
    "run -d --name none --network none -p 9005:8080 echo",
];

const OUTSIDE: [Row; 8] = [
    accelerated("1 any address", |lab| outside(lab, (HOST, 9000))),
    accelerated("1 another address", |lab| {
        outside(lab, (HOST_SECONDARY, 9000))
    }),
    accelerated("2 the bound address", |lab| {
        outside(lab, (HOST_SECONDARY, 9001))
    }),
    passed("2 not the bound address", |lab| outside(lab, (HOST, 9001))),
    passed("3 broadcast", |lab| {
        lab.client.run(|| {
            let socket = UdpSocket::bind((CLIENTS[0], 0))?;
            socket.set_broadcast(true)?;
            socket.set_read_timeout(Some(ANSWER_LIMIT))?;
            socket.send_to(b"anybody?", (Ipv4Addr::new(10, 99, 0, 255), 9000))?;
            let answer = socket.recv_from(&mut [0; 64]);
            Ok(format!(
                "{:?}",
                answer.map(|(length, from)| (length, from.ip())).ok()
            ))
        })
    }),
    passed("4 loopback", |lab| {
        lab.client
            .ip("route replace 127.9.9.9/32 via 10.99.0.1 dev eth0 table local")?;
        outside(lab, ([127, 9, 9, 9], 9000))
    }),
    passed("5 published on loopback", |lab| outside(lab, (HOST, 9002))),
    passed("6 a container's address", |lab| {
        let web = docker::address(&lab.host, "web", "bridge")?;
        let outcome = outside(lab, (web, 8080))?;
        // Since 28 Docker drops it before it is routed; older ones let through what is published.
        let raw = lab.host.command("iptables-save").args(["-t", "raw"]);
        let drop = format!("-d {web}/32 ! -i docker0 -j DROP");
        let is_dropped = raw.text()?.contains(&drop);
        ensure!(
            is_dropped == (outcome == Silence::NoAnswer.to_string()),
            "{outcome}, and in the raw table a drop: {is_dropped}"
        );
        Ok(outcome)
    }),
];

const HOST_ITSELF: [Row; 5] = [
    passed("7 loopback", |lab| host(lab, "127.0.0.1:9000")),
    passed("8 loopback over IPv6", |lab| host(lab, "[::1]:9000")),
    passed("9 its own address", |lab| host(lab, "10.99.0.1:9000")),
    passed("9 a container on the host's network", |lab| {
        container(lab, "hosts", "10.99.0.1:9000")
    }),
    passed("10 a container's address", |lab| {
        let web = docker::address(&lab.host, "web", "bridge")?;
        host(lab, &format!("{web}:8080"))
    }),
];

const CONTAINERS: [Row; 7] = [
    passed("11 same bridge", |lab| {
        let web = docker::address(&lab.host, "web", "bridge")?;
        container(lab, "beside", &format!("{web}:8080"))
    }),
    passed("11 same bridge, the host's port", |lab| {
        let web = docker::address(&lab.host, "web", "bridge")?;
        container(lab, "beside", &format!("{web}:9000"))
    }),
    passed("12 same bridge to the host", |lab| {
        container(lab, "beside", "10.99.0.1:9000")
    }),
    passed("13 its own port on the host", |lab| {
        container(lab, "web", "10.99.0.1:9000")
    }),
    passed("14 other bridge to the host", |lab| {
        container(lab, "elsewhere", "10.99.0.1:9000")
    }),
    passed("15 other bridge", |lab| {
        let web = docker::address(&lab.host, "web", "bridge")?;
        container(lab, "elsewhere", &format!("{web}:8080"))
    }),
    passed("16 its own loopback", |lab| {
        container(lab, "web", "127.0.0.1:9000")
    }),
];

const IPV6: [Row; 3] = [
    accelerated("17 a container with IPv6", |lab| {
        outside_v6(lab, (HOST_V6, 9006))
    }),
    passed("17 from a link-local address", |lab| {
        let index = lab.client.ip("-o link show eth0")?;
        let index: u32 = index.split(':').next().unwrap_or_default().trim().parse()?;
        let host = link_local(&lab.host.ip("-6 -o address show dev ext0 scope link")?)?;
        let target = std::net::SocketAddrV6::new(host, 9006, 0, index);
        let answer = lab
            .client
            .run(|| Ok(conversation::http_get(None, &target.to_string())))?;
        Ok(words(answer))
    }),
    passed("18 a container without", |lab| {
        outside_v6(lab, (HOST_V6, 9008))
    }),
];

const NOTHING: [Row; 4] = [
    passed("19 an internal network", |lab| outside(lab, (HOST, 9003))),
    passed("20 the host's network", |lab| outside(lab, (HOST, 9004))),
    passed("20 a server there", |lab| outside(lab, (HOST, 9007))),
    passed("20 no network", |lab| outside(lab, (HOST, 9005))),
];

fn outside(lab: &Lab, target: impl Into<SocketAddr>) -> Result<String> {
    Ok(words(lab.get_from(CLIENTS[0], target)))
}

fn outside_v6(lab: &Lab, target: impl Into<SocketAddr>) -> Result<String> {
    let source = conversation::from_address(CLIENTS_V6[0]);
    let target = target.into().to_string();
    let answer = lab
        .client
        .run(|| Ok(conversation::http_get(source, &target)))?;
    Ok(words(answer))
}

fn host(lab: &Lab, target: &str) -> Result<String> {
    Ok(words(lab.get_on_host(target)))
}

fn container(lab: &Lab, name: &str, target: &str) -> Result<String> {
    docker::docker(&lab.host, &format!("exec {name} {GUEST} get {target}"))
}

/// The address in what `ip -o address` prints.
fn link_local(printed: &str) -> Result<std::net::Ipv6Addr> {
    let address = printed
        .split_whitespace()
        .find_map(|word| word.strip_suffix("/64"))
        .context("no link-local address")?;
    Ok(address.parse()?)
}

fn rows(rows: &[Row]) -> Result<()> {
    let lab = DockerLab::with_ipv6(true)?;
    for command in CONTAINERS_RUN {
        docker::docker(&lab.host, &command.replace("GUEST", GUEST))?;
    }
    for name in ["web", "beside", "elsewhere", "six", "four"] {
        docker::wait_serving(&lab.host, name)?;
    }
    let play = |row: &Row| (row.play)(&lab).with_context(|| row.what);
    let without = rows.iter().map(play).collect::<Result<Vec<_>>>()?;
    let portway = Portway::new(&lab.host)?;
    let run = portway.run_with_docker("")?;
    for port in [9000, 9001, 9006, 9008] {
        portway.wait_active("tcp", port)?;
    }
    for (row, without) in rows.iter().zip(without) {
        let (with, used) = portway.measure(|| play(row))?;
        ensure!(
            with == without,
            "{}: {without:?}, with portway {with:?}",
            row.what
        );
        ensure!(
            used.both_ways() == row.is_accelerated && (row.is_accelerated || used.forwarded == 0),
            "{}: {used:?}",
            row.what
        );
    }
    portway.interrupt(&run)
}
