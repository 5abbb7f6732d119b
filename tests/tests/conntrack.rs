//! Conversations that conntrack has forgotten go on when the controller has told it of them, and what it
//! lists is what the kernel tracks.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::ExitCode,
};

use anyhow::{Context, Result, ensure};
use dataplane_common::headers::IpProtocol;
use portway::{
    conntrack::{Entry, Outcome, Status, TcpState},
    firewall::Family,
};
use portway_tests::{
    conntrack::{all, on},
    container::Container,
    conversation::{self, ANSWER_LIMIT},
    harness::{self, Test},
    lab::{CLIENTS, CLIENTS_V6, EXTERNAL, HOST, HOST_V6, Lab},
    netns::Netns,
};

/// The port of the container's servers.
const PORT: u16 = 8080;

/// The host's ports that lead there.
const HOST_PORTS: [u16; 2] = [9000, 9001];

fn main() -> ExitCode {
    let tests = [
        ("a_connection_is_put_back_ipv4", Family::V4, tcp as Play),
        ("a_connection_is_put_back_ipv6", Family::V6, tcp),
        ("datagrams_are_put_back_ipv4", Family::V4, udp),
        ("datagrams_are_put_back_ipv6", Family::V6, udp),
    ];
    harness::run(
        tests.map(|(name, family, play)| Test::of_lab(name, move || play(&Stage::new(family)?))),
    )
}

type Play = fn(&Stage) -> Result<()>;

/// A container with two published ports that lead to one of its own, by DNAT.
struct Stage {
    lab: Lab,
    container: Container,
    family: Family,
    client: IpAddr,
    host: IpAddr,
    server: SocketAddr,
}

impl Stage {
    fn new(family: Family) -> Result<Self> {
        let lab = Lab::new()?;
        let container = Container::new(&lab.host, 1)?;
        let (client, host, address): (IpAddr, IpAddr, IpAddr) = match family {
            Family::V4 => (CLIENTS[0].into(), HOST.into(), container.address.into()),
            Family::V6 => (
                CLIENTS_V6[0].into(),
                HOST_V6.into(),
                container.address_v6.into(),
            ),
        };
        let stage = Self {
            lab,
            container,
            family,
            client,
            host,
            server: SocketAddr::from((address, PORT)),
        };
        for (protocol, port) in ["tcp", "udp"]
            .into_iter()
            .flat_map(|protocol| HOST_PORTS.map(|port| (protocol, port)))
        {
            stage.iptables(&format!(
                "-A PREROUTING -i {EXTERNAL} -p {protocol} --dport {port} -j DNAT --to-destination {}",
                stage.server
            ))?;
        }
        // As Docker has it. It also keeps conntrack at work: with the last rule that needs it, it ends.
        stage.iptables(&format!(
            "-A POSTROUTING -s {} -o {EXTERNAL} -j MASQUERADE",
            stage.server.ip()
        ))?;
        Ok(stage)
    }

    fn iptables(&self, rule: &str) -> Result<String> {
        let program = match self.family {
            Family::V4 => "iptables",
            Family::V6 => "ip6tables",
        };
        self.lab
            .host
            .command(program)
            .args(["-w", "-t", "nat"])
            .args(rule.split_whitespace())
            .text()
    }

    /// What conntrack knows of conversations with the published ports.
    fn listed(&self, protocol: IpProtocol) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        on(&self.lab.host, |conntrack| {
            conntrack.dump(self.family, |entry| {
                let port = entry.original.destination.port();
                if entry.protocol == protocol && HOST_PORTS.contains(&port) {
                    entries.push(entry);
                }
            })
        })?;
        entries.sort_by_key(|entry| entry.original.destination.port());
        Ok(entries)
    }

    /// Takes what `seen` is part of away from conntrack, rules and all, and puts it back: conntrack then
    /// knows it by us alone. `seen` is the client as the container sees it, by host port.
    fn put_back(
        &self,
        protocol: IpProtocol,
        client: SocketAddr,
        seen: [SocketAddr; 2],
    ) -> Result<()> {
        let before = self.listed(protocol)?;
        let entries: Vec<_> = HOST_PORTS
            .into_iter()
            .zip(seen)
            .map(|(port, seen)| {
                let host = SocketAddr::from((self.host, port));
                Entry::established(protocol, client, host, self.server, seen, 77)
            })
            .collect();
        let tuples = |entries: &[Entry]| -> Vec<_> {
            entries
                .iter()
                .map(|entry| (entry.original, entry.reply))
                .collect()
        };
        ensure!(
            tuples(&before) == tuples(&entries),
            "{before:#?}, not {entries:#?}"
        );
        for entry in &before {
            ensure!(
                entry
                    .status
                    .contains(Status::DstNat | Status::SeenReply | Status::Confirmed),
                "{entry:?}"
            );
        }
        self.iptables("-F PREROUTING")?;
        on(&self.lab.host, |conntrack| {
            all(Outcome::Done, |told| conntrack.delete(before, told))?;
            ensure!(self.listed(protocol)?.is_empty(), "not deleted");
            all(Outcome::Done, |told| {
                conntrack.insert(entries.clone(), told)
            })
        })?;
        let after = self.listed(protocol)?;
        ensure!(tuples(&after) == tuples(&entries), "{after:#?}");
        for (entry, wanted) in after.iter().zip(&entries) {
            let is_remapped = wanted.reply.destination != wanted.original.source;
            ensure!(
                entry
                    .status
                    .contains(Status::DstNat | Status::SeenReply | Status::Assured)
                    && entry.status.contains(Status::SrcNat) == is_remapped
                    && (76..=77).contains(&entry.timeout)
                    && entry.tcp_state == wanted.tcp_state,
                "{entry:?}"
            );
        }
        Ok(())
    }
}

/// Two connections from one port of the client, the second of which netfilter gives another port.
fn tcp(stage: &Stage) -> Result<()> {
    let listener = stage
        .container
        .netns
        .run(|| Ok(TcpListener::bind(stage.server)?))?;
    let source = SocketAddr::from((stage.client, 40_000));
    let connect = |port| {
        let target = SocketAddr::from((stage.host, port));
        let client = stage
            .lab
            .client
            .run(|| Ok(conversation::connect(Some(source), target)?))
            .with_context(|| format!("connecting to {target}"))?;
        let (server, seen) = listener.accept()?;
        server.set_read_timeout(Some(ANSWER_LIMIT))?;
        anyhow::Ok((client, server, seen))
    };
    let mut connections = [connect(HOST_PORTS[0])?, connect(HOST_PORTS[1])?];
    for (client, server, _) in &mut connections {
        say(client, server)?;
    }
    ensure!(
        connections[0].2 == source && connections[1].2 != source,
        "no source port was changed: this checks too little"
    );
    stage.put_back(
        IpProtocol::TCP,
        source,
        [connections[0].2, connections[1].2],
    )?;
    for (client, server, _) in &mut connections {
        say(server, client).context("the server, first")?;
        say(client, server)?;
        say(server, client)?;
    }
    for entry in stage.listed(IpProtocol::TCP)? {
        ensure!(
            entry.tcp_state == Some(TcpState::ESTABLISHED) && entry.timeout > 77,
            "packets went elsewhere: {entry:?}"
        );
    }
    Ok(())
}

/// The same with datagrams.
fn udp(stage: &Stage) -> Result<()> {
    let socket = |netns: &Netns, address| {
        netns.run(|| {
            let socket = UdpSocket::bind(address)?;
            socket.set_read_timeout(Some(ANSWER_LIMIT))?;
            Ok(socket)
        })
    };
    let server = socket(&stage.container.netns, stage.server)?;
    let source = SocketAddr::from((stage.client, 40_000));
    let client = socket(&stage.lab.client, source)?;
    let ask = |port| {
        let mut buffer = [0; 8];
        client.send_to(b"question", (stage.host, port))?;
        anyhow::Ok(server.recv_from(&mut buffer).context("no question")?.1)
    };
    let answer = |port, seen| {
        let mut buffer = [0; 8];
        server.send_to(b"answer", seen)?;
        let (_, from) = client.recv_from(&mut buffer).context("no answer")?;
        ensure!(from == SocketAddr::from((stage.host, port)), "from {from}");
        Ok(())
    };
    let seen = [ask(HOST_PORTS[0])?, ask(HOST_PORTS[1])?];
    for (port, seen) in HOST_PORTS.into_iter().zip(seen) {
        answer(port, seen)?;
    }
    stage.put_back(IpProtocol::UDP, source, seen)?;
    for (port, seen) in HOST_PORTS.into_iter().zip(seen) {
        answer(port, seen).context("the server, first")?;
        ensure!(ask(port)? == seen, "the client has changed its port");
    }
    Ok(())
}

fn say(from: &mut TcpStream, to: &mut TcpStream) -> Result<()> {
    let mut heard = [0; 5];
    from.write_all(b"hello")?;
    to.read_exact(&mut heard).context("nothing arrived")?;
    ensure!(&heard == b"hello", "something else arrived");
    Ok(())
}
