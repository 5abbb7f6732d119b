//! The program under test, run inside a host.

use std::{
    env,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use portway::spec::Spec;
use rustix::thread::CapabilitySet;
use serde::de::DeserializeOwned;

mod json;
mod other_build;

pub use json::{Admission, External, Flow, Port, Status, Used, Xdp};
pub use other_build::other_build;

use crate::{
    daemon::Daemon,
    docker,
    host::Host,
    lab::{EXTERNAL, Lab},
    process::{Cmd, Finished},
    wait::{self, PATIENCE},
};

/// What `run` says when it has loaded.
pub const AT_WORK: &str = "; admission ";

/// Numbers this process's instances.
static NEXT: AtomicU32 = AtomicU32::new(1);

/// The program: the one PORTWAY_BIN names, else the workspace's release build.
///
/// # Errors
/// It has not been built.
pub fn program() -> Result<PathBuf> {
    if let Some(path) = env::var_os("PORTWAY_BIN") {
        let path = PathBuf::from(path);
        if !path.is_file() {
            bail!("PORTWAY_BIN: no file {}", path.display());
        }
        return Ok(path);
    }
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/portway");
    let beside = env::current_exe()
        .ok()
        .and_then(|own| Some(own.parent()?.join("portway")));
    [beside, Some(workspace)]
        .into_iter()
        .flatten()
        .find(|path| path.is_file())
        .context("no portway: run cargo xtask build, or set PORTWAY_BIN")
}

/// An instance of portway in a host. Dropped, it is unloaded, unless it was [left](Portway::leave).
#[derive(Debug)]
pub struct Portway<'a> {
    host: &'a Host,
    program: PathBuf,
    instance: String,
    capabilities: CapabilitySet,
    left: bool,
}

impl<'a> Portway<'a> {
    /// An instance that nobody else has; nothing is run yet.
    ///
    /// # Errors
    /// portway has not been built.
    pub fn new(host: &'a Host) -> Result<Self> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Ok(Self {
            host,
            program: program()?,
            instance: format!("lab-{}-{number}", process::id()),
            capabilities: CapabilitySet::all(),
            left: false,
        })
    }

    /// An instance that was left, by its name.
    ///
    /// # Errors
    /// portway has not been built.
    pub fn again(host: &'a Host, instance: &str) -> Result<Self> {
        Ok(Self {
            host,
            program: program()?,
            instance: instance.to_owned(),
            capabilities: CapabilitySet::all(),
            left: true,
        })
    }

    /// The same instance by another build of the program.
    #[must_use]
    pub fn with_program(mut self, program: impl Into<PathBuf>) -> Self {
        self.program = program.into();
        self
    }

    /// Leaves its commands these capabilities and no others.
    #[must_use]
    pub fn with_capabilities(mut self, capabilities: CapabilitySet) -> Self {
        self.capabilities = capabilities;
        self
    }

    /// Leaves it as it is, to go with its host, and returns its name.
    pub fn leave(mut self) -> String {
        self.left = true;
        self.instance.clone()
    }

    /// The instance's name.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// `portway ARGS --instance ...`, the arguments split at blanks.
    pub fn command(&self, args: &str) -> Cmd {
        self.host
            .command(&self.program)
            .with_capabilities(self.capabilities)
            .args(args.split_whitespace())
            .args(["--instance", &self.instance])
            .env_remove("DOCKER_HOST")
            .env_remove("PORTWAY_LOG")
    }

    /// Runs it to its end, whatever that is.
    ///
    /// # Errors
    /// It cannot be run, or does not end.
    pub fn output(&self, args: &str) -> Result<Finished> {
        self.command(args).output()
    }

    /// Runs it to a good end and returns what it printed.
    ///
    /// # Errors
    /// It fails; with its own words.
    pub fn text(&self, args: &str) -> Result<String> {
        self.command(args).text()
    }

    /// `portway load` on the lab's external interface, with `args` added.
    ///
    /// # Errors
    /// It fails.
    pub fn load(&self, args: &str) -> Result<String> {
        self.text(&format!("load --external {EXTERNAL} {args}"))
    }

    /// `portway ls --json`.
    ///
    /// # Errors
    /// It fails, or breaks the contract.
    pub fn ls(&self) -> Result<Vec<Port>> {
        self.json("ls")
    }

    /// The row of a published port.
    ///
    /// # Errors
    /// As [`Portway::ls`].
    pub fn port(&self, protocol: &str, host_port: u16) -> Result<Option<Port>> {
        Ok(self.ls()?.into_iter().find(|port| {
            port.protocol == protocol
                && (port.host_port..=port.host_port_end).contains(&host_port)
                && !port.host_ip.contains(':')
        }))
    }

    /// Waits until a port is active, and returns its row.
    ///
    /// # Errors
    /// It does not come.
    pub fn wait_active(&self, protocol: &str, host_port: u16) -> Result<Port> {
        let what = format!("portway having {protocol} {host_port} active");
        wait::until(&what, PATIENCE, || {
            // A `run` that has just begun may not have loaded yet.
            let port = self.port(protocol, host_port).ok().flatten();
            Ok(port.filter(|port| port.state == "active"))
        })
        .with_context(|| match self.text("ls") {
            Ok(table) => format!("portway ls:\n{table}"),
            Err(error) => format!("{error:#}"),
        })
    }

    /// Waits until a port of TCP is active, and an answer from it takes XDP and nothing else.
    ///
    /// # Errors
    /// It is not, in time.
    pub fn wait_answer_by_xdp(&self, lab: &Lab, host_port: u16) -> Result<()> {
        self.wait_active("tcp", host_port)?;
        wait::until_true("an answer by XDP alone", PATIENCE, || {
            let (answer, used) = self.measure(|| Ok(lab.get_from_outside(host_port)))?;
            Ok(answer.is_ok() && used.both_ways() && used.by_xdp == used.forwarded)
        })
    }

    /// `portway status --json`.
    ///
    /// # Errors
    /// It fails, or breaks the contract.
    pub fn status(&self) -> Result<Status> {
        self.json("status")
    }

    /// Does `work` and tells how much of it took the fast path.
    ///
    /// # Errors
    /// Those of `work`, and of [`Portway::status`].
    pub fn measure<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<(T, Used)> {
        let before = self.status()?;
        let outcome = work()?;
        Ok((outcome, self.status()?.since(&before)))
    }

    /// `portway publish SPEC`. It gives the container a second to answer; a machine that is slower gets more of them.
    ///
    /// # Errors
    /// It fails, or the container does not answer.
    pub fn publish(&self, spec: &str) -> Result<()> {
        let wanted = Spec::parse(spec)?;
        let is_it = |port: &Port| {
            port.protocol == wanted.protocol.to_string()
                && port.host_port == wanted.host_ports.first
                && port.container_ip == wanted.container_ip.to_string()
        };
        let mut said = String::new();
        for _ in 0..wait::slowness() {
            said = self.text(&format!("publish {spec}"))?;
            let ports = self.ls()?;
            if ports
                .iter()
                .any(|port| is_it(port) && port.state == "active")
            {
                return Ok(());
            }
        }
        bail!("portway publish {spec}: not active: {said}")
    }

    /// `portway flows --json`.
    ///
    /// # Errors
    /// It fails, or breaks the contract.
    pub fn flows(&self) -> Result<Vec<Flow>> {
        self.json("flows")
    }

    fn json<T: DeserializeOwned>(&self, what: &str) -> Result<T> {
        let text = self.text(&format!("{what} --json"))?;
        serde_json::from_str(&text)
            .with_context(|| format!("portway {what} --json breaks its contract:\n{text}"))
    }

    /// Starts `portway run` on the lab's external interface and the host's Docker, with `args` added.
    ///
    /// # Errors
    /// It does not start.
    pub fn run(&self, args: &str) -> Result<Daemon> {
        self.command(&format!("run --external {EXTERNAL} {args}"))
            .start()
    }

    /// [`Portway::run`] following the host's Docker.
    ///
    /// # Errors
    /// It does not start.
    pub fn run_with_docker(&self, args: &str) -> Result<Daemon> {
        self.run(&format!("--docker unix://{} {args}", docker::SOCKET))
    }

    /// Ends a `portway run` with Ctrl-C.
    ///
    /// # Errors
    /// It does not end, or not well.
    pub fn interrupt(&self, run: &Daemon) -> Result<()> {
        run.signal(Signal::SIGINT);
        let code = run.wait(PATIENCE)?;
        if code != 0 {
            bail!(
                "portway run ended with status {code} on Ctrl-C:\n{}",
                run.said()
            );
        }
        Ok(())
    }
}

impl Drop for Portway<'_> {
    fn drop(&mut self) {
        if !self.left {
            // Pins go with the host, attached programs with its interfaces: a failure here leaves nothing.
            let _ = self.output("unload");
        }
    }
}
