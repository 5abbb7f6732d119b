//! A network namespace without a name: it lives while somebody holds it, and the kernel removes it
//! with its last holder, however that one ended.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use anyhow::{Context, Result, anyhow};
use nix::{
    mount::{MsFlags, mount},
    net::if_::if_nametoindex,
    sched::{CloneFlags, setns, unshare},
};

use crate::process::Cmd;

/// A handle on a network namespace; clones are the same namespace.
#[derive(Debug, Clone)]
pub struct Netns {
    net: Arc<OwnedFd>,
    /// The first process of the mount and PID namespaces that belong to it, if it has its own.
    init: Option<Arc<OwnedFd>>,
}

impl Netns {
    /// A new, empty network namespace with its loopback up.
    ///
    /// # Errors
    /// Not root, or no room for one more namespace.
    pub fn new() -> Result<Self> {
        let net = on_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).context("cannot create a network namespace")?;
            File::open("/proc/thread-self/ns/net").context("cannot hold the network namespace")
        })?;
        let netns = Self {
            net: Arc::new(net.into()),
            init: None,
        };
        netns.ip("link set lo up")?;
        netns.trust_addresses();
        Ok(netns)
    }

    /// The network namespace that `path` stands for, `/proc/PID/ns/net` for one.
    ///
    /// # Errors
    /// There is none.
    pub fn at(path: &Path) -> Result<Self> {
        let net = File::open(path)
            .with_context(|| format!("cannot hold the namespace {}", path.display()))?;
        Ok(Self {
            net: Arc::new(net.into()),
            init: None,
        })
    }

    /// The network namespace `net` together with the mount and PID namespaces of `init` (a pidfd).
    pub(crate) fn with_init(net: OwnedFd, init: OwnedFd) -> Self {
        Self {
            net: Arc::new(net),
            init: Some(Arc::new(init)),
        }
    }

    /// The same network namespace, with its commands in the mount and PID namespaces of `host`, where the
    /// host's other processes find it by them.
    pub(crate) fn on(&self, host: &Self) -> Self {
        Self {
            net: Arc::clone(&self.net),
            init: host.init.clone(),
        }
    }

    /// Runs `work` inside, on a thread of its own, and waits for it. Sockets made by it stay inside.
    ///
    /// # Errors
    /// Those of `work`; a panic of it is one too.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        on_thread(|| {
            self.enter()?;
            work()
        })
    }

    /// Moves the calling thread inside for good.
    pub(crate) fn enter(&self) -> Result<()> {
        setns(self.net.as_fd(), CloneFlags::CLONE_NEWNET).context("cannot enter the namespace")
    }

    /// A command that will run inside: in the network namespace, and in the mount and PID namespaces
    /// where there are any.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Cmd {
        Cmd::inside(self.clone(), program)
    }

    /// Runs `ip ARGS`, split at blanks, and returns what it printed.
    ///
    /// # Errors
    /// With what `ip` said.
    pub fn ip(&self, args: &str) -> Result<String> {
        self.command("ip").args(args.split_whitespace()).text()
    }

    /// The MAC address of an interface.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn mac(&self, interface: &str) -> Result<[u8; 6]> {
        let said = self.ip(&format!("-o link show {interface}"))?;
        let mut words = said.split_whitespace();
        let mac = words
            .by_ref()
            .skip_while(|word| *word != "link/ether")
            .nth(1);
        let bytes: Option<Vec<u8>> = mac.and_then(|mac| {
            mac.split(':')
                .map(|byte| u8::from_str_radix(byte, 16).ok())
                .collect()
        });
        bytes
            .and_then(|bytes| bytes.try_into().ok())
            .with_context(|| format!("no MAC address: {said}"))
    }

    /// The index of an interface.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn index(&self, interface: &str) -> Result<u32> {
        self.run(|| if_nametoindex(interface).with_context(|| format!("no interface {interface}")))
    }

    /// Sets a `net.` sysctl, named by its path below /proc/sys/net.
    ///
    /// # Errors
    /// The kernel has no such setting.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/net/{name}");
        // /proc/sys/net shows the namespace of the thread that looks.
        self.run(|| std::fs::write(&path, value).with_context(|| format!("cannot set {path}")))
    }

    /// Lets IPv6 addresses be used at once. Else each interface's addresses and routes change by themselves
    /// for a second or two. A kernel without IPv6 has none of it.
    pub(crate) fn trust_addresses(&self) {
        let _ = self.sysctl("ipv6/conf/default/accept_dad", "0");
    }

    /// A path by which other processes, `ip link ... netns` for one, find it while it is held here.
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.net.as_raw_fd()).into()
    }

    /// What a thread does before it forks a child that shall be inside.
    pub(crate) fn before_fork(&self) -> Result<()> {
        match &self.init {
            Some(init) => setns(init.as_fd(), CloneFlags::CLONE_NEWPID)
                .context("cannot enter the host's PID namespace"),
            None => Ok(()),
        }
    }

    /// What the child does before it executes its program. Only system calls: it runs after a fork
    /// of a process with many threads.
    pub(crate) fn before_exec(&self) -> io::Result<()> {
        if let Some(init) = &self.init {
            let also =
                CloneFlags::CLONE_NEWCGROUP | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC;
            setns(init.as_fd(), CloneFlags::CLONE_NEWNS | also)?;
        }
        setns(self.net.as_fd(), CloneFlags::CLONE_NEWNET)?;
        Ok(())
    }
}

/// Runs `work` on a thread that ends with it, because a thread that has changed its namespaces must
/// not be used for anything else.
pub(crate) fn on_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        scope
            .spawn(work)
            .join()
            .map_err(|panic| anyhow!("panicked in its namespace: {}", panic_text(&*panic)))?
    })
}

/// Has nobody outside see what is mounted from here on, in a mount namespace of the thread's own.
pub(crate) fn keep_mounts_private() -> Result<()> {
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .context("cannot make the mounts private")
}

/// The words of a panic, as far as it has any.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("without a word")
}
