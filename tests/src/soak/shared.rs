//! What all threads of a run share: the ledger, and whether they are still wanted.

use std::{
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use super::ledger::Ledger;

/// What all threads of a run share.
pub struct Shared {
    ledger: Mutex<Ledger>,
    /// No client asks any more.
    is_over: AtomicBool,
    /// Nobody takes notice any more.
    is_deaf: AtomicBool,
    /// Where containers give notice.
    notices: Mutex<Vec<Weak<UnixStream>>>,
}

/// Ends the traffic when it goes, also by an error.
pub struct Traffic<'a>(pub &'a Shared);

impl Drop for Traffic<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Relaxed);
    }
}

/// Has nobody take notice when it goes, but of what has come by then.
pub struct Attention<'a>(pub &'a Shared);

impl Drop for Attention<'_> {
    fn drop(&mut self) {
        self.0.is_deaf.store(true, Ordering::Relaxed);
        for stream in lock(&self.0.notices).iter().filter_map(Weak::upgrade) {
            // Its other end may be gone.
            let _ = stream.shutdown(Shutdown::Read);
        }
    }
}

impl Shared {
    /// Nothing has happened yet.
    pub fn new(run: u64) -> Self {
        Self {
            ledger: Mutex::new(Ledger::new(run)),
            is_over: AtomicBool::new(false),
            is_deaf: AtomicBool::new(false),
            notices: Mutex::new(Vec::new()),
        }
    }

    /// What is known.
    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }

    /// Keeps where a container gives notice.
    pub fn add_notices(&self, stream: &Arc<UnixStream>) {
        let mut notices = lock(&self.notices);
        notices.retain(|stream| stream.strong_count() > 0);
        notices.push(Arc::downgrade(stream));
    }

    /// Whether clients go on asking.
    pub fn goes_on(&self) -> bool {
        !self.is_over.load(Ordering::Relaxed)
    }

    /// Whether notice is taken.
    pub fn is_listening(&self) -> bool {
        !self.is_deaf.load(Ordering::Relaxed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
