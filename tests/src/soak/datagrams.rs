//! The clients that ask by datagrams.

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use bytemuck::{bytes_of, pod_read_unaligned};
use fastrand::Rng;
use nix::errno::Errno;
use portway_tests_ebpf::Stamp;

use super::{
    lanes::{Lane, Protocol, lanes},
    shared::Shared,
    traffic::{DENIED, client},
};

/// How often all sockets are looked at.
const TICK: Duration = Duration::from_millis(5);

/// How often a client's port asks.
const PERIOD: Duration = Duration::from_millis(100);

/// The shortest and the longest time that one asks, in milliseconds.
const LIFE: [u64; 2] = [500, 15_000];

/// How long it still waits for answers then.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// Client ports of UDP, one after the other: none comes again before everybody has forgotten it. TCP's are above.
const PORTS: [u16; 2] = [10_000, 32_000];

/// A client's port that asks.
struct Asker {
    socket: UdpSocket,
    lane: usize,
    target: SocketAddr,
    flow: u32,
    next: Instant,
    end: Instant,
}

/// All of them.
pub struct Asking<'a> {
    shared: &'a Shared,
    random: Rng,
    port: u16,
    askers: Vec<Asker>,
    /// Those that wait for their last answers.
    leaving: Vec<Asker>,
}

impl<'a> Asking<'a> {
    /// Those of a run, in the calling thread's namespace.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(shared: &'a Shared, seed: u64) -> Result<Self> {
        let mut asking = Self {
            shared,
            random: Rng::with_seed(seed),
            port: PORTS[0],
            askers: Vec::new(),
            leaving: Vec::new(),
        };
        for (number, lane) in lanes().into_iter().enumerate() {
            if lane.protocol != Protocol::Udp {
                continue;
            }
            let mut clients = vec![client(lane, number), client(lane, number + 1)];
            if !lane.is_v6 {
                clients.push(DENIED);
            }
            for client in clients {
                let asker = asking.begin(number, lane, client)?;
                asking.askers.push(asker);
            }
        }
        Ok(asking)
    }

    fn begin(&mut self, number: usize, lane: Lane, client: IpAddr) -> Result<Asker> {
        let socket = loop {
            self.port = if self.port == PORTS[1] {
                PORTS[0]
            } else {
                self.port + 1
            };
            match UdpSocket::bind((client, self.port)) {
                Ok(socket) => break socket,
                Err(error) if error.kind() == ErrorKind::AddrInUse => {}
                Err(error) => return Err(error.into()),
            }
        };
        socket.set_nonblocking(true)?;
        let target = lane.target(self.random.usize(..2));
        let now = Instant::now();
        let life = Duration::from_millis(self.random.u64(LIFE[0]..LIFE[1]));
        let source = socket.local_addr()?;
        Ok(Asker {
            socket,
            lane: number,
            target,
            flow: self.shared.ledger().begin_flow(number, source, target),
            next: now + PERIOD.mul_f64(self.random.f64()),
            end: now + life,
        })
    }

    /// Has them ask until the traffic ends, and hear what still comes.
    ///
    /// # Errors
    /// The kernel's.
    pub fn go_on(mut self) -> Result<()> {
        while self.shared.goes_on() {
            let now = Instant::now();
            for index in 0..self.askers.len() {
                let asker = &mut self.askers[index];
                asker.hear(self.shared)?;
                if asker.next <= now {
                    asker.ask(self.shared);
                    asker.next = (asker.next + PERIOD).max(now);
                }
                if asker.end <= now {
                    let (number, client) = (asker.lane, asker.socket.local_addr()?.ip());
                    let lane = self.shared.ledger().lane(number);
                    let next = self.begin(number, lane, client)?;
                    let mut last = std::mem::replace(&mut self.askers[index], next);
                    last.end = now + LAST_ANSWERS;
                    self.leaving.push(last);
                }
            }
            self.leave(now)?;
            thread::sleep(TICK);
        }
        let now = Instant::now();
        for mut asker in self.askers.drain(..) {
            asker.end = now + LAST_ANSWERS;
            self.leaving.push(asker);
        }
        while !self.leaving.is_empty() {
            self.leave(Instant::now())?;
            thread::sleep(TICK);
        }
        Ok(())
    }

    fn leave(&mut self, now: Instant) -> Result<()> {
        for asker in &self.leaving {
            asker.hear(self.shared)?;
        }
        self.leaving.retain(|asker| asker.end > now);
        Ok(())
    }
}

impl Asker {
    fn ask(&self, shared: &Shared) {
        let stamp = shared.ledger().ask(self.flow);
        if let Err(error) = self.socket.send_to(bytes_of(&stamp), self.target) {
            let errno = Errno::from_raw(error.raw_os_error().unwrap_or_default());
            shared.ledger().lost(stamp, &format!("sendto: {errno:?}"));
        }
    }

    fn hear(&self, shared: &Shared) -> Result<()> {
        let mut datagram = [0; size_of::<Stamp>()];
        loop {
            match self.socket.recv_from(&mut datagram) {
                Ok((length, from)) => {
                    ensure!(length == datagram.len(), "{length} bytes from {from}");
                    let stamp = pod_read_unaligned(&datagram);
                    shared.ledger().received(stamp, from);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
