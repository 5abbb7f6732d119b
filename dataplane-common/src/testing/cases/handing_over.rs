//! Flows born under `direct`, of which conntrack knows nothing, after admission has changed: they are
//! translated here until the kernel knows them, and no longer.

use super::*;
use crate::{
    flow::{HAND_OVER, LEASE},
    settings::Admission,
};

both_families!(
    a_flow_is_handed_over_with_its_clients_next_packet,
    a_flow_whose_client_is_silent_ends_with_the_lease,
    a_flow_comes_back_by_a_packet_of_either_side,
    a_connections_end_is_ours_until_the_kernel_knows_it,
);

/// What becomes of a client's packets and of replies once the kernel knows the flow. It has not been seen to
/// admit it.
fn reasons_of(admission: Admission) -> [Reason; 2] {
    match admission {
        Admission::Netfilter => [Reason::Lease, Reason::NotAReply],
        _ => [Reason::Admission; 2],
    }
}

fn a_flow_is_handed_over_with_its_clients_next_packet<F: Sample>() {
    let (question, answer) = (from_client::<F>().build(), from_container::<F>().build());
    for admission in [Admission::Off, Admission::Netfilter] {
        let [reason, reply_reason] = reasons_of(admission);
        let mut world = World::<F>::new();
        assert!(send_in(&world, &question).is_ok());
        world.wait(1);
        world.set_admission(admission);
        world.wait_millis(1);
        // Conntrack has not seen the flow yet, so only we can translate this.
        assert!(send_out(&world, &answer).is_ok());
        assert_eq!(send_in(&world, &question), Err(reason));
        // It may not have got through the stack yet.
        world.wait_millis(HAND_OVER);
        assert!(send_out(&world, &answer).is_ok());
        // Not even if the client sends more meanwhile.
        assert_eq!(send_in(&world, &question), Err(reason));
        world.wait_millis(1);
        assert_eq!(send_out(&world, &answer), Err(reply_reason));
    }
}

fn a_flow_whose_client_is_silent_ends_with_the_lease<F: Sample>() {
    let answer = from_container::<F>().build();
    for admission in [Admission::Off, Admission::Netfilter] {
        let mut world = World::<F>::new();
        assert!(send_in(&world, &from_client::<F>().build()).is_ok());
        world.set_admission(admission);
        world.wait_millis(LEASE);
        assert!(send_out(&world, &answer).is_ok());
        world.wait_millis(1);
        assert_eq!(send_out(&world, &answer), Err(reasons_of(admission)[1]));
    }
}

fn a_flow_comes_back_by_a_packet_of_either_side<F: Sample>() {
    let (question, answer) = (from_client::<F>().build(), from_container::<F>().build());
    for packet_of_client in [true, false] {
        let mut world = World::<F>::new();
        assert!(send_in(&world, &question).is_ok());
        world.set_admission(Admission::Off);
        assert!(send_in(&world, &question).is_err());
        world.wait_millis(HAND_OVER + 1);
        assert!(send_out(&world, &answer).is_err());

        world.set_admission(Admission::Direct);
        if packet_of_client {
            assert!(send_in(&world, &question).is_ok());
        } else {
            assert!(send_out(&world, &answer).is_ok());
        }
        // Handing over begins anew.
        world.set_admission(Admission::Off);
        world.wait_millis(HAND_OVER + 1);
        assert!(send_out(&world, &answer).is_ok());
    }
}

/// Conntrack would take the first segment that it sees for invalid if it ended the connection.
fn a_connections_end_is_ours_until_the_kernel_knows_it<F: Sample>() {
    let segment = |flags| from_client::<F>().tcp(flags).build();
    for admission in [Admission::Off, Admission::Netfilter] {
        for end in [FIN_ACK, RST] {
            for has_said_more in [false, true] {
                let mut world = World::<F>::new();
                assert!(send_in(&world, &segment(SYN)).is_ok());
                assert!(send_out(&world, &from_container::<F>().tcp(SYN_ACK).build()).is_ok());
                assert!(send_in(&world, &segment(ACK)).is_ok());
                world.wait(1);
                world.set_admission(admission);
                world.wait_millis(1);
                if has_said_more {
                    assert!(
                        send_in(&world, &segment(ACK)).is_err(),
                        "picked up by conntrack"
                    );
                }
                let is_ours = send_in(&world, &segment(end)).is_ok();
                assert_eq!(is_ours, !has_said_more);
                // By now whoever is to know of flows does.
                world.wait_millis(LEASE);
                assert!(send_in(&world, &segment(end)).is_err());
            }
        }
    }
}
