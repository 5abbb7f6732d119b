//! The programs the lab is made of, and what each distribution calls their packages.

use std::path::{Path, PathBuf};

use crate::toolchain::find_program;

/// A program the lab needs.
#[derive(Debug, PartialEq, Eq)]
pub struct Program {
    /// Its name, as the user types it.
    pub name: &'static str,
    /// What it is for, for the list of what is missing.
    pub purpose: &'static str,
    /// Whether the lab can do without.
    pub optional: bool,
    kind: Kind,
    /// Debian's packages that have it; the first one there is in the archive is taken.
    pub apt: &'static [&'static str],
    dnf: &'static str,
    pacman: &'static str,
    zypper: &'static str,
    apk: &'static str,
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    /// May also be a plug-in of the `docker` command.
    DockerPlugin,
}

/// A package manager that xtask gives commands for, but does not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manager {
    /// Fedora and its kin.
    Dnf,
    /// Arch.
    Pacman,
    /// openSUSE.
    Zypper,
    /// Alpine.
    Apk,
}

/// Every program the lab and the tests call, beside portway's own.
pub static PROGRAMS: [Program; 11] = [
    Program {
        purpose: "the lab's private Docker daemon",
        ..Program::new(
            "dockerd",
            &["docker.io"],
            ["moby-engine", "docker", "docker", "docker"],
        )
    },
    Program {
        purpose: "containers",
        ..Program::new(
            "docker",
            &["docker-cli", "docker.io"],
            ["docker-cli", "docker", "docker", "docker-cli"],
        )
    },
    Program {
        purpose: "the compose scenario",
        optional: true,
        kind: Kind::DockerPlugin,
        ..Program::new(
            "docker-compose",
            &["docker-compose", "docker-compose-v2"],
            [
                "docker-compose",
                "docker-compose",
                "docker-compose",
                "docker-cli-compose",
            ],
        )
    },
    Program {
        purpose: "the images' contents",
        ..Program::new(
            "busybox",
            &["busybox-static"],
            ["busybox", "busybox", "busybox", "busybox"],
        )
    },
    Program {
        purpose: "network namespaces and links",
        ..Program::new(
            "ip",
            &["iproute2"],
            ["iproute", "iproute2", "iproute2", "iproute2"],
        )
    },
    Program {
        purpose: "traffic control, and what portway has in it",
        ..Program::new(
            "tc",
            &["iproute2"],
            ["iproute-tc", "iproute2", "iproute2", "iproute2-tc"],
        )
    },
    Program {
        purpose: "the tests of XDP",
        optional: true,
        ..Program::new(
            "ethtool",
            &["ethtool"],
            ["ethtool", "ethtool", "ethtool", "ethtool"],
        )
    },
    Program {
        purpose: "Docker's rules, and their counters",
        ..Program::new(
            "iptables",
            &["iptables"],
            ["iptables-nft", "iptables", "iptables", "iptables"],
        )
    },
    Program {
        purpose: "firewall rules",
        ..Program::new(
            "nft",
            &["nftables"],
            ["nftables", "nftables", "nftables", "nftables"],
        )
    },
    Program {
        purpose: "the test of the systemd unit",
        optional: true,
        ..Program::new(
            "systemd-analyze",
            &["systemd"],
            ["systemd", "systemd", "systemd", "systemd"],
        )
    },
    Program {
        purpose: "seeing that nothing is left running",
        ..Program::new(
            "ps",
            &["procps"],
            ["procps-ng", "procps-ng", "procps", "procps"],
        )
    },
];

impl Program {
    const fn new(
        name: &'static str,
        apt: &'static [&'static str],
        others: [&'static str; 4],
    ) -> Self {
        let [dnf, pacman, zypper, apk] = others;
        Self {
            name,
            purpose: "",
            optional: false,
            kind: Kind::Plain,
            apt,
            dnf,
            pacman,
            zypper,
            apk,
        }
    }

    /// Its package with another manager than apt.
    pub fn package(&self, manager: Manager) -> &'static str {
        match manager {
            Manager::Dnf => self.dnf,
            Manager::Pacman => self.pacman,
            Manager::Zypper => self.zypper,
            Manager::Apk => self.apk,
        }
    }

    /// Whether it is on this machine.
    pub fn is_here(&self) -> bool {
        match self.kind {
            Kind::Plain => installed(self.name).is_some(),
            Kind::DockerPlugin => installed(self.name).is_some() || is_docker_plugin(self.name),
        }
    }
}

/// A program on PATH or where only root's PATH leads.
fn installed(name: &str) -> Option<PathBuf> {
    find_program(name).or_else(|| {
        ["/usr/sbin", "/sbin", "/usr/local/sbin"]
            .into_iter()
            .map(|dir| Path::new(dir).join(name))
            .find(|path| path.is_file())
    })
}

fn is_docker_plugin(name: &str) -> bool {
    [
        "/usr/libexec",
        "/usr/lib",
        "/usr/local/libexec",
        "/usr/local/lib",
    ]
    .into_iter()
    .any(|dir| {
        Path::new(dir)
            .join("docker/cli-plugins")
            .join(name)
            .is_file()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_has_a_package_everywhere_and_a_purpose() {
        for program in &PROGRAMS {
            assert!(!program.apt.is_empty(), "{}", program.name);
            assert!(!program.purpose.is_empty(), "{}", program.name);
            for manager in [Manager::Dnf, Manager::Pacman, Manager::Zypper, Manager::Apk] {
                assert!(
                    !program.package(manager).is_empty(),
                    "{} with {manager:?}",
                    program.name
                );
            }
        }
    }
}
