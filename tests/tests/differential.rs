//! portway against the kernel: the same random stories in two labs alike, one of them with portway, and
//! whatever any party receives must be the same.

use std::{process::ExitCode, thread};

use anyhow::{Context, Result, anyhow, ensure};
use portway_tests::{
    differential::{play::Player, run::Run, sockets, twin::Twin},
    harness::{self, Test},
    portway::Portway,
};

fn main() -> ExitCode {
    harness::run([Test::with_docker(
        "the_same_is_received_with_portway_as_without",
        || twins("direct"),
    )])
}

/// How many conversations of real sockets there are besides.
const SOCKETS: u16 = 300;

fn twins(admission: &str) -> Result<()> {
    let run = Run::chosen()?;
    let (without, with) = thread::scope(|scope| {
        let without = scope.spawn(Twin::new);
        let with = Twin::new();
        (without.join(), with)
    });
    let without = without
        .map_err(|_| anyhow!("its thread panicked"))
        .flatten()
        .context("the twin without portway")?;
    let with = with.context("the twin with portway")?;
    let portway = Portway::new(&with.lab.host)?;
    let daemon = portway.run_with_docker(&format!("--admission {admission}"))?;
    with.wait_published(&portway)
        .with_context(|| daemon.said())?;
    let mut player = Player::new([&without.taps, &with.taps]);
    let (sum, used) = portway.measure(|| run.play(&mut player))?;
    sockets::compare([&without.lab, &with.lab], &mut run.random(), SOCKETS)?;
    println!("fast path: {used:?}\n{}", portway.text("status")?);
    sum.verdict()?;
    ensure!(used.both_ways(), "the fast path was not used: {used:?}");
    portway.interrupt(&daemon)
}
