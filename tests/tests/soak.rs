//! Everything at once, for long: containers come and go, ports move, rules change, `run` is killed and Docker's daemon is
//! restarted, in a random order, under traffic of which each packet is accounted for. See [`portway_tests::soak`].
//!
//! `PORTWAY_SOAK_MINUTES` is how long, `PORTWAY_SEED` gives the same order again.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, UdpSocket},
    process::ExitCode,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use bytemuck::bytes_of;
use fastrand::Rng;
use portway_tests::{
    footprint::Footprint,
    harness::{self, Test},
    lab::Lab,
    requirement::Requirement,
    setting::{self, setting},
    soak::{
        drops::Drops,
        gauge::{self, Reading},
        notice,
        shared::{Attention, Shared, Traffic},
        traffic,
        world::World,
    },
    wait::{self, PATIENCE},
};
use portway_tests_ebpf::Stamp;

fn main() -> ExitCode {
    use Requirement::{Kernel, Root};
    harness::run([
        Test::with_dockerd("every_packet_is_accounted_for_whatever_happens", soak),
        Test::new(
            "drops_that_are_not_shown_are_counted",
            &[Root, Kernel],
            shown,
        ),
    ])
}

/// Sockets that are filled and closed, and datagrams in each.
const SOCKETS: u32 = 2_000;
const HELD: u32 = 9;

/// What a closed socket has held is dropped; either it is told, or it is one of those that the kernel has counted only.
fn shown() -> Result<()> {
    let run = Rng::new().u64(1..);
    let mut drops = Drops::watch(run)?;
    let mut open = BTreeSet::new();
    let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    for flow in 0..SOCKETS {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        for sequence in 0..HELD {
            let stamp = Stamp {
                run,
                flow,
                sequence,
                server: Stamp::ASKS,
                padding: 0,
            };
            client.send_to(bytes_of(&stamp), socket.local_addr()?)?;
            open.insert((flow, sequence));
        }
    }
    let mut untold = 0;
    wait::until_true("the end of every datagram", PATIENCE, || {
        drops.read(|stamp, _| {
            open.remove(&(stamp.flow, stamp.sequence));
        });
        untold = drops.untold()?;
        Ok(open.len() as u64 <= untold)
    })?;
    println!(
        "{} of {} not told, {untold} counted",
        open.len(),
        SOCKETS * HELD
    );
    Ok(())
}

/// How long, in minutes, unless somebody wants more.
const MINUTES: f64 = 0.1;

/// The longest time between two events, in milliseconds.
const DWELL: u64 = 500;

/// How often is told how it goes.
const REPORT: Duration = Duration::from_secs(10);

/// How much more memory `run` may have in the last third than in the second, in bytes, and how long a third must be for that
/// to tell anything: before, it gets what it needs for the first time.
const GROWTH: u64 = 2 << 20;
const TELLING: Duration = Duration::from_secs(300);

/// The time in which all that has been given up is over: conntrack's time-outs here, and a round of the collector.
const OVER: Duration = Duration::from_secs(60);

fn soak() -> Result<()> {
    let minutes = setting("PORTWAY_SOAK_MINUTES")?.unwrap_or(MINUTES);
    let length = Duration::from_secs_f64(minutes * 60.0);
    let seed = setting::seed("PORTWAY_SEED")?;
    println!("PORTWAY_SOAK_MINUTES={minutes} PORTWAY_SEED={seed}");
    // Others may run at the same time.
    let run = Rng::new().u64(1..);
    let lab = Lab::new()?;
    let shared = Shared::new(run);
    let drops = Drops::watch(run)?;
    let result = thread::scope(|scope| {
        let _attention = Attention(&shared);
        notice::listen(scope, &shared, &lab, drops)?;
        let mut world = World::new(&lab, &shared)?;
        let footprint = Footprint::of(&lab.host)?;
        let before = read(&lab, &shared, &world)?;
        thread::scope(|clients| {
            let _traffic = Traffic(&shared);
            traffic::ask(clients, &shared, &lab, seed);
            play(&lab, &shared, &mut world, length, seed)
        })?;
        empty(&lab, &shared, &mut world, &before)?;
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
    println!(
        "{} events, {}, {} of these from elsewhere, {} drops untold",
        ledger.history.events(),
        ledger.sums(),
        ledger.astray,
        ledger.untold
    );
    println!("{:?}", ledger.connections);
    // What has failed first says why the rest has.
    ledger.ensure_no_failure().and(result).with_context(|| {
        let events = ledger.last_events();
        format!("PORTWAY_SOAK_MINUTES={minutes} PORTWAY_SEED={seed}, events:\n{events}")
    })
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
            readings.push(report(lab, shared, world)?);
        }
        let mut ledger = shared.ledger();
        ledger.judge();
        ledger.ensure_no_failure()?;
    }
    world.restore()?;
    readings.push(report(lab, shared, world)?);
    ensure_flat(&readings, [start, start + length])?;
    println!("{}", world.portway.text("status")?);
    Ok(())
}

/// What there is now.
fn read(lab: &Lab, shared: &Shared, world: &World<'_>) -> Result<Reading> {
    let now = shared.ledger().now();
    gauge::read(&lab.host, &world.portway, world.run_pid(), now)
}

/// Tells how it goes.
fn report(lab: &Lab, shared: &Shared, world: &World<'_>) -> Result<Reading> {
    let reading = read(lab, shared, world)?;
    let ledger = shared.ledger();
    let connections = ledger.connections;
    println!(
        "{} s, {} events: {}; {} connections, {} of them excused, {} echoes; {reading}",
        reading.at.as_secs(),
        ledger.history.events(),
        ledger.sums(),
        connections.whole + connections.excused,
        connections.excused,
        connections.echoes
    );
    Ok(reading)
}

/// Memory does not grow from the second third to the last.
fn ensure_flat(readings: &[Reading], [start, end]: [Duration; 2]) -> Result<()> {
    let median = |third: u32| {
        let from = start + (end - start) * third / 3;
        let until = from + (end - start) / 3;
        let own = readings.iter();
        let own = own.filter(|reading| (from..until).contains(&reading.at));
        let mut own: Vec<_> = own.filter_map(|reading| reading.resident).collect();
        own.sort_unstable();
        own.get(own.len() / 2).copied()
    };
    if let (Some(before), Some(after)) = (median(1), median(2)) {
        let memory = format!(
            "{} KiB in the second third, {} KiB in the last one",
            before >> 10,
            after >> 10
        );
        println!("run: {memory}");
        ensure!(
            (end - start) / 3 < TELLING || after <= before + GROWTH,
            "run has grown: {memory}"
        );
    }
    if let (Some(first), Some(last)) = (readings.first(), readings.last()) {
        ensure!(
            last.charged <= first.charged + GROWTH,
            "maps have grown: from {first} to {last}"
        );
    }
    Ok(())
}

/// When nobody asks any more, and there are no containers but those that stay, the tables are what they were before.
fn empty(lab: &Lab, shared: &Shared, world: &mut World<'_>, before: &Reading) -> Result<()> {
    wait::until_true("no flows", OVER, || Ok(world.portway.status()?.flows == 0))
        .with_context(|| world.portway.text("flows").unwrap_or_default())?;
    world.clear_all()?;
    let mut left = *before;
    wait::until_true("the rows and hooks of the beginning", PATIENCE, || {
        left = read(lab, shared, world)?;
        Ok([left.rows, left.hooks, left.remapped] == [before.rows, before.hooks, 0])
    })
    .with_context(|| format!("before: {before}; left: {left}"))?;
    println!("before: {before}\nafter: {left}");
    Ok(())
}
