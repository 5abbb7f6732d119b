//! The clients: threads in their namespace, that go on until the traffic ends.

use std::{
    net::IpAddr,
    thread::{self, Scope},
    time::Duration,
};

use anyhow::Result;
use fastrand::Rng;

use super::{
    connections::{last, make},
    datagrams::Asking,
    lanes::{Holder, Lane, Protocol, lanes},
    shared::Shared,
};
use crate::lab::{CLIENTS, CLIENTS_V6, Lab};

/// The client that rules deny; for it alone there are flows of its own.
pub const DENIED: IpAddr = IpAddr::V4(CLIENTS[3]);

/// Connections that last, to each port of a container that stays.
const LASTING: usize = 3;

/// Threads that make one connection after the other.
const MAKERS: usize = 3;

/// Starts the clients.
pub fn ask<'scope>(
    scope: &'scope Scope<'scope, '_>,
    shared: &'scope Shared,
    lab: &'scope Lab,
    seed: u64,
) {
    let in_client = move |what: String, work: Box<dyn FnOnce() -> Result<()> + Send + 'scope>| {
        scope.spawn(move || {
            if let Err(error) = lab.client.run(work) {
                shared.ledger().fail(format!("{what}: {error:#}"));
            }
        });
    };
    in_client(
        "datagrams".into(),
        Box::new(move || Asking::new(shared, seed)?.go_on()),
    );
    let tcp = || {
        let lanes = lanes().into_iter().enumerate();
        lanes.filter(|(_, lane)| lane.protocol == Protocol::Tcp)
    };
    for (number, lane) in tcp().filter(|(_, lane)| matches!(lane.holder, Holder::Steady(_))) {
        for client in 0..LASTING {
            let what = format!("lasting connection {client} to {}/tcp", lane.host_port);
            in_client(what, Box::new(move || last(shared, number, lane, client)));
        }
    }
    let all: Vec<_> = tcp().collect();
    for maker in 0..MAKERS {
        let all = all.clone();
        let mut random = Rng::with_seed(seed ^ (1 + maker as u64));
        in_client(
            "a connection".into(),
            Box::new(move || {
                while shared.goes_on() {
                    let (number, lane) = all[random.usize(..all.len())];
                    make(shared, number, lane, &mut random);
                    thread::sleep(Duration::from_millis(random.u64(1..200)));
                }
                Ok(())
            }),
        );
    }
}

/// A client's address, of those that no rule denies.
pub fn client(lane: Lane, number: usize) -> IpAddr {
    if lane.is_v6 {
        CLIENTS_V6[number % 3].into()
    } else {
        CLIENTS[number % 3].into()
    }
}
