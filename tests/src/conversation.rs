//! Real conversations over real sockets, made in the calling thread's namespace: wrap them in
//! [`Netns::run`](crate::netns::Netns::run).

use std::{
    fmt,
    io::{self, ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream, ToSocketAddrs, UdpSocket},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use socket2::{Domain, Socket, Type};

use crate::guest::CLIENT_HEADER;

/// How long an answer may take. Where none is expected, how long a test waits for it in vain.
pub const ANSWER_LIMIT: Duration = Duration::from_millis(1500);

/// What came back from an HTTP server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The body, without its last newline.
    pub body: String,
    /// The client as the server saw it, if it says.
    pub client: Option<SocketAddr>,
}

/// Why nothing came back, in the words that tests and the demo compare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Silence {
    /// A reset in answer to the first packet.
    Refused,
    /// A reset later on.
    Reset,
    /// Nothing in time.
    NoAnswer,
    /// No route to the network.
    NetworkUnreachable,
    /// An ICMP error, or no neighbour.
    HostUnreachable,
    /// The name has no address.
    UnknownName,
    /// Anything else.
    Other(String),
}

impl std::error::Error for Silence {}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::NoAnswer => "no answer",
            Self::NetworkUnreachable => "network unreachable",
            Self::HostUnreachable => "host unreachable",
            Self::UnknownName => "unknown name",
            Self::Other(text) => text,
        })
    }
}

impl From<io::Error> for Silence {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::ConnectionRefused => Self::Refused,
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Self::Reset,
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Self::NoAnswer,
            ErrorKind::NetworkUnreachable => Self::NetworkUnreachable,
            ErrorKind::HostUnreachable => Self::HostUnreachable,
            _ => match error.raw_os_error().map(Errno::from_raw) {
                Some(errno) => Self::Other(errno.desc().to_owned()),
                None => Self::Other(error.to_string()),
            },
        }
    }
}

/// `GET /` of `target`, an address or a name with its port, from `source` if given.
///
/// # Errors
/// [`Silence`], which is an outcome like any other.
pub fn http_get(source: Option<SocketAddr>, target: &str) -> Result<Answer, Silence> {
    let mut addresses: Vec<_> = target
        .to_socket_addrs()
        .map_err(|_| Silence::UnknownName)?
        .collect();
    // IPv4 first, where a name has both.
    addresses.sort_by_key(SocketAddr::is_ipv6);
    let target = *addresses.first().ok_or(Silence::UnknownName)?;
    let mut stream = connect(source, target)?;
    stream.write_all(b"GET / HTTP/1.0\r\nHost: lab\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return Err(if text.is_empty() {
            Silence::Reset
        } else {
            Silence::Other(format!("not HTTP: {text:?}"))
        });
    };
    let client = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        (name == CLIENT_HEADER).then(|| value.parse().ok())?
    });
    Ok(Answer {
        body: body.trim_end().to_owned(),
        client,
    })
}

/// A TCP connection to `target` from `source`, with [`ANSWER_LIMIT`] on every step.
///
/// # Errors
/// The kernel's.
pub fn connect(source: Option<SocketAddr>, target: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, None)?;
    if let Some(source) = source {
        socket.set_reuse_address(true)?;
        socket.bind(&source.into())?;
    }
    socket.connect_timeout(&target.into(), ANSWER_LIMIT)?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    stream.set_write_timeout(Some(ANSWER_LIMIT))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Has both ends of a connection, the client's and the container's, hear of each other; the container speaks first.
///
/// # Errors
/// One does not.
pub fn talk([client, server]: &mut [TcpStream; 2]) -> Result<()> {
    let mut heard = [0; 5];
    server.write_all(b"hello")?;
    client.read_exact(&mut heard).context("no word comes out")?;
    client.write_all(b"hello")?;
    server.read_exact(&mut heard).context("no word comes in")
}

/// Sends `line` over an open connection to an echo server and reads it back.
///
/// # Errors
/// Something else came back, or nothing.
pub fn echo_over(stream: &mut TcpStream, line: &str) -> Result<()> {
    stream.write_all(line.as_bytes()).context("cannot send")?;
    let mut back = vec![0; line.len()];
    stream.read_exact(&mut back).context("no echo")?;
    ensure!(back == line.as_bytes(), "another echo than what was sent");
    Ok(())
}

/// Sends `bytes` bytes to a TCP echo server, both directions at once, and compares each that comes
/// back. Long enough a transfer has the kernel build segments larger than the MTU.
///
/// # Errors
/// The connection breaks, or brings something else.
pub fn bulk_echo(source: Option<SocketAddr>, target: SocketAddr, bytes: usize) -> Result<()> {
    let mut stream = connect(source, target).context("cannot connect")?;
    let mut sending = stream.try_clone()?;
    thread::scope(|scope| {
        let sender = scope.spawn(move || -> io::Result<()> {
            for chunk in pattern(bytes) {
                sending.write_all(&chunk)?;
            }
            sending.shutdown(Shutdown::Write)
        });
        let mut seen = 0;
        for chunk in pattern(bytes) {
            let mut back = vec![0; chunk.len()];
            stream
                .read_exact(&mut back)
                .with_context(|| format!("after {seen} of {bytes} bytes"))?;
            ensure!(back == chunk, "corrupted after {seen} of {bytes} bytes");
            seen += chunk.len();
        }
        let rest = stream.read(&mut [0]).context("no end")?;
        ensure!(rest == 0, "more came back than was sent");
        match sender.join() {
            Ok(sent) => sent.context("cannot send"),
            Err(_) => anyhow::bail!("the sender panicked"),
        }
    })
}

/// `bytes` bytes in chunks, no two chunks alike.
fn pattern(bytes: usize) -> impl Iterator<Item = Vec<u8>> {
    const CHUNK: usize = 64 * 1024;
    (0..bytes.div_ceil(CHUNK)).map(move |index| {
        let length = CHUNK.min(bytes - index * CHUNK);
        // A linear congruential generator, Knuth's constants.
        let mut state = index as u64;
        let next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            state.to_be_bytes()[0]
        };
        std::iter::repeat_with(next).take(length).collect()
    })
}

/// A UDP client that counts what comes back.
#[derive(Debug)]
pub struct Datagrams {
    socket: UdpSocket,
    /// How many it sent.
    pub sent: u32,
}

impl Datagrams {
    /// A socket that talks to `target` only, from `source` if given.
    ///
    /// # Errors
    /// The address is not this namespace's.
    pub fn new(source: Option<SocketAddr>, target: SocketAddr) -> Result<Self> {
        let any = match target {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let source = source.unwrap_or(any);
        let socket = UdpSocket::bind(source).with_context(|| format!("cannot bind {source}"))?;
        socket
            .connect(target)
            .with_context(|| format!("cannot reach {target}"))?;
        socket.set_read_timeout(Some(ANSWER_LIMIT))?;
        Ok(Self { socket, sent: 0 })
    }

    /// The same on a port that other sockets share.
    ///
    /// # Errors
    /// As [`Datagrams::new`].
    pub fn sharing(source: SocketAddr, target: SocketAddr) -> Result<Self> {
        let socket = Socket::new(Domain::for_address(source), Type::DGRAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&source.into())?;
        socket.connect(&target.into())?;
        socket.set_read_timeout(Some(ANSWER_LIMIT))?;
        Ok(Self {
            socket: socket.into(),
            sent: 0,
        })
    }

    /// The socket itself.
    pub fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// Its own address.
    ///
    /// # Errors
    /// The kernel's.
    pub fn source(&self) -> Result<SocketAddr> {
        Ok(self.socket.local_addr()?)
    }

    /// Sends one datagram of `length` bytes, at least 4, and reads its echo.
    ///
    /// # Errors
    /// [`Silence`], which is an outcome like any other.
    pub fn echo(&mut self, length: usize) -> Result<(), Silence> {
        self.send(length)?;
        let mut back = [0; 65_536];
        let got = self.socket.recv(&mut back)?;
        if back[..got] == self.datagram(length) {
            Ok(())
        } else {
            Err(Silence::Other("another echo than what was sent".into()))
        }
    }

    /// Sends one datagram and does not wait.
    ///
    /// # Errors
    /// [`Silence`].
    pub fn send(&mut self, length: usize) -> Result<(), Silence> {
        self.sent += 1;
        self.socket.send(&self.datagram(length))?;
        Ok(())
    }

    /// The numbered datagram of this moment.
    fn datagram(&self, length: usize) -> Vec<u8> {
        let number = self.sent.to_be_bytes();
        number.iter().copied().cycle().take(length.max(4)).collect()
    }
}

/// `count` datagrams of `length` bytes there and back; returns the client's address.
///
/// # Errors
/// One is not answered.
pub fn udp_echo(
    source: Option<SocketAddr>,
    target: SocketAddr,
    count: u32,
    length: usize,
) -> Result<SocketAddr, Silence> {
    let other = |error: anyhow::Error| Silence::Other(format!("{error:#}"));
    let mut datagrams = Datagrams::new(source, target).map_err(other)?;
    for _ in 0..count {
        datagrams.echo(length)?;
    }
    datagrams.source().map_err(other)
}

/// `address` with any free port, as a source.
pub fn from_address(address: impl Into<IpAddr>) -> Option<SocketAddr> {
    Some((address.into(), 0).into())
}
