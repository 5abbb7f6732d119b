//! The cgroups of labs. The kernel does not remove them with the processes that were in them.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process,
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use crate::wait;

/// Where the kernel's cgroup hierarchies are: version 2's single one, or version 1's many.
const CGROUPS: &str = "/sys/fs/cgroup";

/// What they are named after: this, the lab's process and a number.
const PREFIX: &str = "portway-lab-";

/// Whose processes it has.
const PROCESSES: &str = "cgroup.procs";

/// The files that a cgroup of version 1 needs something in before it takes processes, where it has them.
const INHERITED: [&str; 2] = ["cpuset.cpus", "cpuset.mems"];

/// What the cgroup of this process's host `number` is called, in any hierarchy's root.
pub fn name(number: u32) -> String {
    format!("{PREFIX}{}-{number}", process::id())
}

/// Makes this process the first one of a cgroup in every hierarchy, which are from there on all that it and its
/// children see.
///
/// # Errors
/// The kernel's.
pub fn confine(name: &str) -> Result<()> {
    for hierarchy in hierarchies() {
        let cgroup = hierarchy.join(name);
        let enter = || -> io::Result<()> {
            fs::create_dir_all(&cgroup)?;
            for file in INHERITED {
                if let Ok(inherited) = fs::read(hierarchy.join(file)) {
                    fs::write(cgroup.join(file), inherited)?;
                }
            }
            fs::write(cgroup.join(PROCESSES), process::id().to_string())
        };
        enter().with_context(|| format!("cannot enter {}", cgroup.display()))?;
    }
    unshare(CloneFlags::CLONE_NEWCGROUP).context("cannot create a cgroup namespace")?;
    // What is mounted there still shows all of the machine's.
    let is_v2 = is_cgroup(Path::new(CGROUPS));
    let own = |kind: &str, target: &Path, options: Option<&str>| {
        mount(Some(kind), target, Some(kind), MsFlags::empty(), options)
            .with_context(|| format!("cannot mount a {kind} on {}", target.display()))
    };
    if is_v2 {
        return own("cgroup2", Path::new(CGROUPS), None);
    }
    let controllers: Vec<_> = hierarchies()
        .iter()
        .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
        .collect();
    own("tmpfs", Path::new(CGROUPS), Some("mode=755"))?;
    for controller in controllers {
        let target = Path::new(CGROUPS).join(&controller);
        fs::create_dir(&target)?;
        match &*controller {
            "unified" => own("cgroup2", &target, None)?,
            "systemd" => own("cgroup", &target, Some("none,name=systemd"))?,
            controller => own("cgroup", &target, Some(controller))?,
        }
    }
    Ok(())
}

/// A cgroup whose processes, and what the kernel keeps for them, may take no more than so much memory.
#[derive(Debug)]
pub struct Memory {
    name: String,
    path: PathBuf,
}

impl Memory {
    /// One that nobody else has, for processes of a host.
    ///
    /// # Errors
    /// The kernel's; also where memory is nobody's controller.
    pub fn new(host: &str, most: u64) -> Result<Self> {
        let (root, limit) = memory().context("no cgroup controls memory here")?;
        let name = format!("{host}-memory");
        let path = root.join(&name);
        let memory = Self { name, path };
        fs::create_dir_all(&memory.path)?;
        fs::write(memory.path.join(limit), most.to_string())
            .with_context(|| format!("cannot limit the memory of {}", memory.path.display()))?;
        Ok(memory)
    }

    /// The file that a process writes itself to.
    pub fn processes(&self) -> PathBuf {
        self.path.join(PROCESSES)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// Whether memory can be limited.
pub fn controls_memory() -> bool {
    memory().is_some()
}

/// The root of the hierarchy that controls memory, and the name of the file with the limit: version 1's or 2's.
fn memory() -> Option<(PathBuf, &'static str)> {
    let v1 = Path::new(CGROUPS).join("memory");
    if v1.join("memory.limit_in_bytes").exists() {
        return Some((v1, "memory.limit_in_bytes"));
    }
    let v2 = Path::new(CGROUPS);
    // Where nobody has done so, cgroups below the root are given it.
    fs::write(v2.join("cgroup.subtree_control"), "+memory").ok()?;
    Some((v2.to_owned(), "memory.max"))
}

/// Removes what is left of labs whose process is gone.
pub fn remove_stale() {
    for path in named(|name| {
        let rest = name.strip_prefix(PREFIX);
        let process = rest.and_then(|rest| rest.split('-').next());
        process.is_some_and(|process| !Path::new("/proc").join(process).exists())
    }) {
        let _ = remove_tree(&path);
    }
}

/// Removes a cgroup from every hierarchy, as soon as its last process is gone.
pub fn remove(cgroup: &str) {
    let left = || named(|name| name == cgroup);
    let _ = wait::until_true("empty cgroups", Duration::from_secs(5), || {
        Ok(left().iter().all(|path| remove_tree(path).is_ok()))
    });
}

/// The cgroups of such a name, in every hierarchy's root.
fn named(is_wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let mut all: Vec<_> = hierarchies().iter().flat_map(|path| below(path)).collect();
    all.retain(|path| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(&is_wanted)
    });
    all
}

/// Whether a folder is a cgroup.
fn is_cgroup(path: &Path) -> bool {
    path.join(PROCESSES).exists()
}

/// The roots of all hierarchies; version 2's may be among version 1's.
fn hierarchies() -> Vec<PathBuf> {
    let root = Path::new(CGROUPS);
    if is_cgroup(root) {
        return vec![root.to_owned()];
    }
    let mut all = below(root);
    all.retain(|path| !path.is_symlink() && is_cgroup(path));
    all
}

fn below(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
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
