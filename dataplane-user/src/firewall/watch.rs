//! The rules as they change.
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

use super::{Verdict, read::inspect_text};

/// `NFNLGRP_NFTABLES` in include/uapi/linux/netfilter/nfnetlink.h.
const NFTABLES_GROUP: u32 = 7;

/// How often the rules are looked at without being told of a change.
const INTERVAL: Duration = Duration::from_secs(5);

/// A change of rules comes as many messages: Docker makes its rules for a network one by one, and a half of
/// them looks like somebody else's. The rest is waited for this long, but not for ever.
const SETTLING: Duration = Duration::from_millis(100);
const SETTLED_AT_LAST: Duration = Duration::from_millis(500);

/// What there is to say of the rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Whether they are Docker's own and nothing else.
    pub verdict: Verdict,
    /// Counts their changes, of whatever kind.
    pub changes: u64,
}

/// Reports on the rules in this network namespace, now and whenever they change, until nobody
/// listens any more. That they have changed is told at once, what has come of it when it is known.
pub async fn watch(reports: watch::Sender<Option<Report>>) {
    let mut notifications = subscribe();
    if let Err(error) = &notifications {
        tracing::debug!("no notifications from nftables: {error}");
    }
    let mut last_text = None;
    loop {
        let Ok((verdict, text)) = spawn_blocking(inspect_text).await else {
            return;
        };
        let is_changed = last_text.replace(text).is_some_and(|last| last != text);
        reports.send_if_modified(|report| {
            let before = report.clone();
            let changes = before.as_ref().map_or(0, |before| before.changes);
            *report = Some(Report {
                verdict,
                changes: changes + u64::from(is_changed),
            });
            *report != before
        });
        tokio::select! {
            () = next_change(&mut notifications) => {
                reports.send_modify(|report| {
                    if let Some(report) = report {
                        report.changes += 1;
                    }
                });
                settle(&mut notifications).await;
            }
            () = sleep(INTERVAL) => {}
            () = reports.closed() => return,
        }
    }
}

fn subscribe() -> io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
    socket.socket_mut().bind(&SocketAddr::new(0, 0))?;
    socket.socket_mut().add_membership(NFTABLES_GROUP)?;
    Ok(socket)
}

/// Waits for a change of nftables' rules.
async fn next_change(notifications: &mut io::Result<TokioSocket>) {
    match notifications {
        // An error is an overrun: there were changes, too many to tell.
        Ok(socket) => drop(socket.recv_from_full().await),
        Err(_) => pending().await,
    }
}

/// Waits for the last message about a change.
async fn settle(notifications: &mut io::Result<TokioSocket>) {
    if let Ok(socket) = notifications {
        let settled = async { while timeout(SETTLING, socket.recv_from_full()).await.is_ok() {} };
        // Running out of this time is no error.
        let _ = timeout(SETTLED_AT_LAST, settled).await;
    }
}
