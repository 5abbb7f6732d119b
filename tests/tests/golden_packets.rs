//! What the loaded programs make of which packet: bytes, verdict and counter.
//!
//! Each story is a table of packets, in order, because flows remember. `forward` are frames that come in by
//! the external interface, `reply` those that come from the container. A packet either `becomes` other bytes
//! and is redirected, or `passes` untouched for a reason.

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use dataplane_common::{
    family::{Network, V4, V6},
    headers::{IpProtocol, Mac, TcpFlags},
    reason::{Counter, Reason},
    testing::buffer::{ETHERNET, NUMBER, Spec},
};
use portway_tests::{
    harness::{self, Test},
    lab::Lab,
    portway::Portway,
    rig::{
        self, BOUND_PORT, BRIDGE_MAC, CLIENT_MAC, CONTAINER_MAC, CONTAINER_MTU, CONTAINER_PORT,
        EXTERNAL_MAC, HOST_PORTS, PASS, Program, REDIRECT, Rig, Version,
    },
};

const SYN: u8 = TcpFlags::SYN;
const SYN_ACK: u8 = TcpFlags::SYN | TcpFlags::ACK;
const ACK: u8 = TcpFlags::ACK;
const FIN_ACK: u8 = TcpFlags::FIN | TcpFlags::ACK;
const RST: u8 = TcpFlags::RST;

/// The port clients talk from.
const CLIENT_PORT: u16 = 50000;

fn main() -> ExitCode {
    harness::run([
        Test::of_portway("bytes_by_hand", || play(&by_hand())),
        Test::of_portway("a_connection_ipv4", || play(&connection::<V4>())),
        Test::of_portway("a_connection_ipv6", || play(&connection::<V6>())),
        Test::of_portway("datagrams_ipv4", || play(&datagrams::<V4>())),
        Test::of_portway("datagrams_ipv6", || play(&datagrams::<V6>())),
        Test::of_portway("none_of_ours_ipv4", || play(&none_of_ours::<V4>())),
        Test::of_portway("none_of_ours_ipv6", || play(&none_of_ours::<V6>())),
        Test::of_portway("the_kernel_answers_ipv4", || play(&kernel_answers::<V4>())),
        Test::of_portway("the_kernel_answers_ipv6", || play(&kernel_answers::<V6>())),
        Test::of_portway("odd_headers_ipv4", || play(&odd_headers_v4())),
        Test::of_portway("odd_headers_ipv6", || play(&odd_headers_v6())),
        Test::of_portway("odd_segments_ipv4", || play(&odd_segments::<V4>())),
        Test::of_portway("odd_segments_ipv6", || play(&odd_segments::<V6>())),
    ])
}

/// One packet and what becomes of it.
struct Step {
    what: &'static str,
    program: Program,
    frame: Vec<u8>,
    segment_size: u32,
    becomes: Result<Vec<u8>, Reason>,
}

impl Step {
    /// The packet stands for segments of this many bytes.
    fn of_segments(mut self, size: u32) -> Self {
        self.segment_size = size;
        self
    }
}

fn forward(what: &'static str, frame: Vec<u8>, becomes: Result<Vec<u8>, Reason>) -> Step {
    Step {
        what,
        program: Program::Forward,
        frame,
        segment_size: 0,
        becomes,
    }
}

fn reply(what: &'static str, frame: Vec<u8>, becomes: Result<Vec<u8>, Reason>) -> Step {
    Step {
        program: Program::Reply,
        ..forward(what, frame, becomes)
    }
}

fn play(story: &[Step]) -> Result<()> {
    let lab = Lab::new()?;
    let container = rig::lay_out(&lab)?;
    let portway = Portway::new(&lab.host)?;
    Rig::new(&lab, &portway, &container)?.run(|rig| {
        story
            .iter()
            .try_for_each(|step| check(rig, step).with_context(|| step.what))
    })
}

fn check(rig: &Rig<'_>, step: &Step) -> Result<()> {
    let before = rig.counters()?;
    let made = rig
        .test(step.program, &step.frame, step.segment_size)?
        .context("the kernel does not take it for a frame")?;
    let after = rig.counters()?;
    let counted: Vec<&str> = Counter::ALL
        .iter()
        .filter(|counter| before[**counter as usize] != after[**counter as usize])
        .map(|counter| counter.word())
        .collect();
    let (action, counter, bytes) = match &step.becomes {
        Ok(bytes) if step.program == Program::Forward => (REDIRECT, Counter::Forwarded, bytes),
        Ok(bytes) => (REDIRECT, Counter::Replied, bytes),
        Err(reason) => (PASS, *reason, &step.frame),
    };
    ensure!(
        counted == [counter.word()],
        "counted as {counted:?}, not {}",
        counter.word()
    );
    ensure!(made.action == action, "returned {}", made.action);
    ensure!(
        made.bytes == *bytes,
        "sent     {:02x?}\nbecame   {:02x?}\nexpected {bytes:02x?}",
        step.frame,
        made.bytes
    );
    Ok(())
}

/// Bytes as a dump shows them.
fn hex(dump: &str) -> Vec<u8> {
    let digits: Vec<u8> = dump
        .chars()
        .filter_map(|c| c.to_digit(16))
        .map(|digit| digit as u8)
        .collect();
    digits
        .chunks(2)
        .map(|byte| byte[0] << 4 | byte[1])
        .collect()
}

/// Nothing here is computed by code of this repository.
fn by_hand() -> Vec<Step> {
    vec![
        forward(
            "TCP 10.99.0.2:50000 > 10.99.0.1:9000 [S]",
            hex("0200 0000 9901 0200 0000 9902 0800
                 4500 0028 1234 4000 4006 13d4 0a63 0002 0a63 0001
                 c350 2328 1122 3344 0000 0000 5002 faf0 754a 0000"),
            // > 10.98.0.2:8080
            Ok(hex("0200 0000 9802 0200 0000 9801 0800
                    4500 0028 1234 4000 3f06 14d4 0a63 0002 0a62 0002
                    c350 1f90 1122 3344 0000 0000 5002 faf0 78e2 0000")),
        ),
        reply(
            "TCP 10.98.0.2:8080 > 10.99.0.2:50000 [S.]",
            hex("0200 0000 9801 0200 0000 9802 0800
                 4500 0028 1234 4000 4006 13d4 0a62 0002 0a63 0002
                 1f90 c350 5566 7788 1122 3345 5012 faf0 abe2 0000"),
            // 10.99.0.1:9000 >; the MACs are left to bpf_redirect_neigh.
            Ok(hex("0200 0000 9801 0200 0000 9802 0800
                    4500 0028 1234 4000 3f06 14d4 0a63 0001 0a63 0002
                    2328 c350 5566 7788 1122 3345 5012 faf0 a84a 0000")),
        ),
        forward(
            "UDP fd99::2:50000 > fd99::1:9000 Hello",
            hex("0200 0000 9901 0200 0000 9902 86dd
                 6000 0000 000d 1140
                 fd99 0000 0000 0000 0000 0000 0000 0002 fd99 0000 0000 0000 0000 0000 0000 0001
                 c350 2328 000d fa52 48 656c 6c6f"),
            // > fd98::2:8080
            Ok(hex("0200 0000 9802 0200 0000 9801 86dd
                    6000 0000 000d 113f
                    fd99 0000 0000 0000 0000 0000 0000 0002 fd98 0000 0000 0000 0000 0000 0000 0002
                    c350 1f90 000d fdea 48 656c 6c6f")),
        ),
        reply(
            "UDP fd98::2:8080 > fd99::2:50000 Docker!!",
            hex("0200 0000 9801 0200 0000 9802 86dd
                 6000 0000 0010 1140
                 fd98 0000 0000 0000 0000 0000 0000 0002 fd99 0000 0000 0000 0000 0000 0000 0002
                 1f90 c350 0010 f348 446f 636b 6572 2121"),
            // fd99::1:9000 >
            Ok(hex("0200 0000 9801 0200 0000 9802 86dd
                    6000 0000 0010 113f
                    fd99 0000 0000 0000 0000 0000 0000 0001 fd99 0000 0000 0000 0000 0000 0000 0002
                    2328 c350 0010 efb0 446f 636b 6572 2121")),
        ),
    ]
}

/// A datagram from a client to the published port.
fn question<V: Version>() -> Spec<V> {
    Spec {
        protocol: IpProtocol::UDP,
        source: (V::CLIENTS[0], CLIENT_PORT),
        destination: (V::HOSTS[0], HOST_PORTS[0]),
        flags: 0,
        sequence: NUMBER,
        acknowledgement: NUMBER,
        ttl: 64,
        payload: 100,
    }
}

/// The container's answer.
fn answer<V: Version>() -> Spec<V> {
    Spec {
        source: (V::TARGET, CONTAINER_PORT),
        destination: (V::CLIENTS[0], CLIENT_PORT),
        ..question()
    }
}

fn frame<V: Version>(spec: Spec<V>, destination: Mac, source: Mac) -> Vec<u8> {
    let mut bytes = spec.build().bytes;
    bytes[..6].copy_from_slice(&destination);
    bytes[6..12].copy_from_slice(&source);
    bytes
}

/// The frame as it comes in from outside.
fn from_client<V: Version>(spec: Spec<V>) -> Vec<u8> {
    frame(spec, EXTERNAL_MAC, CLIENT_MAC)
}

/// As it comes from the container.
fn from_container<V: Version>(spec: Spec<V>) -> Vec<u8> {
    frame(spec, BRIDGE_MAC, CONTAINER_MAC)
}

/// As it reaches the container.
fn to_container<V: Version>(spec: Spec<V>) -> Result<Vec<u8>, Reason> {
    let spec = Spec {
        destination: (V::TARGET, CONTAINER_PORT),
        ttl: spec.ttl - 1,
        ..spec
    };
    Ok(frame(spec, CONTAINER_MAC, BRIDGE_MAC))
}

/// As it leaves for its client, but for the MACs, which are filled in when it is sent.
fn to_client<V: Version>(spec: Spec<V>) -> Result<Vec<u8>, Reason> {
    let spec = Spec {
        source: (V::HOSTS[0], HOST_PORTS[0]),
        ttl: spec.ttl - 1,
        ..spec
    };
    Ok(frame(spec, BRIDGE_MAC, CONTAINER_MAC))
}

fn connection<V: Version>() -> Vec<Step> {
    let client = |what, flags| {
        let spec = question::<V>().tcp(flags);
        forward(what, from_client(spec), to_container(spec))
    };
    let server = |what, flags| {
        let spec = answer::<V>().tcp(flags);
        reply(what, from_container(spec), to_client(spec))
    };
    let client_passes = |what, flags, reason| {
        let spec = question::<V>().tcp(flags);
        forward(what, from_client(spec), Err(reason))
    };
    let server_passes = |what, flags, reason| {
        let spec = answer::<V>().tcp(flags);
        reply(what, from_container(spec), Err(reason))
    };
    let reset = |ahead| Spec {
        sequence: NUMBER.wrapping_add(ahead),
        ..question::<V>().tcp(RST)
    };
    vec![
        client_passes(
            "mid-stream, of a flow that nobody knows",
            ACK,
            Reason::NoFlow,
        ),
        client_passes("a reset of it", RST, Reason::NoFlow),
        server_passes("the container's own segment", ACK, Reason::NotAReply),
        client("SYN", SYN),
        client("SYN again", SYN),
        client_passes("ACK before the answer", ACK, Reason::TcpState),
        server("SYN+ACK", SYN_ACK),
        server("SYN+ACK again", SYN_ACK),
        client("ACK", ACK),
        client("data", ACK | TcpFlags::PSH),
        forward(
            "a reset ahead",
            from_client(reset(1)),
            to_container(reset(1)),
        ),
        forward(
            "a reset behind",
            from_client(reset(u32::MAX)),
            Err(Reason::TcpState),
        ),
        forward(
            "a reset far away",
            from_client(reset(1 << 31)),
            Err(Reason::TcpState),
        ),
        server("data", ACK | TcpFlags::PSH),
        client_passes("SYN+ACK from a client", SYN_ACK, Reason::TcpState),
        client("a late SYN, which the server answers", SYN),
        client("FIN", FIN_ACK),
        server("ACK of it, with data", ACK),
        server("FIN", FIN_ACK),
        client("ACK of it", ACK),
        client("a new connection from the same port", SYN),
        server("refused", RST | ACK),
        client("and tried again", SYN),
        server("SYN+ACK", SYN_ACK),
        client("ACK", ACK),
    ]
}

fn datagrams<V: Version>() -> Vec<Step> {
    let of_size = |payload| Spec {
        payload,
        ..question::<V>()
    };
    let mut steps: Vec<Step> = [0, 1, 2, 1000]
        .into_iter()
        .flat_map(|payload| {
            let back = Spec {
                payload,
                ..answer::<V>()
            };
            let there = of_size(payload);
            [
                forward("question", from_client(there), to_container(there)),
                reply("answer", from_container(back), to_client(back)),
            ]
        })
        .collect();
    // By way of the other address and the other port: its answer could not be told from that above.
    let bound = Spec {
        source: (V::CLIENTS[1], CLIENT_PORT),
        destination: (V::HOSTS[1], BOUND_PORT),
        ..question::<V>()
    };
    let elsewhere = Spec {
        destination: (V::HOSTS[0], BOUND_PORT),
        ..bound
    };
    let bridge = Spec {
        source: (V::CLIENTS[2], CLIENT_PORT),
        destination: (V::HOSTS[2], HOST_PORTS[1]),
        ..question::<V>()
    };
    let other_port = Spec {
        destination: (V::CLIENTS[0], CLIENT_PORT + 1),
        ..answer::<V>()
    };
    let padded = |mut bytes: Vec<u8>| {
        bytes.extend([0; 18]);
        bytes
    };
    let small = of_size(0);
    steps.extend([
        forward(
            "to a port of one address",
            from_client(bound),
            to_container(bound),
        ),
        forward(
            "at another address",
            from_client(elsewhere),
            Err(Reason::NotPublished),
        ),
        forward(
            "to the bridge's address",
            from_client(bridge),
            to_container(bridge),
        ),
        reply(
            "to nobody who asked",
            from_container(other_port),
            Err(Reason::NotAReply),
        ),
        forward(
            "padded to Ethernet's minimum",
            padded(from_client(small)),
            to_container(small).map(padded),
        ),
    ]);
    steps
}

fn none_of_ours<V: Version>() -> Vec<Step> {
    let to = |destination| {
        from_client(Spec {
            destination,
            ..question::<V>()
        })
    };
    let from = |address| {
        from_client(Spec {
            source: (address, CLIENT_PORT),
            ..question::<V>()
        })
    };
    let mac = |mac: Mac| frame(question::<V>(), mac, CLIENT_MAC);
    let port = HOST_PORTS[0];
    let mut steps = vec![
        forward(
            "to a port that is not published",
            to((V::HOSTS[0], 22)),
            Err(Reason::NotPublished),
        ),
        forward(
            "to the container itself",
            to((V::TARGET, CONTAINER_PORT)),
            Err(Reason::NotPublished),
        ),
        forward(
            "to the container's address, at a published port",
            to((V::TARGET, port)),
            Err(Reason::NotLocal),
        ),
        forward(
            "in transit",
            to((V::CLIENTS[3], port)),
            Err(Reason::NotLocal),
        ),
        forward(
            "from the host's own address",
            from(V::HOSTS[0]),
            Err(Reason::NoRoute),
        ),
        forward(
            "from a container's address",
            from(V::TARGET),
            Err(Reason::ReversePath),
        ),
        forward(
            "from its neighbour's",
            from(V::BESIDE),
            Err(Reason::ReversePath),
        ),
        forward(
            "to another station",
            mac([2, 0, 0, 0, 0x99, 7]),
            Err(Reason::NotToHost),
        ),
        forward("to all stations", mac([0xff; 6]), Err(Reason::NotToHost)),
        forward(
            "to some stations",
            mac([0x33, 0x33, 0, 0, 0, 1]),
            Err(Reason::NotToHost),
        ),
        forward(
            "ARP",
            hex("ffff ffff ffff 0200 0000 9902 0806 0001 0800 0604 0001"),
            Err(Reason::NotIp),
        ),
        reply(
            "a container's question",
            from_container(answer::<V>()),
            Err(Reason::NotAReply),
        ),
    ];
    for martian in V::MARTIANS {
        steps.push(forward(
            "from a martian",
            from(*martian),
            Err(Reason::Martian),
        ));
    }
    for destination in V::NOT_OURS {
        let frame = to((*destination, port));
        steps.push(forward("to somebody else", frame, Err(Reason::NotLocal)));
    }
    steps
}

fn kernel_answers<V: Version>() -> Vec<Step> {
    let header = V::HEADER_LEN + 8;
    let mtu = CONTAINER_MTU as usize;
    let there = |spec: Spec<V>, what, reason: Option<Reason>| {
        let becomes = reason.map_or_else(|| to_container(spec), Err);
        forward(what, from_client(spec), becomes)
    };
    let of_length = |length: usize| Spec {
        payload: length - header,
        ..question::<V>()
    };
    let of_ttl = |ttl| Spec {
        ttl,
        ..question::<V>()
    };
    let back = Spec {
        payload: 1500 - header,
        ..answer::<V>()
    };
    let spent = Spec {
        ttl: 1,
        ..answer::<V>()
    };
    let super_segment = Spec {
        payload: 3000,
        ..question::<V>().tcp(SYN)
    };
    let fits = CONTAINER_MTU - V::HEADER_LEN as u32 - 20;
    vec![
        there(of_ttl(0), "no hop left", Some(Reason::Ttl)),
        there(of_ttl(1), "the last hop", Some(Reason::Ttl)),
        there(
            of_length(mtu + 1),
            "above the container's MTU",
            Some(Reason::Mtu),
        ),
        there(of_length(mtu), "of its size", None),
        there(of_ttl(2), "a hop to go", None),
        reply("of the client's MTU", from_container(back), to_client(back)),
        reply("the last hop back", from_container(spent), Err(Reason::Ttl)),
        there(super_segment, "segments above the MTU", Some(Reason::Mtu)).of_segments(fits + 1),
        there(super_segment, "segments of its size", None).of_segments(fits),
    ]
}

/// The question with some of its bytes changed; offsets from the IP header on.
fn edited<V: Version>(spec: Spec<V>, edits: &[(usize, u8)]) -> Vec<u8> {
    let mut bytes = from_client(spec);
    for (offset, byte) in edits {
        bytes[ETHERNET + offset] = *byte;
    }
    bytes
}

/// The question with another IP header.
fn behind<V: Version>(header: &[u8]) -> Vec<u8> {
    let bytes = from_client(question::<V>());
    let (frame, packet) = bytes.split_at(ETHERNET);
    [frame, header, &packet[V::HEADER_LEN..]].concat()
}

/// The question as two fragments' content, one behind the other, and what reaches the container: ports and
/// checksum change in the first alone.
fn fragments<V: Version>() -> [Step; 2] {
    let spec = question::<V>();
    let translated = Spec {
        destination: (V::TARGET, CONTAINER_PORT),
        ttl: spec.ttl - 1,
        ..spec
    };
    let whole = from_client(spec);
    let received = frame(translated, CONTAINER_MAC, BRIDGE_MAC);
    [("a first fragment", 0, true), ("a last one", 8, false)].map(|(what, offset, more)| {
        let header = |spec: Spec<V>| V::fragment_header(spec.network(), 7, offset, more);
        let l4 = ETHERNET + V::HEADER_LEN;
        let content = if more { &received[l4..] } else { &whole[l4..] };
        let expected = [&received[..ETHERNET], &header(translated), content].concat();
        forward(what, behind::<V>(&header(spec)), Ok(expected))
    })
}

/// Errors and others that are no transport of ours.
fn other_protocols<V: Version>() -> Vec<Step> {
    let of = |protocol| {
        behind::<V>(&V::header(Network {
            protocol,
            ..question::<V>().network()
        }))
    };
    let [first, last] = fragments::<V>();
    vec![
        first,
        last,
        forward("ICMP", of(V::ICMP), Err(Reason::Icmp)),
        forward("SCTP", of(IpProtocol(132)), Err(Reason::Protocol)),
        forward("ESP", of(IpProtocol(50)), Err(Reason::Protocol)),
    ]
}

fn odd_headers_v4() -> Vec<Step> {
    let odd = |what, edits: &[(usize, u8)], reason| {
        forward(what, edited::<V4>(question(), edits), Err(reason))
    };
    let mut steps = other_protocols::<V4>();
    steps.extend([
        odd("version 6 in IPv4's frame", &[(0, 0x65)], Reason::Malformed),
        odd("a header of 16 bytes", &[(0, 0x44)], Reason::Malformed),
        odd("options", &[(0, 0x46)], Reason::IpOptions),
        odd("longer than the frame", &[(2, 0xff)], Reason::Malformed),
        odd(
            "shorter than its header",
            &[(2, 0), (3, 19)],
            Reason::Malformed,
        ),
        odd(
            "without room for ports",
            &[(2, 0), (3, 20)],
            Reason::Malformed,
        ),
    ]);
    steps
}

fn odd_headers_v6() -> Vec<Step> {
    let odd = |what, edits: &[(usize, u8)], reason| {
        forward(what, edited::<V6>(question(), edits), Err(reason))
    };
    let mut steps = other_protocols::<V6>();
    steps.extend([
        odd("version 4 in IPv6's frame", &[(0, 0x45)], Reason::Malformed),
        odd("longer than the frame", &[(4, 0xff)], Reason::Malformed),
        odd("a jumbogram", &[(4, 0), (5, 0)], Reason::Malformed),
        odd("hop-by-hop options", &[(6, 0)], Reason::IpOptions),
        odd("a routing header", &[(6, 43)], Reason::IpOptions),
        odd("destination options", &[(6, 60)], Reason::IpOptions),
        odd("authentication", &[(6, 51)], Reason::IpOptions),
        odd("nothing next", &[(6, 59)], Reason::Protocol),
    ]);
    steps
}

fn odd_segments<V: Version>() -> Vec<Step> {
    let l4 = V::HEADER_LEN;
    let udp = |what, edits: &[(usize, u8)], reason| {
        forward(what, edited(question::<V>(), edits), Err(reason))
    };
    let tcp = |what, edits: &[(usize, u8)], reason| {
        forward(what, edited(question::<V>().tcp(SYN), edits), Err(reason))
    };
    vec![
        udp("from port zero", &[(l4, 0), (l4 + 1, 0)], Reason::Malformed),
        udp(
            "UDP shorter than its header",
            &[(l4 + 4, 0), (l4 + 5, 7)],
            Reason::Malformed,
        ),
        udp(
            "UDP longer than its packet",
            &[(l4 + 4, 9)],
            Reason::Malformed,
        ),
        tcp(
            "a TCP header of 16 bytes",
            &[(l4 + 12, 0x40)],
            Reason::Malformed,
        ),
        tcp("a null scan", &[(l4 + 13, 0)], Reason::TcpFlags),
        tcp(
            "SYN+FIN",
            &[(l4 + 13, SYN | TcpFlags::FIN)],
            Reason::TcpFlags,
        ),
        tcp("SYN+RST", &[(l4 + 13, SYN | RST)], Reason::TcpFlags),
        tcp("a Christmas tree", &[(l4 + 13, 0xff)], Reason::TcpFlags),
    ]
}
