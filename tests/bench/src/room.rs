//! Room in conntrack's table. How much there is is one setting for all network namespaces, so it is put
//! back when nobody needs it any more.

use std::{
    fs,
    os::{
        fd::AsRawFd as _,
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixListener},
    },
    process::Command,
    sync::{Mutex, PoisonError},
    time::Duration,
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
use portway_tests::{netns::Netns, wait};

/// How many buckets conntrack's table has, and how many conversations it holds at most. By default the
/// kernel makes them equal.
pub const SETTINGS: [&str; 2] = [
    "/proc/sys/net/netfilter/nf_conntrack_buckets",
    "/proc/sys/net/netfilter/nf_conntrack_max",
];

/// What both have to be at least: twice the flows of the largest scenario, so that none is dropped.
const ENOUGH: u64 = 1 << 21;

/// What the settings were.
static BEFORE: Mutex<Vec<(&str, String)>> = Mutex::new(Vec::new());

/// How long another bench may take for the scenario that it is at.
const TURN: Duration = Duration::from_secs(300);

/// Enough room, while this is there.
#[derive(Debug)]
pub struct Room {
    _alone: UnixListener,
}

impl Room {
    /// Makes it, once no other bench on this machine needs it: it would put back what that one has set, and
    /// disturb its samples.
    ///
    /// # Errors
    /// The settings are not this network namespace's to change.
    pub fn make() -> Result<Self> {
        // A name that is free again as soon as its owner has ended, however it did.
        let name = SocketAddr::from_abstract_name("portway-bench")?;
        let room = Self {
            _alone: wait::until("the end of another bench", TURN, || {
                Ok(UnixListener::bind_addr(&name).ok())
            })?,
        };
        if SETTINGS.iter().any(|path| fs::metadata(path).is_err()) {
            // It is built in, or the error is told below.
            let _ = Command::new("modprobe").arg("nf_conntrack").status();
        }
        for path in SETTINGS {
            let text = fs::read_to_string(path).with_context(|| format!("no {path}"))?;
            let there: u64 = text.trim().parse()?;
            if there < ENOUGH {
                before(|settings| settings.push((path, text)));
                fs::write(path, ENOUGH.to_string()).with_context(|| {
                    format!("cannot set {path}: not in the machine's own namespaces?")
                })?;
            }
        }
        Ok(room)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        put_back();
    }
}

/// Puts the settings back, for an end without unwinding.
pub fn put_back() {
    for (path, text) in before(std::mem::take) {
        // Nothing more can be done.
        let _ = fs::write(path, text);
    }
}

fn before<T>(change: impl FnOnce(&mut Vec<(&'static str, String)>) -> T) -> T {
    change(&mut BEFORE.lock().unwrap_or_else(PoisonError::into_inner))
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
