//! The machine under test: a network namespace with a mount and a PID namespace of its own.
//!
//! Its first process is `portway-lab-guest init`, or systemd. The kernel kills that one when the lab's process
//! ends, and with it every process of the PID namespace: dockerd, containerd, containers and portway.
//! Their mounts, /run (a tmpfs), and the bpffs with its pins belong to the mount namespace and
//! vanish with it. So even a killed lab leaves nothing running, mounted, pinned or written. What the
//! kernel does not remove is empty cgroups; [`Host`] does when it is dropped, or the next one.

use std::{
    fs,
    ops::Deref,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use anyhow::{Context, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rustix::process::{PidfdFlags, pidfd_open};

use crate::{
    cgroup,
    daemon::Daemon,
    guest,
    netns::Netns,
    process::Cmd,
    system::System,
    wait::{self, PATIENCE},
};

/// The hosts of this process, for [`remove_all`].
static ALIVE: Mutex<Vec<(u32, String)>> = Mutex::new(Vec::new());

/// Numbers this process's hosts.
static NEXT: AtomicU32 = AtomicU32::new(1);

/// A host's namespaces; it goes down when this is dropped.
#[derive(Debug)]
pub struct Host {
    netns: Netns,
    init: Daemon,
    cgroup: String,
}

impl Host {
    /// Starts one: loopback up, forwarding on, nothing else.
    ///
    /// # Errors
    /// Not root, or the guest program is not built.
    pub fn new() -> Result<Self> {
        Self::start(false)
    }

    /// The same, but its first process becomes systemd, in a copy of the file system, with the units in
    /// [`guest::UNITS`].
    ///
    /// # Errors
    /// As [`Host::new`], and there is no systemd.
    pub fn booted() -> Result<Self> {
        let host = Self::start(true)?;
        let mut said = String::new();
        wait::until_true("systemd", PATIENCE, || {
            said = host
                .command("systemctl")
                .arg("is-system-running")
                .output()?
                .to_string();
            Ok(said.contains("running"))
        })
        .with_context(|| said)?;
        Ok(host)
    }

    fn start(boots: bool) -> Result<Self> {
        cgroup::remove_stale();
        let cgroup = cgroup::name(NEXT.fetch_add(1, Ordering::Relaxed));
        let (role, system) = if boots {
            (vec!["boot", &cgroup], Some(System::copied()?))
        } else {
            (vec!["init"], System::chosen()?)
        };
        let init = Cmd::new_host(guest::program()?)
            .args(role)
            .args(system.iter().flat_map(System::arguments))
            .start()?;
        alive(|hosts| hosts.push((init.pid(), cgroup.clone())));
        init.line(guest::READY, PATIENCE)?;
        let net = fs::File::open(format!("/proc/{}/ns/net", init.pid()))
            .context("cannot hold the host's network namespace")?;
        let host = Self {
            netns: Netns::with_init(net.into(), pidfd(init.pid())?),
            init,
            cgroup,
        };
        host.ip("link set lo up")?;
        host.sysctl("ipv4/ip_forward", "1")?;
        host.sysctl("ipv6/conf/all/forwarding", "1")?;
        host.trust_addresses();
        Ok(host)
    }

    /// The cgroup, from its hierarchy's root, that its containers belong into.
    pub fn cgroup(&self) -> &str {
        &self.cgroup
    }

    /// The process id of its first process.
    pub fn pid(&self) -> u32 {
        self.init.pid()
    }

    /// What `path` of the host's file system is called from outside.
    pub fn file(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        let inside = path.strip_prefix("/").unwrap_or(path);
        Path::new("/proc")
            .join(self.pid().to_string())
            .join("root")
            .join(inside)
    }
}

impl Deref for Host {
    type Target = Netns;

    fn deref(&self) -> &Netns {
        &self.netns
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.init.signal(Signal::SIGKILL);
        // The first process ends only after all others have.
        let _ = self.init.wait(PATIENCE);
        alive(|hosts| hosts.retain(|(pid, _)| *pid != self.init.pid()));
        cgroup::remove(&self.cgroup);
    }
}

/// Takes every host of this process down, for an end without unwinding.
pub fn remove_all() {
    for (pid, cgroup) in alive(std::mem::take) {
        if let Ok(pid) = i32::try_from(pid) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        cgroup::remove(&cgroup);
    }
}

fn alive<T>(change: impl FnOnce(&mut Vec<(u32, String)>) -> T) -> T {
    change(&mut ALIVE.lock().unwrap_or_else(PoisonError::into_inner))
}

/// A descriptor of a process, by which its namespaces can be entered.
fn pidfd(pid: u32) -> Result<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(pid.try_into()?).context("no process has the id 0")?;
    pidfd_open(pid, PidfdFlags::empty()).context("cannot hold the host's first process")
}
