//! The program that containers take frames by in place of GRO: attached inside their network namespaces, its link
//! pinned, by the interface that the host has of the container.
//!
//! A container has GRO before it gets the program and after the program has gone, so that it takes frames at every
//! moment.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use aya::programs::{Xdp, XdpMode, links::FdLink};
use aya_obj::programs::XdpAttachType;
use dataplane_common::{layout::programs, registry::Hook};

use super::pairs::{Pair, find, pairs};
use crate::{
    attach::Hooks,
    dataplane::Dataplane,
    hooks::{self, Note},
    instance::Instance,
    netlink::{namespace, network::Network, offload::set_gro},
    pinned,
};

/// The kinds of note: the program is about to come or to go, or has come.
const BEGUN: u32 = 1;
const ATTACHED: u32 = 2;

/// The containers with the program, by the interfaces that the host has of them; some of these may be gone.
pub fn attached(dataplane: &Dataplane) -> anyhow::Result<HashSet<u32>> {
    let notes = hooks::notes(dataplane, Note::Pass)?.into_iter();
    Ok(notes
        .filter(|(_, note)| note.kind == ATTACHED)
        .map(|(veth, _)| veth)
        .collect())
}

/// Gives containers the program, and takes GRO from them. Returns those that go on with GRO instead.
///
/// # Errors
///
/// What is noted cannot be written, or what was begun not be undone.
pub async fn attach(hooks: &mut Hooks<'_>, pairs: Vec<Pair>) -> anyhow::Result<Vec<u32>> {
    if pairs.is_empty() {
        return Ok(Vec::new());
    }
    let mut left: HashSet<u32> = pairs.iter().map(|(veth, _)| *veth).collect();
    let loaded = hooks
        .dataplane
        .ensure_program(hooks.instance, programs::PASS);
    if let Err(error) = loaded {
        tracing::warn!("containers go on with GRO: {error:#}");
        return Ok(left.into_iter().collect());
    }
    let found = find(hooks.netlink, pairs).await;
    for (_, (veth, _)) in &found {
        // The note first: should this be killed, the program can be found.
        note(hooks, *veth, BEGUN)?;
    }
    let program = hooks.instance.program(programs::PASS);
    let instance = hooks.instance.clone();
    let attached = namespace::inside(found, move |(veth, peer)| {
        replace_gro(&program, peer.ifindex, &pin(&instance, *veth))
    });
    for ((veth, _), result) in attached.await {
        match result {
            Ok(()) => {
                note(hooks, veth, ATTACHED)?;
                left.remove(&veth);
            }
            Err(error) => {
                tracing::debug!(
                    "the container behind interface {veth} goes on with GRO: {error:#}"
                );
                forget(hooks, veth)?;
            }
        }
    }
    Ok(left.into_iter().collect())
}

fn note(hooks: &mut Hooks<'_>, veth: u32, kind: u32) -> anyhow::Result<()> {
    hooks::write_note(hooks.dataplane, veth, Note::Pass, Hook::of_kind(kind))
}

/// Takes the program from all containers but these, also where it was about to come or go. They have GRO then.
///
/// # Errors
///
/// The program does not go, or what is noted cannot be read or written.
pub async fn put_back(
    hooks: &mut Hooks<'_>,
    network: &Network,
    keep: &HashSet<u32>,
) -> anyhow::Result<()> {
    let mut over: Vec<u32> = hooks::notes(hooks.dataplane, Note::Pass)?
        .into_keys()
        .collect();
    over.retain(|veth| !keep.contains(veth));
    if over.is_empty() {
        return Ok(());
    }
    for veth in &over {
        note(hooks, *veth, BEGUN)?;
    }
    let found = find(hooks.netlink, pairs(network, over.iter().copied())).await;
    let turned_on = namespace::inside(found, |(_, peer)| set_gro(peer.ifindex, true)).await;
    for ((veth, _), result) in turned_on {
        if let Err(error) = result {
            tracing::warn!("the container behind interface {veth} is without GRO: {error:#}");
        }
    }
    over.into_iter().try_for_each(|veth| forget(hooks, veth))
}

/// Attaches the program to an interface of the calling thread's network namespace, in place of GRO.
fn replace_gro(program: &Path, ifindex: u32, pin: &Path) -> anyhow::Result<()> {
    // As a command may have left it that was killed before it could say so.
    set_gro(ifindex, true)?;
    pinned::detach(pin)?;
    let mut program = Xdp::from_pin(program, XdpAttachType::Interface)?;
    let id = program.attach_to_if_index(ifindex, XdpMode::Driver)?;
    let link: FdLink = program.take_link(id)?.try_into()?;
    link.pin(pin)?;
    set_gro(ifindex, false)
}

/// Takes the program off, if it is there, and knows nothing of it any more.
///
/// # Errors
///
/// It does not go, or what is noted cannot be removed.
pub fn forget(hooks: &mut Hooks<'_>, veth: u32) -> anyhow::Result<()> {
    pinned::detach(&pin(hooks.instance, veth))
        .with_context(|| format!("cannot detach {}", programs::PASS))?;
    hooks::remove_note(hooks.dataplane, veth, Note::Pass)
}

/// Where the link of a container is pinned.
fn pin(instance: &Instance, veth: u32) -> PathBuf {
    instance.links().join(format!("{}-{veth}", programs::PASS))
}
