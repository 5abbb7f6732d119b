//! Flows whose replies look alike: one client address and port, one container port, two host ports.

use super::*;
use crate::{
    published::Backend,
    state::{State, Timeouts},
};

both_families!(
    two_flows_with_the_same_reply_are_told_apart_by_another_port,
    a_flow_keeps_the_port_it_was_given,
    a_connection_that_is_half_closed_keeps_its_tuple,
    a_flow_that_finds_no_port_of_its_own_is_left_alone,
    what_is_privileged_stays_so,
);

fn two_flows_with_the_same_reply_are_told_apart_by_another_port<F: Sample>() {
    let mut world = World::<F>::new();
    // Another publication of the same container's port.
    let backend = Backend {
        generation: 2,
        ..world.backends[&1]
    };
    world.backends.insert(2, backend);
    world.publish(IpProtocol::UDP, 9001, 2, CONTAINER_PORT);

    let targets = [(F::HOST, 9000), (F::HOST, 9001), (F::SECOND_HOST, 9000)];
    let mut seen = Vec::new();
    for round in 0..2 {
        for (index, destination) in targets.into_iter().enumerate() {
            let sent = Spec {
                destination,
                ..from_client::<F>()
            };
            let received = send_in(&world, &sent.build()).expect("translated");
            let (port, _) = received.ports::<F>();
            if round == 0 {
                seen.push(port);
            }
            assert_eq!(port, seen[index], "the same in every round");
            let expected = Spec {
                source: (F::CLIENT, port),
                destination: (F::CONTAINER, CONTAINER_PORT),
                ttl: 63,
                ..sent
            };
            assert_eq!(received.bytes[12..], expected.build().bytes[12..]);

            let answer = Spec {
                destination: (F::CLIENT, port),
                ..from_container::<F>()
            };
            let expected = Spec {
                source: destination,
                ttl: 63,
                ..from_container::<F>()
            };
            assert_eq!(send_out(&world, &answer.build()), Ok(expected.build()));
        }
    }
    assert_eq!(seen[0], CLIENT_PORT, "the first keeps its own");
    assert_eq!(
        seen[1..],
        [1024, 1025],
        "the others get one of netfilter's range"
    );
    assert_eq!(world.flow_counts(), (0, 3));

    // A client that really has the port which another was given is told apart, too, wherever it sends.
    for destination in targets {
        let sent = Spec {
            source: (F::CLIENT, 1024),
            destination,
            ..from_client::<F>()
        };
        let received = send_in(&world, &sent.build()).expect("translated");
        let (port, _) = received.ports::<F>();
        assert!(
            ![CLIENT_PORT, 1024, 1025].contains(&port),
            "{destination:?}"
        );
    }
}

/// A datagram to another host port that leads to the same container port.
fn to_second_port<F: Sample>(world: &mut World<F>, protocol: IpProtocol) -> Spec<F> {
    world.publish(protocol, HOST_PORT + 1, 1, CONTAINER_PORT);
    Spec {
        protocol,
        destination: (F::HOST, HOST_PORT + 1),
        ..from_client::<F>()
    }
}

fn a_flow_keeps_the_port_it_was_given<F: Sample>() {
    let mut world = World::<F>::new();
    let second = to_second_port(&mut world, IpProtocol::UDP).build();
    assert!(send_in(&world, &from_client::<F>().build()).is_ok());
    // The first falls silent, the second goes on.
    for _ in 0..4 {
        let received = send_in(&world, &second).expect("translated");
        assert_eq!(received.ports::<F>().0, 1024);
        world.wait(20);
    }
}

fn a_connection_that_is_half_closed_keeps_its_tuple<F: Sample>() {
    let mut world = World::<F>::new();
    let second = to_second_port(&mut world, IpProtocol::TCP);
    shake_hands(&world);
    assert!(send(&world, true, FIN_ACK).is_ok());
    let received = send_in(&world, &second.tcp(SYN).build()).expect("translated");
    assert_eq!(received.ports::<F>().0, 1024);
    // The first's container may still be talking.
    let answer = send(&world, false, ACK).expect("translated");
    assert_eq!(answer.ports::<F>().0, HOST_PORT);
}

fn a_flow_that_finds_no_port_of_its_own_is_left_alone<F: Sample>() {
    let mut world = World::<F>::new();
    let second = to_second_port(&mut world, IpProtocol::UDP).build();
    for port in [CLIENT_PORT, 1024, 1025, 1026, 1027] {
        let spec = Spec {
            source: (F::CLIENT, port),
            ..from_client::<F>()
        };
        assert!(send_in(&world, &spec.build()).is_ok());
    }
    assert_eq!(send_in(&world, &second), Err(Reason::ReplyCollision));
    // Once the others have timed out, the tuple is free.
    world.wait(Timeouts::DEFAULT.of(State::Unanswered) + 1);
    let received = send_in(&world, &second).expect("translated");
    assert_eq!(received.ports::<F>().0, CLIENT_PORT);
}

fn what_is_privileged_stays_so<F: Sample>() {
    for (own, given) in [(53, 1), (511, 1), (512, 600), (1023, 600), (1024, 1025)] {
        let mut world = World::<F>::new();
        let from = |spec| Spec {
            source: (F::CLIENT, own),
            ..spec
        };
        let second = from(to_second_port(&mut world, IpProtocol::UDP)).build();
        assert!(send_in(&world, &from(from_client::<F>()).build()).is_ok());
        let received = send_in(&world, &second).expect("translated");
        assert_eq!(received.ports::<F>().0, given, "instead of {own}");
    }
}
