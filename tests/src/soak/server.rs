//! What runs in a container: it answers, says who it is, and gives notice of everything that has come to it.

use std::{
    convert::Infallible,
    io::{self, ErrorKind, Write as _},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    os::{fd::AsFd as _, unix::net::UnixStream},
    thread,
};

use anyhow::{Context, Result};
use bytemuck::{Pod, Zeroable, bytes_of, pod_read_unaligned};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use portway_tests_ebpf::Stamp;
use socket2::Type;

use crate::guest::{self, Endpoint, Service};

/// The folder that all containers share with the host.
pub const FOLDER: &str = "/run/soak";

/// The socket in it by which notice is given.
pub const NOTICES: &str = "/run/soak/notices";

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 128;

/// What a server gives notice of.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Notice {
    /// About which datagram.
    pub stamp: Stamp,
    /// Which container.
    pub server: u32,
    /// Its port.
    pub port: u16,
    /// One of the below.
    pub kind: u16,
    /// Why it could not be sent.
    pub errno: i32,
    /// Zero.
    pub padding: u32,
}

impl Notice {
    /// The datagram has come.
    pub const CAME: u16 = 1;
    /// Its answer has been sent.
    pub const ANSWERED: u16 = 2;
    /// Its answer could not be sent.
    pub const NOT_ANSWERED: u16 = 3;
}

/// What a server says first over each connection: which container it is, and its port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Greeting {
    /// Which container.
    pub server: u32,
    /// Its port.
    pub port: u32,
}

/// Serves as container number `server`, for as long as this process lives.
///
/// # Errors
/// A port is taken, or nobody takes notice.
pub fn serve(server: u32, endpoints: &[Endpoint]) -> Result<Infallible> {
    let notices = UnixStream::connect(NOTICES).context("nobody takes notice")?;
    let mut sockets = Vec::new();
    for endpoint in endpoints {
        let port = endpoint.port;
        for any in [
            SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
            (Ipv6Addr::UNSPECIFIED, port).into(),
        ] {
            if endpoint.service == Service::UdpEcho {
                let socket = guest::bound(any, Type::DGRAM)?;
                socket.set_nonblocking(true)?;
                sockets.push((UdpSocket::from(socket), port));
            } else {
                let socket = guest::bound(any, Type::STREAM)?;
                socket.listen(BACKLOG)?;
                let listener = TcpListener::from(socket);
                thread::spawn(move || accept(&listener, server, port));
            }
        }
    }
    println!("{}", guest::READY);
    let mut polled: Vec<_> = sockets
        .iter()
        .map(|(socket, _)| PollFd::new(socket.as_fd(), PollFlags::POLLIN))
        .collect();
    loop {
        poll(&mut polled, PollTimeout::NONE)?;
        for (socket, port) in &sockets {
            while answer(socket, server, *port, &notices)? {}
        }
    }
}

/// Answers a datagram, if there is one. It stays with the kernel until notice of it has been given: a server that
/// is killed in between leaves it there, to be dropped, and not gone without a trace.
fn answer(socket: &UdpSocket, server: u32, port: u16, notices: &UnixStream) -> Result<bool> {
    let mut datagram = [0; size_of::<Stamp>()];
    let (length, client) = match socket.peek_from(&mut datagram) {
        Ok(came) => came,
        Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
        // An ICMP error about an answer, which is over now.
        Err(_) => return Ok(true),
    };
    let stamp: Stamp = pod_read_unaligned(&datagram);
    let give = |kind, errno| {
        let notice = Notice {
            stamp,
            server,
            port,
            kind,
            errno,
            padding: 0,
        };
        let mut notices = notices;
        notices.write_all(bytes_of(&notice))
    };
    let is_whole = length == datagram.len();
    if is_whole {
        give(Notice::CAME, 0)?;
    }
    socket.recv(&mut datagram)?;
    if is_whole {
        let answer = Stamp { server, ..stamp };
        match socket.send_to(bytes_of(&answer), client) {
            Ok(_) => give(Notice::ANSWERED, 0)?,
            Err(error) => give(
                Notice::NOT_ANSWERED,
                error.raw_os_error().unwrap_or(Errno::EIO as i32),
            )?,
        }
    }
    Ok(true)
}

/// Greets whoever connects and sends back what he says.
fn accept(listener: &TcpListener, server: u32, port: u16) {
    let greeting = Greeting {
        server,
        port: port.into(),
    };
    for mut stream in listener.incoming().flatten() {
        thread::spawn(move || -> io::Result<()> {
            stream.write_all(bytes_of(&greeting))?;
            guest::tcp_echo(stream)
        });
    }
}
