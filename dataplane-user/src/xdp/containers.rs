//! What containers need for XDP: a frame that is redirected into a veth pair is dropped there unless the other
//! end, the container's, runs NAPI, which it does with GRO on (`veth_xdp_xmit`, `veth_gro_requested`,
//! drivers/net/veth.c). So GRO is turned on in the container's network namespace, that noted, and the container
//! entered into the device map; all of it is undone in the opposite order.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    sync::Arc,
    time::Duration,
};

use dataplane_common::registry::Hook;
use tokio::time::Instant;

use super::choice::Flavor;
use crate::{
    dataplane::Dataplane,
    hooks::{self, Kind, Note},
    netlink::{
        Netlink, namespace,
        netdev::{self, XdpFeatures},
        network::{Network, Peer},
        offload::{gro, set_gro},
    },
    rows,
};

/// How long a container that cannot be made ready is left alone before the next attempt, and one that is ready is
/// believed to stay so where the kernel does not tell: to look for network namespaces takes a walk through /proc.
const RETRY: Duration = Duration::from_secs(10);

/// The note of a GRO that was turned on.
const TURNED_ON: Hook = Hook {
    kind: 1,
    handle: 0,
    priority: 0,
    owns_qdisc: 0,
};

/// Which containers can be reached from XDP, as far as this process knows.
#[derive(Debug, Default)]
pub struct Containers {
    /// When those that could not be made ready were last tried, by the host's end of their veth pair.
    failed: HashMap<u32, Instant>,
    /// When those that are ready were last asked, where the kernel does not tell.
    ready: HashMap<u32, Instant>,
}

/// A container to be worked on: the host's end of its veth pair, and its own.
type Pair = (u32, Peer);

impl Containers {
    /// Makes the containers of all live rows ready for what is attached now, and puts others back.
    ///
    /// # Errors
    ///
    /// The kernel does not tell, or maps cannot be written. A container that cannot be made ready is no
    /// error: it stays with TC.
    pub async fn sync(
        &mut self,
        dataplane: &mut Dataplane,
        netlink: &Netlink,
        network: &Network,
    ) -> anyhow::Result<()> {
        let flavor = in_force(dataplane)?;
        let rows = rows::read(dataplane)?;
        let live: Vec<_> = rows
            .iter()
            .filter(|row| row.is_live())
            .map(|row| (row.number, row.backend.ifindex))
            .collect();
        // After the driver, frames are buffers for the kernel's own transmission, which needs no NAPI.
        let wanted: HashSet<u32> = match flavor {
            Some(Flavor::Native) => live.iter().map(|(_, veth)| *veth).collect(),
            Some(Flavor::Generic) | None => HashSet::new(),
        };
        self.failed.retain(|veth, _| wanted.contains(veth));
        self.ready.retain(|veth, _| wanted.contains(veth));
        let ready = self.prepare(dataplane, netlink, network, &wanted).await?;
        for (number, veth) in live {
            let is_reached = match flavor {
                Some(Flavor::Native) => ready.contains(&veth),
                Some(Flavor::Generic) => true,
                None => false,
            };
            dataplane.set_device(number, is_reached.then_some(veth))?;
        }
        put_back(dataplane, netlink, network, &wanted).await
    }

    /// Turns GRO on where it is wanted and missing. Returns who is ready.
    async fn prepare(
        &mut self,
        dataplane: &mut Dataplane,
        netlink: &Netlink,
        network: &Network,
        wanted: &HashSet<u32>,
    ) -> anyhow::Result<HashSet<u32>> {
        let ready = self.ready(wanted)?;
        let missing: Vec<Pair> = wanted
            .difference(&ready)
            .filter(|veth| {
                let last = self.failed.get(veth);
                last.is_none_or(|last| last.elapsed() > RETRY)
            })
            .filter_map(|veth| Some((*veth, network.links.get(veth)?.peer?)))
            .collect();
        if missing.is_empty() {
            return Ok(ready);
        }
        for (veth, _) in &missing {
            self.failed.insert(*veth, Instant::now());
        }
        let found = find(netlink, missing).await;
        for (veth, was_off) in turn_on(dataplane, found).await? {
            self.ready.insert(veth, Instant::now());
            // Should it not be ready now, then because somebody has turned it off again.
            if was_off {
                self.failed.remove(&veth);
            }
        }
        let ready = self.ready(wanted)?;
        self.failed.retain(|veth, _| !ready.contains(veth));
        Ok(ready)
    }

    /// Who takes redirected frames.
    fn ready(&self, wanted: &HashSet<u32>) -> anyhow::Result<HashSet<u32>> {
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
                lately.map(|(veth, _)| *veth).collect()
            }
        })
    }
}

/// Puts GRO back where it was turned on, but for those containers that are to be kept as they are.
///
/// # Errors
///
/// What is noted cannot be read or written.
pub async fn put_back(
    dataplane: &mut Dataplane,
    netlink: &Netlink,
    network: &Network,
    keep: &HashSet<u32>,
) -> anyhow::Result<()> {
    let notes = hooks::notes(dataplane, Note::Gro)?;
    let over: Vec<_> = notes
        .into_keys()
        .filter(|veth| !keep.contains(veth))
        .collect();
    if over.is_empty() {
        return Ok(());
    }
    // An interface that is gone has taken its peer with it.
    let there = over
        .iter()
        .filter_map(|veth| Some((*veth, network.links.get(veth)?.peer?)))
        .collect();
    let found = find(netlink, there).await;
    let turned_off = namespace::inside(found, |(_, peer)| set_gro(peer.ifindex, false)).await;
    for ((veth, _), result) in turned_off {
        if let Err(error) = result {
            tracing::warn!("GRO stays on in the container behind interface {veth}: {error:#}");
        }
    }
    for veth in over {
        hooks::remove_note(dataplane, veth, Note::Gro)?;
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

/// Finds the network namespaces of containers; leaves those out that are not to be found.
async fn find(netlink: &Netlink, pairs: Vec<Pair>) -> Vec<(Arc<File>, Pair)> {
    let wanted = pairs.iter().map(|(_, peer)| peer.namespace).collect();
    let namespaces: HashMap<_, _> = netlink
        .find_namespaces(&wanted)
        .await
        .into_iter()
        .map(|(number, file)| (number, Arc::new(file)))
        .collect();
    pairs
        .into_iter()
        .filter_map(|(veth, peer)| {
            let namespace = namespaces.get(&peer.namespace);
            if namespace.is_none() {
                tracing::debug!(
                    "the container behind interface {veth} stays with TC: its network namespace is not to \
                     be found by any process or file"
                );
            }
            Some((Arc::clone(namespace?), (veth, peer)))
        })
        .collect()
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
