//! Fragments, both ways, in any order.

use std::mem::offset_of;

use super::*;
use crate::{
    family::Family,
    forward::forward,
    fragment::{self, LIFETIME, MAX_SPANS, Piece},
    headers::{Be16, Ipv4, Ipv6, TcpFlags},
    settings::Admission,
    testing::{
        buffer::ETHERNET,
        fragments::{HeldPieces, Hook, run_fragment},
    },
};

both_families!(
    a_datagram_is_translated_in_any_order,
    so_is_an_answer,
    a_segment_is_as_well,
    a_datagram_that_is_not_ours_is_the_kernels_in_any_order,
    an_identification_comes_again,
    an_identification_comes_again_in_mid_datagram,
    gaps_without_number_do_no_harm,
    datagrams_of_other_identifications_are_apart,
    the_first_of_a_flow_is_told,
    what_no_fragment_can_be_is_left_alone,
    duplicates_do_not_end_a_datagram,
    a_datagram_is_not_waited_for_forever,
    too_big_a_fragment_leaves_the_datagram_to_the_kernel,
    what_cannot_travel_on_is_left_alone,
    flows_that_ended_take_their_datagrams_along,
    only_what_can_be_ours_is_held,
    no_more_is_held_than_there_is_room_for,
    nothing_is_noted_where_the_kernel_admits,
    a_fragment_header_around_a_whole_packet_is_no_obstacle,
    cut_short_anywhere_nothing_is_read_beyond_the_end,
);

const OUTSIDE: Hook = Hook::External(EXTERNAL);
const INSIDE: Hook = Hook::Veth(VETH);

/// Payload of a fragment.
const SIZE: usize = 1448;

struct Scene<F: Sample> {
    world: World<F>,
    held: HeldPieces<F, ETHERNET>,
}

impl<F: Sample> Scene<F> {
    fn new() -> Self {
        Self {
            world: World::new(),
            held: HeldPieces::<F, ETHERNET>::new(),
        }
    }

    fn play(&mut self, hook: Hook, packet: &Buffer) -> Vec<(Verdict, Buffer)> {
        run_fragment(&self.world, &mut self.held, packet, hook)
    }

    /// What goes on translated, and how many are left to the kernel.
    fn play_all<'a>(
        &mut self,
        hook: Hook,
        packets: impl IntoIterator<Item = &'a Buffer>,
    ) -> (Vec<Buffer>, usize) {
        let (mut sent, mut left) = (Vec::new(), 0);
        for packet in packets {
            for (verdict, packet) in self.play(hook, packet) {
                match verdict {
                    Verdict::Forwarded(VETH) | Verdict::Replied(EXTERNAL) => sent.push(packet),
                    Verdict::Passed(_) => left += 1,
                    other => panic!("{other:?}"),
                }
            }
        }
        (sent, left)
    }
}

/// A packet cut into fragments.
fn cut<F: Sample>(spec: Spec<F>, id: u32) -> Vec<Buffer> {
    cut_by(spec, id, SIZE)
}

fn cut_by<F: Sample>(spec: Spec<F>, id: u32, size: usize) -> Vec<Buffer> {
    let whole = spec.build();
    let payload = &whole.bytes[ETHERNET + F::HEADER_LEN..];
    let count = payload.len().div_ceil(size);
    let pieces = payload.chunks(size).enumerate();
    pieces
        .map(|(index, piece)| {
            let mut network = spec.network();
            network.length = (F::HEADER_LEN + piece.len()) as u32;
            let offset = (index * size / 8) as u16;
            let header = F::fragment_header(network, id, offset, index + 1 < count);
            Buffer::new([&whole.bytes[..ETHERNET], &header, piece].concat())
        })
        .collect()
}

fn piece<F: Family>(packet: &Buffer) -> Piece<F::Address> {
    F::parse_fragment(packet, ETHERNET).expect("a fragment")
}

/// Puts fragments together, and demands that they are those of `expected`, each with its TTL.
fn expect_together<F: Sample>(mut packets: Vec<Buffer>, expected: Spec<F>) {
    packets.sort_by_key(|packet| piece::<F>(packet).offset);
    packets.dedup();
    let mut payload: Vec<u8> = Vec::new();
    for (index, packet) in packets.iter().enumerate() {
        let piece = piece::<F>(packet);
        assert_eq!(
            (piece.network.source, piece.network.destination),
            (expected.source.0, expected.destination.0)
        );
        assert_eq!(piece.network.ttl, expected.ttl);
        assert_eq!(piece.offset as usize, payload.len(), "no gap");
        assert_eq!(piece.is_last, index + 1 == packets.len());
        if F::HAS_HEADER_CHECKSUM {
            let header = &packet.bytes[ETHERNET..ETHERNET + F::HEADER_LEN];
            let sum = crate::checksum::internet_checksum(&[header]);
            assert_eq!(sum, Be16::new(0));
        }
        let start = ETHERNET + F::HEADER_LEN + F::FRAGMENT_HEADER_LEN;
        payload.extend_from_slice(&packet.bytes[start..]);
    }
    let whole = expected.build();
    assert_eq!(payload, whole.bytes[ETHERNET + F::HEADER_LEN..]);
}

fn request<F: Sample>() -> Spec<F> {
    Spec {
        payload: 5000,
        ..from_client::<F>()
    }
}

fn answer<F: Sample>() -> Spec<F> {
    Spec {
        payload: 5000,
        ..from_container::<F>()
    }
}

fn at_container<F: Sample>(spec: Spec<F>) -> Spec<F> {
    Spec {
        destination: (F::CONTAINER, CONTAINER_PORT),
        ttl: 63,
        ..spec
    }
}

fn at_client<F: Sample>(spec: Spec<F>) -> Spec<F> {
    Spec {
        source: (F::HOST, HOST_PORT),
        ttl: 63,
        ..spec
    }
}

/// Every order of four.
fn orders() -> Vec<[usize; 4]> {
    let mut orders = Vec::new();
    for number in 0..256 {
        let order = [number & 3, number >> 2 & 3, number >> 4 & 3, number >> 6];
        if (0..4).all(|index| order.contains(&index)) {
            orders.push(order);
        }
    }
    assert_eq!(orders.len(), 24);
    orders
}

fn a_datagram_is_translated_in_any_order<F: Sample>() {
    for order in orders() {
        let mut scene = Scene::<F>::new();
        let pieces = cut(request::<F>(), 5);
        assert_eq!(pieces.len(), 4);
        let early = order.iter().position(|index| *index == 0).expect("there");
        let (sent, left) = scene.play_all(OUTSIDE, order.map(|index| &pieces[index]));
        expect_together(sent, at_container(request::<F>()));
        assert_eq!(left, early, "the kernel gets what came before the first");
        assert!(scene.world.datagrams.borrow().is_empty(), "forgotten");
        assert!(scene.held.is_empty());
        let flow = scene.world.only_flow();
        assert_eq!((flow.traffic.packets_in, flow.traffic.packets_out), (4, 0));
        assert_eq!(scene.world.traffic.borrow()[&1], flow.traffic);
    }
}

fn so_is_an_answer<F: Sample>() {
    for order in orders() {
        let mut scene = Scene::<F>::new();
        send_in(&scene.world, &from_client::<F>().build()).expect("translated");
        let pieces = cut(answer::<F>(), 5);
        let (sent, _) = scene.play_all(INSIDE, order.map(|index| &pieces[index]));
        expect_together(sent, at_client(answer::<F>()));
        assert!(scene.world.datagrams.borrow().is_empty(), "forgotten");
        let flow = scene.world.only_flow();
        assert_eq!((flow.traffic.packets_in, flow.traffic.packets_out), (1, 4));
        assert_eq!(scene.world.traffic.borrow()[&1], flow.traffic);
    }
}

fn a_segment_is_as_well<F: Sample>() {
    let mut scene = Scene::<F>::new();
    shake_hands(&scene.world);
    let spec = request::<F>().tcp(ACK);
    let (sent, left) = scene.play_all(OUTSIDE, &cut(spec, 5));
    expect_together(sent, at_container(spec));
    assert_eq!(left, 0);
    // Its first fragment lacks a part of TCP's header: whose it is can be told, but not what it does.
    let spec = request::<F>().tcp(TcpFlags::ACK);
    let (sent, left) = scene.play_all(OUTSIDE, &cut_by(spec, 6, 16)[..3]);
    assert_eq!((sent.len(), left), (0, 3));
}

fn a_datagram_that_is_not_ours_is_the_kernels_in_any_order<F: Sample>() {
    let spec = Spec {
        destination: (F::HOST, HOST_PORT + 1),
        ..request::<F>()
    };
    for order in orders() {
        let mut scene = Scene::<F>::new();
        let pieces = cut(spec, 5);
        for packet in order.map(|index| &pieces[index]) {
            assert_eq!(
                scene.play(OUTSIDE, packet),
                [(Verdict::Passed(Reason::Fragment), packet.clone())]
            );
        }
        assert_eq!(scene.world.flow_counts(), (0, 0));
    }
    // In order it leaves nothing behind.
    let mut scene = Scene::<F>::new();
    scene.play_all(OUTSIDE, &cut(spec, 5));
    assert!(scene.world.datagrams.borrow().is_empty() && scene.held.is_empty());
}

fn an_identification_comes_again<F: Sample>() {
    // Also where all fragments begin within a few bytes.
    for (payload, size) in [(5000, SIZE), (56, 16)] {
        let ours = Spec {
            payload,
            ..request::<F>()
        };
        let elsewhere = Spec {
            destination: (F::HOST, HOST_PORT + 1),
            ..ours
        };
        let mut scene = Scene::<F>::new();
        for order in orders() {
            for spec in [ours, elsewhere] {
                let pieces = cut_by(spec, 5, size);
                let (sent, left) = scene.play_all(OUTSIDE, order.map(|index| &pieces[index]));
                if spec.destination == elsewhere.destination {
                    assert_eq!((sent.len(), left), (0, 4), "{order:?}");
                } else {
                    expect_together(sent, at_container(ours));
                }
                assert!(scene.world.datagrams.borrow().is_empty(), "forgotten");
            }
        }
    }
}

fn an_identification_comes_again_in_mid_datagram<F: Sample>() {
    let elsewhere = Spec {
        destination: (F::HOST, HOST_PORT + 1),
        ..request::<F>()
    };
    let mut scene = Scene::<F>::new();
    for spec in [request::<F>(), elsewhere, request::<F>()] {
        let (sent, _) = scene.play_all(OUTSIDE, &cut(spec, 5)[..3]);
        let is_ours = spec.destination != elsewhere.destination;
        assert_eq!(sent.len(), if is_ours { 3 } else { 0 });
    }
}

fn datagrams_of_other_identifications_are_apart<F: Sample>() {
    let elsewhere = Spec {
        destination: (F::HOST, HOST_PORT + 1),
        ..request::<F>()
    };
    let mut scene = Scene::<F>::new();
    let (ours, others) = (cut(request::<F>(), 5), cut(elsewhere, 6));
    let (mut sent, mut left) = (Vec::new(), 0);
    for (one, other) in ours.iter().zip(&others) {
        let played = scene.play_all(OUTSIDE, [one, other]);
        sent.extend(played.0);
        left += played.1;
    }
    assert_eq!(left, 4);
    expect_together(sent, at_container(request::<F>()));
}

fn the_first_of_a_flow_is_told<F: Sample>() {
    let world = World::<F>::new();
    for is_first in [true, false] {
        let pieces = cut(request::<F>(), 5);
        let seen = piece::<F>(&pieces[0]);
        let parsed = fragment::parse_first::<F, _>(&pieces[0], &seen).expect("whole headers");
        let joined = forward(&pieces[0], &parsed, &world, EXTERNAL).expect("ours");
        fragment::begin_forward(&world, &seen, &parsed, joined.ports.source).expect("noted");
        for (index, packet) in pieces.iter().enumerate() {
            let way = fragment::to_container::<F, _>(&world, &piece::<F>(packet)).expect("ours");
            assert_eq!(way.is_first, is_first && index == 0);
        }
    }
}

fn what_no_fragment_can_be_is_left_alone<F: Sample>() {
    let template = cut(request::<F>(), 5);
    let last = |offset: u16, length: usize| {
        let mut network = request::<F>().network();
        network.length = (F::HEADER_LEN + length) as u32;
        let header = F::fragment_header(network, 5, offset, false);
        let mut bytes = [&template[0].bytes[..ETHERNET], &header].concat();
        bytes.resize(bytes.len() + length, 1);
        Buffer::new(bytes)
    };
    // Shorter than its own fragment header, which IPv4 does not have.
    let mut cut_header = last(10, 64);
    let at = if F::FRAGMENT_HEADER_LEN == 0 {
        ETHERNET + offset_of!(Ipv4, total_length)
    } else {
        ETHERNET + offset_of!(Ipv6, payload_length)
    };
    cut_header.bytes[at..at + 2].copy_from_slice(&[0, 4]);
    for (packet, is_held) in [
        (last(10, 0), false),
        (last(8191, 8), false),
        (last(8191, 7), true),
        (cut_header, false),
    ] {
        let mut scene = Scene::<F>::new();
        assert_eq!(
            scene.play(OUTSIDE, &packet),
            [(Verdict::Passed(Reason::Fragment), packet.clone())]
        );
        assert_eq!(scene.held.len(), usize::from(is_held));
    }
}

fn duplicates_do_not_end_a_datagram<F: Sample>() {
    let mut scene = Scene::<F>::new();
    let pieces = cut(request::<F>(), 5);
    for (order, early) in [([0, 1, 1, 1, 3, 1, 2], 0), ([1, 0, 0, 0, 1, 3, 2], 1)] {
        let (sent, left) = scene.play_all(OUTSIDE, order.map(|index| &pieces[index]));
        assert_eq!((sent.len(), left), (7, early));
        expect_together(sent, at_container(request::<F>()));
    }
}

fn gaps_without_number_do_no_harm<F: Sample>() {
    let mut scene = Scene::<F>::new();
    let pieces = cut_by(request::<F>(), 5, 128);
    let (even, odd) = (pieces.iter().step_by(2), pieces.iter().skip(1).step_by(2));
    assert!(odd.len() > 2 * MAX_SPANS);
    let (sent, left) = scene.play_all(OUTSIDE, even.chain(odd));
    assert_eq!(left, 0);
    expect_together(sent, at_container(request::<F>()));
    // It is not known to be complete, but does not stand in the way of another one.
    assert!(!scene.world.datagrams.borrow().is_empty());
    let (sent, left) = scene.play_all(OUTSIDE, &pieces);
    assert_eq!(left, 0);
    expect_together(sent, at_container(request::<F>()));
    assert!(scene.world.datagrams.borrow().is_empty());
}

fn a_datagram_is_not_waited_for_forever<F: Sample>() {
    let pieces = cut(request::<F>(), 5);
    for (seconds, sent, left) in [(LIFETIME, 1, 0), (LIFETIME + 1, 0, 1)] {
        let mut scene = Scene::<F>::new();
        scene.play_all(OUTSIDE, &pieces[..1]);
        scene.world.wait(seconds);
        let played = scene.play_all(OUTSIDE, &pieces[1..2]);
        assert_eq!((played.0.len(), played.1), (sent, left));

        let mut scene = Scene::<F>::new();
        scene.play_all(OUTSIDE, &pieces[1..2]);
        scene.world.wait(seconds);
        let (played, _) = scene.play_all(OUTSIDE, &pieces[..1]);
        assert_eq!(played.len(), 1 + sent, "with what was held, or without");
    }
}

fn too_big_a_fragment_leaves_the_datagram_to_the_kernel<F: Sample>() {
    let length = |packet: &Buffer| piece::<F>(packet).network.length;
    let pieces = cut(request::<F>(), 5);
    let longest = length(&pieces[0]);
    for (mtu, is_ours) in [(longest, true), (longest - 1, false)] {
        for order in orders() {
            let mut scene = Scene::<F>::new();
            scene.world.backends.get_mut(&1).expect("there").mtu = mtu;
            let (sent, left) = scene.play_all(OUTSIDE, order.map(|index| &pieces[index]));
            if is_ours {
                assert_eq!(sent.len(), 4);
            } else {
                assert_eq!((sent.len(), left), (0, 4), "{order:?}");
                assert!(scene.world.datagrams.borrow().is_empty(), "forgotten");
            }
        }
    }
    // The first is the shortest, and the others came before it.
    let mut pieces = cut(request::<F>(), 5);
    let short = cut_by(request::<F>(), 5, 8).swap_remove(0);
    pieces[0] = short;
    let mut scene = Scene::<F>::new();
    scene.world.backends.get_mut(&1).expect("there").mtu = longest - 1;
    let (sent, left) = scene.play_all(OUTSIDE, pieces.iter().rev());
    assert_eq!((sent.len(), left), (0, 4));
    // After the first was sent on it is too late.
    let mut scene = Scene::<F>::new();
    scene.world.backends.get_mut(&1).expect("there").mtu = longest - 1;
    scene.play_all(OUTSIDE, &pieces[..1]);
    let played = scene.play(OUTSIDE, &pieces[1]);
    assert_eq!(played[0].0, Verdict::Passed(Reason::Mtu));
}

fn what_cannot_travel_on_is_left_alone<F: Sample>() {
    let dying = Spec {
        ttl: 1,
        ..request::<F>()
    };
    let mut scene = Scene::<F>::new();
    scene.play_all(OUTSIDE, &cut(request::<F>(), 5)[..1]);
    let played = scene.play(OUTSIDE, &cut(dying, 5)[1]);
    assert_eq!(played[0].0, Verdict::Passed(Reason::Ttl));
    let mut scene = Scene::<F>::new();
    let (_, left) = scene.play_all(OUTSIDE, cut(dying, 5).iter().rev());
    assert_eq!(left, 4);
    assert!(
        scene.held.is_empty(),
        "nothing is held that could not go on"
    );
    // The whole datagram is the kernel's then, which goes by its first fragment.
    let mut scene = Scene::<F>::new();
    let mut pieces = cut(request::<F>(), 5);
    pieces[2] = cut(dying, 5).swap_remove(2);
    let order = [3, 2, 0, 1];
    let (sent, left) = scene.play_all(OUTSIDE, order.map(|index: usize| &pieces[index]));
    assert_eq!((sent.len(), left), (0, 4));
    assert!(scene.world.datagrams.borrow().is_empty(), "forgotten");
}

fn flows_that_ended_take_their_datagrams_along<F: Sample>() {
    let pieces = cut(request::<F>(), 5);
    for generation in [0, 2] {
        let mut scene = Scene::<F>::new();
        scene.play_all(OUTSIDE, &pieces[..1]);
        scene.world.backends.get_mut(&1).expect("there").generation = generation;
        let played = scene.play(OUTSIDE, &pieces[1]);
        assert_eq!(played[0].0, Verdict::Passed(Reason::Fragment));

        let mut scene = Scene::<F>::new();
        send_in(&scene.world, &from_client::<F>().build()).expect("translated");
        let answer = cut(answer::<F>(), 5);
        scene.play_all(INSIDE, &answer[..1]);
        scene.world.backends.get_mut(&1).expect("there").generation = generation;
        let played = scene.play(INSIDE, &answer[1]);
        assert_eq!(played[0].0, Verdict::Passed(Reason::Fragment));
    }
}

fn only_what_can_be_ours_is_held<F: Sample>() {
    let mut scene = Scene::<F>::new();
    let transit = Spec {
        destination: (F::CONTAINER, HOST_PORT),
        ..request::<F>()
    };
    let mut not_to_host = cut(request::<F>(), 5).swap_remove(1);
    not_to_host.is_to_host = false;
    let mut tagged = cut(request::<F>(), 5).swap_remove(1);
    tagged.tag = Some(5);
    let ping = Spec {
        protocol: F::ICMP,
        ..request::<F>()
    };
    let ping = F::fragment_header(
        crate::family::Network {
            length: ping.network().length.min(1000),
            ..ping.network()
        },
        5,
        200,
        true,
    );
    let mut ping = Buffer::new([&tagged.bytes[..ETHERNET], &ping].concat());
    ping.bytes.resize(1100, 0);
    for packet in [&cut(transit, 5)[1], &not_to_host, &tagged, &ping] {
        let played = scene.play(OUTSIDE, packet);
        assert_eq!(
            played,
            [(Verdict::Passed(Reason::Fragment), packet.clone())]
        );
    }
    assert!(scene.held.is_empty() && scene.world.datagrams.borrow().is_empty());
}

fn no_more_is_held_than_there_is_room_for<F: Sample>() {
    let spec = Spec {
        payload: 60_000,
        ..request::<F>()
    };
    let mut scene = Scene::<F>::new();
    let pieces = cut(spec, 5);
    let (sent, _) = scene.play_all(OUTSIDE, pieces.iter().rev());
    expect_together(sent, at_container(spec));
    assert!(scene.world.datagrams.borrow().is_empty());
    // By the hundred: the kernel has them all, and keeps them.
    let mut scene = Scene::<F>::new();
    let pieces = cut_by(spec, 5, 512);
    let (sent, left) = scene.play_all(OUTSIDE, pieces.iter().rev());
    assert_eq!((sent.len(), left), (0, pieces.len()));
    assert!(scene.world.datagrams.borrow().is_empty(), "forgotten");
    let mut scene = Scene::<F>::new();
    let (sent, left) = scene.play_all(OUTSIDE, &pieces);
    assert_eq!((sent.len(), left), (pieces.len(), 0));
    assert!(scene.world.datagrams.borrow().is_empty());
}

fn nothing_is_noted_where_the_kernel_admits<F: Sample>() {
    for admission in [Admission::Netfilter, Admission::Off] {
        let mut scene = Scene::<F>::new();
        scene.world.set_admission(admission);
        for order in orders() {
            let pieces = cut(request::<F>(), 5);
            let (sent, left) = scene.play_all(OUTSIDE, order.map(|index| &pieces[index]));
            assert_eq!((sent.len(), left), (0, 4));
        }
        assert!(scene.held.is_empty() && scene.world.datagrams.borrow().is_empty());
    }
}

/// IPv6 only: in IPv4 it is a whole packet, for which this is not asked.
fn a_fragment_header_around_a_whole_packet_is_no_obstacle<F: Sample>() {
    if F::FRAGMENT_HEADER_LEN == 0 {
        return;
    }
    let mut scene = Scene::<F>::new();
    // Of the same identification as a datagram that is under way (RFC 6946).
    let pieces = cut(request::<F>(), 5);
    let (mut sent, _) = scene.play_all(OUTSIDE, &pieces[..2]);
    let (whole, left) = scene.play_all(OUTSIDE, &cut(from_client::<F>(), 5));
    assert_eq!(left, 0);
    expect_together(whole, at_container(from_client::<F>()));
    sent.extend(scene.play_all(OUTSIDE, &pieces[2..]).0);
    expect_together(sent, at_container(request::<F>()));
    assert!(scene.world.datagrams.borrow().is_empty());
    let (whole, _) = scene.play_all(INSIDE, &cut(from_container::<F>(), 5));
    expect_together(whole, at_client(from_container::<F>()));
}

fn cut_short_anywhere_nothing_is_read_beyond_the_end<F: Sample>() {
    for index in 0..2 {
        let packet = cut(request::<F>(), 5).swap_remove(index);
        for length in 0..packet.bytes.len() {
            let mut scene = Scene::<F>::new();
            let mut packet = packet.clone();
            packet.bytes.truncate(length);
            let played = scene.play(OUTSIDE, &packet);
            assert_eq!(played[0].0, Verdict::Passed(Reason::Fragment));
            assert!(scene.held.is_empty());
        }
    }
}
