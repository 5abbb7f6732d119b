//! Packets that are not for a published port, or from nobody who could be a client.

use super::*;
use crate::{
    foreign::observe_outgoing,
    headers::Be16,
    join::FOREIGN_LIFETIME,
    published::{BoundPort, PortSlot, port_slot},
    tables::Route,
};

both_families!(
    only_what_is_published_on_an_address_of_the_host_is_touched,
    a_publication_on_one_address_holds_there_only,
    frames_that_are_not_the_hosts_are_left_alone,
    sources_that_no_client_has_are_left_alone,
    the_answer_to_somebody_elses_question_is_left_to_them,
    a_flow_that_is_ours_stays_ours,
    no_flow_begins_while_admission_is_off,
    a_full_table_leaves_new_flows_to_the_kernel,
);

fn only_what_is_published_on_an_address_of_the_host_is_touched<F: Sample>() {
    let world = World::<F>::new();
    let to = |destination| Spec {
        destination,
        ..from_client::<F>()
    };
    let packet = to((F::HOST, HOST_PORT + 1)).build();
    expect_left_alone(&world, &packet, Reason::NotPublished);
    for address in F::NOT_OURS {
        let packet = to((*address, HOST_PORT)).build();
        expect_left_alone(&world, &packet, Reason::NotLocal);
    }
    assert!(send_in(&world, &to((F::SECOND_HOST, HOST_PORT)).build()).is_ok());
}

fn a_publication_on_one_address_holds_there_only<F: Sample>() {
    let mut world = World::<F>::new();
    let slot = port_slot(IpProtocol::UDP, Be16::new(HOST_PORT));
    world.ports.insert(slot, PortSlot::EMPTY.with_bound(true));
    let key = BoundPort {
        address: F::SECOND_HOST,
        port: Be16::new(HOST_PORT),
        protocol: IpProtocol::UDP,
        padding: 0,
    };
    let leads_to = PortSlot::new(1, Be16::new(CONTAINER_PORT));
    world.bound_ports.insert(key, leads_to);
    expect_left_alone(&world, &from_client::<F>().build(), Reason::NotPublished);
    let spec = Spec {
        destination: (F::SECOND_HOST, HOST_PORT),
        ..from_client::<F>()
    };
    assert!(send_in(&world, &spec.build()).is_ok());
    // Published there, but no longer an address of the host.
    world.local.remove(&F::SECOND_HOST);
    world.opening.borrow_mut().clear();
    expect_left_alone(&world, &spec.build(), Reason::NotLocal);
}

fn frames_that_are_not_the_hosts_are_left_alone<F: Sample>() {
    let world = World::<F>::new();
    let mut packet = from_client::<F>().build();
    packet.is_to_host = false;
    expect_left_alone(&world, &packet, Reason::NotToHost);
}

fn sources_that_no_client_has_are_left_alone<F: Sample>() {
    let mut world = World::<F>::new();
    let from = |source| Spec {
        source: (source, CLIENT_PORT),
        ..from_client::<F>()
    };
    for source in F::MARTIANS {
        expect_left_alone(&world, &from(*source).build(), Reason::Martian);
    }
    world.routes.insert(F::UNROUTABLE, Err(Reason::NoRoute));
    world.routes.insert(
        F::NEIGHBOUR,
        Ok(Route {
            ifindex: BRIDGE,
            next_hop: F::NEIGHBOUR,
            mtu: 1500,
        }),
    );
    for (source, reason) in [
        (F::UNROUTABLE, Reason::NoRoute),
        (F::NEIGHBOUR, Reason::ReversePath),
    ] {
        expect_left_alone(&world, &from(source).build(), reason);
    }
}

/// What the host or one of its containers asks from the published port.
fn question<F: Sample>() -> Spec<F> {
    Spec {
        source: (F::HOST, HOST_PORT),
        destination: (F::CLIENT, CLIENT_PORT),
        ..from_client::<F>()
    }
}

fn the_answer_to_somebody_elses_question_is_left_to_them<F: Sample>() {
    let world = World::<F>::new();
    observe_outgoing::<F, _, _>(&question::<F>().build(), &world);
    let answer = from_client::<F>().build();
    expect_left_alone(&world, &answer, Reason::Foreign);
    // Another client, and a port that is not published, are no concern of it.
    let other = Spec {
        source: (F::CLIENT, CLIENT_PORT + 1),
        ..from_client::<F>()
    };
    assert!(send_in(&world, &other.build()).is_ok());
    let elsewhere = Spec {
        source: (F::HOST, HOST_PORT + 1),
        ..question::<F>()
    };
    observe_outgoing::<F, _, _>(&elsewhere.build(), &world);
    assert_eq!(world.foreign.borrow().len(), 1);
    // It is theirs for as long as conntrack would keep it.
    for _ in 0..2 {
        world.wait(FOREIGN_LIFETIME);
        assert_eq!(send_in(&world, &answer), Err(Reason::Foreign));
    }
    world.wait(FOREIGN_LIFETIME + 1);
    assert!(send_in(&world, &answer).is_ok());
}

fn a_flow_that_is_ours_stays_ours<F: Sample>() {
    let world = World::<F>::new();
    assert!(send_in(&world, &from_client::<F>().build()).is_ok());
    observe_outgoing::<F, _, _>(&question::<F>().build(), &world);
    assert!(send_in(&world, &from_client::<F>().build()).is_ok());
}

fn no_flow_begins_while_admission_is_off<F: Sample>() {
    let mut world = World::<F>::new();
    // What no version of the controller writes is no admission either.
    for admission in [0, 3, u32::MAX] {
        world.settings.admission = admission;
        expect_left_alone(&world, &from_client::<F>().build(), Reason::Admission);
    }
}

fn a_full_table_leaves_new_flows_to_the_kernel<F: Sample>() {
    let mut world = World::<F>::new();
    world.is_full = true;
    expect_left_alone(&world, &from_client::<F>().build(), Reason::TableFull);
}
