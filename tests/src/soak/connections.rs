//! The clients that make connections.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::{IpAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use bytemuck::pod_read_unaligned;
use fastrand::Rng;

use super::{lanes::Lane, server::Greeting, shared::Shared, traffic::client};
use crate::conversation::{self, from_address};

/// How often something is said over one, and how long the echo may take.
const LASTING_PERIOD: Duration = Duration::from_millis(100);
const STALL: Duration = Duration::from_secs(5);

/// What is said over a connection at a time.
const WORDS: &[u8] = &[b'w'; 200];

/// Connects, and hears who is there.
fn greeted(shared: &Shared, number: usize, lane: Lane, client: IpAddr) -> io::Result<TcpStream> {
    let begun = shared.ledger().now();
    let mut stream = conversation::connect(from_address(client), lane.target(number))?;
    stream.set_read_timeout(Some(STALL))?;
    let mut bytes = [0; size_of::<Greeting>()];
    stream.read_exact(&mut bytes)?;
    let greeting: Greeting = pod_read_unaligned(&bytes);
    let mut ledger = shared.ledger();
    ledger.greeted(number, begun, greeting.server, greeting.port);
    Ok(stream)
}

/// Says something and hears it come back.
fn echo(stream: &mut TcpStream) -> io::Result<()> {
    let mut back = [0; WORDS.len()];
    stream.write_all(WORDS)?;
    stream.read_exact(&mut back)?;
    if back == WORDS {
        Ok(())
    } else {
        Err(ErrorKind::InvalidData.into())
    }
}

/// A connection to a container that stays, for as long as the run goes on.
///
/// # Errors
/// It breaks, or says nothing for long.
pub fn last(shared: &Shared, number: usize, lane: Lane, which: usize) -> Result<()> {
    let mut stream = greeted(shared, number, lane, client(lane, which))?;
    while shared.goes_on() {
        let said = Instant::now();
        echo(&mut stream).with_context(|| format!("after {} ms", said.elapsed().as_millis()))?;
        shared.ledger().echoed(said.elapsed());
        thread::sleep(LASTING_PERIOD);
    }
    Ok(())
}

/// A connection that ends soon; what has become of it is in the ledger.
pub fn make(shared: &Shared, number: usize, lane: Lane, random: &mut Rng) {
    let client = client(lane, random.usize(..3));
    let begun = shared.ledger().now();
    let mut talk = || {
        let mut stream = greeted(shared, number, lane, client)?;
        for _ in 0..random.u32(1..20) {
            echo(&mut stream)?;
            thread::sleep(Duration::from_millis(random.u64(0..30)));
        }
        Ok::<_, io::Error>(())
    };
    let talked = talk();
    let mut ledger = shared.ledger();
    match talked {
        Ok(()) => ledger.connections.whole += 1,
        Err(error) => ledger.broken(number, client, begun, &error.to_string()),
    }
}
