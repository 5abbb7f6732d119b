//! An instance: a name, its pins on bpffs, and the lock that keeps commands from working on it at once.

use std::{
    fmt, fs,
    fs::{DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use anyhow::{Context as _, bail};
use dataplane_common::layout::LAYOUT_VERSION;
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};
use tokio::time::{Instant, sleep};

use crate::privileges;

/// Where bpffs is mounted by convention (systemd mounts it there).
const BPFFS: &str = "/sys/fs/bpf";

/// How long a command waits for another one on the same instance.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// How often it tries meanwhile.
const LOCK_INTERVAL: Duration = Duration::from_millis(2);

/// One portway among several on a machine; each network namespace can have its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    name: String,
}

/// Why a text cannot be an instance's name.
#[derive(Debug, thiserror::Error)]
#[error("invalid instance name: {0:?}: use letters, digits, '-' and '_', at most 64")]
pub struct InvalidName(String);

impl FromStr for Instance {
    type Err = InvalidName;

    // bpffs reserves names with dots.
    fn from_str(name: &str) -> Result<Self, InvalidName> {
        let valid = (1..=64).contains(&name.len())
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        if valid {
            Ok(Self { name: name.into() })
        } else {
            Err(InvalidName(name.into()))
        }
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Instance {
    /// The folder of this instance's pins, whatever layout they have.
    fn folder(&self) -> PathBuf {
        Path::new(BPFFS).join("portway").join(&self.name)
    }

    /// The folder of pins of this program's layout.
    fn layout(&self) -> PathBuf {
        self.folder().join(format!("v{LAYOUT_VERSION}"))
    }

    /// Where the map of this name is pinned.
    pub fn map(&self, name: &str) -> PathBuf {
        self.layout().join("maps").join(name)
    }

    /// Where the program of this name is pinned.
    pub fn program(&self, name: &str) -> PathBuf {
        self.layout().join("programs").join(name)
    }

    /// Where another build's program of this name is pinned until it takes the place of the one that is loaded.
    pub fn upgrade(&self, name: &str) -> PathBuf {
        self.layout().join("upgrade").join(name)
    }

    /// The folder of pinned links.
    pub fn links(&self) -> PathBuf {
        self.layout().join("links")
    }

    /// Exists from the last step of loading on: without it, what is pinned is left over from a load
    /// that did not come to its end.
    fn complete(&self) -> PathBuf {
        self.layout().join("complete")
    }

    /// Whether portway is loaded.
    ///
    /// # Errors
    ///
    /// Pins of another layout, which this program must not touch.
    pub fn is_loaded(&self) -> anyhow::Result<bool> {
        if let Some(layout) = self.other_layouts()?.first() {
            bail!(
                "instance {self} was loaded by another version of portway (map layout {}, this one has \
                 v{LAYOUT_VERSION}): run that version's `portway unload`, which leaves its flows to netfilter; \
                 or `portway load --force`, which ends them",
                layout.display()
            );
        }
        Ok(self.complete().exists())
    }

    /// The names of the folders of pins of other layouts.
    fn other_layouts(&self) -> anyhow::Result<Vec<PathBuf>> {
        let context = || format!("cannot read {}", self.folder().display());
        let entries = match fs::read_dir(self.folder()) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                bail!("{}: run as root", context())
            }
            Err(error) => return Err(error).with_context(context),
        };
        let own = format!("v{LAYOUT_VERSION}");
        let mut others = Vec::new();
        for entry in entries {
            let name = PathBuf::from(entry.with_context(context)?.file_name());
            if name != Path::new(&own) {
                others.push(name);
            }
        }
        Ok(others)
    }

    /// Removes the pins of other layouts, links first, whose programs are thereby detached. Nothing else is
    /// known of them. Returns whether there were any.
    pub fn remove_other_layouts(&self, _lock: &Lock) -> anyhow::Result<bool> {
        let others = self.other_layouts()?;
        for name in &others {
            let layout = self.folder().join(name);
            remove_folder(&layout.join("links"))?;
            remove_folder(&layout)?;
        }
        Ok(!others.is_empty())
    }

    /// Waits for other commands on this instance to end and keeps further ones waiting.
    ///
    /// # Errors
    ///
    /// Not root, or one without the capabilities; no bpffs, or another command that does not end.
    pub async fn lock(&self) -> anyhow::Result<Lock> {
        self.lock_within(LOCK_PATIENCE).await
    }

    /// The same, waiting no longer than `patience`.
    pub async fn lock_within(&self, patience: Duration) -> anyhow::Result<Lock> {
        check_bpffs()?;
        let deadline = Instant::now() + patience;
        loop {
            let folder = self.folder();
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&folder)
                .with_context(|| format!("cannot create {}", folder.display()))?;
            let file =
                File::open(&folder).with_context(|| format!("cannot open {}", folder.display()))?;
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                // An unload may have removed the folder between opening and locking.
                Ok(lock) if is_same(&lock, &folder) => {
                    return Ok(Lock {
                        _lock: lock,
                        folder,
                    });
                }
                Ok(_) => {}
                Err((_, Errno::EWOULDBLOCK)) => {
                    if Instant::now() > deadline {
                        bail!(
                            "another portway command has been at work on instance {self} for {} ms: \
                             end it, or try again",
                            patience.as_millis()
                        );
                    }
                    sleep(LOCK_INTERVAL).await;
                }
                Err((_, error)) => {
                    return Err(error).with_context(|| format!("cannot lock {}", folder.display()));
                }
            }
        }
    }

    /// Says that somebody follows this instance, for as long as the guard lives.
    pub fn watch(&self) -> anyhow::Result<Flock<File>> {
        let path = self.complete();
        let folder =
            File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        Flock::lock(folder, FlockArg::LockSharedNonblock)
            .map_err(|(_, error)| error)
            .with_context(|| format!("cannot lock {}", path.display()))
    }

    /// Whether somebody follows this instance.
    pub fn is_watched(&self) -> bool {
        File::open(self.complete())
            .is_ok_and(|folder| Flock::lock(folder, FlockArg::LockExclusiveNonblock).is_err())
    }

    /// Makes the folders that pins go into.
    pub fn create_folders(&self, _lock: &Lock) -> anyhow::Result<()> {
        for folder in ["maps", "programs", "links"] {
            let folder = self.layout().join(folder);
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&folder)
                .with_context(|| format!("cannot create {}", folder.display()))?;
        }
        Ok(())
    }

    /// Makes an empty folder for another build's programs.
    pub fn create_upgrade(&self, _lock: &Lock) -> anyhow::Result<()> {
        let folder = self.layout().join("upgrade");
        remove_folder(&folder)?;
        DirBuilder::new()
            .mode(0o700)
            .create(&folder)
            .with_context(|| format!("cannot create {}", folder.display()))
    }

    /// Another build's programs are those of this instance now.
    pub fn finish_upgrade(&self, _lock: &Lock) -> anyhow::Result<()> {
        let folder = self.layout().join("upgrade");
        let context = || format!("cannot read {}", folder.display());
        for program in fs::read_dir(&folder).with_context(context)? {
            let program = program.with_context(context)?;
            let name = program.file_name();
            let name = name.to_string_lossy();
            fs::rename(program.path(), self.program(&name))
                .with_context(|| format!("cannot pin the eBPF program {name}"))?;
        }
        remove_folder(&folder)
    }

    /// Says that loading has come to its end.
    pub fn set_complete(&self, _lock: &Lock) -> anyhow::Result<()> {
        let path = self.complete();
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("cannot create {}", path.display()))
    }

    /// Tells one load of this instance from the next; `None` if it is not loaded.
    pub fn load_id(&self) -> Option<u64> {
        fs::metadata(self.complete())
            .ok()
            .map(|metadata| metadata.ino())
    }

    /// Removes every pin: links, whose programs are thereby detached, then programs and maps. Goes on
    /// after an error and returns the first.
    pub fn remove_pins(&self, _lock: &Lock) -> anyhow::Result<()> {
        // Half-removed is not loaded.
        let mut result = remove_folder(&self.complete());
        for folder in ["links", "upgrade", "programs", "maps"] {
            let removed = remove_folder(&self.layout().join(folder));
            result = result.and(removed);
        }
        result.and(remove_folder(&self.layout()))
    }
}

/// Held by a command for as long as it changes an instance. When it goes, so does the instance's folder
/// if nothing is in it.
#[derive(Debug)]
pub struct Lock {
    _lock: Flock<File>,
    folder: PathBuf,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Not empty where portway is loaded; then it stays, which is as it should be.
        if fs::remove_dir(&self.folder).is_ok()
            && let Some(parent) = self.folder.parent()
        {
            let _ = fs::remove_dir(parent);
        }
    }
}

fn is_same(lock: &File, folder: &Path) -> bool {
    match (lock.metadata(), fs::metadata(folder)) {
        (Ok(held), Ok(there)) => held.ino() == there.ino() && held.dev() == there.dev(),
        _ => false,
    }
}

/// Removes a folder on bpffs and the pins in it.
fn remove_folder(folder: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

fn check_bpffs() -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("portway needs root: run it with sudo");
    }
    privileges::check()?;
    match statfs(BPFFS) {
        Ok(statfs) if statfs.filesystem_type() == BPF_FS_MAGIC => Ok(()),
        Ok(_) => bail!("bpffs is not mounted at {BPFFS}: run `mount -t bpf bpf {BPFFS}`"),
        Err(error) => Err(error).with_context(|| {
            format!("cannot look at {BPFFS}: portway needs a kernel with BPF and sysfs mounted")
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_in_a_bpffs_path() {
        for good in ["default", "a", "Web-1_x", &"x".repeat(64)] {
            assert_eq!(good.parse::<Instance>().expect(good).to_string(), good);
        }
        for bad in ["", ".", "..", "a.b", "a/b", "ä", " ", &"x".repeat(65)] {
            assert!(bad.parse::<Instance>().is_err(), "{bad}");
        }
    }
}
