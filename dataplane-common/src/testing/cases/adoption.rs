//! Conversations that the kernel has translated so far, taken over in the middle.

use super::*;
use crate::{
    adoption::{Adoption, adopt},
    bucket::Slot,
    flow::{Flow, FlowKey},
    headers::Be16,
    state::State,
    tables::Route,
};

both_families!(
    a_connection_goes_on_from_either_side,
    a_client_keeps_the_port_that_it_was_given,
    a_reset_counts_until_the_container_has_said_where_it_is,
    what_has_begun_anew_meanwhile_stays,
    only_what_comes_by_the_external_interface_is_taken_over,
);

/// An established connection, whose client the container sees under `port`.
fn connection<F: Sample>(port: u16) -> Slot<F::Address> {
    Slot {
        key: FlowKey {
            container: F::CONTAINER,
            client: F::CLIENT,
            container_port: Be16::new(CONTAINER_PORT),
            client_port: Be16::new(port),
            protocol: IpProtocol::TCP,
            padding8: 0,
            padding16: 0,
        },
        flow: Flow {
            host_address: F::HOST,
            backend: 1,
            generation: 1,
            external_ifindex: EXTERNAL,
            host_port: Be16::new(HOST_PORT),
            state: State::Established as u8,
            client_port: Be16::new(CLIENT_PORT),
            created: 100,
            last_seen: 100,
            ..bytemuck::Zeroable::zeroed()
        },
    }
}

fn a_connection_goes_on_from_either_side<F: Sample>() {
    for is_forward in [true, false] {
        let world = World::<F>::new();
        let refused = send(&world, is_forward, ACK).expect_err("nobody knows it");
        assert!(matches!(refused, Reason::NoFlow | Reason::NotAReply));
        let mut slot = connection::<F>(CLIENT_PORT);
        assert_eq!(adopt::<F, _>(&mut slot, &world), Adoption::Done);
        assert_eq!(world.flow_counts(), (0, 1), "it is kept");
        assert!(send(&world, is_forward, ACK).is_ok());
        assert!(send(&world, !is_forward, ACK).is_ok());
        let flow = world.only_flow();
        assert!(flow.is_begun_here(), "the kernel sees nothing of it");
        assert_eq!(flow.next_hop, F::GATEWAY);
    }
}

fn a_client_keeps_the_port_that_it_was_given<F: Sample>() {
    let world = World::<F>::new();
    let mut slot = connection::<F>(1024);
    assert_eq!(adopt::<F, _>(&mut slot, &world), Adoption::Done);
    let answer = Spec::<F> {
        destination: (F::CLIENT, 1024),
        ..from_container::<F>()
    };
    let sent = send_out(&world, &answer.tcp(ACK).build()).expect("translated");
    let wanted = Spec::<F> {
        source: (F::HOST, HOST_PORT),
        destination: (F::CLIENT, CLIENT_PORT),
        ttl: 63,
        ..from_container::<F>()
    };
    let wanted = wanted.tcp(ACK).build();
    assert_eq!(sent.ports::<F>(), wanted.ports::<F>());
}

fn a_reset_counts_until_the_container_has_said_where_it_is<F: Sample>() {
    for has_said in [false, true] {
        let world = World::<F>::new();
        let mut slot = connection::<F>(CLIENT_PORT);
        assert_eq!(adopt::<F, _>(&mut slot, &world), Adoption::Done);
        if has_said {
            assert!(send(&world, false, ACK).is_ok());
        }
        let reset = Spec {
            sequence: NUMBER.wrapping_add(1),
            ..from_client::<F>().tcp(RST)
        };
        assert!(send_in(&world, &reset.build()).is_ok());
        let is_closed = world.only_flow().state() == State::Close;
        assert_eq!(is_closed, !has_said);
    }
}

fn what_has_begun_anew_meanwhile_stays<F: Sample>() {
    let mut world = World::<F>::new();
    shake_hands(&world);
    let before = world.only_flow();
    let mut slot = connection::<F>(CLIENT_PORT);
    assert_eq!(adopt::<F, _>(&mut slot, &world), Adoption::Known);
    assert_eq!(world.only_flow(), before);
    // Unless it is over.
    let backend = world.backends.get_mut(&1).expect("a backend");
    backend.generation = 2;
    slot.flow.generation = 2;
    assert_eq!(adopt::<F, _>(&mut slot, &world), Adoption::Done);
}

fn only_what_comes_by_the_external_interface_is_taken_over<F: Sample>() {
    let adoption = |change: &dyn Fn(&mut World<F>)| {
        let mut world = World::<F>::new();
        change(&mut world);
        let adoption = adopt::<F, _>(&mut connection::<F>(CLIENT_PORT), &world);
        assert_eq!(adoption == Adoption::Done, world.flow_counts() != (0, 0));
        adoption
    };
    assert_eq!(adoption(&|_| {}), Adoption::Done);
    let inside = Route {
        ifindex: BRIDGE,
        ..World::<F>::new().gateway
    };
    assert_eq!(adoption(&|world| world.gateway = inside), Adoption::Refused);
    assert_eq!(
        adoption(&|world| {
            world.routes.insert(F::CLIENT, Err(Reason::NoRoute));
        }),
        Adoption::Refused
    );
    assert_eq!(adoption(&|world| world.local.clear()), Adoption::Refused);
    assert_eq!(adoption(&|world| world.backends.clear()), Adoption::Refused);
    assert_eq!(adoption(&|world| world.is_full = true), Adoption::Refused);
}
