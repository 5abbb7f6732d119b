//! The network namespaces at the other ends of veth pairs: finding them by the kernel's number for them, and
//! working inside.

use std::{
    collections::{HashMap, HashSet},
    fs,
    fs::File,
    os::{
        fd::{AsFd as _, AsRawFd as _},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use anyhow::Context as _;
use futures_util::StreamExt as _;
use netlink_packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    RouteNetlinkMessage,
    nsid::{NsidAttribute, NsidMessage},
};
use nix::sched::{CloneFlags, setns};
use rustix::thread::CapabilitySet;
use tokio::sync::oneshot;

use super::Netlink;
use crate::privileges;

/// Where network namespaces may be bound to files: ip-netns(8), and Docker.
const BOUND: [&str; 2] = ["/run/netns", "/run/docker/netns"];

impl Netlink {
    /// Finds network namespaces by the numbers that the kernel has given them for this one
    /// (`IFLA_LINK_NETNSID`): all that some process is in, or that are bound to a file where these usually
    /// are, are asked for theirs. What is returned keeps them alive.
    pub async fn find_namespaces(&self, wanted: &HashSet<i32>) -> HashMap<i32, File> {
        let mut found = HashMap::new();
        let mut seen = HashSet::new();
        for path in candidates() {
            if found.len() == wanted.len() {
                break;
            }
            if let Some(file) = open(&path, &mut seen)
                && let Some(number) = self.namespace_number(&file).await
                && wanted.contains(&number)
            {
                found.insert(number, file);
            }
        }
        found
    }

    /// The kernel's number for a network namespace, if it has one.
    async fn namespace_number(&self, namespace: &File) -> Option<i32> {
        let mut message = NsidMessage::default();
        message
            .attributes
            .push(NsidAttribute::Fd(namespace.as_raw_fd() as u32));
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetNsId(message));
        request.header.flags = NLM_F_REQUEST;
        let mut answers = self.handle.clone().request(request).ok()?;
        let answer = answers.next().await?;
        let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNsId(answer)) = answer.payload
        else {
            return None;
        };
        answer
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                NsidAttribute::Id(number) if *number >= 0 => Some(*number),
                _ => None,
            })
    }
}

/// Files that stand for network namespaces, many of them for the same.
fn candidates() -> impl Iterator<Item = PathBuf> {
    let entries = |folder: &str| fs::read_dir(folder).into_iter().flatten().flatten();
    let processes = entries("/proc")
        .filter(|entry| {
            let name = entry.file_name();
            name.as_encoded_bytes().iter().all(u8::is_ascii_digit)
        })
        .map(|entry| entry.path().join("ns/net"));
    let bound = BOUND.into_iter().flat_map(entries);
    processes.chain(bound.map(|entry| entry.path()))
}

/// Opens a file that stands for a network namespace, unless that was among those `seen` before.
fn open(path: &Path, seen: &mut HashSet<(u64, u64)>) -> Option<File> {
    let opened = privileges::raised(CapabilitySet::SYS_PTRACE, || {
        let there = fs::metadata(path).ok()?;
        let is_new = seen.insert((there.dev(), there.ino()));
        is_new.then(|| File::open(path).ok())?
    });
    opened.ok()?
}

/// Does `work` for each of `items` inside its network namespace, on a thread of its own: one that has been
/// in another namespace is good for nothing else.
pub async fn inside<T: Send + 'static, R: Send + 'static>(
    items: Vec<(Arc<File>, T)>,
    work: impl Fn(&T) -> anyhow::Result<R> + Send + 'static,
) -> Vec<(T, anyhow::Result<R>)> {
    let (sender, receiver) = oneshot::channel();
    thread::spawn(move || {
        let done: Vec<_> = items
            .into_iter()
            .map(|(namespace, item)| {
                let result = enter(&namespace).and_then(|()| work(&item));
                (item, result)
            })
            .collect();
        // Nobody waits for it where the command has been interrupted.
        let _ = sender.send(done);
    });
    receiver.await.unwrap_or_default()
}

fn enter(namespace: &File) -> anyhow::Result<()> {
    privileges::raised(CapabilitySet::SYS_ADMIN, || {
        setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET)
    })?
    .context("cannot enter the network namespace")
}
