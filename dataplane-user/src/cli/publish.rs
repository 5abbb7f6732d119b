//! `portway publish`.

use std::{net::SocketAddr, os::fd::AsRawFd as _, time::Duration};

use anyhow::{Context as _, anyhow, bail};
use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt,
    },
};
use rustix::thread::CapabilitySet;
use tokio::time::{Instant, sleep};

use super::{UsageError, load::external_interfaces};
use crate::{
    admission,
    desired::conflict,
    instance::Instance,
    output::say,
    ports, privileges,
    publication::{Protocol, Publication},
    reconcile::{Desired, Reconciler},
    rows::{self, Row, State, Waiting},
    spec::Spec,
};

/// How long an address may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often it is looked for meanwhile.
const INTERVAL: Duration = Duration::from_millis(10);

/// Publishes a port or a range, and returns when it is active or its container does not answer.
pub async fn publish(instance: Instance, spec: &str) -> anyhow::Result<()> {
    let publication = parse(spec)?;
    let deadline = Instant::now() + PATIENCE;
    let mut is_new = true;
    let state = loop {
        let state = attempt(&instance, &publication, is_new).await?;
        is_new = false;
        if state != State::Pending(Waiting::Silent) || Instant::now() > deadline {
            break state;
        }
        sleep(INTERVAL).await;
    };
    match state {
        State::Active => say(format_args!("{publication}: active")),
        State::Pending(_) => say(format_args!(
            "{publication}: pending: {}; `portway run` activates it when it does, or publish it again",
            state.reason()
        )),
        State::Declined(_) => say(format_args!("{publication}: declined: {}", state.reason())),
    }
    Ok(())
}

/// One pass with the publication among what is wanted. The lock is not held from one to the next, so that
/// nobody waits for a silent container but this command.
async fn attempt(
    instance: &Instance,
    publication: &Publication,
    is_new: bool,
) -> anyhow::Result<State> {
    let lock = instance.lock().await?;
    let mut reconciler = Reconciler::open(instance.clone())?;
    let rows = rows::read(&reconciler.dataplane)?;
    if is_new {
        check_free(publication, &rows)?;
        let request = admission::requested(&reconciler.dataplane)?;
        let decision = admission::decide(request, &rows);
        admission::enforce(&mut reconciler.dataplane, request, &decision)?;
    } else if !rows
        .iter()
        .any(|row| is_same(&row.publication, publication))
    {
        bail!("{publication} has been taken back by another command");
    }
    let others = rows.into_iter().map(|row| row.publication);
    let desired = Desired {
        publications: others
            .filter(|there| !is_same(there, publication))
            .chain([publication.clone()])
            .collect(),
        external: external_interfaces(&reconciler, &[]).await?,
        is_fresh: false,
    };
    reconciler.reconcile(&lock, desired).await?;
    rows::read(&reconciler.dataplane)?
        .into_iter()
        .find(|row| is_same(&row.publication, publication))
        .map(|row| row.state)
        .context("the publication is not in the table")
}

/// Reads a SPEC; a bad one is wrong usage.
pub fn parse(spec: &str) -> anyhow::Result<Publication> {
    Spec::parse(spec).map_err(|error| UsageError(anyhow!(error)).into())
}

/// Refuses ports that there is no room for, and a port that is taken, by a publication or by a socket of the host, in Docker's words. The same
/// publication once more is an attempt to find its container again, if that is what it waits for.
pub fn check_free(publication: &Publication, rows: &[Row]) -> anyhow::Result<()> {
    let there: Vec<_> = rows
        .iter()
        .filter(|row| {
            !(is_same(&row.publication, publication) && matches!(row.state, State::Pending(_)))
        })
        .map(|row| row.publication.clone())
        .collect();
    if let Some(conflict) = conflict(&there, publication) {
        bail!("{conflict}");
    }
    ports::check_room(publication, rows)?;
    for port in publication.host_ports.first..=publication.host_ports.last {
        let address = SocketAddr::new(publication.host_ip, port);
        let bound = privileges::raised(CapabilitySet::NET_BIND_SERVICE, || {
            try_bind(address, publication.protocol)
        })?;
        // Any other error, such as an address that is not there yet, is no sign of a taken port.
        if bound == Err(Errno::EADDRINUSE) {
            let offset = port - publication.host_ports.first;
            let container = SocketAddr::new(
                publication.container_ip,
                publication.container_port + offset,
            );
            bail!(
                "failed to bind host port for {address}:{container}/{}: address already in use",
                publication.protocol
            );
        }
    }
    Ok(())
}

/// Binds a socket to `address` for a moment. One of IPv6 is of IPv6 alone: an IPv4 socket on the same port
/// is no obstacle, as it is none to docker-proxy.
fn try_bind(address: SocketAddr, protocol: Protocol) -> nix::Result<()> {
    let kind = match protocol {
        Protocol::Tcp => SockType::Stream,
        Protocol::Udp => SockType::Datagram,
        Protocol::Sctp => return Ok(()),
    };
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?;
    if family == AddressFamily::Inet6 {
        setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    }
    if kind == SockType::Stream {
        // Connections that have been closed lately do not count.
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    }
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))
}

fn is_same(one: &Publication, other: &Publication) -> bool {
    one.identity() == other.identity()
}
