//! Admission by the host's firewall: what the kernel was seen to let through is accelerated for a while.

use super::*;
use crate::{
    flow::LEASE,
    lease::{admit_forward, admit_reply},
    packet::Packet,
    settings::Admission,
    state::State,
};

both_families!(
    a_first_packet_is_noted_and_left_to_the_kernel,
    what_the_kernel_lets_through_is_accelerated_for_a_while,
    replies_need_a_lease_of_their_own,
    what_only_looks_like_a_reply_is_the_kernels,
    a_change_of_rules_ends_leases_at_once,
    a_denied_flow_is_never_accelerated,
    how_a_connection_begins_and_ends_is_the_kernels,
    a_connection_that_is_older_is_taken_in,
    tcp_is_left_to_a_conntrack_that_is_strict,
    what_reaches_the_container_otherwise_admits_nothing,
    what_leaves_otherwise_admits_no_replies,
    collisions_are_left_to_the_kernel,
    a_container_that_is_gone_admits_nothing,
    what_no_lease_can_mend_is_left_alone,
);

fn world<F: Sample>() -> World<F> {
    let mut world = World::new();
    world.settings.admission = Admission::Netfilter as u32;
    world
}

/// The packet from outside as netfilter hands it to the container.
fn translated<F: Sample>(spec: Spec<F>) -> Spec<F> {
    Spec {
        destination: (F::CONTAINER, CONTAINER_PORT),
        ttl: 63,
        ..spec
    }
}

/// The answer as netfilter lets it out.
fn translated_answer<F: Sample>(spec: Spec<F>) -> Spec<F> {
    Spec {
        source: (F::HOST, HOST_PORT),
        ttl: 63,
        ..spec
    }
}

/// A container may talk to a client of its own accord, from the port and to the port that a flow would have,
/// which the kernel has not let in.
fn what_only_looks_like_a_reply_is_the_kernels<F: Sample>() {
    let world = world::<F>();
    let question = from_client::<F>();
    assert_eq!(send_in(&world, &question.build()), Err(Reason::Lease));
    let own = from_container::<F>().build();
    assert_eq!(send_out(&world, &own), Err(Reason::NotAReply));
    admit_in(&world, question);
    assert_eq!(send_out(&world, &own), Err(Reason::Lease));
}

/// The kernel lets the flow's packets in.
fn admit_in<F: Sample>(world: &World<F>, spec: Spec<F>) {
    admit_forward::<F, _, _>(&translated(spec).build(), world, VETH);
}

/// The kernel lets the flow's replies out.
fn admit_out<F: Sample>(world: &World<F>, spec: Spec<F>) {
    admit_reply::<F, _, _>(&translated_answer(spec).build(), world, EXTERNAL);
}

fn question<F: Sample>() -> Buffer {
    from_client::<F>().build()
}

fn answer<F: Sample>() -> Buffer {
    from_container::<F>().build()
}

fn a_first_packet_is_noted_and_left_to_the_kernel<F: Sample>() {
    let world = world::<F>();
    for _ in 0..3 {
        assert_eq!(send_in(&world, &question::<F>()), Err(Reason::Lease));
    }
    assert_eq!(world.flow_counts(), (1, 0));
    assert_eq!(world.only_flow().state(), State::Unanswered);
}

fn what_the_kernel_lets_through_is_accelerated_for_a_while<F: Sample>() {
    let world = world::<F>();
    assert_eq!(send_in(&world, &question::<F>()), Err(Reason::Lease));
    for _ in 0..3 {
        admit_in(&world, from_client::<F>());
        assert!(send_in(&world, &question::<F>()).is_ok());
        world.wait_millis(LEASE - 1);
        assert!(send_in(&world, &question::<F>()).is_ok());
        world.wait_millis(1);
        assert_eq!(send_in(&world, &question::<F>()), Err(Reason::Lease));
    }
}

fn replies_need_a_lease_of_their_own<F: Sample>() {
    let world = world::<F>();
    assert_eq!(send_in(&world, &question::<F>()), Err(Reason::Lease));
    admit_in(&world, from_client::<F>());
    assert!(send_in(&world, &question::<F>()).is_ok());
    assert_eq!(send_out(&world, &answer::<F>()), Err(Reason::Lease));
    admit_out(&world, from_container::<F>());
    assert!(send_out(&world, &answer::<F>()).is_ok());
    world.wait_millis(LEASE);
    assert_eq!(send_out(&world, &answer::<F>()), Err(Reason::Lease));
}

fn a_change_of_rules_ends_leases_at_once<F: Sample>() {
    let mut world = world::<F>();
    assert!(send_in(&world, &question::<F>()).is_err());
    admit_in(&world, from_client::<F>());
    admit_out(&world, from_container::<F>());
    assert!(send_in(&world, &question::<F>()).is_ok());
    assert!(send_out(&world, &answer::<F>()).is_ok());
    // What was seen in the very millisecond may have been let through by the rules before.
    world.change_rules();
    assert_eq!(send_in(&world, &question::<F>()), Err(Reason::Lease));
    assert_eq!(send_out(&world, &answer::<F>()), Err(Reason::Lease));
    world.wait_millis(1);
    admit_in(&world, from_client::<F>());
    assert!(send_in(&world, &question::<F>()).is_ok());
    assert_eq!(send_out(&world, &answer::<F>()), Err(Reason::Lease));
}

fn a_denied_flow_is_never_accelerated<F: Sample>() {
    let world = world::<F>();
    for _ in 0..10 {
        assert_eq!(send_in(&world, &question::<F>()), Err(Reason::Lease));
        world.wait_millis(LEASE / 2);
    }
    // Another flow's admission is not its own.
    let other = Spec {
        source: (F::CLIENT, CLIENT_PORT + 1),
        ..from_client::<F>()
    };
    assert_eq!(send_in(&world, &other.build()), Err(Reason::Lease));
    admit_in(&world, other);
    assert!(send_in(&world, &other.build()).is_ok());
    assert_eq!(send_in(&world, &question::<F>()), Err(Reason::Lease));
}

/// A connection whose packets and replies the kernel lets through.
fn connection<F: Sample>() -> World<F> {
    let world = world::<F>();
    for (is_forward, flags) in [(true, SYN), (false, SYN_ACK), (true, ACK)] {
        assert_eq!(send(&world, is_forward, flags), Err(Reason::Lease));
        if is_forward {
            admit_in(&world, from_client::<F>().tcp(flags));
        } else {
            admit_out(&world, from_container::<F>().tcp(flags));
        }
    }
    world
}

fn how_a_connection_begins_and_ends_is_the_kernels<F: Sample>() {
    let world = connection::<F>();
    assert_eq!(world.flow_counts(), (0, 1));
    for is_forward in [true, false] {
        assert!(send(&world, is_forward, ACK).is_ok());
    }
    for flags in [SYN, FIN_ACK, RST] {
        for is_forward in [true, false] {
            let world = connection::<F>();
            assert_eq!(send(&world, is_forward, flags), Err(Reason::Lease));
        }
    }
    // And whatever follows the end.
    assert_eq!(send(&world, false, FIN_ACK), Err(Reason::Lease));
    for is_forward in [true, false] {
        assert_eq!(send(&world, is_forward, ACK), Err(Reason::Lease));
    }
}

fn a_connection_that_is_older_is_taken_in<F: Sample>() {
    let world = world::<F>();
    for flags in [FIN_ACK, RST] {
        let packet = from_client::<F>().tcp(flags).build();
        expect_left_alone(&world, &packet, Reason::NoFlow);
    }
    assert_eq!(send(&world, true, ACK), Err(Reason::Lease));
    admit_in(&world, from_client::<F>().tcp(ACK));
    // It may be the last segment of one that has just ended.
    assert_eq!(send(&world, true, ACK), Err(Reason::Lease));
    assert_eq!(world.only_flow().state(), State::PickedUp);
    assert_eq!(send(&world, false, ACK), Err(Reason::Lease));
    assert_eq!(world.only_flow().state(), State::Established);
    assert!(send(&world, true, ACK).is_ok());
}

fn tcp_is_left_to_a_conntrack_that_is_strict<F: Sample>() {
    let mut world = world::<F>();
    world.settings.tcp_liberal = 0;
    let syn = from_client::<F>().tcp(SYN).build();
    expect_left_alone(&world, &syn, Reason::Admission);
    assert_eq!(send_in(&world, &question::<F>()), Err(Reason::Lease));
    admit_in(&world, from_client::<F>());
    assert!(send_in(&world, &question::<F>()).is_ok());
}

fn what_reaches_the_container_otherwise_admits_nothing<F: Sample>() {
    let refused = |egress, spec: Spec<F>| {
        let world = world::<F>();
        assert_eq!(send_in(&world, &question::<F>()), Err(Reason::Lease));
        admit_forward::<F, _, _>(&spec.build(), &world, egress);
        assert_eq!(send_in(&world, &question::<F>()), Err(Reason::Lease));
    };
    let spec = translated::<F>(from_client::<F>());
    refused(VETH + 1, spec);
    // Masqueraded, by another port, to another port, to another container, in another protocol.
    for spec in [
        Spec {
            source: (F::HOST, CLIENT_PORT),
            ..spec
        },
        Spec {
            source: (F::CLIENT, CLIENT_PORT + 1),
            ..spec
        },
        Spec {
            destination: (F::CONTAINER, CONTAINER_PORT + 1),
            ..spec
        },
        Spec {
            destination: (F::NEIGHBOUR, CONTAINER_PORT),
            ..spec
        },
        spec.tcp(ACK),
    ] {
        refused(VETH, spec);
    }
}

fn what_leaves_otherwise_admits_no_replies<F: Sample>() {
    let refused = |egress, spec: Spec<F>| {
        let mut world = world::<F>();
        // Another port that leads to the same place.
        world.publish(IpProtocol::UDP, HOST_PORT + 1, 1, CONTAINER_PORT);
        assert_eq!(send_in(&world, &question::<F>()), Err(Reason::Lease));
        admit_in(&world, from_client::<F>());
        admit_reply::<F, _, _>(&spec.build(), &world, egress);
        assert_eq!(send_out(&world, &answer::<F>()), Err(Reason::Lease));
    };
    let spec = translated_answer::<F>(from_container::<F>());
    refused(EXTERNAL + 1, spec);
    for spec in [
        Spec {
            source: (F::HOST, HOST_PORT + 1),
            ..spec
        },
        Spec {
            source: (F::SECOND_HOST, HOST_PORT),
            ..spec
        },
        Spec {
            source: (F::CONTAINER, CONTAINER_PORT),
            ..spec
        },
        Spec {
            destination: (F::CLIENT, CLIENT_PORT + 1),
            ..spec
        },
        spec.tcp(ACK),
    ] {
        refused(EXTERNAL, spec);
    }
}

fn collisions_are_left_to_the_kernel<F: Sample>() {
    let mut world = world::<F>();
    world.publish(IpProtocol::UDP, HOST_PORT + 1, 1, CONTAINER_PORT);
    assert_eq!(send_in(&world, &question::<F>()), Err(Reason::Lease));
    admit_in(&world, from_client::<F>());
    let second = Spec {
        destination: (F::HOST, HOST_PORT + 1),
        ..from_client::<F>()
    };
    assert_eq!(
        send_in(&world, &second.build()),
        Err(Reason::ReplyCollision)
    );
    // Netfilter has given it another port, which does not admit a client who really has that.
    let remapped = Spec {
        source: (F::CLIENT, 1024),
        ..second
    };
    admit_in(&world, remapped);
    assert_eq!(
        send_in(&world, &second.build()),
        Err(Reason::ReplyCollision)
    );
    assert!(send_in(&world, &question::<F>()).is_ok());
}

fn a_container_that_is_gone_admits_nothing<F: Sample>() {
    let mut world = world::<F>();
    assert_eq!(send_in(&world, &question::<F>()), Err(Reason::Lease));
    world.backends.get_mut(&1).expect("it").generation = 2;
    admit_in(&world, from_client::<F>());
    admit_out(&world, from_container::<F>());
    let flow = world.only_flow();
    assert_eq!((flow.admitted_in_at, flow.admitted_out_at), (0, 0));
}

fn what_no_lease_can_mend_is_left_alone<F: Sample>() {
    let world = world::<F>();
    for source in F::MARTIANS {
        let spec = Spec {
            source: (*source, CLIENT_PORT),
            ..from_client::<F>()
        };
        expect_left_alone(&world, &spec.build(), Reason::Martian);
    }
    // Bytes that are no packet admit nothing, and harm nothing.
    for end in 0..60 {
        let mut packet = translated::<F>(from_client::<F>()).build();
        packet.bytes.truncate(end);
        admit_forward::<F, _, _>(&packet, &world, VETH);
        admit_reply::<F, _, _>(&packet, &world, EXTERNAL);
    }
    assert!(Packet::size(&question::<F>()) > 60);
    assert_eq!(world.flow_counts(), (0, 0));
}
