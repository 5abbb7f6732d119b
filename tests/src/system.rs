//! The file system of a lab's hosts: the machine's own, or that of another Debian, which [`VARIABLE`] names. All
//! commands in a host are that one's then, dockerd, iptables and nft among them; the kernel stays the same.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    unistd::{chdir, pivot_root},
};

use crate::{guest, portway, setting::path_setting};

/// Names the folder that such a file system is in, as debootstrap makes it.
pub const VARIABLE: &str = "PORTWAY_SYSTEM";

/// Where a host's first process puts it together. What is written goes to the tmpfs there, not to the folder, so
/// that hosts do not see each other.
const PLACE: &str = "/run/system";

/// What the kernel shows of itself, in any file system.
const KERNELS: [&str; 3] = ["/proc", "/sys", "/dev"];

/// A file system in a folder.
#[derive(Debug)]
pub struct System {
    folder: PathBuf,
    /// What the tests have for the hosts: the same under the same path.
    shared: Vec<PathBuf>,
}

impl System {
    /// The one that [`VARIABLE`] names; none where hosts have the machine's own.
    ///
    /// # Errors
    /// There is no such folder, or the guest program is not built.
    pub fn chosen() -> Result<Option<Self>> {
        let Some(folder) = path_setting(VARIABLE) else {
            return Ok(None);
        };
        let mut system = Self::with_programs(folder)?;
        system.shared.push(env::temp_dir());
        Ok(Some(system))
    }

    /// A copy of it, or of the machine's own: not even temporary files are shared with it.
    ///
    /// # Errors
    /// As [`System::chosen`].
    pub fn copied() -> Result<Self> {
        Self::with_programs(path_setting(VARIABLE).unwrap_or_else(|| "/".into()))
    }

    fn with_programs(folder: PathBuf) -> Result<Self> {
        ensure!(
            folder.is_absolute() && folder.join("usr").is_dir(),
            "{VARIABLE}: {} is not the absolute path of a file system",
            folder.display()
        );
        let programs = [Some(guest::program()?), portway::program().ok()];
        let folders = programs.iter().flatten().filter_map(|path| path.parent());
        Ok(Self {
            folder,
            shared: folders.map(Path::to_owned).collect(),
        })
    }

    /// One in `folder`, with what is `shared`.
    pub fn new(folder: impl Into<PathBuf>, shared: impl IntoIterator<Item = PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            shared: shared.into_iter().collect(),
        }
    }

    /// What [`System::new`] wants to know: the folder, then what is shared.
    pub fn arguments(&self) -> impl Iterator<Item = &Path> {
        [&self.folder]
            .into_iter()
            .chain(&self.shared)
            .map(PathBuf::as_path)
    }

    /// Makes it the root of this process's mount namespace, with a /run of its own.
    ///
    /// # Errors
    /// A mount is refused.
    pub fn enter(&self) -> Result<()> {
        let none = None::<&str>;
        let [upper, work, root] = ["upper", "work", "root"].map(|name| Path::new(PLACE).join(name));
        for folder in [&upper, &work, &root] {
            fs::create_dir_all(folder)?;
        }
        // By a relative path, whose characters mean nothing to overlayfs.
        chdir(&self.folder)?;
        let layers = format!(
            "lowerdir=.,upperdir={},workdir={}",
            upper.display(),
            work.display()
        );
        let overlay = Some("overlay");
        mount(overlay, &root, overlay, MsFlags::empty(), Some(&*layers))
            .with_context(|| format!("cannot mount {}", self.folder.display()))?;
        let inside = |path: &Path| root.join(path.strip_prefix("/").unwrap_or(path));
        let shared = self.shared.iter().map(PathBuf::as_path);
        for path in KERNELS.iter().map(Path::new).chain(shared) {
            fs::create_dir_all(inside(path))?;
            let all_below = MsFlags::MS_BIND | MsFlags::MS_REC;
            mount(Some(path), &inside(path), none, all_below, none)
                .with_context(|| format!("cannot bind {}", path.display()))?;
        }
        let run = inside(Path::new("/run"));
        mount(Some("tmpfs"), &run, Some("tmpfs"), MsFlags::empty(), none)?;
        chdir(&root)?;
        // The old root comes to lie upon the new one, and is taken off: pivot_root(2).
        pivot_root(".", ".").context("cannot change the root")?;
        umount2(".", MntFlags::MNT_DETACH)?;
        chdir("/")?;
        Ok(())
    }
}

/// Whether the hosts' file system has something at `path`. A link counts, whose target can only be found inside.
pub fn has(path: &Path) -> bool {
    let root = path_setting(VARIABLE).unwrap_or_else(|| "/".into());
    let file = root.join(path.strip_prefix("/").unwrap_or(path));
    fs::symlink_metadata(file).is_ok_and(|metadata| !metadata.is_dir())
}
