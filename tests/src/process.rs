//! Commands inside a namespace.

use std::{
    ffi::OsStr,
    fmt,
    fs::File,
    io::{self, Write as _},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use nix::{
    sched::{CloneFlags, unshare},
    sys::{
        prctl, ptrace,
        resource::{Resource, setrlimit},
        signal::{SigSet, SigmaskHow, Signal, kill, pthread_sigmask},
    },
    unistd::{Gid, Pid, Uid, setgid, setgroups, setuid},
};
use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};

use crate::{daemon::Daemon, netns::Netns, wait};

/// After this long a command that should end by itself is killed.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// The user that owns nothing.
const NOBODY: u32 = 65534;

/// What a process enters before its program starts.
#[derive(Debug, Clone)]
enum Place {
    /// Somebody's namespaces.
    Inside(Netns),
    /// Network, mount and PID namespaces made for it, in which it is the first process.
    NewHost,
}

/// A command with the namespaces that it will run in.
#[derive(Debug)]
pub struct Cmd {
    command: Command,
    place: Place,
    nobody: bool,
    capabilities: CapabilitySet,
    limits: Vec<(Resource, u64)>,
    cgroup: Option<PathBuf>,
    traced: bool,
}

/// How a command ended and what it said.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Exit status.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Cmd {
    pub(crate) fn inside(netns: Netns, program: impl AsRef<OsStr>) -> Self {
        Self::new(Place::Inside(netns), program)
    }

    pub(crate) fn new_host(program: impl AsRef<OsStr>) -> Self {
        Self::new(Place::NewHost, program)
    }

    fn new(place: Place, program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(program);
        // Ctrl-C is for the lab, which then ends its processes itself.
        command.process_group(0).stdin(Stdio::null());
        Self {
            command,
            place,
            nobody: false,
            capabilities: CapabilitySet::all(),
            limits: Vec::new(),
            cgroup: None,
            traced: false,
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Removes an environment variable.
    #[must_use]
    pub fn env_remove(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    /// Drops root for the user nobody.
    #[must_use]
    pub fn as_nobody(mut self) -> Self {
        self.nobody = true;
        self
    }

    /// Leaves root these capabilities and no others.
    #[must_use]
    pub fn with_capabilities(mut self, capabilities: CapabilitySet) -> Self {
        self.capabilities = capabilities;
        self
    }

    /// Leaves it no more than this much of a resource.
    #[must_use]
    pub fn with_limit(mut self, resource: Resource, most: u64) -> Self {
        self.limits.push((resource, most));
        self
    }

    /// Puts it into the cgroup with this file of processes.
    #[must_use]
    pub fn in_cgroup(mut self, processes: impl Into<PathBuf>) -> Self {
        self.cgroup = Some(processes.into());
        self
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// It cannot be started, or does not end.
    pub fn output(self) -> Result<Finished> {
        let name = self.name();
        let (started, start) = mpsc::channel();
        let (ended, end) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(move || {
                let mut cmd = self;
                cmd.command.stdout(Stdio::piped()).stderr(Stdio::piped());
                match cmd.spawn() {
                    Ok(child) => {
                        // Its receiver outlives this thread.
                        let _ = started.send(child.id());
                        let _ = ended.send(child.wait_with_output().map_err(Into::into));
                    }
                    Err(error) => drop(ended.send(Err(error))),
                }
            });
            let limit = wait::here(COMMAND_LIMIT);
            let output = match end.recv_timeout(limit) {
                Ok(output) => output,
                Err(_) => {
                    if let Ok(pid) = start.try_recv() {
                        send(pid, Signal::SIGKILL);
                    }
                    Err(anyhow!("does not end within {limit:?}"))
                }
            };
            let output = output.with_context(|| format!("cannot run {name}"))?;
            Ok(Finished {
                status: output.status,
                stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
                stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            })
        })
    }

    /// Runs it to its end and returns its output without the last newline.
    ///
    /// # Errors
    /// Also if it fails, with what it said.
    pub fn text(self) -> Result<String> {
        let name = self.name();
        let finished = self.output()?;
        if !finished.status.success() {
            bail!("{name}: {finished}");
        }
        Ok(finished.stdout.trim_end().to_owned())
    }

    /// Starts it and leaves it running; see [`Daemon`].
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(mut self) -> Result<Daemon> {
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Daemon::start(self)
    }

    /// The command line, for errors.
    pub(crate) fn name(&self) -> String {
        format!("{:?}", self.command)
    }

    /// Starts it for this thread to trace.
    pub(crate) fn spawn_traced(&mut self) -> Result<Child> {
        self.traced = true;
        self.command.stdout(Stdio::null()).stderr(Stdio::piped());
        self.spawn()
    }

    /// Forks and executes on this thread, whose end takes the child with it.
    pub(crate) fn spawn(&mut self) -> Result<Child> {
        match &self.place {
            Place::Inside(netns) => netns.before_fork()?,
            Place::NewHost => {
                unshare(CloneFlags::CLONE_NEWPID).context("cannot create a PID namespace")?;
            }
        }
        let place = self.place.clone();
        let nobody = self.nobody;
        let excess = self.capabilities.complement();
        let limits = self.limits.clone();
        let cgroup = match &self.cgroup {
            Some(processes) => {
                let file = File::options().write(true).open(processes);
                Some(file.with_context(|| format!("cannot open {}", processes.display()))?)
            }
            None => None,
        };
        let traced = self.traced;
        let prepare = move || -> io::Result<()> {
            pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
            match &place {
                Place::Inside(netns) => netns.before_exec()?,
                Place::NewHost => unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)?,
            }
            if nobody {
                setgroups(&[])?;
                setgid(Gid::from_raw(NOBODY))?;
                setuid(Uid::from_raw(NOBODY))?;
            }
            // Root executes its program with what the bounding set has left.
            for (_, capability) in excess.iter_names() {
                remove_capability_from_bounding_set(capability)?;
            }
            // After the change of user, which clears it.
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            if let Some(mut processes) = cgroup.as_ref() {
                // That is the process that writes it.
                processes.write_all(b"0")?;
            }
            for (resource, most) in &limits {
                setrlimit(*resource, *most, *most)?;
            }
            if traced {
                ptrace::traceme()?;
            }
            Ok(())
        };
        // SAFETY: `prepare` only makes system calls: no allocation and no lock between fork and exec.
        unsafe { self.command.pre_exec(prepare) };
        Ok(self.command.spawn()?)
    }
}

impl Finished {
    /// The exit status, or 128 and the signal that ended it, as a shell has it.
    pub fn code(&self) -> i32 {
        code(self.status)
    }
}

impl fmt::Display for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        for text in [self.stdout.trim(), self.stderr.trim()] {
            if !text.is_empty() {
                write!(f, "\n{text}")?;
            }
        }
        Ok(())
    }
}

/// The exit status, or 128 and the signal's number.
pub(crate) fn code(status: ExitStatus) -> i32 {
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

/// Signals a child of this process that has not been waited for yet.
pub(crate) fn send(pid: u32, signal: Signal) {
    if let Ok(pid) = i32::try_from(pid) {
        // It may have ended by itself just now.
        let _ = kill(Pid::from_raw(pid), signal);
    }
}
