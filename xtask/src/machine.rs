//! What this machine is and has. Probing reads files and asks rustc and rustup who they are: it
//! changes nothing, and takes a fraction of a second.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path, process::Command};

use anyhow::Result;

use crate::{
    packages::{PROGRAMS, Program},
    plan::Goal,
    toolchain::{Linker, Toolchain, find_program, output},
};

/// The machine, as far as set-up cares.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// The distribution.
    pub os: Os,
    /// Whether this process may do everything.
    pub root: bool,
    /// Whether it could through sudo.
    pub sudo: bool,
    /// Whether packages are installed with apt here.
    pub apt: bool,
    /// Whether rustup is on PATH.
    pub rustup: bool,
    /// Whether rustup is Debian's package, which Debian's Rust would displace.
    pub packaged_rustup: bool,
    /// The toolchain that compiles eBPF programs as things are.
    pub toolchain: Option<Toolchain>,
    /// The toolchain in /usr, if it can compile for BPF.
    pub system_toolchain: Option<Toolchain>,
    /// bpf-linker, of whatever age.
    pub linker: Option<Linker>,
    /// Whether /sys/fs/bpf is mounted.
    pub bpffs: bool,
    /// The programs for the lab that are not here.
    pub missing: Vec<&'static Program>,
    /// The cargo subcommands for the checks that are not here.
    pub missing_checks: Vec<&'static str>,
}

/// What /etc/os-release says.
#[derive(Clone, Debug, Default)]
pub struct Os {
    /// `ID`, then the words of `ID_LIKE`.
    pub family: Vec<String>,
    /// `PRETTY_NAME`.
    pub name: String,
}

impl Machine {
    /// Looks at everything the goal needs.
    ///
    /// # Errors
    /// If the environment asks for a toolchain that does not work.
    pub fn probe(goal: Goal) -> Result<Self> {
        let rustup = find_program("rustup").is_some();
        Ok(Self {
            os: Os::parse(&fs::read_to_string("/etc/os-release").unwrap_or_default()),
            root: is_root(),
            sudo: find_program("sudo").is_some(),
            apt: find_program("apt-get").is_some(),
            rustup,
            packaged_rustup: is_debian_package_file(rustup),
            toolchain: Toolchain::find()?,
            system_toolchain: system_toolchain(),
            linker: Linker::find(),
            bpffs: is_bpffs_mounted(
                &fs::read_to_string("/proc/self/mountinfo").unwrap_or_default(),
            ),
            missing: if goal.wants_lab() {
                PROGRAMS
                    .iter()
                    .filter(|program| !program.is_here())
                    .collect()
            } else {
                Vec::new()
            },
            missing_checks: if goal == Goal::Test {
                CHECKS
                    .into_iter()
                    .filter(|check| !has_cargo_subcommand(check))
                    .collect()
            } else {
                Vec::new()
            },
        })
    }

    /// Whether something that only root may do can be done at all.
    pub fn can_be_root(&self) -> bool {
        self.root || self.sudo
    }
}

/// The cargo subcommands that `test` checks the code with.
pub const CHECKS: [&str; 3] = ["fmt", "clippy", DENY];

/// The one of them that cargo does not bring along.
pub const DENY: &str = "deny";

/// Whether cargo has the subcommand: its file proves nothing, rustup has one for every component.
fn has_cargo_subcommand(name: &str) -> bool {
    output(Command::new(cargo()).args([name, "--version"])).is_some()
}

/// The cargo that runs this program.
pub fn cargo() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Whether this process is root: the owner of a process's own directory is its effective user.
pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

fn system_toolchain() -> Option<Toolchain> {
    let rustc = Path::new("/usr/bin/rustc");
    rustc
        .is_file()
        .then(|| Toolchain::probe(Command::new(rustc), None))
        .flatten()
}

fn is_debian_package_file(rustup: bool) -> bool {
    rustup
        && Path::new("/var/lib/dpkg/info/rustup.list").is_file()
        && Path::new("/usr/bin/rustup").exists()
}

/// The fifth field of a mountinfo line is the mount point; the type follows the lone `-`.
fn is_bpffs_mounted(mountinfo: &str) -> bool {
    mountinfo
        .lines()
        .any(|line| line.split(' ').nth(4) == Some("/sys/fs/bpf") && line.contains(" - bpf "))
}

impl Os {
    fn parse(os_release: &str) -> Self {
        let value = |key: &str| {
            os_release
                .lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
                .map(|value| value.trim_matches(['"', '\'']))
        };
        let words = [value("ID"), value("ID_LIKE")];
        Self {
            family: words
                .into_iter()
                .flatten()
                .flat_map(str::split_whitespace)
                .map(str::to_owned)
                .collect(),
            name: value("PRETTY_NAME")
                .or(value("ID"))
                .unwrap_or("this system")
                .to_owned(),
        }
    }

    /// Whether it is this distribution or made from it.
    pub fn is_like(&self, id: &str) -> bool {
        self.family.iter().any(|own| own == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn os_release_names_the_family() {
        let os = Os::parse(
            "PRETTY_NAME=\"Ubuntu 24.04.1 LTS\"\nID=ubuntu\nID_LIKE=debian\nVERSION_ID=\"24.04\"\n",
        );
        assert_eq!(os.name, "Ubuntu 24.04.1 LTS");
        assert!(os.is_like("ubuntu") && os.is_like("debian") && !os.is_like("fedora"));
        assert_eq!(Os::parse("").name, "this system");
    }

    #[test]
    fn bpffs_is_recognised_by_place_and_type() {
        let mounted = "33 24 0:29 / /sys/fs/bpf rw,nosuid shared:10 - bpf bpf rw,mode=700\n";
        assert!(is_bpffs_mounted(mounted));
        assert!(!is_bpffs_mounted(
            "33 24 0:29 / /sys/fs/bpf rw shared:10 - tmpfs tmpfs rw\n"
        ));
        assert!(!is_bpffs_mounted("33 24 0:29 / /mnt/bpf rw - bpf bpf rw\n"));
    }
}
