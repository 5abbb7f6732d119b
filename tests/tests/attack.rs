//! Under attack from outside, beside flows that exchange data: none of these is lost, nothing gets in that the kernel
//! would have kept out, and the controller hardly notices.

use std::{
    collections::HashSet,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use dataplane_common::headers::{IpProtocol, TcpFlags};
use fastrand::Rng;
use nix::unistd::{SysconfVar, sysconf};
use portway_tests::{
    container::{BRIDGE, Container},
    conversation::{self, echo_over},
    harness::{self, Test},
    lab::{CLIENTS, EXTERNAL, HOST, Lab},
    memory,
    packets::{Link, control, icmp_error, segment},
    portway::Portway,
    raw::Datagram,
    setting::{self, setting},
    wait::{self, PATIENCE},
};

fn main() -> ExitCode {
    harness::run([Test::of_portway(
        "established_flows_survive_every_attack",
        survive,
    )])
}

/// How long each attack lasts, in seconds, unless PORTWAY_ATTACK_SECONDS says otherwise.
const SECONDS: f64 = 0.5;

/// Established flows of each protocol.
const ESTABLISHED: u16 = 500;

/// Room for flows: established ones are a fourth of it, and any attack is more.
const MAX_FLOWS: usize = 4096;

/// The client's ports of established flows.
const UDP_CLIENTS: u16 = 20_000;
const TCP_CLIENTS: u16 = 30_000;

/// The host's ports: two echoes, and one where nobody listens in the container.
const UDP: u16 = 9000;
const TCP: u16 = 9001;
const SILENT: u16 = 9002;

/// How old established flows are at first, so that they are told by that from others in their place.
const LASTING: Duration = Duration::from_secs(4);

/// Different packets of an attack; they come again and again.
const VARIETY: usize = 20_000;

/// The most of a core that the controller may take, in percent, and the most memory it may grow by, in bytes.
const CPU_LIMIT: f64 = 5.0;
const MEMORY_LIMIT: u64 = 16 << 20;

/// A network that the host has a route to, by another interface than where its packets come from.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 0);

/// What is sent: its name, and a packet of it, from the IP header on.
type Attack = (&'static str, fn(&mut Rng) -> Vec<u8>);

const ATTACKS: [Attack; 10] = [
    ("SYNs of new connections", syn),
    ("datagrams of new flows", datagram),
    ("datagrams that are answered", question),
    ("garbage", garbage),
    ("ICMP errors about any flow", any_error),
    ("fragments", fragment),
    ("spoofed sources", spoofed),
    ("SYNs of any connection", any_syn),
    ("resets of any connection", any_reset),
    ("ends of any connection", any_end),
];

/// The flows that have to go on.
struct Established {
    datagrams: Vec<UdpSocket>,
    connections: Vec<TcpStream>,
}

fn survive() -> Result<()> {
    let seconds = setting("PORTWAY_ATTACK_SECONDS")?.unwrap_or(SECONDS);
    let seed = setting::seed("PORTWAY_SEED")?;
    println!("PORTWAY_SEED={seed}, {seconds} s each");
    let mut random = Rng::with_seed(seed);
    let lab = Lab::new()?;
    let container = Container::new(&lab.host, 1)?.serve(&["udp/8080", "tcp/8081"])?;
    lab.host
        .ip(&format!("route add {ELSEWHERE}/24 dev {BRIDGE}"))?;
    let portway = Portway::new(&lab.host)?;
    let address = container.address;
    portway.load(&format!("--admission direct --max-flows {MAX_FLOWS}"))?;
    portway.publish(&format!("{UDP}:{address}:8080/udp"))?;
    portway.publish(&format!("{TCP}:{address}:8081"))?;
    portway.publish(&format!("{SILENT}:{address}:9/udp"))?;
    let run = portway.run("--no-docker")?;
    run.line("portway", PATIENCE)?;

    let mut established = Established::begin(&lab)?;
    established.all_answer(&lab)?;
    let begun = Instant::now();
    wait::until_true("conversations that last", PATIENCE, || {
        established.all_answer(&lab)?;
        Ok(begun.elapsed() > LASTING)
    })?;
    let memory_before = memory::resident(run.pid())?;
    for (name, packet) in ATTACKS {
        let packets: Vec<_> = (0..VARIETY).map(|_| packet(&mut random)).collect();
        let before = (portway.status()?, cpu_time(run.pid())?, Instant::now());
        let sent = attack(
            &lab,
            &mut established,
            &packets,
            Duration::from_secs_f64(seconds),
        )?;
        let lasted = before.2.elapsed();
        let busy = cpu_time(run.pid())?.saturating_sub(before.1);
        let share = busy.as_secs_f64() / lasted.as_secs_f64() * 100.0;
        let used = portway.status()?.since(&before.0);
        let grown = memory::resident(run.pid())?.saturating_sub(memory_before);
        println!(
            "{name}: {:.0} packets a second, {} forwarded; controller {share:.1} % of a core, {} KiB more",
            sent as f64 / lasted.as_secs_f64(),
            used.forwarded,
            grown >> 10
        );
        established
            .all_answer(&lab)
            .and_then(|()| ensure_alive(&portway, begun))
            .with_context(|| format!("after {name}, PORTWAY_SEED={seed}"))?;
        ensure!(
            share < CPU_LIMIT,
            "{name}: the controller takes {share:.1} %"
        );
        ensure!(grown < MEMORY_LIMIT, "{name}: {grown} bytes more");
    }
    let clients: HashSet<IpAddr> = ["udp", "tcp"]
        .iter()
        .flat_map(|protocol| container.clients(protocol))
        .map(|client| client.ip())
        .filter(|client| !is_possible(*client))
        .collect();
    ensure!(clients.is_empty(), "these got in: {clients:?}");
    portway.interrupt(&run)
}

impl Established {
    fn begin(lab: &Lab) -> Result<Self> {
        lab.client.run(|| {
            let mut datagrams = Vec::new();
            let mut connections = Vec::new();
            for number in 0..ESTABLISHED {
                let socket = UdpSocket::bind((CLIENTS[1], UDP_CLIENTS + number))?;
                socket.connect((HOST, UDP))?;
                socket.set_read_timeout(Some(Duration::from_millis(50)))?;
                datagrams.push(socket);
                let source = (CLIENTS[1], TCP_CLIENTS + number).into();
                let connection = conversation::connect(Some(source), (HOST, TCP).into())?;
                connection.set_read_timeout(Some(PATIENCE))?;
                connections.push(connection);
            }
            Ok(Self {
                datagrams,
                connections,
            })
        })
    }

    /// Each has an answer, from an echo that is on the other side of the container's port.
    fn all_answer(&mut self, lab: &Lab) -> Result<()> {
        lab.client.run(|| {
            for socket in &self.datagrams {
                let port = socket.local_addr()?.port();
                // Datagrams may be lost where queues are full.
                wait::until_true(&format!("an answer to {port}"), PATIENCE, || {
                    Ok(socket.send(b"portway").is_ok() && socket.recv(&mut [0; 16]).is_ok())
                })?;
            }
            for connection in &mut self.connections {
                let port = connection.local_addr()?.port();
                echo_over(connection, "portway")
                    .with_context(|| format!("connection of {port}"))?;
            }
            Ok(())
        })
    }

    /// Data to and fro on all of them, whatever is lost of datagrams, until it `is_over`.
    fn exchange(&mut self, is_over: &AtomicBool) -> Result<()> {
        while !is_over.load(Ordering::Relaxed) {
            for (socket, connection) in self.datagrams.iter().zip(&mut self.connections) {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                // An ICMP error about it is told here.
                let _ = socket.send(b"portway");
                let _ = socket.recv(&mut [0; 16]);
                let port = connection.local_addr()?.port();
                echo_over(connection, "portway")
                    .with_context(|| format!("connection of {port}"))?;
            }
        }
        Ok(())
    }
}

/// Every established flow is still the same one.
fn ensure_alive(portway: &Portway, begun: Instant) -> Result<()> {
    let flows = portway.flows()?;
    ensure!(flows.len() <= MAX_FLOWS * 2, "{} flows", flows.len());
    let age = begun.elapsed().as_secs_f64() - 2.0;
    let old: HashSet<&str> = flows
        .iter()
        .filter(|flow| flow.age_s >= age && flow.state == "established")
        .map(|flow| flow.client.as_str())
        .collect();
    let lost: Vec<_> = [UDP_CLIENTS, TCP_CLIENTS]
        .into_iter()
        .flat_map(|first| first..first + ESTABLISHED)
        .map(|port| format!("{}:{port}", CLIENTS[1]))
        .filter(|client| !old.contains(client.as_str()))
        .collect();
    ensure!(
        lost.is_empty(),
        "{} flows are lost or others, {} the first: {:?}",
        lost.len(),
        lost[0],
        flows.iter().find(|flow| flow.client == lost[0])
    );
    for flow in &flows {
        let client: SocketAddr = flow.client.parse()?;
        ensure!(is_possible(client.ip()), "a flow of {client}");
    }
    Ok(())
}

/// Whether an address can be that of a client outside, as strict rp_filter has it.
fn is_possible(client: IpAddr) -> bool {
    let IpAddr::V4(client) = client else {
        return false;
    };
    !(SPOOFED.contains(&client) || client.octets()[..3] == ELSEWHERE.octets()[..3])
}

/// Sends packets as fast as one thread can, while established flows exchange data. Returns how many.
fn attack(
    lab: &Lab,
    established: &mut Established,
    packets: &[Vec<u8>],
    time: Duration,
) -> Result<u64> {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let talk = scope.spawn(|| lab.client.run(|| established.exchange(&is_over)));
        let sent = flood(lab, packets, time);
        is_over.store(true, Ordering::Relaxed);
        match talk.join() {
            Ok(talked) => talked?,
            Err(_) => anyhow::bail!("those who talk panicked"),
        }
        sent
    })
}

fn flood(lab: &Lab, packets: &[Vec<u8>], time: Duration) -> Result<u64> {
    let ethernet = [
        &lab.host.mac(EXTERNAL)?[..],
        &lab.client.mac("eth0")?,
        &[0x08, 0x00],
    ]
    .concat();
    let frames: Vec<_> = packets
        .iter()
        .map(|packet| [&ethernet[..], packet].concat())
        .collect();
    let link = Link::new(&lab.client, "eth0")?;
    let end = Instant::now() + time;
    let mut sent = 0;
    for frame in frames.iter().cycle() {
        sent += u64::from(link.send(frame));
        if Instant::now() >= end {
            break;
        }
    }
    Ok(sent)
}

/// A stranger: of the link's network, whom the host asks for by ARP, or from farther away.
fn stranger(random: &mut Rng) -> SocketAddr {
    let address = if random.u8(..8) == 0 {
        Ipv4Addr::new(10, 99, 0, random.u8(20..250))
    } else {
        Ipv4Addr::from(0xc612_0000 | random.u32(..1 << 17))
    };
    (address, random.u16(1024..)).into()
}

fn tcp(source: SocketAddr, random: &mut Rng, flags: u8) -> Vec<u8> {
    let numbers = [random.u32(..), random.u32(..)];
    control(source, (HOST, TCP).into(), flags, numbers)
}

fn syn(random: &mut Rng) -> Vec<u8> {
    tcp(stranger(random), random, TcpFlags::SYN)
}

fn datagram(random: &mut Rng) -> Vec<u8> {
    let target = (HOST, SILENT).into();
    segment(IpProtocol::UDP, stranger(random), target, b"new")
}

/// It comes more than once, as from a client that has heard the answer.
fn question(random: &mut Rng) -> Vec<u8> {
    segment(
        IpProtocol::UDP,
        stranger(random),
        (HOST, UDP).into(),
        b"new",
    )
}

fn garbage(random: &mut Rng) -> Vec<u8> {
    let mut packet = segment(
        IpProtocol(random.u8(..)),
        stranger(random),
        (HOST, random.choice([UDP, TCP, SILENT]).unwrap_or(UDP)).into(),
        &[0; 40],
    );
    for _ in 0..random.usize(1..20) {
        let at = random.usize(..packet.len());
        packet[at] = random.u8(..);
    }
    // Not fewer: the kernel would not send it.
    packet.truncate(random.usize(20..=packet.len()));
    packet
}

/// A client and a port of the established flows, or next to them.
fn about(random: &mut Rng) -> (SocketAddr, IpProtocol, u16) {
    let (first, protocol, port) = if random.bool() {
        (TCP_CLIENTS, IpProtocol::TCP, TCP)
    } else {
        (UDP_CLIENTS, IpProtocol::UDP, UDP)
    };
    let client = (CLIENTS[1], first + random.u16(..ESTABLISHED * 2)).into();
    (client, protocol, port)
}

/// Everything that says that somebody is not to be reached, quoting a packet with a sequence number that is not theirs.
fn any_error(random: &mut Rng) -> Vec<u8> {
    let (client, protocol, port) = about(random);
    let mut quoted = segment(protocol, (HOST, port).into(), client, &[0; 8]);
    if protocol == IpProtocol::TCP {
        quoted[24..28].copy_from_slice(&random.u32(..).to_be_bytes());
    }
    let kind = random
        .choice([
            (3, 0),
            (3, 1),
            (3, 2),
            (3, 3),
            (3, 10),
            (3, 13),
            (11, 0),
            (12, 0),
        ])
        .unwrap_or((3, 3));
    icmp_error(stranger(random).ip(), HOST.into(), 60, kind, &quoted)
}

fn fragment(random: &mut Rng) -> Vec<u8> {
    let datagram = Datagram {
        source: stranger(random),
        destination: (HOST, random.choice([UDP, SILENT]).unwrap_or(UDP)).into(),
        id: random.u32(..),
        payload: &[0; 64],
    };
    let mut fragments = datagram.fragments(24);
    let mut packet = fragments.swap_remove(random.usize(..fragments.len()));
    finish_ip(&mut packet);
    packet
}

/// Puts length and checksum into an IPv4 header, as the kernel does for raw sockets.
fn finish_ip(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let sum = dataplane_common::checksum::internet_checksum(&[&packet[..20]]);
    packet[10..12].copy_from_slice(&sum.get().to_be_bytes());
}

/// Addresses that nobody outside can have: the host's, a container's, and those of nobody.
const SPOOFED: [Ipv4Addr; 10] = [
    HOST,
    Ipv4Addr::new(10, 99, 0, 11),
    Ipv4Addr::new(10, 98, 0, 1),
    Ipv4Addr::new(10, 98, 0, 2),
    Ipv4Addr::new(10, 98, 0, 77),
    Ipv4Addr::new(127, 0, 0, 1),
    Ipv4Addr::new(0, 0, 0, 0),
    Ipv4Addr::new(224, 0, 0, 1),
    Ipv4Addr::new(240, 0, 0, 1),
    Ipv4Addr::new(255, 255, 255, 255),
];

fn spoofed(random: &mut Rng) -> Vec<u8> {
    let elsewhere = Ipv4Addr::from(u32::from(ELSEWHERE) + random.u32(1..255));
    let address = SPOOFED.get(random.usize(..=SPOOFED.len()));
    let source = (*address.unwrap_or(&elsewhere), random.u16(1024..)).into();
    if random.bool() {
        tcp(source, random, TcpFlags::SYN)
    } else {
        segment(IpProtocol::UDP, source, (HOST, UDP).into(), b"spoofed")
    }
}

/// A client of an established connection, or next to one.
fn connected(random: &mut Rng) -> SocketAddr {
    (CLIENTS[1], TCP_CLIENTS + random.u16(..ESTABLISHED * 2)).into()
}

fn any_syn(random: &mut Rng) -> Vec<u8> {
    tcp(connected(random), random, TcpFlags::SYN)
}

/// A reset that knows everything of a connection but where it is.
fn any_reset(random: &mut Rng) -> Vec<u8> {
    let with_ack = if random.bool() { TcpFlags::ACK } else { 0 };
    tcp(connected(random), random, TcpFlags::RST | with_ack)
}

fn any_end(random: &mut Rng) -> Vec<u8> {
    let end = [0, TcpFlags::FIN, TcpFlags::RST];
    let end = end[random.usize(..end.len())];
    tcp(connected(random), random, TcpFlags::ACK | end)
}

/// The CPU time that a process and its children have taken.
fn cpu_time(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(") ").context("a process without a name")?;
    // utime, stime, cutime and cstime of proc_pid_stat(5), from the third field on.
    let ticks: u64 = fields
        .split(' ')
        .skip(11)
        .take(4)
        .map(|field| field.parse().unwrap_or(0_u64))
        .sum();
    let a_second = sysconf(SysconfVar::CLK_TCK)?.context("no clock ticks")?;
    Ok(Duration::from_secs_f64(ticks as f64 / a_second as f64))
}
