//! Which daemon answers at the lab's Docker socket: dockerd, or podman's service that speaks Docker's API. Whatever
//! it is, the lab's client is Docker's.

use std::{fs, net::Ipv4Addr, path::Path};

use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::{
    docker::{HOME, SOCKET},
    host::Host,
    lab::CLIENTS,
    process::Cmd,
    setting::setting,
};

/// Names the daemon: `docker` or `podman`.
pub const VARIABLE: &str = "PORTWAY_ENGINE";

/// Whether dockerd starts a docker-proxy for each published port: `true` or `false`.
pub const PROXY_VARIABLE: &str = "PORTWAY_USERLAND_PROXY";

/// What Docker says, of IPv4, to a container with `-p 9000:...` that another one has, and what portway says to such a wish.
pub const REFUSAL: &str = "Bind for 0.0.0.0:9000 failed: port is already allocated";

/// dockerd's own word for it.
pub(crate) const PROXY: &str = "userland-proxy";

/// Containers' DNS server: nobody answers there, and the client says so at once.
const DNS_SERVER: Ipv4Addr = CLIENTS[0];

/// Where version 2 of cgroups is, on a machine that also has version 1.
const HYBRID_CGROUPS: &str = "/sys/fs/cgroup/unified";

/// A daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// dockerd.
    Docker,
    /// `podman system service`.
    Podman,
}

impl Engine {
    /// The one that [`VARIABLE`] names, else dockerd.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn chosen() -> Result<Self> {
        match setting::<String>(VARIABLE)?.as_deref() {
            None | Some("docker") => Ok(Self::Docker),
            Some("podman") => Ok(Self::Podman),
            Some(other) => bail!("{VARIABLE}: {other} is neither docker nor podman"),
        }
    }

    /// The programs that it takes.
    pub fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Docker => &["dockerd", "containerd", "docker"],
            Self::Podman => &["podman", "conmon", "crun", "docker"],
        }
    }

    /// The network of containers that name none.
    pub fn default_network(self) -> &'static str {
        match self {
            Self::Docker => "bridge",
            Self::Podman => "podman",
        }
    }

    /// What it says to a container with the TCP port 9000 that another one has. Before that Docker has the address, of
    /// either IP version: later ones try both, in any order.
    pub fn refusal(self) -> &'static str {
        match self {
            Self::Docker => ":9000 failed: port is already allocated",
            Self::Podman => "bind: address already in use",
        }
    }

    /// The chain of the filter table that is for the user's rules about forwarded packets.
    pub fn users_chain(self) -> &'static str {
        match self {
            Self::Docker => "DOCKER-USER",
            Self::Podman => "FORWARD",
        }
    }

    /// The admission that its rules call for, where there are no others: `direct` or `netfilter`.
    pub fn admission(self) -> &'static str {
        match self {
            Self::Docker => "direct",
            Self::Podman => "netfilter",
        }
    }

    /// Whether it keeps its networks apart unless told otherwise.
    pub fn isolates_networks(self) -> bool {
        self == Self::Docker
    }

    /// Whether its rules count packets. Those of podman's netavark, in nftables, do not.
    pub fn counts_packets(self) -> bool {
        self == Self::Docker
    }

    /// Whether its events come as soon as they happen. podman looks for its own in a file, every 250 ms.
    pub fn tells_at_once(self) -> bool {
        self == Self::Docker
    }

    /// Whether a container on several networks answers by the one that its ports are published on. One of podman's has a
    /// default route by each, and takes the one made last; the rules lead to the one made first.
    pub fn answers_by_the_publishing_network(self) -> bool {
        self == Self::Docker
    }

    /// Writes its configuration: `config` is what dockerd's has beside what every lab's has; podman takes no part of it.
    ///
    /// # Errors
    /// A setting makes no sense.
    pub(crate) fn configure(self, host: &Host, mut config: Value) -> Result<()> {
        let home = host.file(HOME);
        fs::create_dir_all(&home)?;
        match self {
            Self::Docker => {
                config["dns"] = json!([DNS_SERVER]);
                let proxy = setting::<bool>(PROXY_VARIABLE)?;
                if let Some(proxy) = proxy.filter(|_| config.get(PROXY).is_none()) {
                    config[PROXY] = json!(proxy);
                }
                fs::write(home.join("daemon.json"), config.to_string())?;
            }
            Self::Podman => {
                // With cgroups of its own a container would outlive the lab in them.
                let config = format!(
                    "[containers]\ncgroups = \"disabled\"\ndns_servers = [\"{DNS_SERVER}\"]\n\
                     [engine]\nruntime = \"crun\"\ncgroup_manager = \"cgroupfs\"\n"
                );
                fs::write(home.join("containers.conf"), config)?;
                // crun refuses such a mixture; without its second part there is none in this host.
                if Path::new(HYBRID_CGROUPS).is_dir() {
                    host.command("umount").arg(HYBRID_CGROUPS).text()?;
                }
            }
        }
        Ok(())
    }

    /// The command that starts it.
    pub(crate) fn daemon(self, host: &Host) -> Cmd {
        let home = |name| format!("{HOME}/{name}");
        let socket = format!("unix://{SOCKET}");
        match self {
            Self::Docker => host
                .command("dockerd")
                .args(["--config-file", &home("daemon.json")])
                .args(["--data-root", &home("data")])
                .args(["--exec-root", &home("exec")])
                .args(["--pidfile", &home("pid")])
                .args(["--host", &socket])
                // systemd, where it is there, knows nothing of this host.
                .args(["--exec-opt", "native.cgroupdriver=cgroupfs"])
                .args(["--cgroup-parent", &format!("/{}", host.cgroup())])
                .env_remove("DOCKER_HOST"),
            Self::Podman => host
                .command("podman")
                .args(["--root", &home("data")])
                .args(["--runroot", &home("run")])
                .args(["--tmpdir", &home("tmp")])
                .args(["--network-config-dir", &home("networks")])
                .args(["system", "service", "--time=0", &socket])
                .env("CONTAINERS_CONF", home("containers.conf")),
        }
    }
}
