//! Debians in folders, made by debootstrap, with the daemons and what the tests run beside them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    apt,
    command::{run, text},
    setup::as_root,
    toolchain::find_program,
};

/// Where packages come from.
const MIRROR: &str = "http://deb.debian.org/debian";

/// What makes a Debian in a folder.
const DEBOOTSTRAP: &str = "debootstrap";

/// What every one has: the tools of netfilter, by which portway reads the rules, those of the tests, and compose.
const PACKAGES: &str = "docker.io,docker-compose,iptables,nftables,iproute2,procps";

/// A release of Debian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// Debian 12.
    Bookworm,
    /// Debian 13.
    Trixie,
    /// What the next Debian is made of.
    Sid,
}

impl Suite {
    fn name(self) -> &'static str {
        match self {
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
            Self::Sid => "sid",
        }
    }

    /// What it has beside [`PACKAGES`]. Debian 12's docker.io has the client in it.
    fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Bookworm => &[],
            Self::Trixie => &["docker-cli", "podman", "netavark", "aardvark-dns", "crun"],
            Self::Sid => &["docker-cli"],
        }
    }
}

/// A Debian in a folder.
#[derive(Debug)]
pub struct System {
    folder: PathBuf,
}

/// Installs debootstrap if it is missing: nothing else needs it, so set-up does not know of it.
///
/// # Errors
/// It is missing, and may not or cannot be installed.
pub fn ensure_debootstrap(no_install: bool) -> Result<()> {
    // Its place is in sbin, which an ordinary user's PATH does not name.
    if find_program(DEBOOTSTRAP).is_some() || Path::new("/usr/sbin").join(DEBOOTSTRAP).is_file() {
        return Ok(());
    }
    if no_install || find_program("apt-get").is_none() {
        bail!("{DEBOOTSTRAP} is missing: install the package of that name");
    }
    eprintln!("xtask: installing {DEBOOTSTRAP} with apt");
    apt::refresh();
    apt::install(&[DEBOOTSTRAP])
}

impl System {
    /// Makes it, unless it is there from an earlier run: a minute, and 700 MB.
    ///
    /// # Errors
    /// debootstrap's.
    pub fn make(suite: Suite, folder: &Path) -> Result<Self> {
        let system = Self {
            folder: folder.join(suite.name()),
        };
        if system.folder.is_dir() {
            return Ok(system);
        }
        fs::create_dir_all(folder)?;
        let part = folder.join(format!("{}.part", suite.name()));
        // debootstrap may have been interrupted while it had something mounted there.
        run(as_root("rm").args(["-rf", "--one-file-system"]).arg(&part))?;
        eprintln!(
            "xtask: making a Debian {} in {}",
            suite.name(),
            system.folder.display()
        );
        let packages: Vec<_> = [PACKAGES].iter().chain(suite.packages()).copied().collect();
        run(as_root(DEBOOTSTRAP)
            .args(["--variant=minbase", "--include", &packages.join(",")])
            .arg(suite.name())
            .arg(&part)
            .arg(MIRROR))
        .with_context(|| format!("see {}/debootstrap/debootstrap.log", part.display()))?;
        run(as_root("chroot").arg(&part).args(["apt-get", "clean"]))?;
        run(as_root("mv").arg(&part).arg(&system.folder))?;
        Ok(system)
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The upstream version of a package in it.
    ///
    /// # Errors
    /// It is not installed.
    pub fn version_of(&self, package: &str) -> Result<String> {
        let database = self.folder.join("var/lib/dpkg");
        let version = text(
            Command::new("dpkg-query")
                .arg("--admindir")
                .arg(database)
                .args(["--show", "--showformat=${Version}", package]),
        )?;
        Ok(upstream(&version).to_owned())
    }
}

/// `28.5.2` from `28.5.2+dfsg4-1+b2`.
fn upstream(version: &str) -> &str {
    let (_, without_epoch) = version.split_once(':').unwrap_or(("", version));
    without_epoch
        .split(['+', '-', '~'])
        .next()
        .unwrap_or(without_epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_without_debians_part() {
        assert_eq!(upstream("28.5.2+dfsg4-1+b2"), "28.5.2");
        assert_eq!(upstream("5.4.2-1"), "5.4.2");
        assert_eq!(upstream("1:2.0~rc1-3"), "2.0");
    }
}
