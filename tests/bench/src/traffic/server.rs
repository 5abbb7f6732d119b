//! A container's TCP servers, each on a thread.

use std::{
    collections::HashMap,
    io::{self, ErrorKind, Read, Write},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    os::fd::{AsFd as _, AsRawFd as _},
    sync::Arc,
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result};
use nix::sys::{
    epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
    socket,
};
use portway_tests::netns::Netns;
use socket2::{Domain, Socket, Type};

use crate::traffic::exchange::{EVENTS, Found, Peer};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// Bytes that are read or written at once.
pub const CHUNK: usize = 128 << 10;

/// What a server does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// Reads until the client has closed its side.
    Sink,
    /// Writes until the client has closed.
    Source,
    /// Answers each request.
    Answers,
    /// Answers one request and closes.
    OneAnswer,
}

impl Service {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Sink, Self::Source, Self::Answers, Self::OneAnswer];

    /// Its place among them, and its port's among the published ones.
    pub fn index(self) -> u16 {
        self as u16
    }
}

/// Servers that run while this is there.
#[derive(Debug)]
pub struct Servers {
    running: Vec<(Arc<TcpListener>, Option<JoinHandle<()>>)>,
}

impl Servers {
    /// Starts all services in `container`, on ports from `first_port` on.
    ///
    /// # Errors
    /// A port is taken.
    pub fn start(container: &Netns, first_port: u16) -> Result<Self> {
        let mut servers = Self {
            running: Vec::new(),
        };
        for service in Service::ALL {
            let port = first_port + service.index();
            let listener = container
                .run(|| Ok(listen(port)?))
                .with_context(|| format!("cannot listen on port {port}"))?;
            let listener = Arc::new(listener);
            let thread = {
                let listener = Arc::clone(&listener);
                // A server ends when its listener does.
                thread::spawn(move || drop(serve(service, &listener)))
            };
            servers.running.push((listener, Some(thread)));
        }
        Ok(servers)
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for (listener, thread) in &mut self.running {
            // Wakes whoever waits for connections.
            let _ = socket::shutdown(listener.as_raw_fd(), socket::Shutdown::Both);
            if let Some(thread) = thread.take() {
                let _ = thread.join();
            }
        }
    }
}

fn listen(port: u16) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&std::net::SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn serve(service: Service, listener: &TcpListener) -> io::Result<()> {
    match service {
        Service::Sink => one_by_one(listener, sink),
        Service::Source => one_by_one(listener, source),
        Service::Answers | Service::OneAnswer => answer(listener, service == Service::OneAnswer),
    }
}

fn one_by_one(listener: &TcpListener, work: fn(TcpStream) -> io::Result<()>) -> io::Result<()> {
    loop {
        // A client that breaks off is no reason to end.
        let _ = work(listener.accept()?.0);
    }
}

fn sink(mut stream: TcpStream) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    while stream.read(&mut chunk)? > 0 {}
    stream.shutdown(Shutdown::Write)
}

fn source(mut stream: TcpStream) -> io::Result<()> {
    let chunk = vec![0x2a; CHUNK];
    loop {
        stream.write_all(&chunk)?;
    }
}

/// Answers requests of all connections, of each connection `once` or until its client closes.
fn answer(listener: &TcpListener, once: bool) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let name = u64::from(listener.as_raw_fd().cast_unsigned());
    epoll.add(listener.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, name))?;
    let mut peers = HashMap::new();
    let mut events = [EpollEvent::empty(); EVENTS];
    loop {
        let count = epoll.wait(&mut events, EpollTimeout::NONE)?;
        for event in &events[..count] {
            if event.data() == name {
                accept(listener, &epoll, &mut peers)?;
            } else if let Some(peer) = peers.get_mut(&event.data())
                && !goes_on(peer, once)
            {
                peers.remove(&event.data());
            }
        }
    }
}

/// Accepts all who wait.
fn accept(listener: &TcpListener, epoll: &Epoll, peers: &mut HashMap<u64, Peer>) -> io::Result<()> {
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                let peer = Peer::new(stream)?;
                peer.watch(epoll, EpollFlags::EPOLLIN)?;
                peers.insert(peer.name(), peer);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            // Whoever has gone before being accepted.
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Whether there is more to come after this event.
fn goes_on(peer: &mut Peer, once: bool) -> bool {
    match peer.receive() {
        Ok(Found::Message) => peer.send().is_ok() && !once,
        Ok(Found::Part) => true,
        Ok(Found::End) | Err(_) => false,
    }
}
