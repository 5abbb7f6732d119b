//! As many bytes over one connection as go through.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::traffic::server::CHUNK;

/// What has gone through.
#[derive(Debug, Clone, Copy)]
pub struct Transfer {
    /// So many bytes.
    pub bytes: u64,
    /// In so much time.
    pub took: Duration,
}

/// Sends to a [sink](crate::traffic::server::Service::Sink) for about `duration`, until it has all of it.
///
/// # Errors
/// The connection does not come about, or breaks.
pub fn send(to: SocketAddr, duration: Duration) -> Result<Transfer> {
    let mut stream = connect(to)?;
    let chunk = vec![0x2a; CHUNK];
    let begin = Instant::now();
    let mut bytes = 0;
    while begin.elapsed() < duration {
        stream.write_all(&chunk).context("broken while sending")?;
        bytes += CHUNK as u64;
    }
    stream.shutdown(Shutdown::Write)?;
    stream
        .read_to_end(&mut Vec::new())
        .context("broken before all was received")?;
    Ok(Transfer {
        bytes,
        took: begin.elapsed(),
    })
}

/// Receives from a [source](crate::traffic::server::Service::Source) for `duration`.
///
/// # Errors
/// The connection does not come about, or breaks.
pub fn receive(from: SocketAddr, duration: Duration) -> Result<Transfer> {
    let mut stream = connect(from)?;
    let mut chunk = vec![0; CHUNK];
    let begin = Instant::now();
    let mut bytes = 0;
    while begin.elapsed() < duration {
        let length = stream.read(&mut chunk).context("broken while receiving")?;
        bytes += length as u64;
    }
    Ok(Transfer {
        bytes,
        took: begin.elapsed(),
    })
}

fn connect(to: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(to).with_context(|| format!("cannot connect to {to}"))?;
    // Longer than anything that is not broken.
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.set_write_timeout(Some(Duration::from_secs(10)))?;
    Ok(stream)
}
