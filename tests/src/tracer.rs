//! A command that is killed at one of its system calls, or has one refused: the same one each time, whatever the
//! machine's speed.

use std::{io::Read as _, sync::mpsc, thread};

use anyhow::{Context, Result, anyhow};
use nix::{
    errno::Errno,
    libc,
    sys::{
        ptrace::{self, Options},
        signal::Signal,
        wait::{WaitStatus, waitpid},
    },
    unistd::Pid,
};

use crate::{netns::panic_text, process::Cmd};

/// What is in store for a command's first thread, if it comes so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// To be killed when it is about to make its system call of this number, counted from its program's first.
    Kill(u64),
    /// To have its bpf(2) of this number fail with this error, without being made.
    Refuse(u64, Errno),
}

/// How a traced command came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// By itself.
    Exited {
        /// Its status.
        status: i32,
        /// How many of the calls that its [`Fate`] counts it has made.
        calls: u64,
        /// What it said on standard error.
        said: String,
    },
    /// Killed before the system call of this number.
    Killed(u64),
}

/// Runs `cmd`, which meets its `fate`. `meanwhile` is told its process id, and can ask whether it has ended.
///
/// # Errors
/// It cannot be run, or traced.
pub fn run(cmd: Cmd, fate: Fate, meanwhile: impl FnOnce(Pid, &dyn Fn() -> bool)) -> Result<End> {
    let (started, start) = mpsc::channel();
    thread::scope(|scope| {
        // The thread that forks is the one that traces, and good for nothing else afterwards: its children belong
        // into another PID namespace.
        let tracer = scope.spawn(move || spawn_and_trace(cmd, fate, &started));
        if let Ok(pid) = start.recv() {
            meanwhile(pid, &|| tracer.is_finished());
        }
        tracer
            .join()
            .unwrap_or_else(|panic| Err(anyhow!("the tracer: {}", panic_text(&*panic))))
    })
}

fn spawn_and_trace(mut cmd: Cmd, fate: Fate, started: &mpsc::Sender<Pid>) -> Result<End> {
    let mut child = cmd.spawn_traced()?;
    let pid = Pid::from_raw(child.id().cast_signed());
    // Its receiver outlives this thread.
    let _ = started.send(pid);
    let mut end = trace(pid, fate);
    if let Ok(End::Exited { said, .. }) = &mut end {
        // What a command says fits into a pipe.
        if let Some(stderr) = &mut child.stderr {
            stderr.read_to_string(said)?;
        }
    } else {
        // It may be gone already.
        let _ = child.kill();
        let _ = child.wait();
    }
    end
}

fn trace(pid: Pid, fate: Fate) -> Result<End> {
    // Its program has been executed, and has not begun.
    wait(pid)?;
    ptrace::setoptions(
        pid,
        Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_EXITKILL,
    )
    .context("cannot trace")?;
    let mut calls = 0;
    let mut is_inside = false;
    let mut refused = None;
    let mut signal = None;
    loop {
        match ptrace::syscall(pid, signal.take()) {
            // Killed by somebody else; the wait tells.
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => return Err(error).context("cannot trace on"),
        }
        let status = match wait(pid)? {
            // One when it enters a system call, one when it leaves it.
            WaitStatus::PtraceSyscall(_) => {
                is_inside = !is_inside;
                if !is_inside {
                    if let Some(error) = refused.take() {
                        call::fail(pid, error)?;
                    }
                    continue;
                }
                match fate {
                    Fate::Kill(number) if number == calls => return Ok(End::Killed(number)),
                    Fate::Kill(_) => {}
                    Fate::Refuse(..) if call::number(pid)? != libc::SYS_bpf => continue,
                    Fate::Refuse(number, error) if number == calls => {
                        call::skip(pid)?;
                        refused = Some(error);
                    }
                    Fate::Refuse(..) => {}
                }
                calls += 1;
                continue;
            }
            WaitStatus::Exited(_, status) => status,
            WaitStatus::Signaled(_, signal, _) => 128 + signal as i32,
            WaitStatus::Stopped(_, other) if other != Signal::SIGTRAP => {
                signal = Some(other);
                continue;
            }
            _ => continue,
        };
        return Ok(End::Exited {
            status,
            calls,
            said: String::new(),
        });
    }
}

fn wait(pid: Pid) -> Result<WaitStatus> {
    loop {
        match waitpid(pid, None) {
            Err(Errno::EINTR) => {}
            status => return status.context("cannot wait for what is traced"),
        }
    }
}

/// The registers of a process that has stopped at a system call.
#[cfg(target_arch = "x86_64")]
mod call {
    use anyhow::{Context, Result};
    use nix::{errno::Errno, sys::ptrace, unistd::Pid};

    /// Where it is about to make the call: which one.
    pub fn number(pid: Pid) -> Result<i64> {
        let registers = ptrace::getregs(pid).context("cannot read registers")?;
        Ok(registers.orig_rax.cast_signed())
    }

    /// Where it is about to make the call: has it make none.
    pub fn skip(pid: Pid) -> Result<()> {
        let mut registers = ptrace::getregs(pid).context("cannot read registers")?;
        registers.orig_rax = u64::MAX;
        ptrace::setregs(pid, registers).context("cannot write registers")
    }

    /// Where it has come back: has the call return an error.
    pub fn fail(pid: Pid, error: Errno) -> Result<()> {
        let mut registers = ptrace::getregs(pid).context("cannot read registers")?;
        registers.rax = (-i64::from(error as i32)).cast_unsigned();
        ptrace::setregs(pid, registers).context("cannot write registers")
    }
}
