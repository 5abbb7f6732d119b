//! Debian's archive: what it offers, and installing from it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    setup::as_root,
    toolchain::{MINIMUM_RUST, major_minor, output},
};

/// Debian packages Rust twice: one that stays, and one that follows the browsers' needs.
#[derive(Debug, PartialEq, Eq)]
pub struct RustPackages {
    /// The compiler.
    pub rustc: &'static str,
    /// Its cargo.
    pub cargo: &'static str,
    /// `core` for BPF, prebuilt.
    pub bpf_std: &'static str,
    /// `cargo fmt`.
    pub rustfmt: &'static str,
    /// `cargo clippy`.
    pub clippy: &'static str,
}

/// The two, the newer one first.
pub static RUST_PACKAGES: [RustPackages; 2] = [
    RustPackages {
        rustc: "rustc-web",
        cargo: "cargo-web",
        bpf_std: "libstd-rust-web-dev-bpf",
        rustfmt: "rustfmt-web",
        clippy: "rust-web-clippy",
    },
    RustPackages {
        rustc: "rustc",
        cargo: "cargo",
        bpf_std: "libstd-rust-dev-bpf",
        rustfmt: "rustfmt",
        clippy: "rust-clippy",
    },
];

/// What can be installed, as of the package lists on this machine.
#[derive(Clone, Debug, Default)]
pub struct Archive {
    /// Package -> version.
    versions: BTreeMap<String, String>,
    /// The packages that are here already.
    installed: BTreeSet<String>,
    /// `core` for BPF -> the LLVM that compiled it.
    llvm: BTreeMap<String, u32>,
}

impl Archive {
    /// Asks apt about these packages and the Rust ones.
    pub fn read(packages: &[&str]) -> Self {
        let rust = RUST_PACKAGES
            .iter()
            .flat_map(|p| [p.rustc, p.cargo, p.bpf_std, p.rustfmt, p.clippy]);
        let policy = output(
            Command::new("apt-cache")
                .arg("policy")
                .args(packages)
                .args(rust),
        );
        let llvm_of = |package: &'static str| {
            let record =
                output(Command::new("apt-cache").args(["show", "--no-all-versions", package]))?;
            Some((package.to_owned(), recommended_llvm(&record)?))
        };
        let policy = policy.unwrap_or_default();
        Self {
            versions: said_of_packages(&policy, "Candidate: ").collect(),
            installed: said_of_packages(&policy, "Installed: ")
                .map(|(package, _)| package)
                .collect(),
            llvm: RUST_PACKAGES
                .iter()
                .filter_map(|packages| llvm_of(packages.bpf_std))
                .collect(),
        }
    }

    /// An archive made up for a test.
    #[cfg(test)]
    pub fn of(versions: &[(&str, &str)], llvm: &[(&str, u32)]) -> Self {
        let owned = |name: &&str| (*name).to_owned();
        Self {
            versions: versions
                .iter()
                .map(|(name, version)| (owned(name), owned(version)))
                .collect(),
            installed: BTreeSet::new(),
            llvm: llvm
                .iter()
                .map(|(name, llvm)| (owned(name), *llvm))
                .collect(),
        }
    }

    /// Whether it has the package.
    pub fn has(&self, package: &str) -> bool {
        self.versions.contains_key(package)
    }

    /// Whether the package is on this machine.
    pub fn is_installed(&self, package: &str) -> bool {
        self.installed.contains(package)
    }

    /// The Rust that can compile portway, both its halves.
    pub fn rust(&self) -> Option<&'static RustPackages> {
        RUST_PACKAGES
            .iter()
            .find(|rust| self.has(rust.bpf_std) && self.release(rust.rustc) >= Some(MINIMUM_RUST))
    }

    /// The Rust packages with the same version as this `1.96.0`.
    pub fn rust_of_release(&self, release: &str) -> Option<&'static RustPackages> {
        RUST_PACKAGES
            .iter()
            .find(|rust| self.release(rust.rustc) == major_minor(release))
    }

    /// The LLVM that a Rust compiles with.
    pub fn llvm_of(&self, rust: &RustPackages) -> Option<u32> {
        self.llvm.get(rust.bpf_std).copied()
    }

    /// Whether two packages come in the same version of Rust.
    pub fn same_release(&self, one: &str, other: &str) -> bool {
        self.release(one).is_some() && self.release(one) == self.release(other)
    }

    fn release(&self, package: &str) -> Option<(u32, u32)> {
        major_minor(self.versions.get(package)?)
    }
}

/// What `apt-cache policy` says of packages: a name at the line's start, its versions indented below.
fn said_of_packages(policy: &str, what: &str) -> impl Iterator<Item = (String, String)> {
    let mut package = "";
    policy.lines().filter_map(move |line| {
        if !line.starts_with(' ') {
            package = line.trim_end_matches(':');
        }
        let version = line.trim_start().strip_prefix(what)?;
        (version != "(none)").then(|| (package.to_owned(), version.to_owned()))
    })
}

/// `core` for BPF recommends the clang of the LLVM it was compiled with; nothing else there names it.
fn recommended_llvm(record: &str) -> Option<u32> {
    let recommends = record
        .lines()
        .find(|line| line.starts_with("Recommends:"))?;
    recommends
        .split([' ', ','])
        .find_map(|word| word.strip_prefix("clang-")?.parse().ok())
}

/// Fetches the package lists. A mirror that does not answer is no reason to stop: what the
/// machine has may do.
pub fn refresh() {
    eprintln!("xtask: reading Debian's package lists (apt-get update)");
    let update = apt_get()
        .args(["-qq", "update"])
        .stdin(Stdio::null())
        .status();
    if !update.is_ok_and(|status| status.success()) {
        eprintln!("xtask: apt-get update failed; going on with the package lists that are here");
    }
}

/// Installs packages without asking anything.
///
/// # Errors
/// If apt does not.
pub fn install(packages: &[&str]) -> Result<()> {
    let brings_docker = packages.contains(&"docker.io");
    let mut command = if brings_docker {
        with_services_stopped(&apt_get())
    } else {
        apt_get()
    };
    let install = command
        .args(["install", "-y", "--no-install-recommends"])
        .args(packages);
    if !install
        .stdin(Stdio::null())
        .status()
        .context("apt-get does not start")?
        .success()
    {
        bail!(
            "apt-get could not install {}: its messages above say why",
            packages.join(" ")
        );
    }
    if brings_docker && Path::new("/run/systemd/system").is_dir() {
        // Nor is it to start with the next boot. If this fails, that is all that happens.
        let disable = ["--quiet", "disable", "docker.service", "docker.socket"];
        let _ = as_root("systemctl").args(disable).status();
    }
    Ok(())
}

fn apt_get() -> Command {
    let mut command = as_root("env");
    command
        .args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-q"])
        .args(["-o", "Dpkg::Use-Pty=0", "-o", "DPkg::Lock::Timeout=300"]);
    command
}

/// The same command, but packages cannot start their services meanwhile: the lab runs a Docker
/// daemon of its own, and the machine's firewall is not to change for a demonstration. The switch is
/// Debian's own, invoke-rc.d(8); where there is one already, the machine knows what it wants. A shell
/// holds it, to take it back also when this program is interrupted.
fn with_services_stopped(command: &Command) -> Command {
    const SCRIPT: &str = r#"
        policy=/usr/sbin/policy-rc.d
        if [ ! -e "$policy" ]; then
            trap 'rm -f "$policy"' EXIT
            trap 'exit 130' INT TERM HUP
            printf '#!/bin/sh\nexit 101\n' > "$policy" && chmod 755 "$policy" || exit
        fi
        "$@"
    "#;
    let mut shell = as_root("sh");
    shell
        .args(["-c", SCRIPT, "sh"])
        .arg(command.get_program())
        .args(command.get_args());
    shell
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_are_read_from_policy() {
        let policy = "rustc-web:\n  Installed: (none)\n  Candidate: 1.96.0+dfsg1-1~deb12u2\n  Version table:\n     \
                      1.85.0+dfsg3-1 500\ndocker-cli:\n  Installed: (none)\n  Candidate: (none)\n";
        let candidates: BTreeMap<_, _> = said_of_packages(policy, "Candidate: ").collect();
        assert_eq!(candidates.len(), 1);
        assert_eq!(major_minor(&candidates["rustc-web"]), Some((1, 96)));
        assert_eq!(said_of_packages(policy, "Installed: ").count(), 0);
    }

    #[test]
    fn the_llvm_is_that_of_the_clang_beside_it() {
        assert_eq!(
            recommended_llvm("Package: x\nRecommends: lld-22, clang-22\n"),
            Some(22)
        );
        assert_eq!(recommended_llvm("Package: x\n"), None);
    }

    #[test]
    fn rust_is_taken_if_new_enough_and_with_bpf() {
        let old = Archive::of(
            &[("rustc", "1.85.1"), ("libstd-rust-dev-bpf", "1.85.1")],
            &[],
        );
        assert_eq!(old.rust(), None);
        let sid = Archive::of(
            &[("rustc", "1.97.1+dfsg1"), ("libstd-rust-dev-bpf", "1.97.1")],
            &[],
        );
        assert_eq!(sid.rust().map(|rust| rust.rustc), Some("rustc"));
        let trixie = Archive::of(
            &[
                ("rustc", "1.85.1"),
                ("rustc-web", "1.96.0"),
                ("libstd-rust-web-dev-bpf", "1.96.0"),
            ],
            &[],
        );
        assert_eq!(trixie.rust().map(|rust| rust.rustc), Some("rustc-web"));
    }
}
