//! ICMP errors about accelerated packets reach whom they are for: refused datagrams, path MTU discovery and
//! used-up hops are as they are without portway.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, UdpSocket},
    process::ExitCode,
    thread,
};

use anyhow::{Context, Result, ensure};
use nix::{
    errno::Errno,
    libc, setsockopt_impl, sockopt_impl,
    sys::socket::{setsockopt, sockopt::Ipv4RecvErr},
};
use portway_tests::{
    container::{BRIDGE, Container},
    conversation::{self, ANSWER_LIMIT},
    harness::{self, Test},
    lab::{HOST, Lab},
    netns::Netns,
    portway::Portway,
    wait,
};

fn main() -> ExitCode {
    harness::run([
        Test::of_portway("a_closed_port_is_refused", || {
            compare(Narrow::Client, closed_port, "icmp_replied")
        }),
        Test::of_portway("tcp_finds_a_narrow_hop_to_its_client", || {
            compare(Narrow::Client, tcp_to_client, "icmp_forwarded")
        }),
        Test::of_portway("udp_finds_a_narrow_hop_to_its_client", || {
            compare(Narrow::Client, udp_to_client, "icmp_forwarded")
        }),
        Test::of_portway("a_container_hears_that_hops_are_used_up", || {
            compare(Narrow::Client, hops_used_up, "icmp_forwarded")
        }),
        Test::of_portway("tcp_finds_a_narrow_container", || {
            compare(Narrow::Container, tcp_to_container, "mtu")
        }),
        Test::of_portway("udp_finds_a_narrow_container", || {
            compare(Narrow::Container, udp_to_container, "mtu")
        }),
    ])
}

/// A client beyond the lab's, which is a router to it.
const FAR: Ipv4Addr = Ipv4Addr::new(10, 97, 0, 2);
const FAR_ROUTER: Ipv4Addr = Ipv4Addr::new(10, 97, 0, 1);

/// What the narrow link takes, and what neither end knows of before it is told.
const NARROW: usize = 1300;

/// A datagram that all links take but the narrow one.
const WIDE: usize = 1400;

const HOST_PORT: u16 = 9000;
const PORT: u16 = 8080;

/// How many bytes a TCP connection has to carry.
const BULK: usize = 2 << 20;

/// Which link is narrow.
#[derive(Clone, Copy, PartialEq)]
enum Narrow {
    /// The last one to the far client.
    Client,
    /// The one to the container: its bridge takes less than the container and its clients believe.
    Container,
}

/// A lab with a container whose port is published.
struct Stage {
    lab: Lab,
    container: Container,
    /// The client beyond.
    far: Netns,
}

/// Plays a scenario in a lab without portway and in one with it. Both have rules as Docker makes them.
/// `counter` tells that portway has done what it is about.
fn compare(narrow: Narrow, scenario: fn(&Stage) -> Result<String>, counter: &str) -> Result<()> {
    let without = scenario(&Stage::new(narrow)?).context("without portway")?;
    let stage = Stage::new(narrow)?;
    let portway = Portway::new(&stage.lab.host)?;
    portway.load("--admission direct")?;
    for protocol in ["tcp", "udp"] {
        let address = stage.container.address;
        portway.publish(&format!("{HOST_PORT}:{address}:{PORT}/{protocol}"))?;
    }
    let with = scenario(&stage).context("with portway")?;
    ensure!(
        without == with,
        "without portway: {without}; with it: {with}"
    );
    let status = portway.status()?;
    ensure!(status.counter(counter) > 0, "{:?}", status.counters);
    Ok(())
}

impl Stage {
    fn new(narrow: Narrow) -> Result<Self> {
        let lab = Lab::new()?;
        let container = Container::new(&lab.host, 1)?;
        for protocol in ["tcp", "udp"] {
            container.publish_with_iptables(&lab.host, protocol, HOST_PORT, PORT)?;
        }
        let far = Netns::new()?;
        let router = &lab.client;
        router.sysctl("ipv4/ip_forward", "1")?;
        far.ip(&format!(
            "link add eth0 type veth peer name far0 netns {}",
            router.path().display()
        ))?;
        far.ip(&format!("address add {FAR}/24 dev eth0"))?;
        far.ip("link set eth0 up")?;
        far.ip(&format!("route add default via {FAR_ROUTER}"))?;
        router.ip(&format!("address add {FAR_ROUTER}/24 dev far0"))?;
        router.ip("link set far0 up")?;
        match narrow {
            Narrow::Client => {
                router.ip(&format!("link set far0 mtu {NARROW}"))?;
            }
            Narrow::Container => {
                for link in ["c1", BRIDGE] {
                    lab.host.ip(&format!("link set {link} mtu {NARROW}"))?;
                }
            }
        }
        Ok(Self {
            lab,
            container,
            far,
        })
    }

    /// Both ends of a connection to the published port, the container's first.
    fn connection(&self, client: &Netns) -> Result<(TcpStream, TcpStream)> {
        let address = (Ipv4Addr::UNSPECIFIED, PORT);
        let inside = &self.container.netns;
        let listener = inside.run(|| Ok(TcpListener::bind(address)?))?;
        let target = (HOST, HOST_PORT).into();
        let outside = client.run(|| Ok(conversation::connect(None, target)?))?;
        let (inside, _) = listener.accept()?;
        inside.set_read_timeout(Some(ANSWER_LIMIT))?;
        inside.set_write_timeout(Some(ANSWER_LIMIT))?;
        Ok((inside, outside))
    }

    /// A socket of the container's, and one of the far client's that is connected to the published port,
    /// after a first datagram.
    fn datagrams(&self, client: &Netns) -> Result<(UdpSocket, UdpSocket)> {
        let inside = self.container.netns.run(|| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
            socket.set_read_timeout(Some(ANSWER_LIMIT))?;
            Ok(socket)
        })?;
        let outside = connected(client)?;
        outside.send(b"question")?;
        let (_, seen) = inside.recv_from(&mut [0; 64]).context("no question")?;
        inside.connect(seen)?;
        inside.send(b"answer")?;
        outside.recv(&mut [0; 64]).context("no answer")?;
        Ok((inside, outside))
    }
}

/// A UDP socket that talks to the published port.
fn connected(client: &Netns) -> Result<UdpSocket> {
    client.run(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((HOST, HOST_PORT))?;
        socket.set_read_timeout(Some(ANSWER_LIMIT))?;
        Ok(socket)
    })
}

fn closed_port(stage: &Stage) -> Result<String> {
    let socket = connected(&stage.lab.client)?;
    socket.send(b"anybody?")?;
    let outcome = socket.recv(&mut [0; 64]);
    ensure!(
        matches!(&outcome, Err(error) if error.kind() == io::ErrorKind::ConnectionRefused),
        "{outcome:?}"
    );
    Ok(format!("{outcome:?}"))
}

fn tcp_to_client(stage: &Stage) -> Result<String> {
    let (inside, outside) = stage.connection(&stage.far)?;
    carry(inside, outside)?;
    path_mtu(&stage.container.netns, FAR.into())
}

fn udp_to_client(stage: &Stage) -> Result<String> {
    let (inside, outside) = stage.datagrams(&stage.far)?;
    learns(&inside)?;
    inside.send(&[0x5a; 1000])?;
    let length = outside.recv(&mut [0; 2000]).context("nothing smaller")?;
    ensure!(length == 1000, "{length} bytes");
    path_mtu(&stage.container.netns, FAR.into())
}

fn tcp_to_container(stage: &Stage) -> Result<String> {
    let (inside, outside) = stage.connection(&stage.lab.client)?;
    carry(outside, inside)?;
    path_mtu(&stage.lab.client, HOST.into())
}

fn udp_to_container(stage: &Stage) -> Result<String> {
    let (inside, outside) = stage.datagrams(&stage.lab.client)?;
    learns(&outside)?;
    outside.send(&[0x5a; 1000])?;
    let length = inside.recv(&mut [0; 2000]).context("nothing smaller")?;
    ensure!(length == 1000, "{length} bytes");
    path_mtu(&stage.lab.client, HOST.into())
}

fn hops_used_up(stage: &Stage) -> Result<String> {
    let (inside, _outside) = stage.datagrams(&stage.far)?;
    setsockopt(&inside, Ipv4RecvErr, &true)?;
    // The host is the first hop, the lab's client the second.
    inside.set_ttl(2)?;
    inside.send(b"how far?")?;
    let outcome = inside.recv(&mut [0; 64]);
    let said = outcome.as_ref().err().and_then(io::Error::raw_os_error);
    ensure!(
        said.map(Errno::from_raw) == Some(Errno::EHOSTUNREACH),
        "{outcome:?}"
    );
    Ok(format!("{outcome:?}"))
}

/// Sends a lot in one direction.
fn carry(from: TcpStream, mut to: TcpStream) -> Result<()> {
    let sent = vec![0x5a; BULK];
    let mut received = Vec::new();
    let outcome = thread::scope(|scope| {
        // Dropped in the end, which is the end for the other side.
        let sent = &sent;
        let sender = scope.spawn(move || {
            let mut from = from;
            from.write_all(sent)
        });
        let outcome = to.read_to_end(&mut received);
        (outcome, sender.join())
    });
    ensure!(
        received == sent,
        "{} of {BULK} bytes came through: {outcome:?}",
        received.len()
    );
    Ok(())
}

sockopt_impl!(
    /// Whether packets may be fragmented: one of `IP_PMTUDISC_*` (ip(7)).
    MtuDiscovery,
    SetOnly,
    libc::IPPROTO_IP,
    libc::IP_MTU_DISCOVER,
    i32
);

/// Sends a datagram that must not be fragmented, and waits until the kernel has learned that it was too long.
fn learns(socket: &UdpSocket) -> Result<()> {
    let is_too_long = |error: &io::Error| error.raw_os_error() == Some(libc::EMSGSIZE);
    setsockopt(socket, MtuDiscovery, &libc::IP_PMTUDISC_DO)?;
    socket.send(&[0; WIDE])?;
    wait::until_true("an error for the socket", ANSWER_LIMIT, || {
        Ok(socket.take_error()?.as_ref().is_some_and(is_too_long))
    })?;
    let again = socket.send(&[0; WIDE]);
    ensure!(again.as_ref().is_err_and(is_too_long), "{again:?}");
    Ok(())
}

/// What a namespace has learned of the way to an address.
fn path_mtu(netns: &Netns, target: IpAddr) -> Result<String> {
    let route = netns.ip(&format!("route get {target}"))?;
    let mut words = route.split_whitespace().skip_while(|word| *word != "mtu");
    let mtu = words
        .nth(1)
        .with_context(|| format!("no MTU learned: {route}"))?;
    ensure!(mtu == NARROW.to_string(), "{route}");
    Ok(mtu.to_owned())
}
