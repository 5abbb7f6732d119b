//! What requests and answers look like: a packet each.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::TcpStream,
    os::fd::{AsFd, AsRawFd as _},
};

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};

/// The length of a request and of its answer, in bytes.
pub const LENGTH: usize = 64;

/// Events that are taken from the kernel at once.
pub const EVENTS: usize = 64;

/// One end of a connection, not waited for.
#[derive(Debug)]
pub struct Peer {
    stream: TcpStream,
    /// How much of the message to come is there.
    received: usize,
}

/// What a look at a connection has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Not a whole message yet.
    Part,
    /// A message.
    Message,
    /// The other side has closed.
    End,
}

impl Peer {
    /// Of a connection, which `stream` is or will become.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            received: 0,
        })
    }

    /// Sends a message. It always has room: the other side answers each before the next.
    ///
    /// # Errors
    /// The connection is broken, or the room is not there.
    pub fn send(&mut self) -> io::Result<()> {
        self.stream.write_all(&[0x2a; LENGTH])
    }

    /// Takes what has come, up to the end of a message.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn receive(&mut self) -> io::Result<Found> {
        let mut message = [0; LENGTH];
        let room = &mut message[self.received..];
        match self.stream.read(room) {
            Ok(0) => Ok(Found::End),
            Ok(length) if length == room.len() => {
                self.received = 0;
                Ok(Found::Message)
            }
            Ok(length) => {
                self.received += length;
                Ok(Found::Part)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Found::Part),
            Err(error) => Err(error),
        }
    }

    /// The error of a connection that could not be made, if that is what it is.
    ///
    /// # Errors
    /// That one.
    pub fn check(&self) -> io::Result<()> {
        self.stream.take_error()?.map_or(Ok(()), Err)
    }

    /// Has `epoll` tell of it. Its descriptor is what it is called by.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn watch(&self, epoll: &Epoll, events: EpollFlags) -> io::Result<()> {
        Ok(epoll.add(self.stream.as_fd(), EpollEvent::new(events, self.name()))?)
    }

    /// The same from now on with other events.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn rewatch(&self, epoll: &Epoll, events: EpollFlags) -> io::Result<()> {
        let mut event = EpollEvent::new(events, self.name());
        Ok(epoll.modify(self.stream.as_fd(), &mut event)?)
    }

    /// What it is called by.
    pub fn name(&self) -> u64 {
        u64::from(self.stream.as_raw_fd().cast_unsigned())
    }
}
