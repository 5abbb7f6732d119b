//! What a test needs of the machine.

use std::{env, fmt, fs, path::Path};

use nix::unistd::geteuid;

use crate::{
    cgroup,
    engine::Engine,
    guest, image,
    kernel::{self, Release},
    portway, system,
};

/// A thing that a machine may lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requirement {
    /// Privileges for namespaces, mounts and BPF.
    Root,
    /// A kernel that runs TC programs, with its `ip`, `tc` and `iptables`.
    Kernel,
    /// A kernel that tells what drivers can do in XDP.
    XdpFeatures,
    /// ethtool, for the offloads of links.
    Ethtool,
    /// systemd, for the unit.
    Systemd,
    /// Control groups that limit memory.
    MemoryCgroup,
    /// A daemon with Docker's API, and what the lab's image is made of.
    Docker,
    /// The same, and it has to be dockerd.
    Dockerd,
    /// The program under test.
    Portway,
}

impl Requirement {
    /// Why it is not met, if so.
    pub fn missing(self) -> Option<String> {
        match self {
            Self::Root => (!geteuid().is_root()).then(|| "not root".to_owned()),
            Self::Kernel => missing_in_kernel(),
            Self::XdpFeatures => since(kernel::XDP_FEATURES),
            Self::Ethtool => missing_program(&["ethtool"]),
            Self::Systemd => missing_systemd(),
            Self::MemoryCgroup => {
                (!cgroup::controls_memory()).then(|| "no cgroup controls memory".to_owned())
            }
            Self::Docker => missing_docker(),
            Self::Dockerd => match Engine::chosen() {
                Ok(Engine::Podman) => Some("the engine is podman".to_owned()),
                _ => missing_docker(),
            },
            Self::Portway => portway::program().err().map(|error| error.to_string()),
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Root => "root",
            Self::Kernel => "kernel",
            Self::XdpFeatures => "drivers' XDP features",
            Self::Ethtool => "ethtool",
            Self::Systemd => "systemd",
            Self::MemoryCgroup => "memory cgroup",
            Self::Docker => "docker",
            Self::Dockerd => "dockerd",
            Self::Portway => "portway",
        })
    }
}

fn since((major, minor): Release) -> Option<String> {
    let (has_major, has_minor) = kernel::release();
    ((has_major, has_minor) < (major, minor))
        .then(|| format!("since Linux {major}.{minor}, and this is {has_major}.{has_minor}"))
}

fn missing_in_kernel() -> Option<String> {
    let filesystems = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !filesystems.lines().any(|line| line.ends_with("\tbpf")) {
        return Some("the kernel has no BPF".to_owned());
    }
    missing_program(&["ip", "tc", "iptables", "iptables-save"])
}

fn missing_systemd() -> Option<String> {
    missing_program(&["systemd-analyze", "systemctl"]).or_else(|| {
        let is_there = system::has(Path::new(guest::SYSTEMD));
        (!is_there).then(|| format!("no {}", guest::SYSTEMD))
    })
}

fn missing_docker() -> Option<String> {
    match Engine::chosen() {
        Ok(engine) => missing_program(engine.programs())
            .or_else(|| missing_program(&["ldd", "tar"]))
            .or_else(|| image::busybox().err().map(|error| error.to_string())),
        Err(error) => Some(error.to_string()),
    }
}

fn missing_program(programs: &[&str]) -> Option<String> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<_> = env::split_paths(&path).collect();
    let has = |program: &str| {
        folders
            .iter()
            .any(|folder| system::has(&folder.join(program)))
    };
    let missing: Vec<_> = programs
        .iter()
        .copied()
        .filter(|program| !has(program))
        .collect();
    (!missing.is_empty()).then(|| format!("not on PATH: {}", missing.join(", ")))
}
