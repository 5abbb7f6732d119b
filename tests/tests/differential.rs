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
        let with = scope.spawn(Twin::new);
        (Twin::new(), with.join())
    });
    let with =
        with.map_err(|_| anyhow!("the thread that builds the twin with portway panicked"))?;
    let (without, with) = (without?, with?);
    let portway = Portway::new(&with.lab.host)?;
    let daemon = portway.run_with_docker(&format!("--admission {admission}"))?;
    with.wait_published(&portway, run.versions())
        .with_context(|| daemon.said())?;
    let mut player = Player::new([&without.taps, &with.taps]);
    let (sum, used) = portway.measure(|| run.play(&mut player))?;
    sockets::compare([&without.lab, &with.lab], &mut run.random(), SOCKETS)?;
    println!("fast path: {used:?}\n{}", portway.text("status")?);
    sum.verdict()?;
    ensure!(used.both_ways(), "the fast path was not used: {used:?}");
    portway.interrupt(&daemon)
}
