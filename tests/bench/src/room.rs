//! Room in conntrack's table. How much there is is one setting for all network namespaces, so it is put
//! back when nobody needs it any more.

use std::{
    fs,
    os::fd::AsRawFd as _,
    sync::{Mutex, PoisonError},
};

use anyhow::{Context, Result, ensure};
use bytemuck::{Pod, Zeroable, bytes_of};
use nix::{
    libc,
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto,
        socket,
    },
};
use portway_tests::netns::Netns;

/// The settings, and what they have to be at least: twice the flows of the largest scenario, so that nobody
/// is dropped and nobody searches long chains.
const SETTINGS: [(&str, u64); 2] = [
    ("/proc/sys/net/netfilter/nf_conntrack_buckets", 1 << 21),
    ("/proc/sys/net/netfilter/nf_conntrack_max", 1 << 21),
];

/// What the settings were.
static BEFORE: Mutex<Vec<(&str, String)>> = Mutex::new(Vec::new());

/// Enough room, while this is there.
#[derive(Debug)]
pub struct Room(());

impl Room {
    /// Makes it, once in a process.
    ///
    /// # Errors
    /// The settings are not this network namespace's to change.
    pub fn make() -> Result<Self> {
        let mut before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(before.is_empty(), "room in conntrack has been made already");
        for (path, wanted) in SETTINGS {
            let text = fs::read_to_string(path).with_context(|| format!("no {path}"))?;
            let there: u64 = text.trim().parse()?;
            if there < wanted {
                before.push((path, text));
                fs::write(path, wanted.to_string())
                    .with_context(|| format!("cannot set {path}"))?;
            }
        }
        Ok(Self(()))
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        put_back();
    }
}

/// Puts the settings back, for an end without unwinding.
pub fn put_back() {
    let mut before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner);
    for (path, text) in before.drain(..) {
        // Nothing more can be done.
        let _ = fs::write(path, text);
    }
}

/// Forgets all conversations of a network namespace.
///
/// # Errors
/// The kernel refuses.
pub fn empty(netns: &Netns) -> Result<()> {
    netns
        .run(|| {
            let socket = socket(
                AddressFamily::Netlink,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                SockProtocol::NetlinkNetFilter,
            )?;
            sendto(
                socket.as_raw_fd(),
                bytes_of(&DELETE_ALL),
                &NetlinkAddr::new(0, 0),
                MsgFlags::empty(),
            )?;
            let mut answer = [0; 64];
            let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
            // `struct nlmsgerr`: a header, then a negated error number or zero.
            let error = answer.get(16..20).filter(|_| length >= 20);
            ensure!(error == Some(&[0; 4]), "refused: {:?}", &answer[..length]);
            Ok(())
        })
        .context("cannot empty conntrack's table")
}

/// `struct nlmsghdr` and `struct nfgenmsg`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Request {
    length: u32,
    kind: u16,
    flags: u16,
    sequence: u32,
    port: u32,
    family: u8,
    version: u8,
    resource: u16,
}

/// `IPCTNL_MSG_CT_DELETE` of `NFNL_SUBSYS_CTNETLINK` without an attribute: of all. It wants an answer.
const DELETE_ALL: Request = Request {
    length: size_of::<Request>() as u32,
    kind: 0x0102,
    flags: (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16,
    sequence: 0,
    port: 0,
    family: 0,
    version: 0,
    resource: 0,
};
