//! ICMP errors made by hand: what comes of them is, byte by byte, what netfilter makes of them; and those that
//! quote no flow exactly reach nobody. IPv4 and IPv6.

use std::{
    mem,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::ExitCode,
};

use anyhow::{Context, Result, ensure};
use bytemuck::bytes_of;
use dataplane_common::headers::IpProtocol;
use portway_tests::{
    container::Container,
    conversation::{self, ANSWER_LIMIT},
    harness::{self, Test},
    lab::{CLIENTS, CLIENTS_V6, HOST, HOST_SECONDARY, HOST_SECONDARY_V6, HOST_V6, Lab},
    packets::{Errors, icmp_error, segment, send},
    portway::Portway,
};

fn main() -> ExitCode {
    harness::run([
        Test::of_portway("ipv4_errors_are_what_netfilter_makes_of_them", || {
            compare(&V4, each_way)
        }),
        Test::of_portway("ipv6_errors_are_what_netfilter_makes_of_them", || {
            compare(&V6, each_way)
        }),
        Test::of_portway("ipv4_errors_about_a_remapped_client", || {
            compare(&V4, remapped)
        }),
        Test::of_portway("ipv6_errors_about_a_remapped_client", || {
            compare(&V6, remapped)
        }),
        Test::of_portway("ipv4_errors_that_quote_no_flow_reach_nobody", || {
            compare(&V4, mismatches)
        }),
        Test::of_portway("ipv6_errors_that_quote_no_flow_reach_nobody", || {
            compare(&V6, mismatches)
        }),
    ])
}

/// Who has which address, and what is an error.
struct Cast {
    client: IpAddr,
    host: IpAddr,
    second_host: IpAddr,
    container: IpAddr,
    /// Somewhere outside.
    router: IpAddr,
    /// Somebody else behind the container.
    inner: IpAddr,
    errors: &'static [(u8, u8)],
    redirect: (u8, u8),
}

const V4: Cast = Cast {
    client: IpAddr::V4(CLIENTS[0]),
    host: IpAddr::V4(HOST),
    second_host: IpAddr::V4(HOST_SECONDARY),
    container: IpAddr::V4(Ipv4Addr::new(10, 98, 0, 2)),
    router: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 33)),
    inner: IpAddr::V4(Ipv4Addr::new(10, 98, 0, 77)),
    errors: &[(3, 1), (3, 3), (3, 4), (3, 13), (4, 0), (11, 0), (12, 0)],
    redirect: (5, 1),
};

const V6: Cast = Cast {
    client: IpAddr::V6(CLIENTS_V6[0]),
    host: IpAddr::V6(HOST_V6),
    second_host: IpAddr::V6(HOST_SECONDARY_V6),
    container: IpAddr::V6(Ipv6Addr::new(0xfd00, 0x98, 0, 0, 0, 0, 0, 2)),
    router: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x33)),
    inner: IpAddr::V6(Ipv6Addr::new(0xfd00, 0x98, 0, 0, 0, 0, 0, 0x77)),
    errors: &[(1, 0), (1, 4), (2, 0), (3, 0), (4, 1)],
    redirect: (137, 0),
};

const HOST_PORTS: [u16; 2] = [9000, 9001];
const PORT: u16 = 8080;
const CLIENT_PORT: u16 = 5000;
const PROTOCOLS: [IpProtocol; 2] = [IpProtocol::UDP, IpProtocol::TCP];

/// What tells a test's last error from those before.
const LAST: usize = 99;

/// Errors as they arrived, and what each is about.
type Seen = Vec<(String, Vec<u8>)>;

/// Plays a scenario in a lab without portway and in two with it, and compares what was seen.
fn compare(cast: &Cast, scenario: fn(&Stage<'_>) -> Result<Seen>) -> Result<()> {
    let without = {
        let stage = Stage::new(cast)?;
        scenario(&stage).context("without portway")?
    };
    for admission in ["direct", "netfilter"] {
        let stage = Stage::new(cast)?;
        let portway = stage.load_portway(admission)?;
        let with = scenario(&stage).with_context(|| format!("with portway, {admission}"))?;
        ensure!(
            without.len() == with.len(),
            "{} and {}",
            without.len(),
            with.len()
        );
        for ((what, without), (_, with)) in without.iter().zip(&with) {
            ensure!(
                without == with,
                "{what}\nwithout portway {without:02x?}\n{admission:<15} {with:02x?}"
            );
        }
        let status = portway.status()?;
        let translated = status.counter("icmp_forwarded") + status.counter("icmp_replied");
        if admission == "netfilter" {
            ensure!(
                translated == 0,
                "conntrack knows better: {:?}",
                status.counters
            );
            continue;
        }
        ensure!(
            translated == with.len() as u64,
            "{} errors seen, but {:?}",
            with.len(),
            status.counters
        );
        // A question and an answer: errors are not counted among them.
        let flows = portway.flows()?;
        let mut datagrams = flows.iter().filter(|flow| flow.protocol == "udp");
        ensure!(
            datagrams.all(|flow| (flow.packets_in, flow.packets_out) == (1, 1)),
            "{flows:?}"
        );
    }
    Ok(())
}

/// A lab with rules as Docker makes them, and sockets at both ends.
struct Stage<'a> {
    cast: &'a Cast,
    lab: Lab,
    container: Container,
    inside: UdpSocket,
    listener: TcpListener,
}

impl<'a> Stage<'a> {
    fn new(cast: &'a Cast) -> Result<Self> {
        let lab = Lab::new()?;
        let container = Container::new(&lab.host, 1)?;
        for port in HOST_PORTS {
            for protocol in ["tcp", "udp"] {
                if cast.host.is_ipv4() {
                    container.publish_with_iptables(&lab.host, protocol, port, PORT)?;
                } else {
                    container.publish_with_ip6tables(&lab.host, protocol, port, PORT)?;
                }
            }
        }
        let inside = container.netns.run(|| {
            let socket = UdpSocket::bind((cast.container, PORT))?;
            socket.set_read_timeout(Some(ANSWER_LIMIT))?;
            Ok(socket)
        })?;
        let listener = container
            .netns
            .run(|| Ok(TcpListener::bind((cast.container, PORT))?))?;
        Ok(Self {
            cast,
            lab,
            container,
            inside,
            listener,
        })
    }

    fn load_portway(&self, admission: &str) -> Result<Portway<'_>> {
        let portway = Portway::new(&self.lab.host)?;
        portway.load(&format!("--admission {admission}"))?;
        let container = SocketAddr::from((self.cast.container, PORT));
        for port in HOST_PORTS {
            for protocol in ["tcp", "udp"] {
                portway.publish(&format!("{port}:{container}/{protocol}"))?;
            }
        }
        Ok(portway)
    }

    /// A question and its answer over UDP, from the client's port to the host's. Returns the client's socket,
    /// and the client as the container sees it.
    fn ask(&self, host_port: u16) -> Result<(UdpSocket, SocketAddr)> {
        let outside = self.lab.client.run(|| {
            let source = SocketAddr::from((self.cast.client, CLIENT_PORT));
            let socket = socket2::Socket::new(
                socket2::Domain::for_address(source),
                socket2::Type::DGRAM,
                None,
            )?;
            // The same client port talks to several host ports.
            socket.set_reuse_address(true)?;
            socket.bind(&source.into())?;
            socket.connect(&SocketAddr::from((self.cast.host, host_port)).into())?;
            socket.set_read_timeout(Some(ANSWER_LIMIT))?;
            Ok(UdpSocket::from(socket))
        })?;
        outside.send(b"question")?;
        let (_, seen) = self.inside.recv_from(&mut [0; 64]).context("no question")?;
        self.inside.send_to(b"answer", seen)?;
        outside.recv(&mut [0; 64]).context("no answer")?;
        Ok((outside, seen))
    }

    /// A TCP connection from the client's port, both its ends.
    fn connect(&self) -> Result<[TcpStream; 2]> {
        let source = SocketAddr::from((self.cast.client, CLIENT_PORT));
        let target = SocketAddr::from((self.cast.host, HOST_PORTS[0]));
        let outside = self
            .lab
            .client
            .run(|| Ok(conversation::connect(Some(source), target)?))?;
        Ok([outside, self.listener.accept()?.0])
    }

    /// What the container gets of errors that are sent outside.
    fn at_container(&self) -> Result<Errors> {
        Errors::of(&self.container.netns, self.cast.host, ANSWER_LIMIT)
    }

    /// What the client gets of errors that are sent by the container.
    fn at_client(&self) -> Result<Errors> {
        Errors::of(&self.lab.client, self.cast.host, ANSWER_LIMIT)
    }

    /// A reply as the client gets it, which errors from outside quote.
    fn reply(&self, protocol: IpProtocol) -> Quote {
        Quote {
            protocol,
            source: (self.cast.host, HOST_PORTS[0]).into(),
            destination: (self.cast.client, CLIENT_PORT).into(),
            length: LAST,
        }
    }

    /// A client's packet as the container gets it, which errors from inside quote.
    fn question(&self, protocol: IpProtocol) -> Quote {
        Quote {
            protocol,
            source: (self.cast.client, CLIENT_PORT).into(),
            destination: (self.cast.container, PORT).into(),
            length: LAST,
        }
    }

    fn error_outside(&self, destination: IpAddr, kind: (u8, u8), quote: Quote) -> Result<()> {
        let packet = icmp_error(self.cast.router, destination, 50, kind, &quote.bytes());
        send(&self.lab.client, &packet)
    }

    fn error_inside(
        &self,
        source: IpAddr,
        destination: IpAddr,
        kind: (u8, u8),
        quote: Quote,
    ) -> Result<()> {
        let packet = icmp_error(source, destination, 50, kind, &quote.bytes());
        send(&self.container.netns, &packet)
    }
}

/// A packet that an error quotes.
#[derive(Debug, Clone, Copy)]
struct Quote {
    protocol: IpProtocol,
    source: SocketAddr,
    destination: SocketAddr,
    /// How much of it is there behind its IP header.
    length: usize,
}

impl Quote {
    fn bytes(self) -> Vec<u8> {
        let header = if self.source.is_ipv4() { 20 } else { 40 };
        let mut bytes = segment(self.protocol, self.source, self.destination, &[0x5a; 200]);
        bytes.truncate(header + self.length);
        bytes
    }
}

fn each_way(stage: &Stage<'_>) -> Result<Seen> {
    let cast = stage.cast;
    let _socket = stage.ask(HOST_PORTS[0])?;
    let _connection = stage.connect()?;
    let (into_container, to_client) = (stage.at_container()?, stage.at_client()?);
    let mut seen = Vec::new();
    for kind in cast.errors {
        for protocol in PROTOCOLS {
            for length in [8, 9, 19, 20, 21, LAST] {
                let what = format!("{kind:?}, protocol {}, {length} bytes", protocol.0);
                let quote = Quote {
                    length,
                    ..stage.reply(protocol)
                };
                stage.error_outside(cast.host, *kind, quote)?;
                let packet = into_container.next();
                let packet = packet.with_context(|| format!("{what}, from outside"))?;
                seen.push((format!("{what}, from outside"), packet));
                for source in [cast.container, cast.inner] {
                    let what = format!("{what}, from {source}");
                    let quote = Quote {
                        length,
                        ..stage.question(protocol)
                    };
                    stage.error_inside(source, cast.client, *kind, quote)?;
                    let packet = to_client.next().with_context(|| what.clone())?;
                    seen.push((what, packet));
                }
            }
        }
    }
    let quoted = fragment(&stage.reply(IpProtocol::UDP).bytes(), 0);
    let packet = icmp_error(cast.router, cast.host, 50, cast.errors[0], &quoted);
    send(&stage.lab.client, &packet)?;
    let packet = into_container.next().context("about a first fragment")?;
    seen.push(("about a first fragment".into(), packet));
    // A datagram without a checksum, which IPv6 does not have.
    if cast.host.is_ipv4() {
        let mut quoted = stage.reply(IpProtocol::UDP).bytes();
        quoted[26..28].fill(0);
        let packet = icmp_error(cast.router, cast.host, 50, cast.errors[0], &quoted);
        send(&stage.lab.client, &packet)?;
        seen.push(("without a checksum".into(), into_container.next()?));
    }
    Ok(seen)
}

/// One client port talks to two host ports that lead to one port of the container.
fn remapped(stage: &Stage<'_>) -> Result<Seen> {
    let cast = stage.cast;
    let mut sockets = Vec::new();
    let mut other = None;
    for port in HOST_PORTS {
        let (socket, client) = stage.ask(port)?;
        sockets.push(socket);
        other = (client.port() != CLIENT_PORT).then_some(client);
    }
    let other = other.context("the second client port is not another")?;
    let kind = cast.errors[0];

    let into_container = stage.at_container()?;
    let about_reply = Quote {
        source: (cast.host, HOST_PORTS[1]).into(),
        ..stage.reply(IpProtocol::UDP)
    };
    stage.error_outside(cast.host, kind, about_reply)?;
    let packet = into_container.next().context("from outside")?;
    // The port is any, so the whole packet is expected rather than compared: netfilter translates the
    // flow's source, and so it does the error's.
    let about_reply = Quote {
        source: (cast.container, PORT).into(),
        destination: other,
        ..about_reply
    };
    let expected = icmp_error(cast.client, cast.container, 49, kind, &about_reply.bytes());
    ensure!(
        packet == expected,
        "{packet:02x?}, expected {expected:02x?}"
    );

    let to_client = stage.at_client()?;
    let about_question = Quote {
        source: other,
        ..stage.question(IpProtocol::UDP)
    };
    stage.error_inside(cast.inner, cast.client, kind, about_question)?;
    let packet_out = to_client.next().context("from inside")?;
    Ok(vec![
        ("from outside".into(), bytes_of(&kind_of(&packet)).to_vec()),
        ("from inside".into(), packet_out),
    ])
}

/// The type of an error that has been compared otherwise.
fn kind_of(packet: &[u8]) -> u8 {
    let header = if packet[0] >> 4 == 4 { 20 } else { 40 };
    packet[header]
}

/// Of all these errors only the last one arrives.
fn mismatches(stage: &Stage<'_>) -> Result<Seen> {
    let cast = stage.cast;
    let _socket = stage.ask(HOST_PORTS[0])?;
    let kind = cast.errors[0];
    let (into_container, to_client) = (stage.at_container()?, stage.at_client()?);

    let right = stage.reply(IpProtocol::UDP);
    let with = |change: fn(&mut Quote)| {
        let mut quote = Quote {
            length: 40,
            ..right
        };
        change(&mut quote);
        quote
    };
    let mut of_second_host = right;
    of_second_host.source.set_ip(cast.second_host);
    for (destination, kind, quote) in [
        (cast.second_host, kind, right),
        (cast.second_host, kind, of_second_host),
        (cast.host, cast.redirect, right),
        (cast.host, kind, with(|quote| quote.source.set_port(9001))),
        (cast.host, kind, with(|quote| quote.source.set_port(9002))),
        (
            cast.host,
            kind,
            with(|quote| quote.destination.set_port(5001)),
        ),
        (
            cast.host,
            kind,
            with(|quote| quote.protocol = IpProtocol::TCP),
        ),
        (cast.host, kind, with(|quote| quote.length = 7)),
    ] {
        stage.error_outside(destination, kind, quote)?;
    }
    let later = fragment(&with(|_| ()).bytes(), 8);
    send(
        &stage.lab.client,
        &icmp_error(cast.router, cast.host, 50, kind, &later),
    )?;
    stage.error_outside(cast.host, kind, right)?;
    let first = into_container.next().context("from outside")?;

    let right = stage.question(IpProtocol::UDP);
    let with = |change: fn(&mut Quote)| {
        let mut quote = Quote {
            length: 40,
            ..right
        };
        change(&mut quote);
        quote
    };
    for (kind, quote) in [
        (kind, with(|quote| quote.source.set_port(5001))),
        (kind, with(|quote| quote.destination.set_port(8081))),
        (kind, with(|quote| quote.protocol = IpProtocol::TCP)),
        (kind, right),
    ] {
        stage.error_inside(cast.container, cast.client, kind, quote)?;
    }
    let mut outside = to_client.next().context("from inside")?;
    // What is no flow's leaves as it came, as far as forwarding lets it; nobody translates it.
    while source_of(&outside) != Some(cast.host) {
        outside = to_client.next().context("a translated one from inside")?;
    }
    Ok(vec![
        ("from outside".into(), first),
        ("from inside".into(), outside),
    ])
}

/// A packet as a fragment of a longer one, `offset` bytes behind its beginning.
fn fragment(packet: &[u8], offset: u16) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if packet[0] >> 4 == 4 {
        packet[6..8].copy_from_slice(&(0x2000 | (offset / 8)).to_be_bytes());
        return packet;
    }
    let protocol = mem::replace(&mut packet[6], IpProtocol::FRAGMENT.0);
    let [high, low] = (offset | 1).to_be_bytes();
    let header = [protocol, 0, high, low, 0, 0, 0, 7];
    packet.splice(40..40, header);
    packet
}

/// Whom a packet says to be from.
fn source_of(packet: &[u8]) -> Option<IpAddr> {
    if packet[0] >> 4 == 4 {
        Some(<[u8; 4]>::try_from(&packet[12..16]).ok()?.into())
    } else {
        Some(<[u8; 16]>::try_from(&packet[8..24]).ok()?.into())
    }
}
