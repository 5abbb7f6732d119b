//! What is going on when portway comes goes on by it, and when it goes, by netfilter; what conntrack keeps of either
//! does no harm.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use dataplane_common::headers::IpProtocol;
use portway::{
    conntrack::{Entry, Outcome},
    firewall::Family,
};
use portway_tests::{
    conntrack::{all, on},
    container::{Container, GATEWAY},
    conversation::{self, ANSWER_LIMIT, Datagrams, talk},
    footprint::Footprint,
    harness::{self, Test},
    lab::{CLIENTS, HOST, Lab},
    netns::Netns,
    portway::{Portway, Used},
    wait,
};

/// Host ports that lead to the container's [`PORT`].
const HOST_PORTS: [u16; 2] = [9000, 9001];
const PORT: u16 = 7000;

/// Seconds for which conntrack remembers what it does not see any more, at most.
const MEMORY: u32 = 60;

/// Connections that are taken over and handed over at once, and how long either may take on a busy machine.
const MANY: u16 = 20_000;
const LIMIT: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    harness::run([
        Test::of_portway("what_goes_on_is_taken_over", from_outside),
        Test::of_portway("what_is_not_from_outside_is_not_taken_over", inside),
        Test::of_portway("a_stale_entry_gives_way", stale),
        Test::of_portway("many_take_no_time", many),
        Test::of_portway("unload_says_what_it_ends", unload),
        Test::of_portway("another_layout_is_refused_unless_forced", layout),
    ])
}

/// A container with a published port and its slow path.
struct Stage {
    lab: Lab,
    container: Container,
    listener: TcpListener,
}

impl Stage {
    fn new() -> Result<Self> {
        let lab = Lab::new()?;
        let container = Container::new(&lab.host, 1)?.serve(&["udp/8080"])?;
        for port in HOST_PORTS {
            container.publish_with_iptables(&lab.host, "tcp", port, PORT)?;
            container.publish_with_iptables(&lab.host, "udp", port, 8080)?;
        }
        Ok(Self {
            listener: listen(&container)?,
            container,
            lab,
        })
    }

    /// A connection from the client's port 40000: its ends, and the client as the container sees it.
    fn connect(&self, host_port: u16) -> Result<([TcpStream; 2], SocketAddr)> {
        let source = SocketAddr::from((CLIENTS[0], 40_000));
        let target = SocketAddr::from((HOST, host_port));
        let connect = || Ok(conversation::connect(Some(source), target)?);
        let client = self.lab.client.run(connect)?;
        accept(client, &self.listener)
    }

    fn load(&self) -> Result<Portway<'_>> {
        let portway = Portway::new(&self.lab.host)?;
        portway.load("--admission direct")?;
        Ok(portway)
    }

    fn publish(&self, portway: &Portway<'_>) -> Result<()> {
        for port in HOST_PORTS {
            portway.publish(&format!("{port}:{}:{PORT}", self.container.address))?;
            portway.publish(&format!("{port}:{}:8080/udp", self.container.address))?;
        }
        Ok(())
    }

    /// What conntrack knows of conversations with the published ports.
    fn entries(&self) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        on(&self.lab.host, |conntrack| {
            conntrack.dump(Family::V4, |entry| {
                if HOST_PORTS.contains(&entry.original.destination.port()) {
                    entries.push(entry);
                }
            })
        })?;
        Ok(entries)
    }
}

fn listen(container: &Container) -> Result<TcpListener> {
    let address = (container.address, PORT);
    container.netns.run(|| Ok(TcpListener::bind(address)?))
}

fn accept(client: TcpStream, listener: &TcpListener) -> Result<([TcpStream; 2], SocketAddr)> {
    let (server, seen) = listener.accept()?;
    server.set_read_timeout(Some(ANSWER_LIMIT))?;
    Ok(([client, server], seen))
}

/// Datagrams, and two connections from one port of the client, the second of which netfilter has given another one.
fn from_outside() -> Result<()> {
    let stage = Stage::new()?;
    let (mut one, seen) = stage.connect(HOST_PORTS[0])?;
    let (mut other, seen_other) = stage.connect(HOST_PORTS[1])?;
    ensure!(seen != seen_other, "no port was changed: {seen}");
    let source = conversation::from_address(CLIENTS[0]);
    let target = SocketAddr::from((HOST, HOST_PORTS[0]));
    let mut datagrams = stage.lab.client.run(|| Datagrams::new(source, target))?;
    datagrams.echo(32)?;
    let portway = stage.load()?;
    // Conntrack would forget it within half a minute, which is little where the CPU is emulated.
    datagrams.echo(32)?;
    stage.publish(&portway)?;
    let flows = portway.flows()?;
    ensure!(flows.len() == 3, "{flows:?}");
    let ((), used) = portway.measure(|| {
        talk(&mut one)?;
        talk(&mut other)?;
        Ok(datagrams.echo(32)?)
    })?;
    ensure!(used.forwarded >= 5 && used.replied >= 5, "{used:?}");
    for entry in stage.entries()? {
        ensure!(entry.timeout <= MEMORY, "{entry:?}");
    }
    portway.text("unload")?;
    talk(&mut one)?;
    talk(&mut other)?;
    Ok(datagrams.echo(32)?)
}

/// A client behind another interface of the host, which netfilter translates as it does those outside.
fn inside() -> Result<()> {
    let stage = Stage::new()?;
    let host = &stage.lab.host;
    let neighbour = Netns::new()?;
    neighbour.ip(&format!(
        "link add eth0 type veth peer name other0 netns {}",
        host.pid()
    ))?;
    host.ip("address add 10.97.0.1/24 dev other0")?;
    host.ip("link set other0 up")?;
    neighbour.ip("address add 10.97.0.2/24 dev eth0")?;
    neighbour.ip("link set eth0 up")?;
    neighbour.ip("route add default via 10.97.0.1")?;
    let target = SocketAddr::from((HOST, HOST_PORTS[0]));
    let client = neighbour.run(|| Ok(conversation::connect(None, target)?))?;
    let (mut ends, _) = accept(client, &stage.listener)?;
    talk(&mut ends)?;
    let portway = stage.load()?;
    stage.publish(&portway)?;
    let ((), used) = portway.measure(|| talk(&mut ends))?;
    ensure!(used == Used::NOTHING, "{used:?}");
    ensure!(portway.flows()?.is_empty(), "{:?}", portway.flows()?);
    Ok(())
}

/// Conntrack has an entry of the client's port that leads to another container, of a connection whose end it has not
/// seen.
fn stale() -> Result<()> {
    let stage = Stage::new()?;
    let client = SocketAddr::from((CLIENTS[0], 40_000));
    let host = SocketAddr::from((HOST, HOST_PORTS[0]));
    let gone = SocketAddr::from((GATEWAY, PORT));
    let stale = Entry::established(IpProtocol::TCP, client, host, gone, client, 600);
    on(&stage.lab.host, |conntrack| {
        all(Outcome::Done, |told| conntrack.insert([stale], told))
    })?;
    let portway = stage.load()?;
    stage.publish(&portway)?;
    ensure!(portway.flows()?.is_empty(), "{:?}", portway.flows()?);
    let (mut ends, seen) = stage.connect(HOST_PORTS[0])?;
    ensure!(seen == client, "{seen}");
    talk(&mut ends)?;
    portway.text("unload")?;
    talk(&mut ends).context("after unload")
}

/// As many as a busy host may have.
fn many() -> Result<()> {
    let stage = Stage::new()?;
    let container = SocketAddr::from((stage.container.address, PORT));
    let host = SocketAddr::from((HOST, HOST_PORTS[0]));
    let clients = CLIENTS.into_iter().flat_map(|address| {
        (1024..1024 + MANY / CLIENTS.len() as u16)
            .map(move |port| SocketAddr::from((address, port)))
    });
    on(&stage.lab.host, |conntrack| {
        let entries = clients.map(|client| {
            Entry::established(IpProtocol::TCP, client, host, container, client, 600)
        });
        all(Outcome::Done, |told| conntrack.insert(entries, told))
    })?;
    let portway = stage.load()?;
    let start = Instant::now();
    portway.publish(&format!("{}:{container}", HOST_PORTS[0]))?;
    let published = start.elapsed();
    let flows = portway.status()?.flows;
    ensure!(flows == u64::from(MANY), "{flows} flows");
    let start = Instant::now();
    let said = portway.text("unload")?;
    let unloaded = start.elapsed();
    println!("{MANY} connections: taken over in {published:?}, handed over in {unloaded:?}");
    ensure!(
        said == format!("unloaded; {MANY} live flows handed over to netfilter"),
        "{said}"
    );
    for what in [published, unloaded] {
        ensure!(what < wait::here(LIMIT), "{what:?}");
    }
    Ok(())
}

/// With rules behind, and without any.
fn unload() -> Result<()> {
    let stage = Stage::new()?;
    let portway = stage.load()?;
    stage.publish(&portway)?;
    let (mut ends, _) = stage.connect(HOST_PORTS[0])?;
    talk(&mut ends)?;
    let said = portway.text("unload")?;
    ensure!(
        said == "unloaded; 1 live flow handed over to netfilter",
        "{said}"
    );
    talk(&mut ends)?;
    drop((ends, portway));

    let lab = Lab::new()?;
    let container = Container::new(&lab.host, 1)?;
    let listener = listen(&container)?;
    let portway = Portway::new(&lab.host)?;
    portway.load("")?;
    portway.publish(&format!("{}:{}:{PORT}", HOST_PORTS[0], container.address))?;
    let target = SocketAddr::from((HOST, HOST_PORTS[0]));
    let mut all = Vec::new();
    for _ in 0..2 {
        let connect = || Ok(conversation::connect(None, target)?);
        let (mut ends, _) = accept(lab.client.run(connect)?, &listener)?;
        talk(&mut ends)?;
        all.push(ends);
    }
    let said = portway.text("unload")?;
    ensure!(
        said == "unloaded; 2 live flows ended: there is no NAT to take them over",
        "{said}"
    );
    Ok(())
}

/// What is loaded, by one kind of hook and then by the other where there are two, is made to look like another version's.
fn layout() -> Result<()> {
    let lab = Lab::new()?;
    let portway = Portway::new(&lab.host)?;
    let instances = lab.host.file("/sys/fs/bpf/portway");
    let folder = instances.join(portway.instance());
    portway.load("")?;
    for hook in ["clsact", "auto"] {
        let own = fs::read_dir(&folder)?.next().context("no layout")??;
        fs::rename(own.path(), folder.join("v1"))?;
        let before = Footprint::of(&lab.host)?;
        for command in ["load", "run --no-docker", "unload"] {
            let refused = portway.output(command)?;
            ensure!(
                refused.code() == 1 && refused.stderr.contains("another version of portway"),
                "{command}: {refused}"
            );
        }
        let after = Footprint::of(&lab.host)?;
        ensure!(after.to_string() == before.to_string(), "not {after}");
        let said = portway.load(&format!("--force --tc-hook {hook}"))?;
        ensure!(said.starts_with("loaded"), "{said}");
    }
    let footprint = Footprint::of(&lab.host)?;
    portway.text("unload")?;
    footprint.wait_gone(&lab.host)
}
