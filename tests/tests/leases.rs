//! Where the host's firewall admits flows it is asked first, and again every few seconds: whom it denies
//! never gets through, and whom it admits is accelerated.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use dataplane_common::headers::IpProtocol;
use portway::conntrack::{Entry, TcpState, Tuple};
use portway_tests::{
    conntrack,
    container::Container,
    conversation::{self, Datagrams, Silence, echo_over},
    daemon::Daemon,
    harness::{self, Test},
    lab::{CLIENTS, HOST, Lab},
    packets,
    portway::Portway,
    wait::{self, PATIENCE},
};

fn main() -> ExitCode {
    harness::run([
        Test::of_portway("whom_the_firewall_admits_is_accelerated", admitted),
        Test::of_portway("whom_a_rule_denies_never_gets_through", denied),
        Test::of_portway(
            "a_rule_on_the_original_port_keeps_its_meaning",
            original_port,
        ),
        Test::of_portway("a_rule_on_replies_keeps_its_meaning", replies),
        Test::of_portway("a_rule_added_later_ends_a_lease_in_time", added_without_run),
        Test::of_portway("a_rule_that_is_seen_coming_ends_it_at_once", added_with_run),
        Test::of_portway(
            "what_is_denied_gains_nothing_by_unload",
            denied_and_unloaded,
        ),
        Test::of_portway("a_flow_that_is_denied_carries_no_replies", denied_replies),
        Test::of_portway("no_connection_is_reset_as_admission_changes", changing),
        Test::of_portway("connections_end_as_conntrack_knows_them", closing),
        Test::of_portway("conntrack_is_as_strict_as_before_in_the_end", strictness),
    ])
}

/// How long a lease lasts, and some time for a busy machine.
const LEASE: Duration = Duration::from_secs(3 + 2);

/// A container with an echo of TCP and of UDP, published by rules and by portway.
struct Stage {
    lab: Lab,
    container: Container,
}

impl Stage {
    fn new() -> Result<Self> {
        let lab = Lab::new()?;
        let container = Container::new(&lab.host, 1)?.serve(&["tcp/8081", "udp/8080"])?;
        for (protocol, host_port, port) in [
            ("tcp", 9000, 8081),
            ("udp", 9000, 8080),
            ("udp", 9001, 8080),
        ] {
            container.publish_with_iptables(&lab.host, protocol, host_port, port)?;
        }
        Ok(Self { lab, container })
    }

    fn load(&self) -> Result<Portway<'_>> {
        let portway = Portway::new(&self.lab.host)?;
        portway.load("--admission netfilter")?;
        for spec in self.specs() {
            portway.publish(&spec)?;
        }
        Ok(portway)
    }

    fn run<'a>(&'a self) -> Result<(Portway<'a>, Daemon)> {
        let portway = Portway::new(&self.lab.host)?;
        let specs = self.specs().map(|spec| format!("--publish {spec}"));
        let run = portway.run(&format!("--no-docker --admission auto {}", specs.join(" ")))?;
        portway.wait_active("tcp", 9000)?;
        portway.wait_active("udp", 9000)?;
        let admission = portway.status()?.admission;
        ensure!(
            admission.as_ref().is_some_and(|it| it.mode == "netfilter"),
            "the lab's own rules are not Docker's: {admission:?}"
        );
        Ok((portway, run))
    }

    /// What conntrack knows of a client's connection.
    fn known_to_conntrack(&self, client: SocketAddr) -> Result<Option<Entry>> {
        let tuple = Tuple {
            source: client,
            destination: (HOST, 9000).into(),
        };
        conntrack::on(&self.lab.host, |conntrack| {
            conntrack.find(IpProtocol::TCP, tuple)
        })
    }

    fn specs(&self) -> [String; 3] {
        let address = self.container.address;
        [
            format!("9000:{address}:8081"),
            format!("9000:{address}:8080/udp"),
            format!("9001:{address}:8080/udp"),
        ]
    }

    /// Adds a rule at the head of FORWARD, or takes it away (`-D`).
    fn rule(&self, action: &str, rule: &str) -> Result<()> {
        let rule = format!("-w {action} FORWARD {rule} -j DROP");
        let iptables = self.lab.host.command("iptables");
        iptables.args(rule.split_whitespace()).text()?;
        Ok(())
    }

    fn datagrams(&self, client: Ipv4Addr, port: u16) -> Result<Datagrams> {
        let source = conversation::from_address(client);
        self.lab
            .client
            .run(|| Datagrams::new(source, (HOST, port).into()))
    }

    fn connection(&self, client: Ipv4Addr) -> Result<TcpStream> {
        let source = conversation::from_address(client);
        self.lab
            .client
            .run(|| Ok(conversation::connect(source, (HOST, 9000).into())?))
    }

    fn has_served(&self, client: Ipv4Addr) -> bool {
        let clients = ["tcp", "udp"].map(|protocol| self.container.clients(protocol));
        clients
            .concat()
            .iter()
            .any(|seen: &SocketAddr| seen.ip() == IpAddr::from(client))
    }
}

fn admitted() -> Result<()> {
    let stage = Stage::new()?;
    let portway = stage.load()?;
    let mut datagrams = stage.datagrams(CLIENTS[0], 9000)?;
    let mut connection = stage.connection(CLIENTS[0])?;
    let ((), used) = portway.measure(|| {
        for _ in 0..100 {
            datagrams.echo(64)?;
            echo_over(&mut connection, "a line")?;
        }
        Ok(())
    })?;
    ensure!(
        used.forwarded > 150 && used.replied > 150,
        "hardly accelerated: {used:?}"
    );
    let (bulk, used) = portway.measure(|| {
        let source = conversation::from_address(CLIENTS[0]);
        stage
            .lab
            .client
            .run(|| conversation::bulk_echo(source, (HOST, 9000).into(), 8 << 20))
    })?;
    ensure!(used.both_ways(), "{bulk:?} {used:?}");
    // Longer than a lease, with nothing lost when it is renewed.
    let start = Instant::now();
    while start.elapsed() < LEASE {
        datagrams.echo(64)?;
        echo_over(&mut connection, "a line")?;
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn denied() -> Result<()> {
    let stage = Stage::new()?;
    stage.rule("-I", &format!("-s {}", CLIENTS[1]))?;
    let portway = stage.load()?;
    let mut others = stage.datagrams(CLIENTS[0], 9000)?;
    let mut datagrams = stage.datagrams(CLIENTS[1], 9000)?;
    let (outcome, used) = portway.measure(|| {
        let outcomes: Vec<_> = (0..5).map(|_| datagrams.echo(64)).collect();
        Ok((outcomes, stage.connection(CLIENTS[1]).is_err()))
    })?;
    ensure!(
        outcome.0.iter().all(Result::is_err) && outcome.1,
        "let in: {outcome:?}"
    );
    ensure!(used.forwarded == 0, "accelerated: {used:?}");
    ensure!(!stage.has_served(CLIENTS[1]), "the container has seen it");
    others.echo(64)?;
    Ok(())
}

/// Two ports of the host lead to one of the container; a rule tells them apart by what conntrack remembers.
fn original_port() -> Result<()> {
    let stage = Stage::new()?;
    stage.rule("-I", "-m conntrack --ctorigdstport 9001 --ctdir ORIGINAL")?;
    let _portway = stage.load()?;
    let source = SocketAddr::from((CLIENTS[0], 5555));
    let mut sockets = stage.lab.client.run(|| {
        [9000, 9001]
            .map(|port| Datagrams::sharing(source, (HOST, port).into()))
            .into_iter()
            .collect::<Result<Vec<_>>>()
    })?;
    for turn in 0..5 {
        ensure!(sockets[0].echo(64).is_ok(), "turn {turn}: the open port");
        let shut = sockets[1].echo(64);
        ensure!(
            shut == Err(Silence::NoAnswer),
            "turn {turn}: the shut port: {shut:?}"
        );
    }
    Ok(())
}

fn replies() -> Result<()> {
    let stage = Stage::new()?;
    stage.rule("-I", &format!("-d {}", CLIENTS[1]))?;
    let portway = stage.load()?;
    let mut datagrams = stage.datagrams(CLIENTS[1], 9000)?;
    let (heard, used) = portway.measure(|| {
        let outcomes: Vec<_> = (0..5).map(|_| datagrams.echo(64)).collect();
        Ok(outcomes.iter().any(Result::is_ok))
    })?;
    ensure!(!heard && used.replied == 0, "{heard}, {used:?}");
    ensure!(stage.has_served(CLIENTS[1]), "its questions may go through");
    Ok(())
}

fn added_without_run() -> Result<()> {
    let stage = Stage::new()?;
    let portway = stage.load()?;
    ends_within(&stage, &portway, LEASE)
}

fn added_with_run() -> Result<()> {
    let stage = Stage::new()?;
    let (portway, run) = stage.run()?;
    // Less than a lease: it does not just run out.
    ends_within(&stage, &portway, Duration::from_millis(1500))?;
    portway.interrupt(&run)
}

/// A client that is denied in mid-flow is silenced within `time`, and heard again when it is not.
fn ends_within(stage: &Stage, portway: &Portway<'_>, time: Duration) -> Result<()> {
    let mut datagrams = stage.datagrams(CLIENTS[1], 9000)?;
    let mut connection = stage.connection(CLIENTS[1])?;
    let mut talk = || -> Result<()> {
        datagrams.send(64)?;
        echo_over(&mut connection, "a line")
    };
    let ((), used) = portway.measure(|| (0..20).try_for_each(|_| talk()))?;
    ensure!(used.both_ways(), "not accelerated to begin with: {used:?}");
    let rule = format!("-s {}", CLIENTS[1]);
    stage.rule("-I", &rule)?;
    let start = Instant::now();
    while talk().is_ok() {
        ensure!(start.elapsed() < time, "still let in after {time:?}");
    }
    let mut datagrams = stage.datagrams(CLIENTS[1], 9000)?;
    ensure!(datagrams.echo(64).is_err(), "datagrams are let in");
    stage.rule("-D", &rule)?;
    wait::until_true("an answer", PATIENCE, || Ok(datagrams.echo(64).is_ok()))
}

/// A segment in mid-connection is what conntrack would pick up, had the firewall not dropped it.
fn denied_and_unloaded() -> Result<()> {
    let stage = Stage::new()?;
    stage.rule("-I", &format!("-s {}", CLIENTS[1]))?;
    let established = "-w -I FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT";
    let iptables = stage.lab.host.command("iptables");
    iptables.args(established.split_whitespace()).text()?;
    let portway = stage.load()?;
    let source = SocketAddr::from((CLIENTS[1], 40001));
    let segment = packets::segment(IpProtocol::TCP, source, (HOST, 9000).into(), &[]);
    for _ in 0..3 {
        packets::send(&stage.lab.client, &segment)?;
    }
    wait::until_true("the segments", PATIENCE, || {
        Ok(portway.status()?.counters.get("lease").copied() >= Some(3))
    })?;
    portway.text("unload")?;
    let known = stage.known_to_conntrack(source)?;
    ensure!(known.is_none(), "conntrack was told: {known:?}");
    let connection = stage
        .lab
        .client
        .run(|| Ok(conversation::connect(Some(source), (HOST, 9000).into())))?;
    ensure!(connection.is_err(), "let in");
    Ok(())
}

/// What a container sends of its own accord to a client that is denied is not a reply.
fn denied_replies() -> Result<()> {
    let stage = Stage::new()?;
    stage.rule("-I", &format!("-s {}", CLIENTS[1]))?;
    stage.rule("-I", &format!("-d {}", CLIENTS[1]))?;
    let portway = stage.load()?;
    let inside = SocketAddr::from((stage.container.address, 8082));
    portway.publish(&format!("9002:{inside}/udp"))?;
    let server = stage.container.netns.run(|| Ok(UdpSocket::bind(inside)?))?;
    let source = SocketAddr::from((CLIENTS[1], 5555));
    let client = stage.lab.client.run(|| Ok(UdpSocket::bind(source)?))?;
    client.set_read_timeout(Some(Duration::from_millis(300)))?;
    client.send_to(b"is anybody there?", (HOST, 9002))?;
    let ((), used) = portway.measure(|| {
        server.send_to(b"a secret", source)?;
        let heard = client.recv(&mut [0; 64]);
        ensure!(heard.is_err(), "it got out");
        Ok(())
    })?;
    ensure!(used.replied == 0, "{used:?}");
    Ok(())
}

/// Connections begin all the time, before, while and after the kernel is to admit them.
fn changing() -> Result<()> {
    let stage = Stage::new()?;
    let portway = stage.load()?;
    portway.load("--admission direct")?;
    let is_over = AtomicBool::new(false);
    let connect = || -> Result<u32> {
        let mut connections = 0;
        while !is_over.load(Ordering::Relaxed) {
            let mut connection = stage.connection(CLIENTS[0])?;
            echo_over(&mut connection, "a line")?;
            connections += 1;
        }
        Ok(connections)
    };
    let connections = thread::scope(|scope| {
        let clients: Vec<_> = (0..8).map(|_| scope.spawn(connect)).collect();
        let changes = (0..4).try_for_each(|_| -> Result<()> {
            for admission in ["netfilter", "direct"] {
                portway.load(&format!("--admission {admission}"))?;
                // Some connections of each kind.
                thread::sleep(Duration::from_millis(200));
            }
            Ok(())
        });
        is_over.store(true, Ordering::Relaxed);
        let ended = clients.into_iter().map(|client| client.join());
        let ended: Vec<_> = ended.flatten().collect();
        changes.and_then(|()| ended.into_iter().sum::<Result<u32>>())
    })?;
    ensure!(connections > 100, "only {connections} connections");
    Ok(())
}

fn closing() -> Result<()> {
    let stage = Stage::new()?;
    let portway = stage.load()?;
    let mut connection = stage.connection(CLIENTS[0])?;
    let ((), used) =
        portway.measure(|| (0..20).try_for_each(|_| echo_over(&mut connection, "a line")))?;
    ensure!(used.both_ways(), "{used:?}");
    let client = connection.local_addr()?;
    let state = || {
        let known = stage.known_to_conntrack(client)?;
        Ok::<_, anyhow::Error>(known.and_then(|entry| entry.tcp_state))
    };
    ensure!(
        state()? == Some(TcpState::ESTABLISHED),
        "conntrack knows {:?}",
        state()?
    );
    drop(connection);
    wait::until_true("conntrack to see the end", PATIENCE, || {
        Ok(state()? != Some(TcpState::ESTABLISHED))
    })
}

fn strictness() -> Result<()> {
    let stage = Stage::new()?;
    let liberal = || -> Result<String> {
        stage.lab.host.run(|| {
            std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal")
                .context("no conntrack")
        })
    };
    let before = liberal()?;
    let portway = stage.load()?;
    ensure!(liberal()?.trim() == "1", "conntrack is strict");
    let mut connection = stage.connection(CLIENTS[0])?;
    for _ in 0..20 {
        echo_over(&mut connection, "a line")?;
    }
    portway.text("unload")?;
    ensure!(liberal()? == before, "{before}, now {}", liberal()?);
    // What conntrack has not seen of it does not stop it.
    echo_over(&mut connection, "a line without portway")
}
