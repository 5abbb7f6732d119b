//! portway against the kernel: the same random stories in two labs alike, one of them with portway, and
//! whatever any party receives must be the same.

use std::{
    process::ExitCode,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

use anyhow::{Context, Result, anyhow, ensure};
use portway_tests::{
    differential::{class::Admission, play::Player, run::Run, sockets, twin::Twin},
    harness::{self, Test},
    portway::Portway,
};

/// How many conversations of real sockets there are besides.
const SOCKETS: u16 = 300;

/// How many flows show that twins without portway are alike.
const FLOWS_WITHOUT: u64 = 2000;

fn main() -> ExitCode {
    harness::run([
        Test::with_docker("the_same_is_received_where_portway_admits_flows", || {
            with_portway(Admission::Direct)
        }),
        Test::with_docker("the_same_is_received_where_netfilter_admits_flows", || {
            with_portway(Admission::Netfilter)
        }),
        Test::with_docker("twins_without_portway_are_alike", without_portway),
    ])
}

/// One at a time: each keeps the machine busy enough.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn twins() -> Result<[Twin; 2]> {
    let (one, other) = thread::scope(|scope| {
        let other = scope.spawn(Twin::new);
        (Twin::new(), other.join())
    });
    let other = other.map_err(|_| anyhow!("the thread that builds a twin panicked"))?;
    Ok([one?, other?])
}

fn with_portway(admission: Admission) -> Result<()> {
    let _alone = alone();
    let run = Run::chosen(admission)?;
    let mut progress = run.begin();
    let mut is_over = false;
    while !is_over {
        let [without, with] = twins()?;
        let portway = Portway::new(&with.lab.host)?;
        let daemon = portway.run_with_docker(&format!("--admission {admission}"))?;
        with.wait_published(&portway, run.versions())
            .with_context(|| daemon.said())?;
        let mut player = Player::new([&without.taps, &with.taps]);
        let (over, used) = portway.measure(|| progress.play(&mut player))?;
        is_over = over;
        sockets::compare([&without.lab, &with.lab], &mut run.random(), SOCKETS)?;
        println!("fast path: {used:?}\n{}", portway.text("status")?);
        ensure!(used.both_ways(), "the fast path was not used: {used:?}");
        portway.interrupt(&daemon)?;
    }
    progress.verdict()
}

/// What the kernel alone does must come out the same, else a difference says nothing about portway. Of all
/// classes of traffic, since portway has no part in it.
fn without_portway() -> Result<()> {
    let _alone = alone();
    let run = Run::of_everything(FLOWS_WITHOUT)?;
    let mut progress = run.begin();
    let [one, other] = twins()?;
    progress.play(&mut Player::new([&one.taps, &other.taps]))?;
    progress.verdict()
}
