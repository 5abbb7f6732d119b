//! Priority tags, and links without an Ethernet header.

use super::*;
use crate::testing::buffer::BARE;

both_families!(
    a_priority_tag_is_taken_off,
    a_vlans_frames_are_its_interfaces,
    a_bare_packet_gets_an_ethernet_header,
    a_bare_packet_that_passes_stays_bare,
);

/// The highest priority, as VoIP has it, in VLAN 0: none.
const PRIORITY: u16 = 5 << 13;

fn a_priority_tag_is_taken_off<F: Sample>() {
    let world = World::<F>::new();
    for tag in [0, PRIORITY] {
        let mut packet = from_client::<F>().build();
        let plain = send_in(&world, &packet).expect("translated");
        packet.tag = Some(tag);
        assert_eq!(send_in(&world, &packet), Ok(plain), "as without a tag");

        let mut packet = from_container::<F>().build();
        let plain = send_out(&world, &packet).expect("translated");
        packet.tag = Some(tag);
        assert_eq!(send_out(&world, &packet), Ok(plain));
    }
    // One that is left to the kernel keeps it: `send_in` looks.
    let mut packet = Spec {
        ttl: 1,
        ..from_client::<F>()
    }
    .build();
    packet.tag = Some(PRIORITY);
    assert_eq!(send_in(&world, &packet), Err(Reason::Ttl));
}

fn a_vlans_frames_are_its_interfaces<F: Sample>() {
    let world = World::<F>::new();
    for number in [1, 5, 0xfff] {
        let mut packet = from_client::<F>().build();
        packet.tag = Some(PRIORITY | number);
        expect_left_alone(&world, &packet, Reason::Vlan);
        assert_eq!(send_out(&world, &packet), Err(Reason::Vlan));
    }
}

fn a_bare_packet_gets_an_ethernet_header<F: Sample>() {
    for spec in [from_client::<F>(), from_client::<F>().tcp(SYN)] {
        let framed = send_in(&World::<F>::new(), &spec.build()).expect("translated");
        let bare = send_in(&World::<F>::new(), &spec.build_bare()).expect("translated");
        assert_eq!(bare.bytes, framed.bytes, "to the container it is the same");
    }
}

fn a_bare_packet_that_passes_stays_bare<F: Sample>() {
    let world = World::<F>::new();
    let whole = from_client::<F>().build_bare();
    for end in 0..whole.bytes.len() {
        let mut packet: Buffer<BARE> = whole.clone();
        packet.bytes.truncate(end);
        assert_eq!(send_in(&world, &packet), Err(Reason::Malformed));
    }
}
