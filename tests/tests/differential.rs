//! portway against the kernel: the same random stories in two labs alike, one of them with portway, and
//! whatever any party receives must be the same.

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use portway_tests::{
    differential::{play::Player, run::Run, twin::Twin},
    harness::{self, Test},
    portway::Portway,
};

fn main() -> ExitCode {
    harness::run([Test::with_docker(
        "the_same_is_received_with_portway_as_without",
        || twins("direct"),
    )])
}

fn twins(admission: &str) -> Result<()> {
    let run = Run::chosen()?;
    let without = Twin::new().context("the twin without portway")?;
    let with = Twin::new().context("the twin with portway")?;
    let portway = Portway::new(&with.lab.host)?;
    let daemon = portway.run_with_docker(&format!("--admission {admission}"))?;
    with.wait_published(&portway)
        .with_context(|| daemon.said())?;
    let mut player = Player::new([&without.taps, &with.taps]);
    let (sum, used) = portway.measure(|| run.play(&mut player))?;
    println!("fast path: {used:?}\n{}", portway.text("status")?);
    sum.verdict()?;
    ensure!(used.both_ways(), "the fast path was not used: {used:?}");
    portway.interrupt(&daemon)
}
