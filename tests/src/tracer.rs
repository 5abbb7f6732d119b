//! A command that is killed at one of its system calls: at the same one each time, whatever the machine's speed.

use std::{sync::mpsc, thread};

use anyhow::{Context, Result, anyhow};
use nix::{
    errno::Errno,
    sys::{
        ptrace::{self, Options},
        signal::Signal,
        wait::{WaitStatus, waitpid},
    },
    unistd::Pid,
};

use crate::{netns::panic_text, process::Cmd};

/// How a traced command came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By itself, with this status, after so many system calls of its first thread.
    Exited(i32, u64),
    /// Killed before the system call of this number.
    Killed(u64),
}

/// Runs `cmd` and kills it when its first thread is about to make its system call number `kill_at`, counted from
/// its program's first; if it comes so far. `meanwhile` is told its process id, and can ask whether it has ended.
///
/// # Errors
/// It cannot be run, or traced.
pub fn run(cmd: Cmd, kill_at: u64, meanwhile: impl FnOnce(Pid, &dyn Fn() -> bool)) -> Result<End> {
    let (started, start) = mpsc::channel();
    thread::scope(|scope| {
        // The thread that forks is the one that traces, and good for nothing else afterwards: its children belong
        // into another PID namespace.
        let tracer = scope.spawn(move || spawn_and_trace(cmd, kill_at, &started));
        if let Ok(pid) = start.recv() {
            meanwhile(pid, &|| tracer.is_finished());
        }
        tracer
            .join()
            .unwrap_or_else(|panic| Err(anyhow!("the tracer: {}", panic_text(&*panic))))
    })
}

fn spawn_and_trace(mut cmd: Cmd, kill_at: u64, started: &mpsc::Sender<Pid>) -> Result<End> {
    let mut child = cmd.spawn_traced()?;
    let pid = Pid::from_raw(child.id().cast_signed());
    // Its receiver outlives this thread.
    let _ = started.send(pid);
    let end = trace(pid, kill_at);
    if !matches!(end, Ok(End::Exited(..))) {
        // It may be gone already.
        let _ = child.kill();
        let _ = child.wait();
    }
    end
}

fn trace(pid: Pid, kill_at: u64) -> Result<End> {
    // Its program has been executed, and has not begun.
    wait(pid)?;
    ptrace::setoptions(
        pid,
        Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_EXITKILL,
    )
    .context("cannot trace")?;
    let mut stops = 0;
    let mut signal = None;
    loop {
        match ptrace::syscall(pid, signal.take()) {
            // Killed by somebody else; the wait tells.
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => return Err(error).context("cannot trace on"),
        }
        match wait(pid)? {
            // One when it enters a system call, one when it leaves it.
            WaitStatus::PtraceSyscall(_) => {
                if stops % 2 == 0 && stops / 2 == kill_at {
                    return Ok(End::Killed(kill_at));
                }
                stops += 1;
            }
            WaitStatus::Stopped(_, Signal::SIGTRAP) => {}
            WaitStatus::Stopped(_, other) => signal = Some(other),
            WaitStatus::Exited(_, status) => return Ok(End::Exited(status, stops / 2)),
            WaitStatus::Signaled(_, signal, _) => {
                return Ok(End::Exited(128 + signal as i32, stops / 2));
            }
            _ => {}
        }
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
