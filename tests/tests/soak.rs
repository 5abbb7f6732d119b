//! Everything at once, for long: containers come and go, ports move, rules change, `run` is killed and Docker's daemon is
//! restarted, in a random order, under traffic of which each packet is accounted for. See [`portway_tests::soak`].
//!
//! `PORTWAY_SOAK_MINUTES` is how long, `PORTWAY_SEED` gives the same order again.

use std::{
    process::ExitCode,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use portway_tests::{
    footprint::Footprint,
    harness::{self, Test},
    lab::Lab,
    setting::setting,
    soak::{
        drops::Drops,
        gauge::{self, Reading},
        traffic::{self, Attention, Shared, Traffic},
        world::World,
    },
    wait::{self, PATIENCE},
};

fn main() -> ExitCode {
    harness::run([Test::with_docker(
        "every_packet_is_accounted_for_whatever_happens",
        soak,
    )])
}

/// How long, in minutes, unless somebody wants more.
const MINUTES: f64 = 0.2;

/// The longest time between two events, in milliseconds.
const DWELL: u64 = 500;

/// How often is told how it goes.
const REPORT: Duration = Duration::from_secs(10);

/// How much more memory `run` may have in the last third than in the second, in KiB.
const GROWTH: u64 = 2048;

/// The time in which all that has been given up is over: conntrack's time-outs here, and a round of the collector.
const OVER: Duration = Duration::from_secs(60);

fn soak() -> Result<()> {
    let minutes = setting("PORTWAY_SOAK_MINUTES")?.unwrap_or(MINUTES);
    let length = Duration::from_secs_f64(minutes * 60.0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let seed = setting("PORTWAY_SEED")?.unwrap_or(now.as_millis() as u64);
    println!("PORTWAY_SOAK_MINUTES={minutes} PORTWAY_SEED={seed}");
    // Others may run at the same time.
    let run = Rng::new().u64(1..);
    let lab = Lab::new()?;
    let shared = Shared::new(run);
    let drops = Drops::watch(run)?;
    let result = thread::scope(|scope| {
        let _attention = Attention(&shared);
        traffic::listen(scope, &shared, &lab, drops)?;
        let mut world = World::new(&lab, &shared)?;
        let footprint = Footprint::of(&lab.host)?;
        thread::scope(|clients| {
            let _traffic = Traffic(&shared);
            traffic::ask(clients, &shared, &lab, seed);
            play(&lab, &shared, &mut world, length, seed)
        })?;
        empty(&lab, &shared, &mut world)?;
        world.end()?;
        footprint.wait_gone(&lab.host)?;
        // What a socket has held is dropped some time after its end. What is still open then is told below.
        let _ = wait::until_true("the end of every datagram", PATIENCE, || {
            Ok(shared.ledger().is_complete())
        });
        Ok(())
    });
    let mut ledger = shared.ledger();
    if result.is_ok() {
        ledger.close();
    }
    println!("{} events, {}", ledger.events(), ledger.sums());
    println!("{:?}", ledger.connections);
    // What has failed first says why the rest has.
    ledger
        .ensure_no_failure()
        .and(result)
        .with_context(|| format!("PORTWAY_SOAK_MINUTES={minutes} PORTWAY_SEED={seed}"))
}

/// Everything happens, until the time is over; then all is as it should be.
fn play(
    lab: &Lab,
    shared: &Shared,
    world: &mut World<'_>,
    length: Duration,
    seed: u64,
) -> Result<()> {
    let mut random = Rng::with_seed(seed);
    let start = shared.ledger().now();
    let mut readings = Vec::new();
    loop {
        let now = shared.ledger().now() - start;
        if now >= length {
            break;
        }
        // So that one `run` grows old enough for its memory to be compared.
        let event = world.choose(&mut random, now < length / 3);
        world.play(event)?;
        world.ensure_running()?;
        thread::sleep(Duration::from_millis(random.u64(..DWELL)));
        if now >= REPORT * (readings.len() as u32 + 1) {
            readings.push(report(lab, shared, world, now)?);
        }
        let mut ledger = shared.ledger();
        ledger.judge();
        ledger.ensure_no_failure()?;
    }
    world.restore()?;
    readings.push(report(lab, shared, world, length)?);
    ensure_flat(&readings, length)?;
    println!("{}", world.portway.text("status")?);
    Ok(())
}

/// Tells how it goes.
fn report(lab: &Lab, shared: &Shared, world: &World<'_>, now: Duration) -> Result<Reading> {
    let reading = gauge::read(&lab.host, &world.portway, world.run_pid(), now)?;
    let ledger = shared.ledger();
    let connections = ledger.connections;
    println!(
        "{} s, {} events: {}; {} connections, {} of them excused, {} echoes; {reading}",
        now.as_secs(),
        ledger.events(),
        ledger.sums(),
        connections.whole + connections.excused,
        connections.excused,
        connections.echoes
    );
    Ok(reading)
}

/// Memory does not grow from the second third to the last.
fn ensure_flat(readings: &[Reading], length: Duration) -> Result<()> {
    let median = |third: u32| {
        let third = length * third / 3..=length * (third + 1) / 3;
        let own = readings
            .iter()
            .filter(|reading| third.contains(&reading.at));
        let mut own: Vec<_> = own.filter_map(|reading| reading.resident).collect();
        own.sort_unstable();
        own.get(own.len() / 2).copied()
    };
    if let (Some(before), Some(after)) = (median(1), median(2)) {
        ensure!(
            after <= before + GROWTH,
            "run has grown from {before} to {after} KiB"
        );
        println!("run: {before} KiB in the second third, {after} KiB in the last one");
    }
    if let (Some(first), Some(last)) = (readings.first(), readings.last()) {
        ensure!(
            last.charged <= first.charged + GROWTH,
            "maps have grown: from {first} to {last}"
        );
    }
    Ok(())
}

/// When nobody asks any more, the tables go back to what they were.
fn empty(lab: &Lab, shared: &Shared, world: &mut World<'_>) -> Result<()> {
    let read = |world: &World<'_>| {
        let now = shared.ledger().now();
        gauge::read(&lab.host, &world.portway, world.run_pid(), now)
    };
    wait::until_true("no flows", OVER, || Ok(world.portway.status()?.flows == 0))
        .with_context(|| world.portway.text("flows").unwrap_or_default())?;
    let full = read(world)?;
    world.clear_all()?;
    wait::until_true("no rows but of those that stay", PATIENCE, || {
        let rows = world.portway.ls()?;
        Ok(rows.iter().all(|row| (9100..9200).contains(&row.host_port)))
    })?;
    let empty = read(world)?;
    println!("without traffic: {full}\nwithout containers: {empty}");
    ensure!(
        empty.remapped == 0 && full.remapped == 0,
        "ports are remapped for nobody"
    );
    ensure!(
        empty.hooks < full.hooks,
        "hooks of containers that are gone"
    );
    Ok(())
}
