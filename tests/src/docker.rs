//! A private Docker daemon inside a host's namespaces. Its socket is where every Docker client of that
//! host looks for it, because the host's /run is its own.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::Ipv4Addr,
    ops::Deref,
    os::unix::{fs::symlink, net::UnixStream},
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    daemon::Daemon,
    engine::{Engine, PROXY},
    guest,
    host::Host,
    image,
    lab::Lab,
    netns::Netns,
    process::{Cmd, Finished},
    wait::{self, PATIENCE},
};

/// The daemon's socket, in the host.
pub const SOCKET: &str = "/run/docker.sock";

/// The folder of everything that is the daemon's, in the host.
pub(crate) const HOME: &str = "/run/docker-lab";

/// Where it keeps the network namespaces of its containers, in a host.
const NAMESPACES: &str = "/run/docker-lab/exec/netns";

/// The IPv6 addresses of the default bridge's containers, where they have any.
const FIXED_CIDR_V6: &str = "fd00:1::/64";

/// How long dockerd may take to come up or go down.
const LIMIT: Duration = Duration::from_secs(30);

/// A running daemon with the lab's image loaded: dockerd, unless [`Engine`] says otherwise.
#[derive(Debug)]
pub struct Docker {
    engine: Engine,
    daemon: Option<Daemon>,
}

/// One event, as `docker events` prints it.
#[derive(Debug, Clone, Deserialize)]
pub struct Event {
    /// "container", "network" and so on.
    #[serde(rename = "Type")]
    pub kind: String,
    /// What happened: "start", "die", "connect".
    #[serde(rename = "Action")]
    pub action: String,
    /// To whom.
    #[serde(rename = "Actor")]
    pub actor: Actor,
    /// When, in nanoseconds since the epoch.
    #[serde(rename = "timeNano")]
    pub time_nano: u64,
}

/// Whom an event is about.
#[derive(Debug, Clone, Deserialize)]
pub struct Actor {
    /// Its labels and name.
    #[serde(rename = "Attributes")]
    pub attributes: BTreeMap<String, String>,
}

impl Event {
    /// When it happened.
    pub fn at(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_nanos(self.time_nano)
    }
}

impl Docker {
    /// Starts the daemon in `host` and imports the lab's image.
    ///
    /// # Errors
    /// It does not come up; with the end of its log.
    pub fn start(host: &Host) -> Result<Self> {
        Self::start_with(host, json!({}))
    }

    /// The same with IPv6 addresses on the default bridge, published by ip6tables or by docker-proxy alone.
    ///
    /// # Errors
    /// As [`Docker::start`].
    pub fn start_with_ipv6(host: &Host, ip6tables: bool) -> Result<Self> {
        Self::start_with(host, ipv6(ip6tables))
    }

    /// Starts dockerd without rules of its own: published ports are docker-proxy's alone.
    ///
    /// # Errors
    /// As [`Docker::start`].
    pub fn start_without_rules(host: &Host) -> Result<Self> {
        Self::start_with(host, json!({ "iptables": false }))
    }

    /// Starts dockerd without its docker-proxy: published ports are its rules' alone.
    ///
    /// # Errors
    /// As [`Docker::start`].
    pub fn start_without_proxy(host: &Host) -> Result<Self> {
        Self::start_with(host, json!({ PROXY: false }))
    }

    /// Starts dockerd so that its containers stay when it ends, or not.
    ///
    /// # Errors
    /// As [`Docker::start`].
    pub fn start_with_live_restore(host: &Host, live_restore: bool) -> Result<Self> {
        Self::start_with(host, json!({ "live-restore": live_restore }))
    }

    /// Starts dockerd without docker-proxy too, with IPv6 by ip6tables, and so that its containers stay when it ends: nobody
    /// but the rules hands packets on. Where these are missing the port's socket, of which nobody reads, keeps what comes.
    ///
    /// # Errors
    /// As [`Docker::start`].
    pub fn start_lasting_without_proxy(host: &Host) -> Result<Self> {
        let mut config = ipv6(true);
        config["live-restore"] = json!(true);
        config[PROXY] = json!(false);
        Self::start_with(host, config)
    }

    fn start_with(host: &Host, config: Value) -> Result<Self> {
        let engine = Engine::chosen()?;
        engine.configure(host, config)?;
        let mut docker = Self {
            engine,
            daemon: None,
        };
        docker.up(host)?;
        image::import(host).context("cannot make the lab's image")?;
        Ok(docker)
    }

    /// Which daemon it is.
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// Starts the daemon again after [`Docker::down`], with the containers it had.
    ///
    /// # Errors
    /// It does not come up.
    pub fn up(&mut self, host: &Host) -> Result<()> {
        let daemon = self.engine.daemon(host).start()?;
        wait::until_true("Docker's daemon", LIMIT, || match daemon.ended() {
            Some(code) => bail!("it ended with status {code}:\n{}", last_words(&daemon)),
            None => Ok(answers(host)),
        })
        .with_context(|| last_words(&daemon))?;
        self.daemon = Some(daemon);
        Ok(())
    }

    /// Ends the daemon and its containers as a system shutting down does.
    ///
    /// # Errors
    /// It does not end.
    pub fn down(&mut self) -> Result<()> {
        if let Some(daemon) = self.daemon.take() {
            daemon.signal(Signal::SIGTERM);
            daemon.wait(LIMIT)?;
        }
        Ok(())
    }
}

/// dockerd's configuration for IPv6.
fn ipv6(ip6tables: bool) -> Value {
    json!({
        "ipv6": true,
        "fixed-cidr-v6": FIXED_CIDR_V6,
        "ip6tables": ip6tables,
        // Docker before 27 wants it for ip6tables.
        "experimental": true,
    })
}

/// A lab whose host runs Docker.
#[derive(Debug)]
pub struct DockerLab {
    /// The daemon.
    pub docker: Docker,
    lab: Lab,
}

impl DockerLab {
    /// Builds the lab and starts Docker, in less than a second.
    ///
    /// # Errors
    /// Not root, or a piece is missing.
    pub fn new() -> Result<Self> {
        Self::with(Docker::start)
    }

    /// The same around a host.
    ///
    /// # Errors
    /// As [`DockerLab::new`].
    pub fn around(host: Host) -> Result<Self> {
        Self::start(Lab::around(host)?, Docker::start)
    }

    /// The same with [`Docker::start_without_rules`].
    ///
    /// # Errors
    /// As [`DockerLab::new`].
    pub fn without_rules() -> Result<Self> {
        Self::with(Docker::start_without_rules)
    }

    /// The same with [`Docker::start_without_proxy`].
    ///
    /// # Errors
    /// As [`DockerLab::new`].
    pub fn without_proxy() -> Result<Self> {
        Self::with(Docker::start_without_proxy)
    }

    /// The same with [`Docker::start_with_ipv6`].
    ///
    /// # Errors
    /// As [`DockerLab::new`].
    pub fn with_ipv6(ip6tables: bool) -> Result<Self> {
        Self::with(|host| Docker::start_with_ipv6(host, ip6tables))
    }

    fn with(start: impl FnOnce(&Host) -> Result<Docker>) -> Result<Self> {
        Self::start(Lab::new()?, start)
    }

    fn start(lab: Lab, start: impl FnOnce(&Host) -> Result<Docker>) -> Result<Self> {
        let docker = start(&lab.host)?;
        Ok(Self { docker, lab })
    }
}

impl Deref for DockerLab {
    type Target = Lab;

    fn deref(&self) -> &Lab {
        &self.lab
    }
}

/// Whether a daemon answers at the socket.
fn answers(host: &Host) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = UnixStream::connect(host.file(SOCKET))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET /_ping HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.contains("200 OK"))
}

fn last_words(daemon: &Daemon) -> String {
    let lines = daemon.lines();
    let last = lines.len().saturating_sub(15);
    let texts: Vec<_> = lines[last..]
        .iter()
        .map(|line| line.text.as_str())
        .collect();
    texts.join("\n")
}

/// Has the network namespaces of its containers where a Docker that is the machine's own has them.
///
/// # Errors
/// The file system's.
pub fn link_namespaces(host: &Host) -> Result<()> {
    fs::create_dir_all(host.file("/run/docker"))?;
    symlink(NAMESPACES, host.file("/run/docker/netns")).context("no link to the namespaces")
}

/// A `docker` command in `host`, its arguments split at blanks.
pub fn command(host: &Host, args: &str) -> Cmd {
    host.command("docker")
        .args(args.split_whitespace())
        .env("DOCKER_HOST", format!("unix://{SOCKET}"))
        .env("DOCKER_CONFIG", format!("{HOME}/cli"))
        .env_remove("DOCKER_CONTEXT")
}

/// Runs `docker ARGS` and returns what it printed.
///
/// # Errors
/// With what Docker said.
pub fn docker(host: &Host, args: &str) -> Result<String> {
    let said = command(host, args).text()?;
    if let Some(name) = args
        .strip_prefix("run -d --name ")
        .and_then(|rest| rest.split_whitespace().next())
    {
        wait_serving(host, name)?;
    }
    Ok(said)
}

/// Waits until the servers of a container that has just been started listen; Docker says that it runs some
/// time before.
///
/// # Errors
/// They do not come.
pub fn wait_serving(host: &Host, name: &str) -> Result<()> {
    wait::until_true(&format!("the servers of {name}"), PATIENCE, || {
        let logs = try_docker(host, &format!("logs {name}"))?;
        Ok(logs.stdout.lines().any(|line| line == guest::READY))
    })
}

/// Runs `docker ARGS`, which may fail.
///
/// # Errors
/// It cannot be run.
pub fn try_docker(host: &Host, args: &str) -> Result<Finished> {
    command(host, args).output()
}

/// The address of a container in a network.
///
/// # Errors
/// There is no such container, or it is not there.
pub fn address(host: &Host, container: &str, network: &str) -> Result<Ipv4Addr> {
    let format = format!("{{{{(index .NetworkSettings.Networks \"{network}\").IPAddress}}}}");
    let address = command(host, "inspect --format")
        .args([&format, container])
        .text()?;
    address
        .parse()
        .with_context(|| format!("{container} has no address in {network}"))
}

/// The MAC address of a container in a network.
///
/// # Errors
/// As [`address`].
pub fn mac(host: &Host, container: &str, network: &str) -> Result<String> {
    let format = format!("{{{{(index .NetworkSettings.Networks \"{network}\").MacAddress}}}}");
    command(host, "inspect --format")
        .args([&format, container])
        .text()
}

/// The network namespace of a running container.
///
/// # Errors
/// There is no such container, or it does not run.
pub fn netns(host: &Host, container: &str) -> Result<Netns> {
    let pid = command(host, "inspect --format {{.State.Pid}}")
        .arg(container)
        .text()?;
    Netns::at(&host.file(format!("/proc/{pid}/ns/net")))
}

/// A listener for the daemon's events.
#[derive(Debug)]
pub struct Events {
    daemon: Daemon,
}

impl Events {
    /// Begins to listen. Events of the last moments before it are heard too.
    ///
    /// # Errors
    /// `docker events` does not start.
    pub fn listen(host: &Host) -> Result<Self> {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        let daemon = command(host, "events")
            .args(["--format", "{{json .}}"])
            .args(["--since", &since.as_secs().to_string()])
            .start()?;
        Ok(Self { daemon })
    }

    /// The latest event of that kind for the container of that name, after `after`.
    ///
    /// # Errors
    /// None comes.
    pub fn container(&self, action: &str, name: &str, after: SystemTime) -> Result<Event> {
        wait::until(&format!("Docker's event {action} {name}"), PATIENCE, || {
            let mut events = Vec::new();
            for line in self.daemon.lines() {
                let event: Event = serde_json::from_str(&line.text)
                    .with_context(|| format!("not an event: {}", line.text))?;
                events.push(event);
            }
            Ok(events.into_iter().rfind(|event| {
                event.kind == "container"
                    && event.action == action
                    && event
                        .actor
                        .attributes
                        .get("name")
                        .is_some_and(|own| own == name)
                    && event.at() > after
            }))
        })
    }
}
