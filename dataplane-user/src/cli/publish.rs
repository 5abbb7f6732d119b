//! `portway publish`.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, anyhow, bail};
use rustix::thread::CapabilitySet;
use tokio::time::{Instant, sleep};

use super::{UsageError, load::external_interfaces};
use crate::{
    admission,
    desired::conflict,
    instance::{Instance, Lock},
    output::say,
    ports, privileges,
    publication::Publication,
    reconcile::{Desired, Reconciler},
    rows::{self, Row, State, Waiting},
    sockets::Sockets,
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

/// One pass with the publication among what is wanted; one without it if that fails. The lock is not held from one
/// attempt to the next, so that nobody waits for a silent container but this command.
async fn attempt(
    instance: &Instance,
    publication: &Publication,
    is_new: bool,
) -> anyhow::Result<State> {
    let lock = instance.lock().await?;
    let mut reconciler = Reconciler::open(instance.clone())?;
    let rows = rows::read(&reconciler.dataplane)?;
    let was_there = rows
        .iter()
        .any(|row| is_same(&row.publication, publication));
    if is_new {
        check_free(publication, &rows)?;
        let request = admission::requested(&reconciler.dataplane)?;
        let decision = admission::decide(request, &rows);
        admission::enforce(&mut reconciler.dataplane, request, &decision)?;
    } else if !was_there {
        bail!("{publication} has been taken back by another command");
    }
    let others = rows.into_iter().map(|row| row.publication);
    let others = Desired {
        publications: others
            .filter(|there| !is_same(there, publication))
            .collect(),
        external: external_interfaces(&reconciler, &[]).await?,
        is_fresh: false,
    };
    let mut desired = others.clone();
    desired.publications.push(publication.clone());
    match bring_about(&mut reconciler, &lock, publication, desired).await {
        Err(error) if !was_there => match reconciler.reconcile(&lock, others).await {
            Ok(_) => Err(error),
            Err(_) => Err(error.context(format!("{publication} could not be taken back"))),
        },
        result => result,
    }
}

/// One pass, and what has become of the publication.
async fn bring_about(
    reconciler: &mut Reconciler,
    lock: &Lock,
    publication: &Publication,
    desired: Desired,
) -> anyhow::Result<State> {
    reconciler.reconcile(lock, desired).await?;
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

/// Refuses ports that there is no room for, and a port that is taken, by a publication or by a socket of the host,
/// in Docker's words. The same publication once more is an attempt to find its container again, if that is what
/// it waits for.
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
    let sockets = Sockets::of(publication.protocol);
    let mut ports = publication.host_ports.first..=publication.host_ports.last;
    let taken = privileges::raised(CapabilitySet::NET_BIND_SERVICE, || {
        ports.find(|port| sockets.have_taken(SocketAddr::new(publication.host_ip, *port)))
    })?;
    let Some(port) = taken else {
        return Ok(());
    };
    let address = SocketAddr::new(publication.host_ip, port);
    let offset = port - publication.host_ports.first;
    let container = SocketAddr::new(
        publication.container_ip,
        publication.container_port + offset,
    );
    bail!(
        "failed to bind host port for {address}:{container}/{}: address already in use",
        publication.protocol
    )
}

fn is_same(one: &Publication, other: &Publication) -> bool {
    one.identity() == other.identity()
}
