//! The verdict as it changes.
//!
//! nftables tells of every change of its rules, those of iptables-nft among them; the legacy iptables tell
//! of none, and are looked at from time to time.

use std::{future::pending, io, time::Duration};

use netlink_sys::{
    AsyncSocket as _, AsyncSocketExt as _, SocketAddr, TokioSocket, protocols::NETLINK_NETFILTER,
};
use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{sleep, timeout},
};

use super::{Verdict, inspect_all};

/// `NFNLGRP_NFTABLES` in include/uapi/linux/netfilter/nfnetlink.h.
const NFTABLES_GROUP: u32 = 7;

/// How often the rules are looked at without being told of a change.
const INTERVAL: Duration = Duration::from_secs(5);

/// A change of rules comes as many messages: Docker makes its rules for a network one by one, and a half of
/// them looks like somebody else's. The rest is waited for this long, but not for ever.
const SETTLING: Duration = Duration::from_millis(100);
const SETTLED_AT_LAST: Duration = Duration::from_millis(500);

/// Sends the verdict on the rules in this network namespace, now and whenever it changes, until
/// nobody listens any more.
pub async fn watch(verdicts: watch::Sender<Option<Verdict>>) {
    let mut notifications = subscribe();
    if let Err(error) = &notifications {
        tracing::debug!("no notifications from nftables: {error}");
    }
    loop {
        let Ok(verdict) = spawn_blocking(inspect_all).await else {
            return;
        };
        verdicts.send_if_modified(|last| {
            let changed = last.as_ref() != Some(&verdict);
            *last = Some(verdict);
            changed
        });
        tokio::select! {
            () = next_change(&mut notifications) => {}
            () = sleep(INTERVAL) => {}
            () = verdicts.closed() => return,
        }
    }
}

fn subscribe() -> io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
    socket.socket_mut().bind(&SocketAddr::new(0, 0))?;
    socket.socket_mut().add_membership(NFTABLES_GROUP)?;
    Ok(socket)
}

/// Waits for a change of nftables' rules and for the last message about it.
async fn next_change(notifications: &mut io::Result<TokioSocket>) {
    let Ok(socket) = notifications else {
        return pending().await;
    };
    // An error is an overrun: there were changes, too many to tell.
    let _ = socket.recv_from_full().await;
    let settled = async { while timeout(SETTLING, socket.recv_from_full()).await.is_ok() {} };
    // Running out of this time is no error.
    let _ = timeout(SETTLED_AT_LAST, settled).await;
}
