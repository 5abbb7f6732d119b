//! Short requests over lasting connections: on each the next one when the answer is there.

use std::{
    collections::HashMap,
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use crate::traffic::exchange::{EVENTS, Found, Peer};

/// After so many milliseconds without an answer something is broken.
const PATIENCE: u16 = 5000;

/// What has been answered.
#[derive(Debug, Clone)]
pub struct Answers {
    /// How long each answer took, in nanoseconds, the fastest first.
    latencies: Vec<u32>,
    /// How long it took in all.
    took: Duration,
}

impl Answers {
    /// Answers a second.
    pub fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.took.as_secs_f64()
    }

    /// The latency that this part of the answers does not exceed, in microseconds.
    pub fn percentile(&self, part: f64) -> f64 {
        let last = self.latencies.len() - 1;
        let at = (part * last as f64).round() as usize;
        f64::from(self.latencies[at.min(last)]) / 1e3
    }
}

/// Talks to [answers](crate::traffic::server::Service::Answers) over as many connections for `duration`.
///
/// # Errors
/// A connection does not come about, or breaks.
pub fn talk(to: SocketAddr, connections: usize, duration: Duration) -> Result<Answers> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let mut peers = HashMap::new();
    for _ in 0..connections {
        let stream = TcpStream::connect(to).with_context(|| format!("cannot connect to {to}"))?;
        let peer = Peer::new(stream)?;
        peer.watch(&epoll, EpollFlags::EPOLLIN)?;
        peers.insert(peer.name(), (peer, Instant::now()));
    }
    let begin = Instant::now();
    for (peer, asked) in peers.values_mut() {
        *asked = Instant::now();
        peer.send().context("cannot ask")?;
    }
    let mut latencies = Vec::new();
    let mut events = [EpollEvent::empty(); EVENTS];
    while begin.elapsed() < duration {
        let count = epoll.wait(&mut events, PATIENCE)?;
        ensure!(count > 0, "no answers for {PATIENCE} ms");
        for event in &events[..count] {
            let Some((peer, asked)) = peers.get_mut(&event.data()) else {
                continue;
            };
            match peer.receive().context("a connection is broken")? {
                Found::Part => {}
                Found::End => bail!("the server has closed a connection"),
                Found::Message => {
                    let latency = asked.elapsed().as_nanos();
                    latencies.push(u32::try_from(latency).unwrap_or(u32::MAX));
                    *asked = Instant::now();
                    peer.send().context("cannot ask")?;
                }
            }
        }
    }
    let took = begin.elapsed();
    ensure!(!latencies.is_empty(), "no answers within {duration:?}");
    latencies.sort_unstable();
    Ok(Answers { latencies, took })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_latencies_that_were_there() {
        let answers = Answers {
            latencies: (1..=101).map(|at| at * 1000).collect(),
            took: Duration::from_secs(2),
        };
        assert_eq!(answers.rate(), 50.5);
        assert_eq!(answers.percentile(0.0), 1.0);
        assert_eq!(answers.percentile(0.5), 51.0);
        assert_eq!(answers.percentile(0.99), 100.0);
        assert_eq!(answers.percentile(1.0), 101.0);
    }
}
