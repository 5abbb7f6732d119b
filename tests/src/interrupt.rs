//! Ctrl-C: the lab goes down with its process.

use std::{process, thread};

use nix::sys::signal::{SigSet, Signal};

use crate::host;

/// From now on SIGINT, SIGTERM and SIGHUP take this process's hosts down before they end it. To be
/// called before any other thread starts, so that all of them leave these signals to the one that waits.
pub fn end_lab_on_ctrl_c() {
    end_lab_on_ctrl_c_after(|| ());
}

/// The same, with something else to be done before.
pub fn end_lab_on_ctrl_c_after(first: impl FnOnce() + Send + 'static) {
    let mut ends = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        ends.add(signal);
    }
    if ends.thread_block().is_err() {
        // The signals then do what they do by default, and the kernel removes what matters.
        return;
    }
    thread::spawn(move || {
        if let Ok(signal) = ends.wait() {
            first();
            host::remove_all();
            process::exit(128 + signal as i32);
        }
    });
}
