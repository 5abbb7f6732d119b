//! Packets and what becomes of them.

use super::{
    buffer::{Buffer, L3, L4, Spec},
    world::{CLIENT, CONTAINER, EXTERNAL, GATEWAY, HOST, SECOND_HOST, VETH, World, ip},
};
use crate::{
    family::V4,
    flow::ROUTE_LIFETIME,
    foreign::observe_outgoing,
    forward::forward,
    headers::{Be16, Be32, IpProtocol, Ipv4, TcpFlags},
    join::FOREIGN_LIFETIME,
    packet::Packet as _,
    parse::parse,
    published::{Backend, BoundPort, PortSlot},
    reason::Reason,
    reply::reply,
    rewrite,
    settings::Admission,
    state::{State, Timeouts},
    tables::Route,
};

const SYN: u8 = TcpFlags::SYN;
const ACK: u8 = TcpFlags::ACK;
const FIN_ACK: u8 = TcpFlags::FIN | TcpFlags::ACK;

fn from_client() -> Spec {
    Spec {
        protocol: IpProtocol::UDP,
        source: (CLIENT, 5000),
        destination: (HOST, 9000),
        flags: 0,
        ttl: 64,
        payload: 33,
    }
}

fn from_container() -> Spec {
    Spec {
        source: (CONTAINER, 8080),
        destination: (CLIENT, 5000),
        ..from_client()
    }
}

fn tcp(spec: Spec, flags: u8) -> Spec {
    Spec {
        protocol: IpProtocol::TCP,
        flags,
        ..spec
    }
}

/// What becomes of a packet from outside: its new bytes, or why it stays as it is.
fn send_in(world: &World, packet: &Buffer) -> Result<Buffer, Reason> {
    let parsed = parse::<V4, _>(packet)?;
    let decision = forward(packet, &parsed, world, EXTERNAL)?;
    assert_eq!(decision.ifindex, VETH);
    let mut rewritten = packet.clone();
    rewrite::to_container(&mut rewritten, &parsed, &decision).expect("a write inside the packet");
    Ok(rewritten)
}

/// What becomes of a container's packet.
fn send_out(world: &World, packet: &Buffer) -> Result<Buffer, Reason> {
    let parsed = parse::<V4, _>(packet)?;
    let decision = reply(packet, &parsed, world, VETH)?;
    assert_eq!((decision.ifindex, decision.next_hop), (EXTERNAL, GATEWAY));
    let mut rewritten = packet.clone();
    rewrite::to_client(&mut rewritten, &parsed, &decision).expect("a write inside the packet");
    Ok(rewritten)
}

fn expect_left_alone(world: &World, packet: &Buffer, reason: Reason) {
    assert_eq!(send_in(world, packet), Err(reason));
    assert!(
        world.flows.borrow().is_empty() && world.opening.borrow().is_empty(),
        "and leaves no flow behind"
    );
}

#[test]
fn a_packet_is_translated_both_ways_as_if_sent_so() {
    for protocol in [IpProtocol::TCP, IpProtocol::UDP] {
        for payload in [0, 1, 2, 1000, 1001] {
            let world = World::new();
            let spec = |spec: Spec, flags| Spec {
                protocol,
                payload,
                ..tcp(spec, flags)
            };
            let mut expected = Spec {
                destination: (CONTAINER, 8080),
                ttl: 63,
                ..spec(from_client(), SYN)
            }
            .build();
            expected.bytes[..12].copy_from_slice(&[2, 0, 0, 0, 17, 2, 2, 0, 0, 0, 0, 1]);
            assert_eq!(
                send_in(&world, &spec(from_client(), SYN).build()),
                Ok(expected)
            );

            let expected = Spec {
                source: (HOST, 9000),
                ttl: 63,
                ..spec(from_container(), SYN | ACK)
            }
            .build();
            assert_eq!(
                send_out(&world, &spec(from_container(), SYN | ACK).build()),
                Ok(expected)
            );
            let flow = world.only_flow();
            assert_eq!(flow.state(), State::Established);
            assert_eq!((flow.traffic.packets_in, flow.traffic.packets_out), (1, 1));
            assert_eq!(world.traffic.borrow()[&1], flow.traffic);
        }
    }
}

#[test]
fn udp_without_a_checksum_stays_without() {
    let world = World::new();
    let mut packet = from_client().build();
    let at = L4 + 6;
    packet.store(at, Be16::new(0)).expect("room");
    let rewritten = send_in(&world, &packet).expect("translated");
    assert_eq!(rewritten.load(at), Some(Be16::new(0)));
}

#[test]
fn only_what_is_published_on_an_address_of_the_host_is_touched() {
    let world = World::new();
    for (destination, reason) in [
        ((HOST, 9001), Reason::NotPublished),
        ((ip(192, 0, 2, 9), 9000), Reason::NotLocal),
        ((ip(255, 255, 255, 255), 9000), Reason::NotLocal),
        ((ip(127, 0, 0, 1), 9000), Reason::NotLocal),
        ((CONTAINER, 9000), Reason::NotLocal),
    ] {
        let spec = Spec {
            destination,
            ..from_client()
        };
        expect_left_alone(&world, &spec.build(), reason);
    }
    assert!(
        send_in(
            &world,
            &Spec {
                destination: (SECOND_HOST, 9000),
                ..from_client()
            }
            .build()
        )
        .is_ok()
    );
}

#[test]
fn a_publication_on_one_address_holds_there_only() {
    let mut world = World::new();
    let slot = crate::published::port_slot(IpProtocol::UDP, Be16::new(9000));
    world.ports.insert(slot, PortSlot::EMPTY.with_bound(true));
    let key = BoundPort {
        address: SECOND_HOST,
        port: Be16::new(9000),
        protocol: IpProtocol::UDP,
        padding: 0,
    };
    world
        .bound_ports
        .insert(key, PortSlot::new(1, Be16::new(8080)));
    expect_left_alone(&world, &from_client().build(), Reason::NotPublished);
    let spec = Spec {
        destination: (SECOND_HOST, 9000),
        ..from_client()
    };
    assert!(send_in(&world, &spec.build()).is_ok());
    // Published there, but no longer an address of the host.
    world.local.remove(&SECOND_HOST);
    world.opening.borrow_mut().clear();
    expect_left_alone(&world, &spec.build(), Reason::NotLocal);
}

#[test]
fn whatever_the_kernel_has_to_answer_is_left_to_it() {
    let world = World::new();
    expect_left_alone(
        &world,
        &Spec {
            ttl: 1,
            ..from_client()
        }
        .build(),
        Reason::Ttl,
    );
    expect_left_alone(
        &world,
        &Spec {
            ttl: 0,
            ..from_client()
        }
        .build(),
        Reason::Ttl,
    );
    expect_left_alone(
        &world,
        &Spec {
            payload: 1473,
            ..from_client()
        }
        .build(),
        Reason::Mtu,
    );
    assert!(
        send_in(
            &world,
            &Spec {
                payload: 1472,
                ..from_client()
            }
            .build()
        )
        .is_ok()
    );
}

#[test]
fn a_packet_that_stands_for_many_is_measured_by_its_segments() {
    let world = World::new();
    let mut packet = tcp(
        Spec {
            payload: 20_000,
            ..from_client()
        },
        SYN,
    )
    .build();
    packet.segment_size = 1461;
    expect_left_alone(&world, &packet, Reason::Mtu);
    packet.segment_size = 1460;
    assert!(send_in(&world, &packet).is_ok());
}

#[test]
fn frames_that_are_not_the_hosts_are_left_alone() {
    let world = World::new();
    let mut packet = from_client().build();
    packet.is_to_host = false;
    expect_left_alone(&world, &packet, Reason::NotToHost);
    let mut packet = from_client().build();
    packet.vlan_id = 5;
    expect_left_alone(&world, &packet, Reason::Vlan);
}

#[test]
fn malformed_headers_are_left_alone() {
    let world = World::new();
    let edit = |spec: Spec, edits: &[(usize, u8)]| {
        let mut packet = spec.build();
        for (at, byte) in edits {
            packet.bytes[*at] = *byte;
        }
        packet
    };
    let length = L3 + core::mem::offset_of!(Ipv4, total_length);
    let fragment = L3 + core::mem::offset_of!(Ipv4, fragment);
    let l4 = L4;
    let udp = from_client();
    let syn = tcp(from_client(), SYN);
    for (packet, reason) in [
        (edit(udp, &[(L3, 0x44)]), Reason::Malformed),
        (edit(udp, &[(L3, 0x65)]), Reason::Malformed),
        (edit(udp, &[(L3, 0x46)]), Reason::IpOptions),
        (edit(udp, &[(length, 0xff)]), Reason::Malformed),
        (
            edit(udp, &[(length, 0), (length + 1, 19)]),
            Reason::Malformed,
        ),
        (edit(udp, &[(fragment, 0x20)]), Reason::Fragment),
        (edit(udp, &[(fragment + 1, 1)]), Reason::Fragment),
        (edit(udp, &[(L3 + 9, 1)]), Reason::Protocol),
        (edit(udp, &[(l4, 0), (l4 + 1, 0)]), Reason::Malformed),
        (edit(udp, &[(l4 + 4, 0), (l4 + 5, 7)]), Reason::Malformed),
        (edit(udp, &[(l4 + 4, 9)]), Reason::Malformed),
        (edit(syn, &[(l4 + 12, 0x40)]), Reason::Malformed),
        (edit(syn, &[(l4 + 12, 0xf0)]), Reason::Malformed),
        (edit(syn, &[(l4 + 13, 0)]), Reason::TcpFlags),
        (edit(syn, &[(l4 + 13, 3)]), Reason::TcpFlags),
        (edit(syn, &[(l4 + 13, 0xff)]), Reason::TcpFlags),
    ] {
        expect_left_alone(&world, &packet, reason);
    }
    // Cut short anywhere, nothing is read beyond the end.
    for spec in [udp, syn] {
        let whole = spec.build();
        for end in 0..whole.bytes.len() {
            let mut packet = whole.clone();
            packet.bytes.truncate(end);
            expect_left_alone(&world, &packet, Reason::Malformed);
        }
    }
    // Bytes behind the packet, as Ethernet pads short ones, do not count.
    let mut padded = udp.build();
    padded.bytes.extend([0; 18]);
    assert!(send_in(&world, &padded).is_ok());
}

#[test]
fn sources_that_no_client_has_are_left_alone() {
    let mut world = World::new();
    for source in [
        ip(0, 0, 0, 1),
        ip(127, 0, 0, 1),
        ip(224, 0, 0, 1),
        ip(240, 0, 0, 1),
        ip(255, 255, 255, 255),
    ] {
        let spec = Spec {
            source: (source, 5000),
            ..from_client()
        };
        expect_left_alone(&world, &spec.build(), Reason::Martian);
    }
    let unroutable = ip(192, 0, 2, 1);
    let neighbour_of_container = ip(172, 17, 0, 9);
    world.routes.insert(unroutable, Err(Reason::NoRoute));
    world.routes.insert(
        neighbour_of_container,
        Ok(Route {
            ifindex: 3,
            next_hop: neighbour_of_container,
            mtu: 1500,
        }),
    );
    for (source, reason) in [
        (unroutable, Reason::NoRoute),
        (neighbour_of_container, Reason::ReversePath),
    ] {
        let spec = Spec {
            source: (source, 5000),
            ..from_client()
        };
        expect_left_alone(&world, &spec.build(), reason);
    }
}

#[test]
fn a_tcp_flow_begins_with_a_syn() {
    let world = World::new();
    for flags in [ACK, SYN | ACK, FIN_ACK, TcpFlags::RST] {
        expect_left_alone(&world, &tcp(from_client(), flags).build(), Reason::NoFlow);
    }
    assert!(send_in(&world, &tcp(from_client(), SYN).build()).is_ok());
    assert!(send_in(&world, &tcp(from_client(), ACK).build()).is_ok());
}

#[test]
fn a_container_that_is_gone_takes_its_flows_along() {
    let mut world = World::new();
    assert!(send_in(&world, &tcp(from_client(), SYN).build()).is_ok());
    assert!(send_out(&world, &tcp(from_container(), SYN | ACK).build()).is_ok());
    let backend = world.backends.get_mut(&1).expect("the backend");
    backend.generation = 0;
    assert_eq!(
        send_in(&world, &tcp(from_client(), ACK).build()),
        Err(Reason::NotPublished)
    );
    assert_eq!(
        send_out(&world, &tcp(from_container(), ACK).build()),
        Err(Reason::NotAReply)
    );
    // Another container in its place: the old flow is not its.
    let backend = world.backends.get_mut(&1).expect("the backend");
    backend.generation = 2;
    assert_eq!(
        send_in(&world, &tcp(from_client(), ACK).build()),
        Err(Reason::NoFlow)
    );
    assert_eq!(
        send_out(&world, &tcp(from_container(), ACK).build()),
        Err(Reason::NotAReply)
    );
    assert!(send_in(&world, &tcp(from_client(), SYN).build()).is_ok());
}

#[test]
fn replies_count_only_from_their_container_and_in_their_flow() {
    let world = World::new();
    assert_eq!(
        send_out(&world, &from_container().build()),
        Err(Reason::NotAReply)
    );
    assert!(send_in(&world, &from_client().build()).is_ok());
    let packet = from_container().build();
    let parsed = parse::<V4, _>(&packet).expect("a plain packet");
    let elsewhere = reply(&packet, &parsed, &world, VETH + 1);
    assert_eq!(elsewhere.err(), Some(Reason::WrongInterface));
    for spec in [
        Spec {
            destination: (CLIENT, 5001),
            ..from_container()
        },
        Spec {
            source: (CONTAINER, 8081),
            ..from_container()
        },
        tcp(from_container(), ACK),
    ] {
        assert_eq!(send_out(&world, &spec.build()), Err(Reason::NotAReply));
    }
    assert_eq!(
        send_out(
            &world,
            &Spec {
                ttl: 1,
                ..from_container()
            }
            .build()
        ),
        Err(Reason::Ttl)
    );
    assert_eq!(
        send_out(
            &world,
            &Spec {
                payload: 1473,
                ..from_container()
            }
            .build()
        ),
        Err(Reason::Mtu)
    );
    assert!(send_out(&world, &from_container().build()).is_ok());
}

#[test]
fn two_flows_with_the_same_reply_are_told_apart_by_another_port() {
    let mut world = World::new();
    // Another publication of the same container's port.
    let backend = Backend {
        generation: 2,
        ..world.backends[&1]
    };
    world.backends.insert(2, backend);
    world.publish(IpProtocol::UDP, 9001, 2, 8080);

    let targets = [(HOST, 9000), (HOST, 9001), (SECOND_HOST, 9000)];
    let mut seen = Vec::new();
    for round in 0..2 {
        for (index, destination) in targets.into_iter().enumerate() {
            let sent = Spec {
                destination,
                ..from_client()
            };
            let received = send_in(&world, &sent.build()).expect("translated");
            let port: Be16 = received.load(L4).expect("a port");
            if round == 0 {
                seen.push(port.get());
            }
            assert_eq!(port.get(), seen[index], "the same in every round");
            let expected = Spec {
                source: (CLIENT, port.get()),
                destination: (CONTAINER, 8080),
                ttl: 63,
                ..sent
            };
            assert_eq!(received.bytes[12..], expected.build().bytes[12..]);

            let answer = Spec {
                destination: (CLIENT, port.get()),
                ..from_container()
            };
            let expected = Spec {
                source: destination,
                ttl: 63,
                ..from_container()
            };
            assert_eq!(send_out(&world, &answer.build()), Ok(expected.build()));
        }
    }
    assert_eq!(seen[0], 5000, "the first keeps its own");
    assert_eq!(
        seen[1..],
        [1024, 1025],
        "the others get one of netfilter's range"
    );
    assert_eq!(world.flows.borrow().len(), 3);

    // A client that really has the port which another was given is told apart, too.
    let sent = Spec {
        source: (CLIENT, 1024),
        ..from_client()
    };
    let received = send_in(&world, &sent.build()).expect("translated");
    assert_ne!(received.load(L4), Some(Be16::new(1024)));
}

#[test]
fn a_flow_keeps_the_port_it_was_given() {
    let mut world = World::new();
    world.publish(IpProtocol::UDP, 9001, 1, 8080);
    let second = Spec {
        destination: (HOST, 9001),
        ..from_client()
    };
    assert!(send_in(&world, &from_client().build()).is_ok());
    let given: Be16 = send_in(&world, &second.build())
        .expect("translated")
        .load(L4)
        .expect("a port");
    assert_eq!(given, Be16::new(1024));
    // The first falls silent, the second goes on.
    for _ in 0..3 {
        world.wait(20);
        let received = send_in(&world, &second.build()).expect("translated");
        assert_eq!(received.load(L4), Some(given));
    }
}

#[test]
fn a_connection_that_is_half_closed_keeps_its_tuple() {
    let mut world = World::new();
    world.publish(IpProtocol::TCP, 9001, 1, 8080);
    for flags in [SYN, ACK, FIN_ACK] {
        assert!(send_in(&world, &tcp(from_client(), flags).build()).is_ok());
    }
    let second = Spec {
        destination: (HOST, 9001),
        ..tcp(from_client(), SYN)
    };
    let received = send_in(&world, &second.build()).expect("translated");
    assert_eq!(received.load(L4), Some(Be16::new(1024)));
    // The first's container may still be talking.
    let answer = send_out(&world, &tcp(from_container(), ACK).build()).expect("translated");
    assert_eq!(answer.load(L4), Some(Be16::new(9000)));
}

#[test]
fn a_flow_that_finds_no_port_of_its_own_is_left_alone() {
    let mut world = World::new();
    world.publish(IpProtocol::UDP, 9001, 1, 8080);
    for port in [5000, 1024, 1025, 1026, 1027] {
        let spec = Spec {
            source: (CLIENT, port),
            ..from_client()
        };
        assert!(send_in(&world, &spec.build()).is_ok());
    }
    let spec = Spec {
        destination: (HOST, 9001),
        ..from_client()
    };
    assert_eq!(send_in(&world, &spec.build()), Err(Reason::ReplyCollision));
    // Once the others have timed out, the tuple is free.
    world.wait(Timeouts::DEFAULT.of(State::Unanswered) + 1);
    let received = send_in(&world, &spec.build()).expect("translated");
    assert_eq!(received.load(L4), Some(Be16::new(5000)));
}

#[test]
fn the_answer_to_somebody_elses_question_is_left_to_them() {
    let world = World::new();
    let question = Spec {
        source: (HOST, 9000),
        destination: (CLIENT, 5000),
        ..from_client()
    };
    observe_outgoing::<V4, _, _>(&question.build(), &world);
    expect_left_alone(&world, &from_client().build(), Reason::Foreign);
    // Another client, and a port that is not published, are no concern of it.
    let other = Spec {
        source: (CLIENT, 5001),
        ..from_client()
    };
    assert!(send_in(&world, &other.build()).is_ok());
    observe_outgoing::<V4, _, _>(
        &Spec {
            source: (HOST, 9001),
            ..question
        }
        .build(),
        &world,
    );
    assert_eq!(world.foreign.borrow().len(), 1);
    // It is theirs for as long as conntrack would keep it.
    let answer = from_client().build();
    for _ in 0..2 {
        world.wait(FOREIGN_LIFETIME);
        assert_eq!(send_in(&world, &answer), Err(Reason::Foreign));
    }
    world.wait(FOREIGN_LIFETIME + 1);
    assert!(send_in(&world, &answer).is_ok());
}

#[test]
fn a_flow_that_is_ours_stays_ours() {
    let world = World::new();
    assert!(send_in(&world, &from_client().build()).is_ok());
    let stray = Spec {
        source: (HOST, 9000),
        destination: (CLIENT, 5000),
        ..from_client()
    };
    observe_outgoing::<V4, _, _>(&stray.build(), &world);
    assert!(send_in(&world, &from_client().build()).is_ok());
}

#[test]
fn routing_is_asked_once_and_then_now_and_again() {
    let mut world = World::new();
    assert!(send_in(&world, &from_client().build()).is_ok());
    for _ in 0..10 {
        assert!(send_in(&world, &from_client().build()).is_ok());
        assert!(send_out(&world, &from_container().build()).is_ok());
    }
    assert_eq!(world.routed.get(), 1);
    world.wait(ROUTE_LIFETIME + 1);
    assert!(send_in(&world, &from_client().build()).is_ok());
    assert_eq!(world.routed.get(), 2);
    world.settings.epoch += 1;
    assert!(send_out(&world, &from_container().build()).is_ok());
    assert_eq!(world.routed.get(), 3);
    // The host's address goes, and with it the flow.
    world.settings.epoch += 1;
    world.local.remove(&HOST);
    assert_eq!(
        send_in(&world, &from_client().build()),
        Err(Reason::NotLocal)
    );
    assert_eq!(
        send_out(&world, &from_container().build()),
        Err(Reason::NotLocal)
    );
}

#[test]
fn no_flow_begins_while_admission_is_off() {
    let mut world = World::new();
    world.settings.admission = Admission::Off as u32;
    expect_left_alone(&world, &from_client().build(), Reason::Admission);
}

#[test]
fn a_flow_is_handed_over_with_its_clients_next_packet() {
    let mut world = World::new();
    assert!(send_in(&world, &from_client().build()).is_ok());
    world.settings.admission = Admission::Off as u32;
    // Conntrack has not seen the flow yet, so only we can translate this.
    assert!(send_out(&world, &from_container().build()).is_ok());
    assert_eq!(
        send_in(&world, &from_client().build()),
        Err(Reason::Admission)
    );
    // It may not have got through the stack yet.
    assert!(send_out(&world, &from_container().build()).is_ok());
    world.wait(1);
    assert_eq!(
        send_out(&world, &from_container().build()),
        Err(Reason::Admission)
    );
    // And back, by a packet of either side.
    for packet_of_client in [true, false] {
        world.settings.admission = Admission::Direct as u32;
        if packet_of_client {
            assert!(send_in(&world, &from_client().build()).is_ok());
        } else {
            assert!(send_out(&world, &from_container().build()).is_ok());
        }
        world.settings.admission = Admission::Off as u32;
        world.wait(1);
        assert!(send_out(&world, &from_container().build()).is_ok());
        assert!(send_in(&world, &from_client().build()).is_err());
    }
}

#[test]
fn packets_for_an_interface_that_has_gone_are_left_to_the_kernel() {
    let mut world = World::new();
    world.gone.insert(VETH);
    expect_left_alone(&world, &from_client().build(), Reason::BackendGone);
    world.gone.clear();
    assert!(send_in(&world, &from_client().build()).is_ok());
    world.gone.insert(VETH);
    world.wait(ROUTE_LIFETIME + 1);
    assert_eq!(
        send_in(&world, &from_client().build()),
        Err(Reason::BackendGone)
    );
}

#[test]
fn a_containers_frame_to_another_station_is_none_of_ours() {
    let world = World::new();
    assert!(send_in(&world, &from_client().build()).is_ok());
    let mut packet = from_container().build();
    packet.bytes[..6].copy_from_slice(&[2, 0, 0, 0, 17, 9]);
    assert_eq!(send_out(&world, &packet), Err(Reason::NotAReply));
}

#[test]
fn a_full_table_leaves_new_flows_to_the_kernel() {
    let mut world = World::new();
    world.is_full = true;
    expect_left_alone(&world, &from_client().build(), Reason::TableFull);
}

#[test]
fn an_answered_flow_is_out_of_a_floods_reach() {
    let world = World::new();
    assert!(send_in(&world, &tcp(from_client(), SYN).build()).is_ok());
    assert_eq!(
        (world.opening.borrow().len(), world.flows.borrow().len()),
        (1, 0)
    );
    assert!(send_out(&world, &tcp(from_container(), SYN | ACK).build()).is_ok());
    assert_eq!(
        (world.opening.borrow().len(), world.flows.borrow().len()),
        (0, 1)
    );
    assert!(send_in(&world, &tcp(from_client(), ACK).build()).is_ok());
    // Another connection of the same tuple begins where all do.
    assert!(send_out(&world, &tcp(from_container(), FIN_ACK).build()).is_ok());
    assert!(send_in(&world, &tcp(from_client(), SYN).build()).is_ok());
    assert_eq!(
        (world.opening.borrow().len(), world.flows.borrow().len()),
        (1, 0)
    );
}

#[test]
fn a_closed_connection_gives_way_to_a_new_one() {
    let world = World::new();
    for flags in [SYN, ACK, FIN_ACK] {
        assert!(send_in(&world, &tcp(from_client(), flags).build()).is_ok());
    }
    assert_eq!(world.only_flow().state(), State::FinWait);
    world.wait(1);
    assert!(send_in(&world, &tcp(from_client(), SYN).build()).is_ok());
    let flow = world.only_flow();
    assert_eq!(
        (flow.state(), flow.created),
        (State::SynSent, world.now.get())
    );
    assert_eq!(flow.traffic.packets_in, 1);
}

#[test]
fn addresses_keep_their_byte_order() {
    assert_eq!(bytemuck::bytes_of(&HOST), [198, 51, 100, 1]);
    assert_eq!(Be32::from_raw(HOST.raw()), HOST);
}
