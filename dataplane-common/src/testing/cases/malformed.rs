//! Bytes that are no whole, plain packet.

use core::mem::offset_of;

use super::*;
use crate::{
    family::{V4, V6},
    headers::{Ipv4, Ipv6},
    parse::l4,
    testing::buffer::ETHERNET,
};

both_families!(
    transport_headers_that_contradict_themselves,
    packets_cut_short_anywhere,
    padding_does_not_count,
    fragments_are_passed,
    other_protocols_are_passed,
);

/// The datagram or segment with some of its bytes changed.
fn edit<F: Sample>(spec: Spec<F>, edits: &[(usize, u8)]) -> Buffer {
    let mut packet = spec.build();
    for (at, byte) in edits {
        packet.bytes[*at] = *byte;
    }
    packet
}

fn transport_headers_that_contradict_themselves<F: Sample>() {
    let world = World::<F>::new();
    let l4 = l4::<F, Buffer>();
    let udp = from_client::<F>();
    let syn = from_client::<F>().tcp(SYN);
    for (packet, reason) in [
        // Source port, length.
        (edit(udp, &[(l4, 0), (l4 + 1, 0)]), Reason::Malformed),
        (edit(udp, &[(l4 + 4, 0), (l4 + 5, 7)]), Reason::Malformed),
        (edit(udp, &[(l4 + 4, 9)]), Reason::Malformed),
        // Data offset, control bits.
        (edit(syn, &[(l4 + 12, 0x40)]), Reason::Malformed),
        (edit(syn, &[(l4 + 12, 0xf0)]), Reason::Malformed),
        (edit(syn, &[(l4 + 13, 0)]), Reason::TcpFlags),
        (edit(syn, &[(l4 + 13, 3)]), Reason::TcpFlags),
        (edit(syn, &[(l4 + 13, 0xff)]), Reason::TcpFlags),
    ] {
        expect_left_alone(&world, &packet, reason);
    }
}

fn packets_cut_short_anywhere<F: Sample>() {
    let world = World::<F>::new();
    for spec in [from_client::<F>(), from_client::<F>().tcp(SYN)] {
        let whole = spec.build();
        for end in 0..whole.bytes.len() {
            let mut packet = whole.clone();
            packet.bytes.truncate(end);
            expect_left_alone(&world, &packet, Reason::Malformed);
        }
    }
}

fn padding_does_not_count<F: Sample>() {
    let world = World::<F>::new();
    // Bytes behind the packet, as Ethernet pads short ones.
    let mut padded = from_client::<F>().build();
    padded.bytes.extend([0xaa; 18]);
    let sent = send_in(&world, &padded).expect("translated");
    assert!(sent.bytes.ends_with(&[0xaa; 18]));
    assert!(sent.has_valid_checksums::<F>());
}

fn fragments_are_passed<F: Sample>() {
    let world = World::<F>::new();
    let whole = from_client::<F>();
    let payload = whole.build().bytes.split_off(l4::<F, Buffer>());
    let frame = &whole.build().bytes[..ETHERNET];
    for (offset, more, part) in [(0, true, &payload[..16]), (2, false, &payload[16..])] {
        let mut network = whole.network();
        network.length = (F::HEADER_LEN + part.len()) as u32;
        let header = F::fragment_header(network, 7, offset, more);
        let packet = Buffer::new([frame, &header, part].concat());
        expect_left_alone(&world, &packet, Reason::Fragment);
    }
}

fn other_protocols_are_passed<F: Sample>() {
    const SCTP: IpProtocol = IpProtocol(132);
    let world = World::<F>::new();
    let spec = from_client::<F>();
    let whole = spec.build();
    for (protocol, reason) in [(F::ICMP, Reason::Icmp), (SCTP, Reason::Protocol)] {
        let mut network = spec.network();
        network.protocol = protocol;
        let mut packet = whole.clone();
        packet
            .bytes
            .splice(ETHERNET..l4::<F, Buffer>(), F::header(network));
        expect_left_alone(&world, &packet, reason);
    }
}

#[test]
fn ipv4_headers_that_contradict_themselves() {
    let world = World::<V4>::new();
    let at = ETHERNET;
    let length = at + offset_of!(Ipv4, total_length);
    let fragment = at + offset_of!(Ipv4, fragment);
    let header = size_of::<Ipv4>() as u8;
    for (edits, reason) in [
        (vec![(at, 0x44)], Reason::Malformed),
        (vec![(at, 0x65)], Reason::Malformed),
        (vec![(at, 0x46)], Reason::IpOptions),
        (vec![(at, 0x4f)], Reason::IpOptions),
        (vec![(length, 0xff)], Reason::Malformed),
        (
            vec![(length, 0), (length + 1, header - 1)],
            Reason::Malformed,
        ),
        (vec![(fragment, 0x20)], Reason::Fragment),
        (vec![(fragment + 1, 1)], Reason::Fragment),
    ] {
        expect_left_alone(&world, &edit(from_client::<V4>(), &edits), reason);
    }
}

#[test]
fn ipv6_headers_that_contradict_themselves() {
    let world = World::<V6>::new();
    let at = ETHERNET;
    let length = at + offset_of!(Ipv6, payload_length);
    for (edits, reason) in [
        (vec![(at, 0x45)], Reason::Malformed),
        (vec![(length, 0xff)], Reason::Malformed),
        // A jumbogram, whose length is elsewhere.
        (vec![(length, 0), (length + 1, 0)], Reason::Malformed),
    ] {
        expect_left_alone(&world, &edit(from_client::<V6>(), &edits), reason);
    }
}

#[test]
fn ipv6_extension_headers_are_passed() {
    let world = World::<V6>::new();
    let spec = from_client::<V6>();
    let whole = spec.build();
    for extension in IpProtocol::EXTENSIONS {
        let mut network = spec.network();
        let next = network.protocol.0;
        network.protocol = extension;
        network.length += 8;
        let header = V6::header(network);
        let l4 = l4::<V6, Buffer>();
        // Eight bytes of it, most of them a PadN option.
        let bytes = [
            &whole.bytes[..ETHERNET],
            &header,
            &[next, 0, 1, 4, 0, 0, 0, 0],
            &whole.bytes[l4..],
        ];
        expect_left_alone(&world, &Buffer::new(bytes.concat()), Reason::IpOptions);
    }
    // Nothing follows.
    let mut packet = whole;
    packet.bytes[ETHERNET + offset_of!(Ipv6, next_header)] = 59;
    expect_left_alone(&world, &packet, Reason::Protocol);
}
