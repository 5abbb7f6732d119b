//! What has only begun when the kernel takes over, because portway goes or the firewall is to have its say, goes on: an
//! answer that comes later is one to the client's question, and no word of the container's own.

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
    process::ExitCode,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};
use nix::libc;
use portway_tests::{
    container::{Container, GATEWAY, GATEWAY_V6},
    conversation::{ANSWER_LIMIT, talk},
    harness::{self, Test},
    lab::{HOST, HOST_V6, Lab},
    netns::Netns,
    portway::Portway,
    wait::{self, PATIENCE},
};
use socket2::{Domain, Socket, Type};

/// The host's port, and the container's.
const HOST_PORT: u16 = 9000;
const PORT: u16 = 8080;

/// For which portway translates what it has begun itself, after admission has changed (`LEASE` in dataplane-common), and
/// some more.
const LEASE: Duration = Duration::from_secs(3 + 1);

fn main() -> ExitCode {
    harness::run([
        Test::of_portway("a_late_answer_finds_its_client", late_answer),
        Test::of_portway(
            "a_late_answer_finds_its_client_when_rules_come",
            late_answer_by_rules,
        ),
        Test::of_portway("a_late_syn_ack_finds_its_client", late_syn_ack),
        Test::of_portway(
            "a_late_syn_ack_finds_its_client_when_rules_come",
            late_syn_ack_by_rules,
        ),
        Test::of_portway("a_late_ack_opens_the_connection", late_ack),
    ])
}

/// A container with a published port, by IPv4 and IPv6, and its slow path.
struct Stage {
    lab: Lab,
    container: Container,
}

impl Stage {
    fn new() -> Result<Self> {
        let lab = Lab::new()?;
        let container = Container::new(&lab.host, 1)?;
        for protocol in ["tcp", "udp"] {
            container.publish_with_iptables(&lab.host, protocol, HOST_PORT, PORT)?;
            container.publish_with_ip6tables(&lab.host, protocol, HOST_PORT, PORT)?;
        }
        // Nothing is picked up in mid-conversation.
        lab.host.sysctl("netfilter/nf_conntrack_tcp_loose", "0")?;
        Ok(Self { lab, container })
    }

    fn load(&self) -> Result<Portway<'_>> {
        let portway = Portway::new(&self.lab.host)?;
        portway.load("--admission direct")?;
        let (address, address_v6) = (self.container.address, self.container.address_v6);
        for protocol in ["tcp", "udp"] {
            portway.publish(&format!("{HOST_PORT}:{address}:{PORT}/{protocol}"))?;
            portway.publish(&format!("{HOST_PORT}:[{address_v6}]:{PORT}/{protocol}"))?;
        }
        Ok(portway)
    }

    /// The container's address and the host's, by IP version.
    fn ends(&self) -> [(IpAddr, IpAddr); 2] {
        [
            (self.container.address.into(), HOST.into()),
            (self.container.address_v6.into(), HOST_V6.into()),
        ]
    }
}

/// A question of UDP that waits for its answer.
struct Question {
    client: UdpSocket,
    server: UdpSocket,
    seen: SocketAddr,
}

impl Question {
    fn ask(stage: &Stage, (container, host): (IpAddr, IpAddr)) -> Result<Self> {
        let socket = |netns: &Netns, address| {
            netns.run(|| {
                let socket = UdpSocket::bind(address)?;
                socket.set_read_timeout(Some(ANSWER_LIMIT))?;
                Ok(socket)
            })
        };
        let server = socket(&stage.container.netns, SocketAddr::new(container, PORT))?;
        let any = if host.is_ipv4() {
            "0.0.0.0:0"
        } else {
            "[::]:0"
        };
        let client = socket(&stage.lab.client, any.parse()?)?;
        client.connect((host, HOST_PORT))?;
        client.send(b"question")?;
        let (_, seen) = server.recv_from(&mut [0; 8]).context("no question")?;
        Ok(Self {
            client,
            server,
            seen,
        })
    }

    /// The client hears only whom it has asked.
    fn answer(&self) -> Result<()> {
        self.server.send_to(b"answer", self.seen)?;
        self.client.recv(&mut [0; 8]).context("no answer")?;
        Ok(())
    }
}

fn late_answer() -> Result<()> {
    answered_after(|portway| portway.text("unload"))
}

/// After portway has ceased to translate for those that the kernel does not know.
fn late_answer_by_rules() -> Result<()> {
    answered_after(|portway| {
        let said = portway.load("--admission netfilter")?;
        thread::sleep(LEASE);
        Ok(said)
    })
}

/// Has a question of each IP version wait for its answer until `change` has been made.
fn answered_after(change: fn(&Portway<'_>) -> Result<String>) -> Result<()> {
    let stage = Stage::new()?;
    let portway = stage.load()?;
    let [one, other] = stage.ends();
    let questions = [Question::ask(&stage, one)?, Question::ask(&stage, other)?];
    ensure!(count_opening(&portway, questions.len())?, "no flows");
    change(&portway)?;
    questions.iter().try_for_each(Question::answer)
}

/// The container's SYN waits, and portway goes meanwhile.
fn late_syn_ack() -> Result<()> {
    opened_around(hold_words, |portway| portway.text("unload"))
}

/// The same, but that portway still translates it: the kernel sees nothing between the client's SYN, of which it has
/// been told, and its acknowledgement.
fn late_syn_ack_by_rules() -> Result<()> {
    opened_around(hold_words, |portway| portway.load("--admission netfilter"))
}

/// The client's acknowledgement waits.
fn late_ack() -> Result<()> {
    opened_around(hold_acks, |portway| portway.text("unload"))
}

/// Has a connection begin of which something is held back while `change` is made. It opens after that without its client's
/// saying SYN again.
fn opened_around(
    hold: fn(&Stage, bool) -> Result<()>,
    change: fn(&Portway<'_>) -> Result<String>,
) -> Result<()> {
    let stage = Stage::new()?;
    for (container, host) in stage.ends() {
        let portway = stage.load()?;
        let server = SocketAddr::new(container, PORT);
        let listener = stage
            .container
            .netns
            .run(|| Ok(TcpListener::bind(server)?))?;
        listener.set_nonblocking(true)?;
        hold(&stage, true)?;
        let target = SocketAddr::new(host, HOST_PORT);
        let client = stage.lab.client.run(|| begin_to_connect(target))?;
        wait::until_true("a flow that opens", PATIENCE, || count_opening(&portway, 1))?;
        hold_syns(&stage, true)?;
        change(&portway)?;
        hold(&stage, false)?;
        let server = wait::until("the connection", PATIENCE, || match listener.accept() {
            Ok((server, _)) => Ok(Some(server)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error.into()),
        })?;
        hold_syns(&stage, false)?;
        client.set_nonblocking(false)?;
        client.set_read_timeout(Some(ANSWER_LIMIT))?;
        server.set_nonblocking(false)?;
        server.set_read_timeout(Some(ANSWER_LIMIT))?;
        talk(&mut [client.into(), server])?;
        portway.text("unload")?;
    }
    Ok(())
}

/// Sends a SYN, and does not wait for what comes of it.
fn begin_to_connect(target: SocketAddr) -> Result<Socket> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&target.into()) {
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(socket),
        other => Err(anyhow!("connecting in the background: {other:?}")),
    }
}

/// Has all that the container sends out go astray. It does not learn of that: it would give up a connection whose SYN and
/// ACK it may not send.
fn hold_words(stage: &Stage, is_held: bool) -> Result<()> {
    for gateway in [IpAddr::from(GATEWAY), GATEWAY_V6.into()] {
        let neighbour = if is_held {
            format!("neigh replace {gateway} lladdr 02:00:00:00:00:fe dev eth0 nud permanent")
        } else {
            format!("neigh del {gateway} dev eth0")
        };
        stage.container.netns.ip(&neighbour)?;
    }
    Ok(())
}

/// Has the client send no acknowledgement.
fn hold_acks(stage: &Stage, is_held: bool) -> Result<()> {
    hold_segments(&stage.lab.client, "SYN,ACK ACK", is_held)
}

/// Has the client send no SYN.
fn hold_syns(stage: &Stage, is_held: bool) -> Result<()> {
    hold_segments(&stage.lab.client, "SYN,ACK SYN", is_held)
}

/// `flags` as `--tcp-flags` has them.
fn hold_segments(client: &Netns, flags: &str, is_held: bool) -> Result<()> {
    let what = if is_held { "-A" } else { "-D" };
    let rule = format!("-w {what} OUTPUT -p tcp --tcp-flags {flags} -j DROP");
    for program in ["iptables", "ip6tables"] {
        let command = client.command(program);
        command.args(rule.split_whitespace()).text()?;
    }
    Ok(())
}

/// Whether there are so many flows, all of which only begin.
fn count_opening(portway: &Portway<'_>, count: usize) -> Result<bool> {
    let flows = portway.flows()?;
    Ok(flows.len() == count && flows.iter().all(|flow| flow.state == "opening"))
}
