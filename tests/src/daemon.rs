//! Processes inside a namespace that run until they are told to end.

use std::{
    convert::Infallible,
    io::{BufRead, BufReader, Read},
    process::ExitStatus,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, anyhow};
use nix::{
    errno::Errno,
    sys::{
        signal::Signal,
        wait::{Id, WaitPidFlag, waitid},
    },
    unistd::Pid,
};

use crate::{
    process::{Cmd, code, send},
    wait::{self, PATIENCE},
};

/// How long a daemon's output may go on after its end.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// One line that a daemon printed.
#[derive(Debug, Clone)]
pub struct Line {
    /// When it was read.
    pub at: SystemTime,
    /// Without its newline.
    pub text: String,
}

/// What a daemon's threads tell its owner.
#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<Line>,
    exit: Option<ExitStatus>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// Waits until `look` finds something in the state.
    fn wait<T>(&self, limit: Duration, look: impl Fn(&State) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + wait::here(limit);
        let mut state = self.lock();
        loop {
            if let Some(found) = look(&state) {
                return Some(found);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

/// A process that runs until it is told to end. Dropped, it is killed.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    pid: u32,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Daemon {
    /// Starts `cmd`, whose output must be piped.
    pub(crate) fn start(cmd: Cmd) -> Result<Self> {
        let name = cmd.name();
        let shared = Arc::new(Shared::default());
        let (started, start) = mpsc::channel();
        let thread = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || supervise(cmd, &shared, &started))
        };
        let pid = start
            .recv()
            .unwrap_or_else(|_| Err(anyhow!("its thread ended")))
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self {
            name,
            pid,
            shared,
            thread: Some(thread),
        })
    }

    /// Its process id, as this process sees it.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let state = self.shared.lock();
        if state.exit.is_none() {
            send(self.pid, signal);
        }
    }

    /// Every line it printed so far, on either stream.
    pub fn lines(&self) -> Vec<Line> {
        self.shared.lock().lines.clone()
    }

    /// Waits for a line that holds `part`.
    ///
    /// # Errors
    /// It ended, or the time is up; with what it printed instead.
    pub fn line(&self, part: &str, limit: Duration) -> Result<Line> {
        let found = self.shared.wait(limit, |state| {
            let line = state.lines.iter().find(|line| line.text.contains(part));
            match line {
                Some(line) => Some(Some(line.clone())),
                None => state.exit.map(|_| None),
            }
        });
        found
            .flatten()
            .ok_or_else(|| anyhow!("{} does not say {part:?} but:\n{}", self.name, self.said()))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It goes on after `limit`.
    pub fn wait(&self, limit: Duration) -> Result<i32> {
        let exit = self.shared.wait(limit, |state| state.exit);
        exit.map(code)
            .ok_or_else(|| anyhow!("{} goes on:\n{}", self.name, self.said()))
    }

    /// Its end, if it has come.
    pub fn ended(&self) -> Option<i32> {
        self.shared.lock().exit.map(code)
    }

    /// What it printed so far, as one text.
    pub fn said(&self) -> String {
        let state = self.shared.lock();
        let lines: Vec<_> = state.lines.iter().map(|line| line.text.as_str()).collect();
        lines.join("\n")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
        // A process that is stuck in the kernel must not hold up the rest of the clean-up.
        if self.wait(PATIENCE).is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

/// Has `cmd` forked, reports its process id, and reads what it prints until it ends.
fn supervise(cmd: Cmd, shared: &Arc<Shared>, started: &mpsc::Sender<Result<u32>>) {
    let (forked, fork) = mpsc::channel();
    let (end, ended) = mpsc::channel::<Infallible>();
    let parent = thread::spawn(move || {
        let mut cmd = cmd;
        // The supervisor waits for this.
        let _ = forked.send(cmd.spawn());
        // Its closure holds the namespaces open.
        drop(cmd);
        // The kernel sends the parent-death signal when the thread that forked ends. It can't do the
        // supervisor's work itself: a thread whose children belong into another PID namespace can't
        // start threads.
        let _ = ended.recv();
    });
    match fork.recv() {
        Ok(Ok(mut child)) => {
            let readers = [
                child.stdout.take().map(|stream| read_lines(stream, shared)),
                child.stderr.take().map(|stream| read_lines(stream, shared)),
            ];
            let _ = started.send(Ok(child.id()));
            // Not reaped yet, so that its number stays its own while signals may be sent to it.
            let pid = Pid::from_raw(child.id().cast_signed());
            let ended = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
            while waitid(Id::Pid(pid), ended) == Err(Errno::EINTR) {}
            // Its last words come before its end, unless children of its own hold its streams open.
            let _ = wait::until_true("the end of its output", LAST_WORDS, || {
                Ok(readers.iter().flatten().all(JoinHandle::is_finished))
            });
            shared.change(|state| state.exit = child.wait().ok());
        }
        Ok(Err(error)) => drop(started.send(Err(error))),
        // Its panic has been printed; dropping `started` reports it.
        Err(_) => {}
    }
    drop(end);
    let _ = parent.join();
}

/// Reads lines on a thread that ends with the stream.
fn read_lines(stream: impl Read + Send + 'static, shared: &Arc<Shared>) -> JoinHandle<()> {
    let shared = Arc::clone(shared);
    thread::spawn(move || {
        for text in BufReader::new(stream).lines().map_while(Result::ok) {
            let at = SystemTime::now();
            shared.change(|state| state.lines.push(Line { at, text }));
        }
    })
}
