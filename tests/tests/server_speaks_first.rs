//! Conversations change hands between portway and conntrack, whoever speaks next: when the firewall's rules
//! demand a say, when they no longer do, and when portway goes.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::ExitCode,
};

use anyhow::{Context, Result, ensure};
use portway_tests::{
    container::Container,
    conversation::{self, ANSWER_LIMIT},
    harness::{self, Test},
    lab::{HOST, Lab},
    portway::Portway,
    wait::{self, PATIENCE},
};

fn main() -> ExitCode {
    harness::run([Test::of_portway(
        "a_connection_goes_on_as_admission_changes",
        admission_changes,
    )])
}

fn admission_changes() -> Result<()> {
    let lab = Lab::new()?;
    let container = Container::new(&lab.host, 1)?;
    container.publish_with_iptables(&lab.host, "tcp", 9000, 8080)?;
    let portway = Portway::new(&lab.host)?;
    let run = portway.run(&format!(
        "--no-docker --admission direct --publish 9000:{}:8080",
        container.address
    ))?;
    portway.wait_active("tcp", 9000)?;
    let listener = container
        .netns
        .run(|| Ok(TcpListener::bind((container.address, 8080))?))?;
    let mut client = lab
        .client
        .run(|| Ok(conversation::connect(None, SocketAddr::from((HOST, 9000)))?))?;
    let (mut server, _) = listener.accept()?;
    say(&mut client, &mut server, "the client, at first")?;

    for turn in 0..3 {
        // The lab's own rules are not Docker's.
        portway.load("--admission auto")?;
        wait::until_true("admission by netfilter", PATIENCE, || {
            let admission = portway.status()?.admission;
            Ok(admission.is_some_and(|admission| admission.mode == "netfilter"))
        })?;
        say(&mut server, &mut client, "the server, unasked")?;
        say(&mut client, &mut server, "the client, if it may")?;
        say(&mut server, &mut client, "the server, if it may")?;

        portway.load("--admission direct")?;
        say(&mut server, &mut client, "the server, admitted again")
            .with_context(|| format!("turn {turn}"))?;
        say(&mut client, &mut server, "the client, admitted again")?;
    }
    portway.interrupt(&run)?;
    say(&mut server, &mut client, "the server, without portway")?;
    say(&mut client, &mut server, "the client, without portway")
}

/// Sends a line from one end to the other.
fn say(from: &mut TcpStream, to: &mut TcpStream, line: &str) -> Result<()> {
    to.set_read_timeout(Some(ANSWER_LIMIT))?;
    from.write_all(line.as_bytes())
        .with_context(|| format!("{line}: not sent"))?;
    let mut heard = vec![0; line.len()];
    to.read_exact(&mut heard)
        .with_context(|| format!("{line}: not heard"))?;
    ensure!(heard == line.as_bytes(), "{line}: garbled");
    Ok(())
}
