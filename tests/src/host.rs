//! The machine under test: a network namespace with a mount and a PID namespace of its own.
//!
//! Its first process is `portway-lab-guest init`. The kernel kills that one when the lab's process
//! ends, and with it every process of the PID namespace: dockerd, containerd, containers and portway.
//! Their mounts, /run (a tmpfs), and the bpffs with its pins belong to the mount namespace and
//! vanish with it. So even a killed lab leaves nothing running, mounted, pinned or written. What the
//! kernel does not remove is empty cgroups; [`Host`] does when it is dropped, or the next one.

use std::{
    fs, io,
    ops::Deref,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rustix::process::{PidfdFlags, pidfd_open};

use crate::{
    daemon::Daemon,
    guest,
    netns::Netns,
    process::Cmd,
    system::System,
    wait::{self, PATIENCE},
};

/// Where the kernel's cgroup hierarchies are.
const CGROUPS: &str = "/sys/fs/cgroup";

/// What the cgroups of a lab's containers are named after: this, the lab's process and a number.
const CGROUP_PREFIX: &str = "portway-lab-";

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
        remove_stale_cgroups();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let cgroup = format!("{CGROUP_PREFIX}{}-{number}", process::id());
        let system = System::chosen()?;
        let init = Cmd::new_host(guest::program()?)
            .arg("init")
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
        remove_cgroup(&self.cgroup);
    }
}

/// Takes every host of this process down, for an end without unwinding.
pub fn remove_all() {
    for (pid, cgroup) in alive(std::mem::take) {
        if let Ok(pid) = i32::try_from(pid) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        remove_cgroup(&cgroup);
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

/// Removes what is left of labs whose process is gone.
fn remove_stale_cgroups() {
    for path in cgroups(|name| {
        let rest = name.strip_prefix(CGROUP_PREFIX);
        let process = rest.and_then(|rest| rest.split('-').next());
        process.is_some_and(|process| !Path::new("/proc").join(process).exists())
    }) {
        let _ = remove_tree(&path);
    }
}

/// Removes a cgroup from every hierarchy, as soon as its last process is gone.
fn remove_cgroup(cgroup: &str) {
    let left = || cgroups(|name| name == cgroup);
    let _ = wait::until_true("empty cgroups", Duration::from_secs(5), || {
        Ok(left().iter().all(|path| remove_tree(path).is_ok()))
    });
}

/// The cgroups of such a name, in version 2's single hierarchy or version 1's many.
fn cgroups(is_wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let below = |path: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    };
    let root = below(Path::new(CGROUPS));
    let hierarchies = root
        .iter()
        .filter(|path| path.is_dir() && !path.is_symlink());
    let mut all: Vec<_> = hierarchies.flat_map(|path| below(path)).collect();
    all.extend(root.iter().cloned());
    all.retain(|path| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(&is_wanted)
    });
    all
}

/// Removes a cgroup and those below it; their files cannot be removed and need not be.
fn remove_tree(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}
