//! Flows that are over do not stay in the table, and those that live do, however many there are.

use std::{collections::HashSet, net::SocketAddr, process::ExitCode, time::Instant};

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, HashMap, Map, MapData};
use bytemuck::Zeroable;
use dataplane_common::{
    flow::{Flow, FlowKey},
    headers::{Be16, Be32, IpProtocol},
    layout::maps,
    published::Backend,
    state::{State, Timeouts},
};
use nix::time::{ClockId, clock_gettime};
use portway::{batch::Batches, collector::sweep, instance::Instance};
use portway_tests::{
    container::Container,
    conversation::Datagrams,
    harness::{self, Test},
    host::Host,
    lab::{HOST, Lab},
    portway::Portway,
    wait::{self, PATIENCE},
};

type Spilled = HashMap<MapData, FlowKey<Be32>, Flow<Be32>>;

/// The flows of a busy host.
const MANY: u32 = 1_000_000;

/// Room for all of them behind the buckets, which is what the collector sweeps: three sixteenths of this.
const ROOM: u32 = 5_400_000;

/// Of the synthetic flows those are over that have been silent for this many seconds, which is more than
/// any UDP flow may be.
const SILENCE: u32 = 10_000;

fn main() -> ExitCode {
    harness::run([
        Test::of_portway("a_million_flows_are_swept", million),
        Test::of_portway("run_removes_flows_that_are_over", run),
    ])
}

/// A third of a million flows is over by time, a third by their backend, a third lives.
fn million() -> Result<()> {
    let stage = Stage::new(&format!("--max-flows {ROOM}"))?;
    let portway = stage.load()?;
    let mut tables = Tables::open(&stage.lab.host, &portway)?;
    let backend = tables.live_backend()?;
    let now = monotonic_seconds()?;
    let start = Instant::now();
    for number in 0..MANY {
        tables
            .spilled
            .insert(key(number), flow(number, backend, now), 0)?;
    }
    println!("{MANY} flows inserted one by one in {:?}", start.elapsed());

    let start = Instant::now();
    let mut seen = HashSet::new();
    let mut batches = Batches::default();
    while let Some(batch) = batches.read(&tables.spilled)? {
        for (key, _) in batch {
            ensure!(seen.insert(key), "{key:?} is there twice");
        }
    }
    ensure!(seen.len() == MANY as usize, "{} seen", seen.len());
    println!("all of them read in {:?}", start.elapsed());
    let start = Instant::now();
    let live = portway.status()?.flows;
    println!("counted by `status` in {:?}", start.elapsed());
    let alive = (0..MANY).filter(|number| is_alive(*number)).count() as u64;
    ensure!(live == alive, "{live} are live for `status`, not {alive}");

    for (what, seen, removed) in [
        (
            "of which two thirds are over",
            MANY.into(),
            u64::from(MANY) - alive,
        ),
        ("that are all alive", alive, 0),
    ] {
        let start = Instant::now();
        let done = sweep(
            &mut tables.spilled,
            &tables.backends,
            Timeouts::DEFAULT,
            || true,
        )?;
        println!(
            "{seen} flows {what} swept in {:?}, {:?} of a CPU",
            start.elapsed(),
            done.busy
        );
        ensure!((done.seen, done.removed) == (seen, removed), "{done:?}");
    }
    for number in 0..MANY {
        let found = tables.spilled.get(&key(number), 0).is_ok();
        ensure!(found == is_alive(number), "flow {number}");
    }
    for number in (0..MANY).filter(|number| is_alive(*number)) {
        tables.spilled.remove(&key(number))?;
    }
    let empty = sweep(
        &mut tables.spilled,
        &tables.backends,
        Timeouts::DEFAULT,
        || true,
    )?;
    println!("the empty table swept in {:?} of a CPU", empty.busy);
    ensure!((empty.seen, empty.removed) == (0, 0), "{empty:?}");
    Ok(())
}

/// A real conversation among flows that are over.
fn run() -> Result<()> {
    let stage = Stage::new("")?;
    let portway = stage.load()?;
    let mut tables = Tables::open(&stage.lab.host, &portway)?;
    let target = SocketAddr::from((HOST, 9000));
    let mut datagrams = stage.lab.client.run(|| Datagrams::new(None, target))?;
    datagrams.echo(32)?;
    let now = monotonic_seconds()?;
    let backend = tables.live_backend()?;
    for number in 0..3 {
        tables
            .spilled
            .insert(key(number), flow(number, backend, now), 0)?;
    }
    let run = portway.run("--no-docker")?;
    wait::until_true("flows being removed", PATIENCE, || {
        Ok((0..3).all(|number| tables.spilled.get(&key(number), 0).is_ok() == is_alive(number)))
    })?;
    ensure!(tables.spilled.keys().count() == 1, "the living one is gone");
    ensure!(portway.flows()?.len() == 2, "the real flow is gone");
    portway.interrupt(&run)
}

/// A container with one published port.
struct Stage {
    lab: Lab,
    container: Container,
    options: String,
}

impl Stage {
    fn new(options: &str) -> Result<Self> {
        let lab = Lab::new()?;
        let container = Container::new(&lab.host, 1)?.serve(&["udp/8080"])?;
        Ok(Self {
            lab,
            container,
            options: options.into(),
        })
    }

    fn load(&self) -> Result<Portway<'_>> {
        let portway = Portway::new(&self.lab.host)?;
        portway.load(&format!("--admission direct {}", self.options))?;
        portway.publish(&format!("9000:{}:8080/udp", self.container.address))?;
        Ok(portway)
    }
}

/// The maps in question, as another process sees them.
struct Tables {
    spilled: Spilled,
    backends: Array<MapData, Backend>,
}

impl Tables {
    fn open(host: &Host, portway: &Portway<'_>) -> Result<Self> {
        let instance: Instance = portway.instance().parse()?;
        let map = |name| -> Result<Map> {
            let path = host.file(instance.map(name));
            let data =
                MapData::from_pin(&path).with_context(|| format!("no {}", path.display()))?;
            Ok(Map::from_map_data(data)?)
        };
        Ok(Self {
            spilled: map(maps::V4.spilled)?.try_into()?,
            backends: map(maps::BACKENDS)?.try_into()?,
        })
    }

    /// The published port's backend: its number and generation.
    fn live_backend(&self) -> Result<(u32, u32)> {
        (1..self.backends.len())
            .find_map(|number| {
                let generation = self.backends.get(&number, 0).ok()?.generation;
                (generation != 0).then_some((number, generation))
            })
            .context("nothing is published")
    }
}

fn is_alive(number: u32) -> bool {
    number.is_multiple_of(3)
}

fn key(number: u32) -> FlowKey<Be32> {
    FlowKey {
        container: Be32::new(0x0a62_0002),
        client: Be32::new(0x0a00_0000 + (number >> 10)),
        container_port: Be16::new(8080),
        client_port: Be16::new(1024 + (number & 1023) as u16),
        protocol: IpProtocol::UDP,
        padding8: 0,
        padding16: 0,
    }
}

fn flow(number: u32, (backend, generation): (u32, u32), now: u32) -> Flow<Be32> {
    let last_seen = if number % 3 == 1 {
        now.wrapping_sub(SILENCE)
    } else {
        now
    };
    Flow {
        host_address: Be32::new(u32::from(HOST)),
        next_hop: key(number).client,
        backend,
        generation: generation + u32::from(number % 3 == 2),
        external_ifindex: 1,
        host_port: Be16::new(9000),
        external_mtu: 1500,
        state: State::Stream as u8,
        marks: Flow::<Be32>::KEPT | Flow::<Be32>::BEGUN_HERE,
        client_port: key(number).client_port,
        routed_at: last_seen,
        created: last_seen,
        last_seen,
        ..Zeroable::zeroed()
    }
}

/// The clock that the programs stamp flows with.
fn monotonic_seconds() -> Result<u32> {
    Ok(clock_gettime(ClockId::CLOCK_MONOTONIC)?.tv_sec() as u32)
}
