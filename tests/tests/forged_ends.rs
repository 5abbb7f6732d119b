//! Resets and ends of connections by somebody who knows their addresses and ports, and nearly their sequence numbers,
//! under `direct` admission, where conntrack sees none of them: they change nothing, also where nobody speaks for a
//! long time. Their own client's end them.

use std::{
    io::Write,
    net::{IpAddr, Shutdown, SocketAddr, TcpStream},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use dataplane_common::headers::TcpFlags;
use fastrand::Rng;
use portway_tests::{
    container::Container,
    conversation::{self, echo_over},
    harness::{self, Test},
    lab::{CLIENTS, CLIENTS_V6, HOST, HOST_V6, Lab},
    packets,
    portway::{Flow, Portway},
    sequence, setting,
    wait::{self, PATIENCE},
};
use socket2::SockRef;

fn main() -> ExitCode {
    harness::run([
        Test::of_portway("forged_ones_change_nothing", forged),
        Test::of_portway("genuine_ones_end_the_flow", genuine),
    ])
}

/// Seconds after which a connection that is closed or closing is forgotten here.
const TIMEOUT: u32 = 1;

/// Idle connections of each IP version: two for each attack.
const CONNECTIONS: u16 = 6;

/// Control bits of what is forged of a connection, in turns. The last would have another one begin in its place.
const ATTACKS: [&[u8]; 3] = [
    &[TcpFlags::RST, TcpFlags::RST | TcpFlags::ACK],
    &[TcpFlags::FIN | TcpFlags::ACK],
    &[TcpFlags::RST, TcpFlags::SYN],
];

const CLIENT_PORT: u16 = 30_000;
const HOST_PORT: u16 = 9001;

/// How far from the right sequence number forged segments are, besides anywhere.
const NEAR: [u32; 12] = [
    1,
    2,
    100,
    1460,
    1 << 16,
    1 << 20,
    1 << 30,
    (1 << 30) + 1,
    1 << 31,
    u32::MAX - 1460,
    u32::MAX - 1,
    u32::MAX,
];

/// How far their acknowledgement numbers are ahead of all that the container has sent. Of one that it has sent any TCP
/// takes a FIN that is close enough for data that came out of order, and portway has no part in that.
const UNSENT: [u32; 2] = [1, 1 << 20];

/// Publishes an echo in a container over both IP versions, and has whatever closes be forgotten soon.
fn publish(lab: &Lab) -> Result<(Container, Portway<'_>)> {
    for state in ["fin_wait", "close_wait", "last_ack", "time_wait", "close"] {
        let name = format!("netfilter/nf_conntrack_tcp_timeout_{state}");
        lab.host.sysctl(&name, &TIMEOUT.to_string())?;
    }
    let container = Container::new(&lab.host, 1)?.serve(&["tcp/8081"])?;
    let portway = Portway::new(&lab.host)?;
    portway.load("--admission direct")?;
    portway.publish(&format!("{HOST_PORT}:{}:8081", container.address))?;
    portway.publish(&format!("{HOST_PORT}:[{}]:8081", container.address_v6))?;
    Ok((container, portway))
}

/// A client's addresses and the host's, in each IP version.
const ENDS: [(IpAddr, IpAddr); 2] = [
    (IpAddr::V4(CLIENTS[1]), IpAddr::V4(HOST)),
    (IpAddr::V6(CLIENTS_V6[1]), IpAddr::V6(HOST_V6)),
];

/// A connection that has said something.
fn connect(lab: &Lab, (client, host): (IpAddr, IpAddr), port: u16) -> Result<TcpStream> {
    lab.client.run(|| {
        let mut stream =
            conversation::connect(Some((client, port).into()), (host, HOST_PORT).into())?;
        echo_over(&mut stream, "portway")?;
        Ok(stream)
    })
}

fn forged() -> Result<()> {
    let seed = setting::seed("PORTWAY_SEED")?;
    println!("PORTWAY_SEED={seed}");
    let mut random = Rng::with_seed(seed);
    let lab = Lab::new()?;
    let (_container, portway) = publish(&lab)?;
    let mut idle = Vec::new();
    for ends in ENDS {
        for number in 0..CONNECTIONS {
            idle.push(connect(&lab, ends, CLIENT_PORT + number)?);
        }
    }
    for (stream, attack) in idle.iter().zip(ATTACKS.into_iter().cycle()) {
        let (client, host) = (stream.local_addr()?, stream.peer_addr()?);
        for segment in forge(
            &mut random,
            attack,
            client,
            host,
            sequence::numbers(stream)?,
        ) {
            packets::send(&lab.client, &segment)?;
        }
    }
    // What has ended is forgotten by then. A container's answer to what may be its client's counts for as much as any.
    wait::until_true("idle connections", PATIENCE, || {
        let flows = portway.flows()?;
        let clients = idle.iter().map(TcpStream::local_addr);
        for client in clients {
            let client = client?;
            let flow = flow_of(&flows, client)
                .with_context(|| format!("{client} is forgotten, PORTWAY_SEED={seed}"))?;
            ensure!(flow.state == "established", "{flow:?}, PORTWAY_SEED={seed}");
        }
        Ok(flows
            .iter()
            .all(|flow| flow.idle_s > f64::from(TIMEOUT) + 1.0))
    })?;
    lab.client.run(|| {
        for stream in &mut idle {
            echo_over(stream, "still there")
                .with_context(|| format!("{stream:?}, PORTWAY_SEED={seed}"))?;
        }
        Ok(())
    })
}

/// Segments that look like a client's, but for their numbers: `next` is the sequence number that it sends next, and
/// `heard` the one that it expects.
fn forge(
    random: &mut Rng,
    attack: &[u8],
    client: SocketAddr,
    host: SocketAddr,
    [next, heard]: [u32; 2],
) -> Vec<Vec<u8>> {
    // The last are too far away for the container to answer.
    let anywhere: Vec<_> = (0..NEAR.len()).map(|_| random.u32(1 << 30..)).collect();
    let mut segments = Vec::new();
    for ahead in NEAR.into_iter().chain(anywhere) {
        for unsent in UNSENT {
            for flags in attack {
                let numbers = [next.wrapping_add(ahead), heard.wrapping_add(unsent)];
                segments.push(packets::control(client, host, *flags, numbers));
            }
        }
    }
    segments
}

/// Ways to end a connection: their names, and what the client does.
type Ending = (&'static str, fn(TcpStream) -> Result<()>);

const ENDINGS: [Ending; 4] = [
    ("closed", |stream| Ok(stream.shutdown(Shutdown::Both)?)),
    ("reset", reset),
    ("reset amid data", |mut stream| {
        stream.write_all(&[7; 1 << 20])?;
        reset(stream)
    }),
    ("half-closed amid data", |mut stream| {
        stream.write_all(&[7; 1 << 10])?;
        stream.shutdown(Shutdown::Write)?;
        drop(stream);
        Ok(())
    }),
];

fn reset(stream: TcpStream) -> Result<()> {
    Ok(SockRef::from(&stream).set_linger(Some(Duration::ZERO))?)
}

fn genuine() -> Result<()> {
    let lab = Lab::new()?;
    let (_container, portway) = publish(&lab)?;
    // The second time from the same ports.
    for time in ["once", "twice"] {
        let mut ended = Vec::new();
        for ends in ENDS {
            for (port, (name, end)) in (CLIENT_PORT..).zip(ENDINGS) {
                let stream = connect(&lab, ends, port)?;
                let client = stream.local_addr()?;
                ensure!(
                    flow_of(&portway.flows()?, client).is_some(),
                    "no flow of {client}"
                );
                lab.client.run(|| end(stream))?;
                ended.push((client, name));
            }
        }
        for (client, name) in ended {
            wait::until_true(
                &format!("the end of what was {name} {time}"),
                PATIENCE,
                || Ok(flow_of(&portway.flows()?, client).is_none()),
            )?;
        }
    }
    Ok(())
}

fn flow_of(flows: &[Flow], client: SocketAddr) -> Option<&Flow> {
    let client = client.to_string();
    flows.iter().find(|flow| flow.client == client)
}
