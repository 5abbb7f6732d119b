//! How flows begin, go on and end.

use super::*;
use crate::{
    flow::ROUTE_LIFETIME,
    state::{State, Timeouts},
};

both_families!(
    a_tcp_flow_begins_with_a_syn,
    a_segment_that_conntrack_would_not_translate_is_not_translated,
    a_flow_whose_ends_are_there_is_out_of_a_floods_reach,
    a_refused_connection_proves_nothing,
    datagrams_are_a_stream_when_they_go_on,
    a_forged_reset_or_end_changes_nothing,
    a_reset_ends_a_connection_of_which_nothing_is_known,
    who_has_not_heard_the_container_proves_nothing,
    a_connection_that_the_container_takes_for_a_new_one_is_one,
    a_closed_connection_gives_way_to_a_new_one,
    a_refused_connection_leaves_its_ports_free,
    a_connection_that_is_closing_does_not,
    a_container_that_is_gone_takes_its_flows_along,
    replies_count_only_from_their_container_and_in_their_flow,
    silence_ends_a_flow,
    routing_is_asked_once_and_then_now_and_again,
    a_flow_does_not_change_its_interface,
    packets_for_an_interface_that_has_gone_are_left_to_the_kernel,
    a_containers_frame_to_another_station_is_none_of_ours,
);

fn a_tcp_flow_begins_with_a_syn<F: Sample>() {
    let world = World::<F>::new();
    for flags in [ACK, SYN_ACK, FIN_ACK, RST] {
        let packet = from_client::<F>().tcp(flags).build();
        expect_left_alone(&world, &packet, Reason::NoFlow);
    }
    shake_hands(&world);
}

fn a_segment_that_conntrack_would_not_translate_is_not_translated<F: Sample>() {
    let world = World::<F>::new();
    assert!(send(&world, true, SYN).is_ok());
    for flags in [ACK, FIN_ACK, SYN_ACK] {
        assert_eq!(send(&world, true, flags), Err(Reason::TcpState));
    }
    assert_eq!(send(&world, false, FIN_ACK), Err(Reason::TcpState));
    assert_eq!(world.only_flow().state(), State::SynSent);
    // The SYN again, as a client that hears nothing sends it.
    assert!(send(&world, true, SYN).is_ok());
    assert!(send(&world, false, SYN_ACK).is_ok());
    assert!(send(&world, true, ACK).is_ok());
    assert_eq!(send(&world, true, SYN_ACK), Err(Reason::TcpState));
    assert_eq!(send(&world, false, SYN), Err(Reason::TcpState));
    assert_eq!(world.only_flow().traffic.packets_in, 3);
}

fn a_flow_whose_ends_are_there_is_out_of_a_floods_reach<F: Sample>() {
    let world = World::<F>::new();
    assert!(send(&world, true, SYN).is_ok());
    assert_eq!(world.flow_counts(), (1, 0));
    assert!(send(&world, false, SYN_ACK).is_ok());
    assert_eq!(
        world.flow_counts(),
        (1, 0),
        "the client may be an invention"
    );
    assert!(send(&world, true, ACK).is_ok());
    assert_eq!(world.flow_counts(), (0, 1));
    assert_eq!(world.only_flow().state(), State::Established);
    // Another connection of the same tuple begins where all do.
    assert!(send(&world, false, RST).is_ok());
    assert!(send(&world, true, SYN).is_ok());
    assert_eq!(world.flow_counts(), (1, 0));
}

fn a_refused_connection_proves_nothing<F: Sample>() {
    // Neither that of a port where nobody listens, nor one that its opener takes back.
    for is_forward in [false, true] {
        let world = World::<F>::new();
        assert!(send(&world, true, SYN).is_ok());
        assert!(send(&world, is_forward, RST).is_ok());
        assert_eq!(world.only_flow().state(), State::Close);
        assert_eq!(world.flow_counts(), (1, 0));
    }
}

fn datagrams_are_a_stream_when_they_go_on<F: Sample>() {
    let world = World::<F>::new();
    let (question, answer) = (from_client::<F>().build(), from_container::<F>().build());
    for _ in 0..3 {
        assert!(send_in(&world, &question).is_ok());
        assert_eq!(world.only_flow().state(), State::Unanswered);
        world.wait(1);
    }
    assert!(send_in(&world, &question).is_ok());
    let world = World::<F>::new();
    // A client that goes on after an answer has heard it.
    for counts in [(1, 0), (0, 1)] {
        assert!(send_in(&world, &question).is_ok());
        assert!(send_out(&world, &answer).is_ok());
        assert_eq!(world.only_flow().state(), State::Answered);
        assert_eq!(world.flow_counts(), counts);
        world.wait(1);
    }
    world.wait(1);
    assert!(send_in(&world, &question).is_ok());
    assert_eq!(world.only_flow().state(), State::Stream);
    // Nor does a container that answers twice prove that there is a client.
    let world = World::<F>::new();
    assert!(send_in(&world, &question).is_ok());
    for _ in 0..2 {
        assert!(send_out(&world, &answer).is_ok());
    }
    assert_eq!(world.flow_counts(), (1, 0));
}

/// A client's segment, ahead of what the container expects, and ahead in what it acknowledges.
fn numbered<F: Sample>(flags: u8, ahead: u32, unsent: u32) -> Buffer {
    let spec = Spec {
        sequence: NUMBER.wrapping_add(ahead),
        acknowledgement: NUMBER.wrapping_add(unsent),
        ..from_client::<F>().tcp(flags)
    };
    spec.build()
}

fn a_forged_reset_or_end_changes_nothing<F: Sample>() {
    const RST_ACK: u8 = RST | TcpFlags::ACK;
    let world = World::<F>::new();
    shake_hands(&world);
    world.wait(1);
    let before = (world.only_flow().state(), world.only_flow().last_seen);
    for ahead in [1, 1460, 1 << 30, (1 << 30) + 1, 1 << 31, u32::MAX] {
        for flags in [RST, RST_ACK, FIN_ACK] {
            let may_be = flags == FIN_ACK || ahead <= 1 << 30;
            let sent = send_in(&world, &numbered::<F>(flags, ahead, 1));
            // The container knows what to answer.
            assert_eq!(sent.err(), (!may_be).then_some(Reason::TcpState));
            let flow = world.only_flow();
            assert_eq!((flow.state(), flow.last_seen), before, "{flags} {ahead}");
        }
    }
    assert!(send_in(&world, &numbered::<F>(RST, 0, 1)).is_ok());
    assert_eq!(world.only_flow().state(), State::Close);
    for (flags, state) in [(RST_ACK, State::Close), (FIN_ACK, State::FinWait)] {
        let world = World::<F>::new();
        shake_hands(&world);
        let amid_data = numbered::<F>(flags, 1460, 0);
        assert!(send_in(&world, &amid_data).is_ok());
        assert_eq!(world.only_flow().state(), state);
    }
}

fn a_reset_ends_a_connection_of_which_nothing_is_known<F: Sample>() {
    let world = World::<F>::new();
    assert!(send(&world, true, SYN).is_ok());
    assert!(send_in(&world, &numbered::<F>(RST, 77, 99)).is_ok());
    assert_eq!(world.only_flow().state(), State::Close);
}

fn who_has_not_heard_the_container_proves_nothing<F: Sample>() {
    let world = World::<F>::new();
    assert!(send(&world, true, SYN).is_ok());
    assert!(send(&world, false, SYN_ACK).is_ok());
    for flags in [ACK, FIN_ACK] {
        for unsent in [1, 1 << 31, u32::MAX] {
            assert!(send_in(&world, &numbered::<F>(flags, 0, unsent)).is_ok());
            assert_eq!(world.only_flow().state(), State::SynRecv);
            assert_eq!(world.flow_counts(), (1, 0));
        }
    }
    assert!(send(&world, true, ACK).is_ok());
    assert_eq!(world.flow_counts(), (0, 1));
}

fn a_connection_that_the_container_takes_for_a_new_one_is_one<F: Sample>() {
    let world = World::<F>::new();
    shake_hands(&world);
    // A reset that did not come this way, and the same port once more.
    assert!(send(&world, true, SYN).is_ok());
    assert_eq!(world.only_flow().state(), State::Established);
    let answer = |acknowledgement| {
        let spec = Spec {
            acknowledgement,
            ..from_container::<F>().tcp(SYN_ACK)
        };
        spec.build()
    };
    assert!(send_out(&world, &answer(NUMBER)).is_ok());
    assert_eq!(world.only_flow().state(), State::Established, "once more");
    assert!(send_out(&world, &answer(NUMBER + 7)).is_ok());
    assert_eq!(world.only_flow().state(), State::SynRecv);
    assert!(send_in(&world, &numbered::<F>(RST, 7, 1)).is_ok());
    assert_eq!(world.only_flow().state(), State::Close);
}

fn a_closed_connection_gives_way_to_a_new_one<F: Sample>() {
    let world = World::<F>::new();
    shake_hands(&world);
    for (is_forward, flags) in [(true, FIN_ACK), (false, ACK), (false, FIN_ACK), (true, ACK)] {
        assert!(send(&world, is_forward, flags).is_ok());
    }
    assert_eq!(world.only_flow().state(), State::TimeWait);
    world.wait(1);
    assert!(send(&world, true, SYN).is_ok());
    let flow = world.only_flow();
    assert_eq!((flow.state(), flow.created), (State::SynSent, 101));
    assert_eq!(flow.traffic.packets_in, 1);
}

fn a_refused_connection_leaves_its_ports_free<F: Sample>() {
    let mut world = World::<F>::new();
    assert!(send(&world, true, SYN).is_ok());
    assert!(send(&world, false, RST).is_ok());
    // Another port of the host that leads to the same one of the container: nothing collides.
    world.publish(IpProtocol::TCP, HOST_PORT + 1, 1, CONTAINER_PORT);
    let mut spec = from_client::<F>().tcp(SYN);
    spec.destination.1 = HOST_PORT + 1;
    let rewritten = send_in(&world, &spec.build()).expect("a flow");
    assert_eq!(rewritten.ports::<F>().0, spec.source.1);
}

fn a_connection_that_is_closing_does_not<F: Sample>() {
    let world = World::<F>::new();
    shake_hands(&world);
    assert!(send(&world, true, FIN_ACK).is_ok());
    // The container's kernel has to answer this, as it does without us.
    assert!(send(&world, true, SYN).is_ok());
    assert_eq!(world.only_flow().state(), State::FinWait);
}

fn a_container_that_is_gone_takes_its_flows_along<F: Sample>() {
    let mut world = World::<F>::new();
    shake_hands(&world);
    let set_generation = |world: &mut World<F>, generation| {
        world.backends.get_mut(&1).expect("it").generation = generation;
    };
    set_generation(&mut world, 0);
    assert_eq!(send(&world, true, ACK), Err(Reason::NotPublished));
    assert_eq!(send(&world, false, ACK), Err(Reason::NotAReply));
    // Another container in its place: the old flow is not its.
    set_generation(&mut world, 2);
    assert_eq!(send(&world, true, ACK), Err(Reason::NoFlow));
    assert_eq!(send(&world, false, ACK), Err(Reason::NotAReply));
    assert!(send(&world, true, SYN).is_ok());
}

fn replies_count_only_from_their_container_and_in_their_flow<F: Sample>() {
    let world = World::<F>::new();
    let answer = from_container::<F>().build();
    assert_eq!(send_out(&world, &answer), Err(Reason::NotAReply));
    assert!(send_in(&world, &from_client::<F>().build()).is_ok());
    assert_eq!(
        run_reply(&world, &mut answer.clone(), VETH + 1),
        Verdict::Passed(Reason::WrongInterface)
    );
    for spec in [
        Spec {
            destination: (F::CLIENT, CLIENT_PORT + 1),
            ..from_container::<F>()
        },
        Spec {
            source: (F::CONTAINER, CONTAINER_PORT + 1),
            ..from_container::<F>()
        },
        Spec {
            source: (F::NEIGHBOUR, CONTAINER_PORT),
            ..from_container::<F>()
        },
        from_container::<F>().tcp(ACK),
    ] {
        assert_eq!(send_out(&world, &spec.build()), Err(Reason::NotAReply));
    }
    assert!(send_out(&world, &answer).is_ok());
}

fn silence_ends_a_flow<F: Sample>() {
    let world = World::<F>::new();
    let timeout = Timeouts::DEFAULT.of(State::Unanswered);
    assert!(send_in(&world, &from_client::<F>().build()).is_ok());
    world.wait(timeout);
    assert!(send_out(&world, &from_container::<F>().build()).is_ok());
    world.wait(Timeouts::DEFAULT.of(State::Stream) + 1);
    assert_eq!(
        send_out(&world, &from_container::<F>().build()),
        Err(Reason::NotAReply)
    );
    assert!(send_in(&world, &from_client::<F>().build()).is_ok());
    assert_eq!(world.only_flow().state(), State::Unanswered, "another one");
}

fn routing_is_asked_once_and_then_now_and_again<F: Sample>() {
    let mut world = World::<F>::new();
    let (question, answer) = (from_client::<F>().build(), from_container::<F>().build());
    for _ in 0..10 {
        assert!(send_in(&world, &question).is_ok());
        assert!(send_out(&world, &answer).is_ok());
    }
    assert_eq!(world.routed.get(), 1);
    world.wait(ROUTE_LIFETIME + 1);
    assert!(send_in(&world, &question).is_ok());
    assert_eq!(world.routed.get(), 2);
    world.settings.epoch += 1;
    assert!(send_out(&world, &answer).is_ok());
    assert_eq!(world.routed.get(), 3);
    // The host's address goes, and with it the flow.
    world.settings.epoch += 1;
    world.local.remove(&F::HOST);
    assert_eq!(send_in(&world, &question), Err(Reason::NotLocal));
    assert_eq!(send_out(&world, &answer), Err(Reason::NotLocal));
}

fn a_flow_does_not_change_its_interface<F: Sample>() {
    let mut world = World::<F>::new();
    let mut packet = from_client::<F>().build();
    assert!(send_in(&world, &packet).is_ok());
    let by_another =
        |world: &World<F>, packet: &mut Buffer| run_forward(world, packet, EXTERNAL + 1);
    assert_eq!(
        by_another(&world, &mut packet),
        Verdict::Passed(Reason::ReversePath)
    );
    // Unless routing does.
    world.settings.epoch += 1;
    world.gateway.ifindex = EXTERNAL + 1;
    assert_eq!(send_in(&world, &packet), Err(Reason::ReversePath));
    assert_eq!(by_another(&world, &mut packet), Verdict::Forwarded(VETH));
    let mut answer = from_container::<F>().build();
    assert_eq!(
        run_reply(&world, &mut answer, VETH),
        Verdict::Replied(EXTERNAL + 1)
    );
}

fn packets_for_an_interface_that_has_gone_are_left_to_the_kernel<F: Sample>() {
    let mut world = World::<F>::new();
    let packet = from_client::<F>().build();
    world.gone.insert(VETH);
    expect_left_alone(&world, &packet, Reason::BackendGone);
    world.gone.clear();
    assert!(send_in(&world, &packet).is_ok());
    world.gone.insert(VETH);
    world.wait(ROUTE_LIFETIME + 1);
    assert_eq!(send_in(&world, &packet), Err(Reason::BackendGone));
}

fn a_containers_frame_to_another_station_is_none_of_ours<F: Sample>() {
    let world = World::<F>::new();
    assert!(send_in(&world, &from_client::<F>().build()).is_ok());
    let mut packet = from_container::<F>().build();
    packet.bytes[..6].copy_from_slice(&[2, 0, 0, 0, 17, 9]);
    assert_eq!(send_out(&world, &packet), Err(Reason::NotAReply));
}
