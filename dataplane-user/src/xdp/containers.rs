//! What containers need for XDP: a frame that is redirected into a veth pair is dropped there unless the other
//! end, the container's, runs NAPI, which it does with GRO on (`veth_xdp_xmit`, `veth_gro_requested`,
//! drivers/net/veth.c). So GRO is turned on in the container's network namespace, that noted, and the container
//! entered into the device map; all of it is undone in the opposite order. Where the user wants it, a program then
//! takes GRO's place ([`pass`](super::pass)).

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    sync::Arc,
    time::Duration,
};

use dataplane_common::registry::Hook;
use tokio::time::Instant;

use super::{
    choice::{Flavor, Intake},
    pairs::{Pair, find, pairs},
    pass,
};
use crate::{
    attach::Hooks,
    dataplane::Dataplane,
    hooks::{self, Kind, Note},
    netlink::{
        namespace,
        netdev::{self, XdpFeatures},
        network::Network,
        offload::{gro, set_gro},
    },
    rows::{self, protocol_number},
};

/// How long a container that cannot be made ready is left alone before the next attempt, and one that is ready is
/// believed to stay so where the kernel does not tell: to look for network namespaces takes a walk through /proc.
const RETRY: Duration = Duration::from_secs(10);

/// The note of a GRO that was turned on.
const TURNED_ON: Hook = Hook::of_kind(1);

/// Which containers can be reached from XDP, as far as this process knows.
#[derive(Debug, Default)]
pub struct Containers {
    /// When those that could not be made ready were last tried, by the host's end of their veth pair.
    failed: HashMap<u32, Instant>,
    /// When those were last tried that could not be given the program that takes GRO's place.
    kept_gro: HashMap<u32, Instant>,
    /// When those that are ready were last asked, where the kernel does not tell.
    ready: HashMap<u32, Instant>,
}

impl Containers {
    /// Makes the containers of all live rows ready for what is attached now, and puts others back.
    ///
    /// # Errors
    ///
    /// The kernel does not tell, or maps cannot be written. A container that cannot be made ready is no
    /// error: it stays with TC.
    pub async fn sync(
        &mut self,
        hooks: &mut Hooks<'_>,
        network: &Network,
        intake: Intake,
    ) -> anyhow::Result<()> {
        let flavor = in_force(hooks.dataplane)?;
        let settings = hooks.dataplane.read_settings()?;
        let rows = rows::read(hooks.dataplane)?;
        let live: Vec<_> = rows.iter().filter(|row| row.is_live()).collect();
        // After the driver, frames are buffers for the kernel's own transmission, which needs no NAPI.
        let wanted: HashSet<u32> = match flavor {
            Some(Flavor::Native) => live.iter().map(|row| row.backend.ifindex).collect(),
            Some(Flavor::Generic) | None => HashSet::new(),
        };
        self.failed.retain(|veth, _| wanted.contains(veth));
        self.ready.retain(|veth, _| wanted.contains(veth));
        let ready = self.prepare(hooks, network, &wanted).await?;
        for row in &live {
            let veth = row.backend.ifindex;
            let is_reached = match flavor {
                Some(Flavor::Native) => ready.contains(&veth),
                Some(Flavor::Generic) => true,
                None => false,
            };
            let device = is_reached.then_some(veth);
            hooks.dataplane.set_device(row.number, device)?;
        }
        let passing = match intake {
            Intake::Gro => HashSet::new(),
            // What XDP leaves to TC anyway is no reason to do without GRO.
            Intake::Pass => live
                .iter()
                .filter(|row| settings.is_for_xdp(protocol_number(row.publication.protocol)))
                .map(|row| row.backend.ifindex)
                .filter(|veth| ready.contains(veth))
                .collect(),
        };
        self.pass(hooks, network, &passing).await?;
        put_back(hooks, network, &wanted, &passing).await
    }

    /// Gives those containers the program that takes GRO's place that are to have it and do not.
    async fn pass(
        &mut self,
        hooks: &mut Hooks<'_>,
        network: &Network,
        passing: &HashSet<u32>,
    ) -> anyhow::Result<()> {
        self.kept_gro.retain(|veth, _| passing.contains(veth));
        if passing.is_empty() {
            return Ok(());
        }
        let attached = pass::attached(hooks.dataplane)?;
        let missing = passing.difference(&attached).copied();
        let missing = missing.filter(|veth| is_due(&self.kept_gro, *veth));
        for veth in pass::attach(hooks, pairs(network, missing)).await? {
            self.kept_gro.insert(veth, Instant::now());
        }
        Ok(())
    }

    /// Turns GRO on where it is wanted and missing. Returns who is ready.
    async fn prepare(
        &mut self,
        hooks: &mut Hooks<'_>,
        network: &Network,
        wanted: &HashSet<u32>,
    ) -> anyhow::Result<HashSet<u32>> {
        let ready = self.ready(hooks.dataplane, wanted)?;
        let missing = wanted.difference(&ready).copied();
        let missing = pairs(network, missing.filter(|veth| is_due(&self.failed, *veth)));
        if missing.is_empty() {
            return Ok(ready);
        }
        for (veth, _) in &missing {
            self.failed.insert(*veth, Instant::now());
        }
        // Those that had the program have it no more: somebody has taken it off.
        let attached = pass::attached(hooks.dataplane)?;
        for (veth, _) in missing.iter().filter(|(veth, _)| attached.contains(veth)) {
            pass::forget(hooks, *veth)?;
        }
        let found = find(hooks.netlink, missing).await;
        for (veth, was_off) in turn_on(hooks.dataplane, found).await? {
            self.ready.insert(veth, Instant::now());
            // Should it not be ready now, then because somebody has turned it off again.
            if was_off {
                self.failed.remove(&veth);
            }
        }
        let ready = self.ready(hooks.dataplane, wanted)?;
        self.failed.retain(|veth, _| !ready.contains(veth));
        Ok(ready)
    }

    /// Who takes redirected frames.
    fn ready(&self, dataplane: &Dataplane, wanted: &HashSet<u32>) -> anyhow::Result<HashSet<u32>> {
        if wanted.is_empty() {
            return Ok(HashSet::new());
        }
        Ok(match netdev::xdp_features()? {
            Some(features) => wanted
                .iter()
                .copied()
                .filter(|veth| {
                    let features = features.get(veth);
                    features.is_some_and(|features| features.has(XdpFeatures::TARGET))
                })
                .collect(),
            None => {
                let asked = self.ready.iter();
                let lately = asked.filter(|(_, asked)| asked.elapsed() <= RETRY);
                let mut ready: HashSet<u32> = lately.map(|(veth, _)| *veth).collect();
                // With the program they have no GRO to be asked for.
                ready.extend(pass::attached(dataplane)?.intersection(wanted));
                ready
            }
        })
    }
}

/// Whether the last attempt with a container is long enough ago for another.
fn is_due(attempts: &HashMap<u32, Instant>, veth: u32) -> bool {
    let last = attempts.get(&veth);
    last.is_none_or(|last| last.elapsed() > RETRY)
}

/// Puts containers back to what they were before portway, but for those that are to `keep` their GRO, and those that
/// are to go on `passing` without it.
///
/// # Errors
///
/// A program does not go, or what is noted cannot be read or written.
pub async fn put_back(
    hooks: &mut Hooks<'_>,
    network: &Network,
    keep: &HashSet<u32>,
    passing: &HashSet<u32>,
) -> anyhow::Result<()> {
    pass::put_back(hooks, network, passing).await?;
    let notes = hooks::notes(hooks.dataplane, Note::Gro)?;
    let over: Vec<_> = notes
        .into_keys()
        .filter(|veth| !keep.contains(veth))
        .collect();
    if over.is_empty() {
        return Ok(());
    }
    let found = find(hooks.netlink, pairs(network, over.iter().copied())).await;
    let turned_off = namespace::inside(found, |(_, peer)| set_gro(peer.ifindex, false)).await;
    for ((veth, _), result) in turned_off {
        if let Err(error) = result {
            tracing::warn!("GRO stays on in the container behind interface {veth}: {error:#}");
        }
    }
    for veth in over {
        hooks::remove_note(hooks.dataplane, veth, Note::Gro)?;
    }
    Ok(())
}

/// How XDP is attached to external interfaces; natively, if there are both ways.
fn in_force(dataplane: &Dataplane) -> anyhow::Result<Option<Flavor>> {
    let kinds = hooks::attached(dataplane)?.into_iter();
    Ok(kinds
        .filter_map(|attached| match attached.kind {
            Kind::Xdp => Some(Flavor::Native),
            Kind::XdpGeneric => Some(Flavor::Generic),
            Kind::Tcx | Kind::Clsact => None,
        })
        .reduce(|one, other| if one == Flavor::Native { one } else { other }))
}

/// Turns GRO on where it is off. Returns where it is on now, and whether it was off.
async fn turn_on(
    dataplane: &mut Dataplane,
    pairs: Vec<(Arc<File>, Pair)>,
) -> anyhow::Result<Vec<(u32, bool)>> {
    let namespaces: HashMap<Pair, Arc<File>> = pairs
        .iter()
        .map(|(namespace, pair)| (*pair, Arc::clone(namespace)))
        .collect();
    let mut on = Vec::new();
    let mut off = Vec::new();
    let asked = namespace::inside(pairs, |(_, peer)| gro(peer.ifindex));
    for (pair, is_on) in asked.await {
        match is_on {
            Ok(true) => on.push((pair.0, false)),
            Ok(false) => {
                // The note first: it is better to turn it off once more than to leave it on.
                hooks::write_note(dataplane, pair.0, Note::Gro, TURNED_ON)?;
                off.push((Arc::clone(&namespaces[&pair]), pair));
            }
            Err(error) => stays(pair, &error),
        }
    }
    let turned_on = namespace::inside(off, |(_, peer)| set_gro(peer.ifindex, true));
    for (pair, result) in turned_on.await {
        match result {
            Ok(()) => on.push((pair.0, true)),
            Err(error) => {
                stays(pair, &error);
                hooks::remove_note(dataplane, pair.0, Note::Gro)?;
            }
        }
    }
    Ok(on)
}

fn stays((veth, _): Pair, error: &anyhow::Error) {
    tracing::debug!("the container behind interface {veth} stays with TC: {error:#}");
}
