//! ICMP errors and what becomes of them.

use bytemuck::bytes_of;

use super::{
    buffer::{Buffer, NUMBER, Spec},
    sample::{Sample as _, ip4},
    world::{BRIDGE, EXTERNAL, VETH, World},
};
use crate::{
    checksum::internet_checksum,
    family::{Family, V4, V6},
    forward::{Forward, forward},
    headers::{Be16, Be32, Ethernet, Icmp, Ip6, IpProtocol, Ipv4, Ipv6, Ports, Tcp, TcpFlags, Udp},
    icmp::{forward_error, parse_error, reply_error},
    parse::parse,
    published::port_slot,
    reason::Reason,
    reply::Reply,
    rewrite,
    settings::Admission,
    state::Timeouts,
    tables::Route,
};

const CLIENT: Be32 = V4::CLIENT;
const HOST: Be32 = V4::HOST;
const SECOND_HOST: Be32 = V4::SECOND_HOST;
const CONTAINER: Be32 = V4::CONTAINER;
const GATEWAY: Be32 = V4::GATEWAY;
const ROUTER: Be32 = ip4(192, 0, 2, 33);
const INNER_ROUTER: Be32 = ip4(172, 30, 0, 9);
const UNREACHABLE: u8 = 3;

/// Enough of the quoted packet for all of its transport header, and some payload.
const LONG: usize = 80;

/// How an IP version's header is written.
trait Wire: Family {
    fn header(
        source: Self::Address,
        destination: Self::Address,
        protocol: IpProtocol,
        ttl: u8,
        payload: usize,
    ) -> Vec<u8>;

    /// What a pseudo-header adds to an ICMP checksum.
    fn icmp_pseudo_header(
        source: Self::Address,
        destination: Self::Address,
        length: usize,
    ) -> Vec<u8>;
}

impl Wire for V4 {
    fn header(
        source: Be32,
        destination: Be32,
        protocol: IpProtocol,
        ttl: u8,
        payload: usize,
    ) -> Vec<u8> {
        let mut header = Ipv4 {
            version_ihl: Ipv4::PLAIN,
            tos: 0xc0,
            total_length: Be16::new((Self::HEADER_LEN + payload) as u16),
            id: Be16::new(7),
            fragment: Be16::new(0x4000),
            ttl,
            protocol,
            checksum: Be16::new(0),
            source,
            destination,
        };
        header.checksum = internet_checksum(&[bytes_of(&header)]);
        bytes_of(&header).to_vec()
    }

    fn icmp_pseudo_header(_: Be32, _: Be32, _: usize) -> Vec<u8> {
        Vec::new()
    }
}

impl Wire for V6 {
    fn header(
        source: Ip6,
        destination: Ip6,
        next_header: IpProtocol,
        hop_limit: u8,
        payload: usize,
    ) -> Vec<u8> {
        bytes_of(&Ipv6 {
            version_class_label: Be32::new(0x6000_1234),
            payload_length: Be16::new(payload as u16),
            next_header,
            hop_limit,
            source,
            destination,
        })
        .to_vec()
    }

    fn icmp_pseudo_header(source: Ip6, destination: Ip6, length: usize) -> Vec<u8> {
        pseudo_header(source, destination, IpProtocol::ICMPV6, length)
    }
}

fn pseudo_header<A: bytemuck::Pod>(
    source: A,
    destination: A,
    protocol: IpProtocol,
    length: usize,
) -> Vec<u8> {
    let length = (length as u16).to_be_bytes();
    [
        bytes_of(&source),
        bytes_of(&destination),
        &[0, protocol.0],
        &length,
    ]
    .concat()
}

/// The packet that an error quotes.
#[derive(Clone, Copy)]
struct Quoted<F: Family> {
    protocol: IpProtocol,
    source: (F::Address, u16),
    destination: (F::Address, u16),
    has_checksum: bool,
}

impl<F: Wire> Quoted<F> {
    fn bytes(&self) -> Vec<u8> {
        let ports = Ports {
            source: Be16::new(self.source.1),
            destination: Be16::new(self.destination.1),
        };
        let payload = [0x5a; 100];
        let mut segment = if self.protocol == IpProtocol::TCP {
            bytes_of(&Tcp {
                ports,
                sequence: Be32::new(1),
                acknowledgement: Be32::new(2),
                data_offset: 5 << 4,
                flags: TcpFlags(0),
                window: Be16::new(1000),
                checksum: Be16::new(0),
                urgent: Be16::new(0),
            })
            .to_vec()
        } else {
            bytes_of(&Udp {
                ports,
                length: Be16::new((size_of::<Udp>() + payload.len()) as u16),
                checksum: Be16::new(0),
            })
            .to_vec()
        };
        segment.extend(payload);
        if self.has_checksum {
            let at = if self.protocol == IpProtocol::TCP {
                16
            } else {
                6
            };
            let (source, destination) = (self.source.0, self.destination.0);
            let pseudo = pseudo_header(source, destination, self.protocol, segment.len());
            let sum = internet_checksum(&[&pseudo, &segment]).get().to_be_bytes();
            segment[at..at + 2].copy_from_slice(&sum);
        }
        let mut bytes = F::header(
            self.source.0,
            self.destination.0,
            self.protocol,
            9,
            segment.len(),
        );
        bytes.extend(segment);
        bytes
    }
}

/// An ICMP error, as an ordinary router sends it.
#[derive(Clone, Copy)]
struct Error<F: Family> {
    source: F::Address,
    destination: F::Address,
    kind: u8,
    ttl: u8,
    quoted: Quoted<F>,
    /// How much of the quoted packet's transport header and payload is there.
    length: usize,
}

impl<F: Wire> Error<F> {
    fn build(&self) -> Buffer {
        let mut quoted = self.quoted.bytes();
        quoted.truncate(F::HEADER_LEN + self.length);
        self.build_quoting(&quoted)
    }

    fn build_quoting(&self, quoted: &[u8]) -> Buffer {
        let icmp = Icmp {
            kind: self.kind,
            code: 4,
            checksum: Be16::new(0),
            rest: Be32::new(1300),
        };
        let mut message = [bytes_of(&icmp), quoted].concat();
        let pseudo = F::icmp_pseudo_header(self.source, self.destination, message.len());
        let sum = internet_checksum(&[&pseudo, &message]).get().to_be_bytes();
        message[2..4].copy_from_slice(&sum);
        let header = F::header(
            self.source,
            self.destination,
            F::ICMP,
            self.ttl,
            message.len(),
        );
        let ethernet = Ethernet {
            destination: [2, 0, 0, 0, 0, 1],
            source: [2, 0, 0, 0, 0, 9],
            ether_type: F::ETHER_TYPE,
        };
        Buffer::new([bytes_of(&ethernet), &header, &message].concat())
    }
}

/// A router's error about a reply, as it comes in.
fn from_outside() -> Error<V4> {
    Error {
        source: ROUTER,
        destination: HOST,
        kind: UNREACHABLE,
        ttl: 64,
        quoted: Quoted {
            protocol: IpProtocol::UDP,
            source: (HOST, 9000),
            destination: (CLIENT, 5000),
            has_checksum: true,
        },
        length: LONG,
    }
}

/// The same as the container gets it.
fn to_container(error: Error<V4>) -> Error<V4> {
    let mut error = error;
    error.destination = CONTAINER;
    error.ttl -= 1;
    error.quoted.source = (CONTAINER, 8080);
    error
}

/// An error from behind the container, about a packet of the client.
fn from_container() -> Error<V4> {
    Error {
        source: INNER_ROUTER,
        destination: CLIENT,
        kind: UNREACHABLE,
        ttl: 64,
        quoted: Quoted {
            protocol: IpProtocol::UDP,
            source: (CLIENT, 5000),
            destination: (CONTAINER, 8080),
            has_checksum: true,
        },
        length: LONG,
    }
}

/// The same as its client gets it.
fn to_client(error: Error<V4>) -> Error<V4> {
    let mut error = error;
    error.source = HOST;
    error.ttl -= 1;
    error.quoted.destination = (HOST, 9000);
    error
}

/// A world with a flow of both protocols from the client's port 5000 to the host's 9000.
fn world() -> World<V4> {
    let world = World::new();
    for protocol in [IpProtocol::TCP, IpProtocol::UDP] {
        begin(&world, protocol, 9000, 5000);
    }
    world
}

fn begin(world: &World<V4>, protocol: IpProtocol, host_port: u16, client_port: u16) {
    let packet = Spec::<V4> {
        protocol,
        source: (CLIENT, client_port),
        destination: (HOST, host_port),
        flags: TcpFlags::SYN,
        sequence: NUMBER,
        acknowledgement: 0,
        ttl: 64,
        payload: 0,
    }
    .build();
    let parsed = parse::<V4, _>(&packet).expect("plain");
    forward(&packet, &parsed, world, EXTERNAL).expect("a flow");
}

fn send_in(world: &World<V4>, packet: &Buffer) -> Result<Buffer, Reason> {
    assert_eq!(parse::<V4, _>(packet).err(), Some(Reason::Icmp));
    let error = parse_error::<V4, _>(packet)?;
    let decision = forward_error(packet, &error, world)?;
    assert_eq!(decision.ifindex, VETH);
    let mut rewritten = packet.clone();
    rewrite::error_to_container(&mut rewritten, &error, &decision).expect("inside the packet");
    Ok(rewritten)
}

fn send_out(world: &World<V4>, packet: &Buffer) -> Result<Buffer, Reason> {
    assert_eq!(parse::<V4, _>(packet).err(), Some(Reason::Icmp));
    let error = parse_error::<V4, _>(packet)?;
    let decision = reply_error(packet, &error, world, VETH)?;
    assert_eq!((decision.ifindex, decision.next_hop), (EXTERNAL, GATEWAY));
    let mut rewritten = packet.clone();
    rewrite::error_to_client(&mut rewritten, &error, &decision).expect("inside the packet");
    Ok(rewritten)
}

/// With the MACs of the container's link.
fn handed_over(mut packet: Buffer) -> Buffer {
    packet.bytes[..12].copy_from_slice(&[2, 0, 0, 0, 17, 2, 2, 0, 0, 0, 0, 1]);
    packet
}

/// Every protocol and every length that makes a difference.
fn each(error: Error<V4>) -> Vec<Error<V4>> {
    let mut errors = Vec::new();
    for (protocol, has_checksum) in [
        (IpProtocol::TCP, true),
        (IpProtocol::UDP, true),
        (IpProtocol::UDP, false),
    ] {
        for length in [8, 9, 16, 20, 21, LONG] {
            let mut error = Error { length, ..error };
            error.quoted.protocol = protocol;
            error.quoted.has_checksum = has_checksum;
            errors.push(error);
        }
    }
    errors
}

#[test]
fn an_error_is_translated_both_ways_as_if_it_quoted_the_other_packet() {
    let world = world();
    for kind in [3, 4, 11, 12] {
        for error in each(Error {
            kind,
            ..from_outside()
        }) {
            let expected = handed_over(to_container(error).build());
            assert_eq!(send_in(&world, &error.build()), Ok(expected));
        }
        for error in each(Error {
            kind,
            ..from_container()
        }) {
            let expected = to_client(error).build();
            assert_eq!(send_out(&world, &error.build()), Ok(expected));
        }
    }
}

#[test]
fn a_quoted_tcp_checksum_stays_if_its_header_is_cut_short() {
    let world = world();
    let mut error = from_outside();
    error.quoted.protocol = IpProtocol::TCP;
    error.length = 19;
    let packet = error.build();
    // The last 3 bytes: the checksum, and one of the urgent pointer.
    let checksum = packet.bytes[packet.bytes.len() - 3..].to_vec();
    let rewritten = send_in(&world, &packet).expect("translated");
    let mut quoted = to_container(error).quoted.bytes();
    quoted.truncate(V4::HEADER_LEN + 16);
    quoted.extend(checksum);
    let expected = handed_over(to_container(error).build_quoting(&quoted));
    assert_eq!(rewritten, expected);
}

const fn ip6(last: u8) -> Ip6 {
    Ip6::new([
        0x20, 1, 0xd, 0xb8, last, 0, 0xff, 0, 0, 0, 0, 0, 0, 0, 3, last,
    ])
}

#[test]
fn of_ipv6_errors_those_are_read_that_quote_a_plain_packet() {
    let read = |kind: u8, protocol: IpProtocol, first: u8| {
        let error = Error::<V6> {
            source: ip6(4),
            destination: ip6(2),
            kind,
            ttl: 64,
            quoted: Quoted {
                protocol,
                source: (ip6(2), 9000),
                destination: (ip6(1), 5000),
                has_checksum: true,
            },
            length: 8,
        };
        let mut quoted = error.quoted.bytes();
        quoted[0] = first;
        parse_error::<V6, _>(&error.build_quoting(&quoted)).map(|error| error.ports)
    };
    let ports = Ports {
        source: Be16::new(9000),
        destination: Be16::new(5000),
    };
    for kind in 1..=4 {
        assert_eq!(read(kind, IpProtocol::UDP, 0x60), Ok(ports));
    }
    for kind in [0, 5, 100, 128, 137] {
        assert_eq!(read(kind, IpProtocol::UDP, 0x60), Err(Reason::Icmp));
    }
    for protocol in [IpProtocol::FRAGMENT, IpProtocol::ICMPV6, IpProtocol(132)] {
        assert_eq!(read(1, protocol, 0x60), Err(Reason::Icmp));
    }
    assert_eq!(read(1, IpProtocol::UDP, 0x45), Err(Reason::Icmp));
}

/// The same packet as a fragment of a longer one.
fn fragment_v6(quoted: &[u8], offset: u16) -> Vec<u8> {
    let (header, rest) = quoted.split_at(V6::HEADER_LEN);
    let mut header = header.to_vec();
    let protocol = core::mem::replace(&mut header[6], IpProtocol::FRAGMENT.0);
    let [high, low] = (offset | 1).to_be_bytes();
    [&header, &[protocol, 0, high, low, 0, 0, 0, 7][..], rest].concat()
}

#[test]
fn an_ipv6_error_may_quote_a_first_fragment() {
    let error = |source, destination, ttl, quoted_source| Error::<V6> {
        source,
        destination,
        kind: 2,
        ttl,
        quoted: Quoted {
            protocol: IpProtocol::UDP,
            source: quoted_source,
            destination: (ip6(1), 5000),
            has_checksum: true,
        },
        length: LONG,
    };
    let build = |error: Error<V6>, offset, length: usize| {
        let quoted = fragment_v6(&error.quoted.bytes(), offset);
        error.build_quoting(&quoted[..V6::HEADER_LEN + length])
    };
    let (host, container, router) = (ip6(2), ip6(3), ip6(4));
    let original = error(router, host, 64, (host, 9000));
    for length in [16, 17, LONG] {
        let mut packet = build(original, 0, length);
        let parsed = parse_error::<V6, _>(&packet).expect("an error");
        let decision = Forward {
            address: container,
            ports: Ports {
                source: Be16::new(8080),
                destination: Be16::new(5000),
            },
            mac: [2, 0, 0, 0, 17, 2],
            source_mac: [2, 0, 0, 0, 0, 1],
            ifindex: VETH,
            is_first: false,
        };
        rewrite::error_to_container(&mut packet, &parsed, &decision).expect("inside");
        let expected = build(error(router, container, 63, (container, 8080)), 0, length);
        assert_eq!(packet, handed_over(expected));
    }
    for (offset, length) in [(8, LONG), (0, 15), (0, 7)] {
        let packet = build(original, offset, length);
        assert_eq!(parse_error::<V6, _>(&packet).err(), Some(Reason::Icmp));
    }
}

/// The decisions do not differ by IP version; checksums do.
#[test]
fn ipv6_errors_are_rewritten_as_if_they_quoted_the_other_packet() {
    let [client, host, container, router] = [ip6(1), ip6(2), ip6(3), ip6(4)];
    for (protocol, length) in [
        (IpProtocol::UDP, 8),
        (IpProtocol::UDP, LONG),
        (IpProtocol::TCP, 8),
        (IpProtocol::TCP, 20),
        (IpProtocol::TCP, LONG),
    ] {
        let quoted = |source, destination| Quoted::<V6> {
            protocol,
            source,
            destination,
            has_checksum: true,
        };
        let error = |source, destination, ttl, quoted| Error::<V6> {
            source,
            destination,
            kind: 2,
            ttl,
            quoted,
            length,
        };
        for (client_port, seen_source) in [(5000, router), (6000, client)] {
            let about_reply = quoted((host, 9000), (client, 5000));
            let mut packet = error(router, host, 64, about_reply).build();
            let parsed = parse_error::<V6, _>(&packet).expect("an error");
            let decision = Forward {
                address: container,
                ports: Ports {
                    source: Be16::new(8080),
                    destination: Be16::new(client_port),
                },
                mac: [2, 0, 0, 0, 17, 2],
                source_mac: [2, 0, 0, 0, 0, 1],
                ifindex: VETH,
                is_first: false,
            };
            rewrite::error_to_container(&mut packet, &parsed, &decision).expect("inside");
            let about_reply = quoted((container, 8080), (client, client_port));
            let expected = error(seen_source, container, 63, about_reply).build();
            assert_eq!(packet, handed_over(expected));

            let about_forward = quoted((client, client_port), (container, 8080));
            let mut packet = error(router, client, 64, about_forward).build();
            let parsed = parse_error::<V6, _>(&packet).expect("an error");
            let decision = Reply {
                address: host,
                ports: Ports {
                    source: Be16::new(5000),
                    destination: Be16::new(9000),
                },
                ifindex: EXTERNAL,
                next_hop: router,
                mtu: 1500,
            };
            rewrite::error_to_client(&mut packet, &parsed, &decision).expect("inside");
            let about_forward = quoted((client, 5000), (host, 9000));
            assert_eq!(packet, error(host, client, 63, about_forward).build());
        }
    }
}

#[test]
fn an_error_about_a_client_under_another_port_names_it_as_each_side_knows_it() {
    let mut world = World::new();
    let protocol = IpProtocol::UDP;
    world.publish(protocol, 9001, 1, 8080);
    for host_port in [9000, 9001] {
        begin(&world, protocol, host_port, 5000);
    }
    let remapped = world.remapped.borrow().values().next().copied();
    let other = remapped.expect("the second flow has another port").get();

    let mut error = from_outside();
    error.quoted.source.1 = 9001;
    let mut expected = to_container(error);
    expected.quoted.destination.1 = other;
    expected.source = CLIENT;
    let expected = handed_over(expected.build());
    assert_eq!(send_in(&world, &error.build()), Ok(expected));

    let mut error = from_container();
    error.quoted.source.1 = other;
    let mut expected = to_client(error);
    expected.quoted.source.1 = 5000;
    expected.quoted.destination.1 = 9001;
    assert_eq!(send_out(&world, &error.build()), Ok(expected.build()));

    // A client that really has that port is another.
    let mut error = from_outside();
    error.quoted.source.1 = 9001;
    error.quoted.destination.1 = other;
    assert_eq!(send_in(&world, &error.build()), Err(Reason::Icmp));

    // The first one's is as ever.
    let expected = handed_over(to_container(from_outside()).build());
    assert_eq!(send_in(&world, &from_outside().build()), Ok(expected));
}

#[test]
fn an_error_leaves_no_trace_in_its_flow() {
    let world = world();
    let before = (world.flows.borrow().clone(), world.opening.borrow().clone());
    world.wait(3);
    send_in(&world, &from_outside().build()).expect("translated");
    send_out(&world, &from_container().build()).expect("translated");
    let after = (world.flows.borrow().clone(), world.opening.borrow().clone());
    assert_eq!(before, after);
    assert_eq!(world.traffic.borrow()[&1].packets_in, 2, "the two SYNs");
}

#[test]
fn what_matches_no_flow_exactly_is_left_alone() {
    let world = world();
    let other = ip4(203, 0, 113, 8);
    let wrong: [fn(&mut Error<V4>, Be32); 8] = [
        |error, _| error.destination = SECOND_HOST,
        |error, _| {
            error.destination = SECOND_HOST;
            error.quoted.source.0 = SECOND_HOST;
        },
        |error, _| error.quoted.source.1 = 9001,
        |error, _| error.quoted.destination.1 = 5001,
        |error, other| error.quoted.destination.0 = other,
        |error, _| error.kind = 5,
        |error, _| error.length = 7,
        |error, _| error.quoted.protocol = IpProtocol(132),
    ];
    for (number, change) in wrong.into_iter().enumerate() {
        let mut error = from_outside();
        change(&mut error, other);
        assert_eq!(
            send_in(&world, &error.build()),
            Err(Reason::Icmp),
            "{number}"
        );
    }
    let wrong: [fn(&mut Error<V4>, Be32); 7] = [
        |error, other| error.destination = other,
        |error, other| {
            error.destination = other;
            error.quoted.source.0 = other;
        },
        |error, _| error.quoted.source.1 = 5001,
        |error, _| error.quoted.destination.1 = 8081,
        |error, other| error.quoted.destination.0 = other,
        |error, _| error.kind = 5,
        |error, _| error.length = 7,
    ];
    for (number, change) in wrong.into_iter().enumerate() {
        let mut error = from_container();
        change(&mut error, other);
        assert_eq!(
            send_out(&world, &error.build()),
            Err(Reason::Icmp),
            "{number}"
        );
    }
}

#[test]
fn what_is_quoted_must_be_plain_or_a_first_fragment() {
    let world = world();
    let header_of = |first: u8, fragment: u16| {
        let mut quoted = from_outside().quoted.bytes();
        quoted[0] = first;
        quoted[6..8].copy_from_slice(&fragment.to_be_bytes());
        send_in(&world, &from_outside().build_quoting(&quoted[..60]))
    };
    assert!(header_of(0x45, 0).is_ok());
    assert!(header_of(0x45, 0x2000).is_ok(), "more fragments follow");
    for (first, fragment) in [(0x45, 0x2001), (0x45, 1), (0x46, 0), (0x65, 0)] {
        assert_eq!(header_of(first, fragment), Err(Reason::Icmp));
    }
}

#[test]
fn it_takes_a_live_flow_and_flows_that_are_ours_alone() {
    let check = |change: fn(&mut World<V4>), reason| {
        let mut world = world();
        change(&mut world);
        assert_eq!(send_in(&world, &from_outside().build()), Err(reason));
        assert_eq!(send_out(&world, &from_container().build()), Err(reason));
    };
    check(
        |world| world.settings.admission = Admission::Netfilter as u32,
        Reason::Icmp,
    );
    check(
        |world| world.settings.admission = Admission::Off as u32,
        Reason::Icmp,
    );
    check(
        |world| world.wait(Timeouts::DEFAULT.of(crate::state::State::Unanswered) + 1),
        Reason::Icmp,
    );
    check(
        |world| world.backends.get_mut(&1).expect("it").generation = 2,
        Reason::Icmp,
    );
    check(
        |world| world.backends.get_mut(&1).expect("it").generation = 0,
        Reason::Icmp,
    );

    let mut world = world();
    world
        .ports
        .remove(&port_slot(IpProtocol::UDP, Be16::new(9000)));
    let outcome = send_in(&world, &from_outside().build());
    assert_eq!(outcome, Err(Reason::Icmp), "not published any more");
}

#[test]
fn what_the_kernel_would_not_forward_is_left_to_it() {
    let world = world();
    let loopback = ip4(127, 0, 0, 1);
    for (ttl, source, reason) in [
        (1, ROUTER, Reason::Ttl),
        (0, ROUTER, Reason::Ttl),
        (64, loopback, Reason::Martian),
        (64, SECOND_HOST, Reason::Martian),
    ] {
        let error = Error {
            ttl,
            source,
            ..from_outside()
        };
        assert_eq!(send_in(&world, &error.build()), Err(reason));
        let error = Error {
            ttl,
            source,
            ..from_container()
        };
        assert_eq!(send_out(&world, &error.build()), Err(reason));
    }
    let mut packet = from_outside().build();
    packet.is_to_host = false;
    assert_eq!(send_in(&world, &packet), Err(Reason::NotToHost));
    let mut packet = from_container().build();
    packet.bytes[5] = 8;
    assert_eq!(
        send_out(&world, &packet),
        Err(Reason::NotToHost),
        "to another station on the bridge"
    );
    let packet = from_container().build();
    let error = parse_error::<V4, _>(&packet).expect("an error");
    assert_eq!(
        reply_error(&packet, &error, &world, BRIDGE).err(),
        Some(Reason::WrongInterface)
    );
}

#[test]
fn the_next_link_must_take_it() {
    let mut world = world();
    world.backends.get_mut(&1).expect("it").mtu = 100;
    let outcome = send_in(&world, &from_outside().build());
    assert_eq!(outcome, Err(Reason::Mtu));
    let narrow = Route {
        ifindex: EXTERNAL,
        next_hop: GATEWAY,
        mtu: 100,
    };
    world.routes.insert(CLIENT, Ok(narrow));
    let out = || send_out(&world, &from_container().build());
    assert!(out().is_ok(), "by the route as it was");
    world.settings.epoch += 1;
    let out = || send_out(&world, &from_container().build());
    assert_eq!(out(), Err(Reason::Mtu), "by the route as it is");
    world.local.remove(&HOST);
    let outcome = send_in(
        &world,
        &Error {
            length: 8,
            ..from_outside()
        }
        .build(),
    );
    assert_eq!(outcome, Err(Reason::NotLocal));
    world.local.insert(HOST);
    world.gone.insert(VETH);
    let outcome = send_in(
        &world,
        &Error {
            length: 8,
            ..from_outside()
        }
        .build(),
    );
    assert_eq!(outcome, Err(Reason::BackendGone));
}
