//! A signal while `run` or `load` starts: whatever it has done by then is undone.

use std::{process::ExitCode, thread::sleep, time::Duration};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use portway_tests::{
    container::Container,
    footprint,
    harness::{self, Test},
    lab::Lab,
    portway::Portway,
    wait::PATIENCE,
};

fn main() -> ExitCode {
    harness::run([Test::of_portway("nothing_is_left_half_done", interrupted)])
}

/// Moments from the first instruction to well after the last step, in milliseconds. Which step each hits
/// depends on the machine; none may matter.
const MOMENTS: [u64; 5] = [5, 20, 60, 120, 250];

fn interrupted() -> Result<()> {
    let lab = Lab::new()?;
    let web = Container::new(&lab.host, 1)?.serve(&["http/8080"])?;
    let portway = Portway::new(&lab.host)?;
    let args = format!(
        "--no-docker --admission direct --publish 9000:{}:8080",
        web.address
    );
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        for moment in MOMENTS {
            let run = portway.run(&args)?;
            sleep(Duration::from_millis(moment));
            run.signal(signal);
            run.wait(PATIENCE)?;
            footprint::ensure_none(&lab.host)
                .with_context(|| format!("{signal} after {moment} ms: {}", run.said()))?;
        }
    }
    Ok(())
}
