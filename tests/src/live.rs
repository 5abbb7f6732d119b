//! Live traffic from outside to a published container, and what becomes of it: TCP connections over which both
//! sides talk without waiting for each other, TCP connections on which nobody speaks, UDP flows at a steady rate, and
//! [`questions`]. Whatever is lost, late or broken is counted.

mod questions;

use std::{
    fmt, fs,
    io::{self, ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};

use crate::{
    conversation::{self, ANSWER_LIMIT, from_address},
    lab::{CLIENTS, HOST},
    netns::Netns,
    wait,
};

/// How often each end of a busy connection speaks, and each UDP flow's client.
const PERIOD: Duration = Duration::from_millis(50);
const DATAGRAM_PERIOD: Duration = Duration::from_millis(20);

/// How often all sockets are looked at.
const TICK: Duration = Duration::from_millis(5);

/// The most that a pause between two looks counts, when it comes to telling whether a connection is stalled, and
/// only if something has come meanwhile: the rest is this process, or the kernel, not getting to run.
const LONGEST_TICK: Duration = Duration::from_millis(20);

/// An end of a busy connection that hears nothing for this long is stalled.
pub const STALL: Duration = Duration::from_secs(1);

/// What an end of a connection says at a time, in bytes.
const CHUNK: usize = 200;

/// Room for what comes while this process does not get to run, in bytes.
const BUFFER: usize = 8 << 20;

/// How long what is under way at the end may take, with segments that are sent again.
const LAST_WORDS: Duration = Duration::from_secs(15);

/// How much traffic there is to be.
#[derive(Debug, Clone, Copy)]
pub struct Amount {
    /// Connections over which both ends talk.
    pub busy: usize,
    /// Connections on which nobody speaks.
    pub idle: usize,
    /// UDP flows.
    pub flows: usize,
}

/// Where it goes.
#[derive(Debug, Clone)]
pub struct Route {
    /// Where the clients are.
    pub client: Netns,
    /// Where the servers are.
    pub container: Netns,
    /// The published ports, of TCP and UDP.
    pub host_ports: [u16; 2],
    /// The container's ports that they lead to.
    pub ports: [u16; 2],
}

/// What has become of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Connections that were made.
    pub connections: u64,
    /// Those of them that broke, or brought something else than what was sent.
    pub broken: u64,
    /// How often an end heard nothing for [`STALL`] while the other one spoke.
    pub stalls: u64,
    /// The longest such silence.
    pub longest_silence: Duration,
    /// Bytes that have come over all connections, both ways.
    pub bytes: u64,
    /// TCP segments that were sent again.
    pub resent: u64,
    /// Datagrams that clients have sent.
    pub asked: u64,
    /// Those that have come to the container, which answers each.
    pub arrived: u64,
    /// The answers that have come back.
    pub answered: u64,
}

impl Tally {
    /// Datagrams that were lost on either way.
    pub fn lost(&self) -> u64 {
        self.asked - self.answered
    }

    /// That nothing was broken, stalled or lost.
    ///
    /// # Errors
    /// With all of it.
    pub fn ensure_whole(&self) -> Result<()> {
        let is_whole = (self.broken, self.stalls, self.lost()) == (0, 0, 0);
        ensure!(
            is_whole && self.bytes > 0 && self.answered > 0,
            "not hitless: {self}"
        );
        Ok(())
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} connections, {} broken, {} stalled, longest silence {} ms, {} KB, {} segments resent; \
             {} datagrams sent, {} arrived, {} answered, {} lost",
            self.connections,
            self.broken,
            self.stalls,
            self.longest_silence.as_millis(),
            self.bytes >> 10,
            self.resent,
            self.asked,
            self.arrived,
            self.answered,
            self.lost()
        )
    }
}

/// One end of a busy connection. What is said is a pattern that tells where in it a byte belongs.
struct End {
    stream: TcpStream,
    said: u64,
    heard: u64,
    next: Instant,
    /// By the clock of its side.
    last_heard: Duration,
}

/// A UDP flow's client.
struct Asker {
    socket: UdpSocket,
    /// By datagram, whether it was answered.
    answered: Vec<bool>,
    next: Instant,
}

/// All sockets of one side, and what they have come to.
#[derive(Default)]
struct Side {
    ends: Vec<End>,
    askers: Vec<Asker>,
    questions: Option<questions::Askers>,
    server: Option<UdpSocket>,
    owed: questions::Owed,
    /// Time that this side has been looked at.
    clock: Duration,
    tally: Tally,
}

/// The traffic, for as long as it flows.
pub struct Live {
    route: Route,
    listener: TcpListener,
    /// The clients' and the container's.
    sides: [Arc<Mutex<Side>>; 2],
    idle: Vec<[TcpStream; 2]>,
    is_speaking: Arc<AtomicBool>,
    is_wanted: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    resent_before: u64,
}

impl Live {
    /// Starts the servers, and the questions, but no other traffic yet.
    ///
    /// # Errors
    /// A port is taken.
    pub fn new(route: Route) -> Result<Self> {
        let [tcp, udp] = route.ports.map(|port| (Ipv4Addr::UNSPECIFIED, port));
        let listener = route.container.run(|| Ok(TcpListener::bind(tcp)?))?;
        let server = route.container.run(|| roomy(UdpSocket::bind(udp)?))?;
        let sides = [
            Side {
                questions: Some(questions::Askers::new(route.clone())),
                ..Side::default()
            },
            Side {
                server: Some(server),
                ..Side::default()
            },
        ];
        let sides = sides.map(|side| Arc::new(Mutex::new(side)));
        let is_speaking = Arc::new(AtomicBool::new(true));
        let is_wanted = Arc::new(AtomicBool::new(true));
        let threads = sides.each_ref().map(|side| {
            let (side, is_speaking) = (Arc::clone(side), Arc::clone(&is_speaking));
            let is_wanted = Arc::clone(&is_wanted);
            thread::spawn(move || {
                let mut last = Instant::now();
                while is_wanted.load(Ordering::Relaxed) {
                    let now = Instant::now();
                    let step = (now - last).min(LONGEST_TICK);
                    last = now;
                    lock(&side).look(now, step, is_speaking.load(Ordering::Relaxed));
                    thread::sleep(TICK);
                }
            })
        });
        Ok(Self {
            resent_before: resent(&route)?,
            route,
            listener,
            sides,
            idle: Vec::new(),
            is_speaking,
            is_wanted,
            threads: threads.into(),
        })
    }

    /// Begins more traffic.
    ///
    /// # Errors
    /// A connection cannot be made.
    pub fn begin(&mut self, amount: Amount) -> Result<()> {
        let now = Instant::now();
        for number in 0..amount.busy + amount.idle {
            let pair = self.connect(number)?;
            lock(&self.sides[0]).tally.connections += 1;
            if number >= amount.busy {
                self.idle.push(pair);
                continue;
            }
            // Not all at once.
            let next = now + PERIOD * number as u32 / amount.busy as u32;
            for (side, stream) in self.sides.iter().zip(pair) {
                stream.set_nonblocking(true)?;
                let mut side = lock(side);
                let last_heard = side.clock;
                side.ends.push(End {
                    stream,
                    said: 0,
                    heard: 0,
                    next,
                    last_heard,
                });
            }
        }
        for number in 0..amount.flows {
            let source = (CLIENTS[number % CLIENTS.len()], 0);
            let socket = self.route.client.run(|| {
                let socket = UdpSocket::bind(source)?;
                socket.connect((HOST, self.route.host_ports[1]))?;
                roomy(socket)
            })?;
            lock(&self.sides[0]).askers.push(Asker {
                socket,
                answered: Vec::new(),
                next: now + DATAGRAM_PERIOD * number as u32 / amount.flows as u32,
            });
        }
        Ok(())
    }

    fn connect(&self, number: usize) -> Result<[TcpStream; 2]> {
        let source = from_address(CLIENTS[number % CLIENTS.len()]);
        let target = SocketAddr::from((HOST, self.route.host_ports[0]));
        let client = self
            .route
            .client
            .run(|| Ok(conversation::connect(source, target)?))
            .with_context(|| format!("connection {number}"))?;
        let (server, _) = self.listener.accept()?;
        server.set_nodelay(true)?;
        server.set_read_timeout(Some(ANSWER_LIMIT))?;
        Ok([client, server])
    }

    /// Has everybody fall silent, waits for what is under way, tries the idle connections, and tells what has
    /// become of it all.
    ///
    /// # Errors
    /// The kernel's.
    pub fn end(mut self) -> Result<Tally> {
        self.is_speaking.store(false, Ordering::Relaxed);
        let mut tally = Tally::default();
        let has_come = wait::until_true("what is under way", LAST_WORDS, || {
            tally = self.tally();
            let [client, container] = self.sides.each_ref().map(|side| lock(side).volume());
            let has_all_come = client.0 == container.1 && client.1 == container.0;
            Ok((has_all_come || tally.broken > 0) && tally.lost() == 0)
        });
        self.stop();
        if has_come.is_err() && tally.lost() == 0 {
            // What was said has not come, and no end knows why.
            tally.broken += 1;
        }
        for (number, [client, container]) in self.idle.iter_mut().enumerate() {
            // Half of them hear from their servers first.
            let ends = if number % 2 == 0 {
                [client, container]
            } else {
                [container, client]
            };
            if let Err(error) = is_open(ends) {
                eprintln!("idle connection {number}: {error:#}");
                tally.broken += 1;
            }
        }
        tally.resent = resent(&self.route)? - self.resent_before;
        Ok(tally)
    }

    /// Has nobody look at the sockets any more.
    fn stop(&mut self) {
        self.is_wanted.store(false, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // One that has panicked has said so.
            let _ = thread.join();
        }
    }

    fn tally(&self) -> Tally {
        let [client, container] = self.sides.each_ref().map(|side| lock(side).tally);
        Tally {
            broken: client.broken + container.broken,
            stalls: client.stalls + container.stalls,
            longest_silence: client.longest_silence.max(container.longest_silence),
            bytes: client.bytes + container.bytes,
            arrived: container.arrived,
            ..client
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Side {
    /// Hears what there is to hear, and says what is due if anybody is to speak.
    fn look(&mut self, now: Instant, step: Duration, is_speaking: bool) {
        let (clock, tally) = (self.clock + step, &mut self.tally);
        let before = (tally.bytes, tally.arrived, tally.answered);
        self.ends.retain_mut(|end| {
            let went = end.hear(clock, tally).and_then(|()| {
                if is_speaking && end.next <= now {
                    end.next = (end.next + PERIOD).max(now);
                    end.say()?;
                }
                Ok(())
            });
            if let Err(error) = &went {
                eprintln!("a busy connection, after {} bytes: {error}", end.heard);
                tally.broken += 1;
            }
            went.is_ok()
        });
        for (number, asker) in self.askers.iter_mut().enumerate() {
            asker.hear(tally);
            if is_speaking && asker.next <= now {
                asker.next = (asker.next + DATAGRAM_PERIOD).max(now);
                asker.ask(number as u32, tally);
            }
        }
        if let Some(questions) = &mut self.questions
            && let Err(error) = questions.look(now, is_speaking, tally)
        {
            eprintln!("a question: {error:#}");
            tally.broken += 1;
        }
        if let Some(server) = &self.server {
            let mut buffer = [0; 64];
            while let Ok((length, client)) = server.recv_from(&mut buffer) {
                let datagram = &buffer[..length];
                tally.arrived += 1;
                if !self.owed.note(now, datagram, client) {
                    // Nobody hears of an answer that cannot be sent, which is then lost.
                    let _ = server.send_to(datagram, client);
                }
            }
            self.owed.settle(now, server);
        }
        if before != (tally.bytes, tally.arrived, tally.answered) {
            self.clock = clock;
        }
    }

    /// Bytes said and heard by ends that are not broken.
    fn volume(&self) -> (u64, u64) {
        self.ends.iter().fold((0, 0), |(said, heard), end| {
            (said + end.said, heard + end.heard)
        })
    }
}

impl End {
    fn hear(&mut self, clock: Duration, tally: &mut Tally) -> io::Result<()> {
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(length) => {
                    let expected = (self.heard..).map(pattern);
                    if !buffer[..length].iter().copied().eq(expected.take(length)) {
                        return Err(ErrorKind::InvalidData.into());
                    }
                    self.heard += length as u64;
                    tally.bytes += length as u64;
                    let silence = clock - self.last_heard;
                    tally.longest_silence = tally.longest_silence.max(silence);
                    tally.stalls += u64::from(silence >= STALL);
                    self.last_heard = clock;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn say(&mut self) -> io::Result<()> {
        let chunk: Vec<u8> = (self.said..).map(pattern).take(CHUNK).collect();
        match self.stream.write(&chunk) {
            Ok(length) => {
                self.said += length as u64;
                Ok(())
            }
            // The other end has not been heard of for long.
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Asker {
    fn ask(&mut self, number: u32, tally: &mut Tally) {
        let sequence = self.answered.len() as u32;
        let mut datagram = number.to_be_bytes().to_vec();
        datagram.extend(sequence.to_be_bytes());
        self.answered.push(false);
        tally.asked += 1;
        // One that cannot be sent, for an ICMP error that has come, is lost.
        let _ = self.socket.send(&datagram);
    }

    fn hear(&mut self, tally: &mut Tally) {
        let mut datagram = [0; 8];
        loop {
            match self.socket.recv(&mut datagram) {
                Ok(_) => {
                    let [.., a, b, c, d] = datagram;
                    let sequence = u32::from_be_bytes([a, b, c, d]) as usize;
                    if let Some(answered @ false) = self.answered.get_mut(sequence) {
                        *answered = true;
                        tally.answered += 1;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // An ICMP error.
                Err(_) => {}
            }
        }
    }
}

/// The byte at this place of all that an end says.
fn pattern(place: u64) -> u8 {
    // A prime: a piece that is missing does not go unnoticed for its length being a power of two.
    (place % 251) as u8
}

/// That what either end says comes to the other one; the first one speaks first.
fn is_open([first, second]: [&mut TcpStream; 2]) -> io::Result<()> {
    let mut heard = [0; 5];
    first.write_all(b"hello")?;
    second.read_exact(&mut heard)?;
    second.write_all(b"hello")?;
    first.read_exact(&mut heard)
}

/// A UDP socket with room, that waits for nothing.
fn roomy(socket: UdpSocket) -> Result<UdpSocket> {
    setsockopt(&socket, RcvBufForce, &BUFFER)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// TCP segments that either side has ever sent again.
fn resent(route: &Route) -> Result<u64> {
    let count = || {
        let text = fs::read_to_string("/proc/thread-self/net/snmp")?;
        let mut lines = text.lines().filter(|line| line.starts_with("Tcp:"));
        let (names, values) = (lines.next(), lines.next());
        let names = names.into_iter().flat_map(str::split_whitespace);
        let values = values.into_iter().flat_map(str::split_whitespace);
        names
            .zip(values)
            .find(|(name, _)| *name == "RetransSegs")
            .and_then(|(_, value)| value.parse::<u64>().ok())
            .context("the kernel does not count what TCP sends again")
    };
    Ok(route.client.run(count)? + route.container.run(count)?)
}

fn lock(side: &Mutex<Side>) -> MutexGuard<'_, Side> {
    side.lock().unwrap_or_else(PoisonError::into_inner)
}
