//! What is rewritten, both ways.

use super::*;
use crate::{
    family::V4,
    headers::{Be16, Be32},
    packet::Packet as _,
    parse::l4,
    state::State,
    testing::{buffer::HOST_MAC, world::CONTAINER_MAC},
};

both_families!(
    a_packet_is_translated_both_ways_as_if_sent_so,
    checksums_are_right_whatever_the_ports,
    both_directions_are_counted,
    what_the_host_would_say_no_to_is_left_to_it,
    what_is_too_large_for_the_way_back_is_left_to_the_host,
    a_packet_that_stands_for_many_is_measured_by_its_segments,
);

fn a_packet_is_translated_both_ways_as_if_sent_so<F: Sample>() {
    for protocol in [IpProtocol::TCP, IpProtocol::UDP] {
        for payload in [0, 1, 2, 1000, 1001] {
            let world = World::<F>::new();
            let spec = |spec: Spec<F>, flags| Spec {
                protocol,
                payload,
                ..spec.tcp(flags)
            };
            let mut expected = Spec {
                destination: (F::CONTAINER, CONTAINER_PORT),
                ttl: 63,
                ..spec(from_client::<F>(), SYN)
            }
            .build();
            expected.bytes[..6].copy_from_slice(&CONTAINER_MAC);
            expected.bytes[6..12].copy_from_slice(&HOST_MAC);
            assert_eq!(
                send_in(&world, &spec(from_client::<F>(), SYN).build()),
                Ok(expected)
            );

            let expected = Spec {
                source: (F::HOST, HOST_PORT),
                ttl: 63,
                ..spec(from_container::<F>(), SYN_ACK)
            };
            assert_eq!(
                send_out(&world, &spec(from_container::<F>(), SYN_ACK).build()),
                Ok(expected.build())
            );
            let state = world.only_flow().state();
            let opening = if protocol == IpProtocol::TCP {
                State::SynRecv
            } else {
                State::Answered
            };
            assert_eq!(state, opening);
        }
    }
}

fn checksums_are_right_whatever_the_ports<F: Sample>() {
    let mut world = World::<F>::new();
    for port in [1, 255, 256, 0x7fff, 0x8000, 0xfffe, 0xffff] {
        world.publish(IpProtocol::UDP, port, 1, !port | 1);
        for payload in [0, 1, 7, 8] {
            let spec = Spec {
                source: (F::CLIENT, port),
                destination: (F::HOST, port),
                payload,
                ..from_client::<F>()
            };
            let packet = send_in(&world, &spec.build()).expect("translated");
            assert!(packet.has_valid_checksums::<F>(), "port {port}");
            let answer = Spec {
                source: (F::CONTAINER, !port | 1),
                destination: (F::CLIENT, packet.ports::<F>().0),
                ..spec
            };
            let packet = send_out(&world, &answer.build()).expect("translated");
            assert!(packet.has_valid_checksums::<F>(), "port {port}");
        }
    }
}

fn both_directions_are_counted<F: Sample>() {
    let world = World::<F>::new();
    shake_hands(&world);
    let flow = world.only_flow();
    let length = u64::from(from_client::<F>().tcp(SYN).network().length);
    let traffic = flow.traffic;
    assert_eq!((traffic.packets_in, traffic.packets_out), (2, 1));
    assert_eq!((traffic.bytes_in, traffic.bytes_out), (2 * length, length));
    assert_eq!(
        world.traffic.borrow()[&1],
        traffic,
        "its port's are the same"
    );
    assert_eq!(
        world.routed_from.get(),
        Some((BRIDGE, F::CONTAINER)),
        "the way back is asked for as the reply would be routed"
    );
}

#[test]
fn udp_without_a_checksum_stays_without() {
    let world = World::<V4>::new();
    let mut packet = from_client::<V4>().build();
    let at = l4::<V4, Buffer>() + 6;
    packet.store(at, Be16::new(0)).expect("room");
    let rewritten = send_in(&world, &packet).expect("translated");
    assert_eq!(rewritten.load(at), Some(Be16::new(0)));
}

#[test]
fn addresses_keep_their_byte_order() {
    assert_eq!(bytemuck::bytes_of(&V4::HOST), [198, 51, 100, 1]);
    assert_eq!(Be32::from_raw(V4::HOST.raw()), V4::HOST);
}

fn what_the_host_would_say_no_to_is_left_to_it<F: Sample>() {
    let world = World::<F>::new();
    for ttl in [0, 1] {
        let spec = Spec {
            ttl,
            ..from_client::<F>()
        };
        expect_left_alone(&world, &spec.build(), Reason::Ttl);
    }
    let of_length = |length: usize| Spec {
        payload: length - F::HEADER_LEN - 8,
        ..from_client::<F>()
    };
    expect_left_alone(&world, &of_length(1501).build(), Reason::Mtu);
    assert!(send_in(&world, &of_length(1500).build()).is_ok());
    let last_hop = Spec {
        ttl: 2,
        ..from_client::<F>()
    };
    assert!(send_in(&world, &last_hop.build()).is_ok());
}

fn what_is_too_large_for_the_way_back_is_left_to_the_host<F: Sample>() {
    let mut world = World::<F>::new();
    world.gateway.mtu = 1400;
    assert!(send_in(&world, &from_client::<F>().build()).is_ok());
    let of_length = |length: usize| Spec {
        payload: length - F::HEADER_LEN - 8,
        ..from_container::<F>()
    };
    assert_eq!(send_out(&world, &of_length(1401).build()), Err(Reason::Mtu));
    assert!(send_out(&world, &of_length(1400).build()).is_ok());
    for ttl in [0, 1] {
        let spec = Spec {
            ttl,
            ..from_container::<F>()
        };
        assert_eq!(send_out(&world, &spec.build()), Err(Reason::Ttl));
    }
}

fn a_packet_that_stands_for_many_is_measured_by_its_segments<F: Sample>() {
    let world = World::<F>::new();
    let mut packet = Spec {
        payload: 20_000,
        ..from_client::<F>().tcp(SYN)
    }
    .build();
    let fits = 1500 - F::HEADER_LEN as u32 - 20;
    packet.segment_size = fits + 1;
    expect_left_alone(&world, &packet, Reason::Mtu);
    packet.segment_size = fits;
    assert!(send_in(&world, &packet).is_ok());
}
