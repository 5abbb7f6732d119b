//! A connection for each request: connect, ask, be answered, see the server close, close.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::{
    errno::Errno,
    sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags},
};
use socket2::{Domain, Socket, Type};

use crate::traffic::exchange::{EVENTS, Found, Peer};

/// How many connections there are at a time.
pub const AT_ONCE: usize = 32;

/// After so many milliseconds in which nothing happens something is broken.
const PATIENCE: u16 = 5000;

/// Talks to [one answer](crate::traffic::server::Service::OneAnswer) after the other for `duration`, and returns
/// how many connections a second came to their good end.
///
/// # Errors
/// A connection does not come about, or breaks.
pub fn rate(to: SocketAddr, duration: Duration) -> Result<f64> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let mut open = HashMap::new();
    let mut ended = 0_u64;
    let mut events = [EpollEvent::empty(); EVENTS];
    let begin = Instant::now();
    while begin.elapsed() < duration {
        while open.len() < AT_ONCE {
            let connection = Connection::begin(to, &epoll)
                .with_context(|| format!("cannot connect to {to}, after {ended} times"))?;
            open.insert(connection.peer.name(), connection);
        }
        let count = epoll.wait(&mut events, PATIENCE)?;
        ensure!(count > 0, "nothing happens for {PATIENCE} ms");
        for event in &events[..count] {
            let Some(connection) = open.get_mut(&event.data()) else {
                continue;
            };
            let over = connection
                .go_on(&epoll)
                .with_context(|| format!("a connection is broken, after {ended} good ones"))?;
            if over {
                open.remove(&event.data());
                ended += 1;
            }
        }
    }
    Ok(ended as f64 / begin.elapsed().as_secs_f64())
}

struct Connection {
    peer: Peer,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Connecting,
    Asked,
    Answered,
}

impl Connection {
    fn begin(to: SocketAddr, epoll: &Epoll) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        match socket.connect(&to.into()) {
            Err(error) if error.raw_os_error() != Some(Errno::EINPROGRESS as i32) => {
                return Err(error);
            }
            _ => {}
        }
        let peer = Peer::new(socket.into())?;
        peer.watch(epoll, EpollFlags::EPOLLOUT)?;
        Ok(Self {
            peer,
            state: State::Connecting,
        })
    }

    /// Takes its next step. Whether that was the last one.
    fn go_on(&mut self, epoll: &Epoll) -> io::Result<bool> {
        if self.state == State::Connecting {
            self.peer.check()?;
            self.peer.send()?;
            self.peer.rewatch(epoll, EpollFlags::EPOLLIN)?;
            self.state = State::Asked;
            return Ok(false);
        }
        match (self.peer.receive()?, self.state) {
            (Found::Message, State::Asked) => {
                self.state = State::Answered;
                Ok(false)
            }
            (Found::End, State::Answered) => Ok(true),
            (Found::Part, _) => Ok(false),
            _ => Err(io::Error::other(
                "closed without an answer, or answered twice",
            )),
        }
    }
}
