//! Flows that are not portway's stay where they are: what a container begins itself, and answers to what others
//! began before portway was there.

use std::{
    net::{SocketAddr, UdpSocket},
    process::ExitCode,
};

use anyhow::{Context, Result, ensure};
use portway_tests::{
    container::Container,
    conversation::{self, ANSWER_LIMIT, Datagrams},
    harness::{self, Test},
    lab::{CLIENTS, HOST, Lab},
    portway::{Portway, Used},
};

fn main() -> ExitCode {
    harness::run([
        Test::of_portway(
            "an_outbound_flow_from_a_published_port_is_masqueraded",
            outbound,
        ),
        Test::of_portway(
            "an_answer_to_an_outbound_flow_is_not_taken_over",
            answer_to_outbound,
        ),
        Test::of_portway(
            "an_answer_to_a_question_older_than_the_publication",
            answer_to_older,
        ),
        Test::of_portway("an_answer_of_ours_is_not_taken_for_foreign", own_answers),
        Test::of_portway("other_bridges_and_the_host_itself_are_passed", inside),
    ])
}

/// A container asks a server outside from the port that it serves itself, as a DNS server does.
fn outbound() -> Result<()> {
    let lab = Lab::new()?;
    let dns = Container::new(&lab.host, 1)?.serve(&["http/8080"])?;
    dns.publish_with_iptables(&lab.host, "udp", 9000, 8053)?;
    let portway = Portway::new(&lab.host)?;
    portway.load("--admission direct")?;
    portway.publish(&format!("9000:{}:8053/udp", dns.address))?;
    let server = outside_server(&lab)?;
    let (seen, used) = portway.measure(|| ask(&dns, 8053, &server))?;
    ensure!(
        seen == SocketAddr::from((HOST, 8053)),
        "the server outside saw {seen}, not what netfilter's masquerading makes of it"
    );
    ensure!(used == Used::NOTHING, "{used:?}");
    Ok(())
}

/// The answer to a masqueraded flow comes to a host port that is published for another container.
fn answer_to_outbound() -> Result<()> {
    let lab = Lab::new()?;
    let asker = Container::new(&lab.host, 1)?;
    let dns = Container::new(&lab.host, 2)?.serve(&["udp/8053"])?;
    asker.publish_with_iptables(&lab.host, "udp", 9999, 9999)?;
    let portway = Portway::new(&lab.host)?;
    portway.load("--admission direct")?;
    portway.publish(&format!("5300:{}:8053/udp", dns.address))?;
    let server = outside_server(&lab)?;
    ask(&asker, 5299, &server).context("from a port that is not published")?;
    let seen = ask(&asker, 5300, &server).context("from a port that is published")?;
    ensure!(
        seen == SocketAddr::from((HOST, 5300)),
        "masqueraded as {seen}: this checks nothing"
    );
    let astray = dns.clients("udp");
    ensure!(
        astray.is_empty(),
        "the answer went to the port's container: {astray:?}"
    );
    Ok(())
}

/// Of a question that was asked before the port was published only conntrack knows.
fn answer_to_older() -> Result<()> {
    let lab = Lab::new()?;
    let asker = Container::new(&lab.host, 1)?;
    let dns = Container::new(&lab.host, 2)?.serve(&["udp/8053"])?;
    asker.publish_with_iptables(&lab.host, "udp", 9999, 9999)?;
    let server = outside_server(&lab)?;
    let socket = asker
        .netns
        .run(|| Ok(UdpSocket::bind((asker.address, 5300))?))?;
    socket.set_read_timeout(Some(ANSWER_LIMIT))?;
    socket.send_to(b"question", server.local_addr()?)?;
    let (_, seen) = server.recv_from(&mut [0; 64])?;
    ensure!(
        seen == SocketAddr::from((HOST, 5300)),
        "masqueraded as {seen}: this checks nothing"
    );
    let portway = Portway::new(&lab.host)?;
    portway.load("--admission direct")?;
    portway.publish(&format!("5300:{}:8053/udp", dns.address))?;
    server.send_to(b"answer", seen)?;
    let mut answer = [0; 64];
    let (length, _) = socket.recv_from(&mut answer).context("no answer")?;
    ensure!(&answer[..length] == b"answer", "another answer");
    let astray = dns.clients("udp");
    ensure!(
        astray.is_empty(),
        "the answer went to the port's container: {astray:?}"
    );
    Ok(())
}

/// The answers that portway sends leave by the same hook that takes note of what is not its own. When the
/// container has been published anew, its client is as welcome as ever.
fn own_answers() -> Result<()> {
    let lab = Lab::new()?;
    let dns = Container::new(&lab.host, 1)?.serve(&["udp/8080"])?;
    let portway = Portway::new(&lab.host)?;
    portway.load("--admission direct")?;
    let mut client = lab.client.run(|| {
        let source = conversation::from_address(CLIENTS[0]);
        Datagrams::new(source, SocketAddr::from((HOST, 9000)))
    })?;
    for round in 0..2 {
        portway.publish(&format!("9000:{}:8080/udp", dns.address))?;
        let (answer, used) = portway.measure(|| Ok(client.echo(32)))?;
        ensure!(
            answer.is_ok() && used.both_ways(),
            "round {round}: {answer:?}, {used:?}"
        );
        portway.text("unpublish 9000/udp")?;
    }
    Ok(())
}

fn inside() -> Result<()> {
    let lab = Lab::new()?;
    let web = Container::new(&lab.host, 1)?.serve(&["http/8080"])?;
    let neighbour = Container::new(&lab.host, 2)?;
    let portway = Portway::new(&lab.host)?;
    portway.load("--admission direct")?;
    portway.publish(&format!("9000:{}:8080", web.address))?;
    let direct = format!("{}:8080", web.address);
    let published = format!("{HOST}:9000");
    let (outcomes, used) = portway.measure(|| {
        let get = |target: &str| Ok(conversation::http_get(None, target).is_ok());
        Ok([
            (
                "neighbour -> container",
                neighbour.netns.run(|| get(&direct))?,
                true,
            ),
            ("host -> container", lab.host.run(|| get(&direct))?, true),
            // There is no slow path here that would answer.
            (
                "neighbour -> host port",
                neighbour.netns.run(|| get(&published))?,
                false,
            ),
            (
                "host -> host port",
                lab.host.run(|| get(&published))?,
                false,
            ),
            (
                "container -> host port",
                web.netns.run(|| get(&published))?,
                false,
            ),
        ])
    })?;
    for (what, answered, expected) in outcomes {
        ensure!(answered == expected, "{what}: answered: {answered}");
    }
    ensure!(used == Used::NOTHING, "{used:?}");
    Ok(())
}

/// A socket outside, for containers to ask.
fn outside_server(lab: &Lab) -> Result<UdpSocket> {
    lab.client.run(|| {
        let socket = UdpSocket::bind((CLIENTS[0], 53))?;
        socket.set_read_timeout(Some(ANSWER_LIMIT))?;
        Ok(socket)
    })
}

/// Has `container` ask `server` from `port`, and get its answer; returns whom the server saw.
fn ask(container: &Container, port: u16, server: &UdpSocket) -> Result<SocketAddr> {
    let socket = container.netns.run(|| {
        let socket = UdpSocket::bind((container.address, port))?;
        socket.set_read_timeout(Some(ANSWER_LIMIT))?;
        Ok(socket)
    })?;
    let target = server.local_addr()?;
    let mut buffer = [0; 64];
    let mut seen = target;
    // Several times: a flow that is taken over by its first answer shows in the second question.
    for _ in 0..3 {
        socket.send_to(b"question", target)?;
        (_, seen) = server
            .recv_from(&mut buffer)
            .context("no question came out")?;
        server.send_to(b"answer", seen)?;
        let (length, from) = socket.recv_from(&mut buffer).context("no answer came in")?;
        ensure!(
            &buffer[..length] == b"answer" && from == target,
            "another answer, from {from}"
        );
    }
    Ok(seen)
}
