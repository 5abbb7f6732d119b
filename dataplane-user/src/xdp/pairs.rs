//! The veth pairs of containers, and the network namespaces that their other ends are in.

use std::{collections::HashMap, fs::File, sync::Arc};

use crate::netlink::{
    Netlink,
    network::{Network, Peer},
};

/// The host's end of a container's veth pair, and its own.
pub type Pair = (u32, Peer);

/// Those of the veths that are there: an interface that is gone has taken its peer with it.
pub fn pairs(network: &Network, veths: impl IntoIterator<Item = u32>) -> Vec<Pair> {
    veths
        .into_iter()
        .filter_map(|veth| Some((veth, network.links.get(&veth)?.peer?)))
        .collect()
}

/// Finds the network namespaces of containers; leaves those out that are not to be found.
pub async fn find(netlink: &Netlink, pairs: Vec<Pair>) -> Vec<(Arc<File>, Pair)> {
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
