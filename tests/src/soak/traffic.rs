//! The clients, and those who take notice: threads that go on until the run is over.

use std::{
    fs,
    io::{self, ErrorKind, Read as _, Write as _},
    net::{IpAddr, Shutdown, SocketAddr, TcpStream, UdpSocket},
    os::unix::net::{UnixListener, UnixStream},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, Scope},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use bytemuck::{bytes_of, pod_read_unaligned};
use fastrand::Rng;
use nix::errno::Errno;
use portway_tests_ebpf::Stamp;

use super::{
    drops::Drops,
    lanes::{Holder, Lane, Protocol, lanes},
    ledger::Ledger,
    server::{FOLDER, Greeting, NOTICES, Notice},
};
use crate::{
    conversation::{self, from_address},
    lab::{CLIENTS, CLIENTS_V6, Lab},
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

/// The client that rules deny; for it alone there are flows of its own.
pub const DENIED: IpAddr = IpAddr::V4(CLIENTS[3]);

/// Connections that last, to each port of a container that stays.
const LASTING: usize = 3;

/// How often something is said over one, and how long the echo may take.
const LASTING_PERIOD: Duration = Duration::from_millis(100);
const STALL: Duration = Duration::from_secs(5);

/// Threads that make one connection after the other.
const MAKERS: usize = 3;

/// What is said over a connection at a time.
const WORDS: &[u8] = &[b'w'; 200];

/// What all threads of a run share.
pub struct Shared {
    ledger: Mutex<Ledger>,
    /// No client asks any more.
    is_over: AtomicBool,
    /// Nobody takes notice any more.
    is_deaf: AtomicBool,
    /// Where containers give notice.
    notices: Mutex<Vec<UnixStream>>,
}

/// Ends the traffic when it goes, also by an error.
pub struct Traffic<'a>(pub &'a Shared);

impl Drop for Traffic<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Relaxed);
    }
}

/// Has nobody take notice when it goes, but of what has come by then.
pub struct Attention<'a>(pub &'a Shared);

impl Drop for Attention<'_> {
    fn drop(&mut self) {
        self.0.is_deaf.store(true, Ordering::Relaxed);
        for stream in lock(&self.0.notices).iter() {
            // Its other end may be gone.
            let _ = stream.shutdown(Shutdown::Read);
        }
    }
}

impl Shared {
    /// Nothing has happened yet.
    pub fn new(run: u64) -> Self {
        Self {
            ledger: Mutex::new(Ledger::new(run)),
            is_over: AtomicBool::new(false),
            is_deaf: AtomicBool::new(false),
            notices: Mutex::new(Vec::new()),
        }
    }

    /// What is known.
    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }

    fn goes_on(&self) -> bool {
        !self.is_over.load(Ordering::Relaxed)
    }

    fn is_listening(&self) -> bool {
        !self.is_deaf.load(Ordering::Relaxed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts those who take notice: of what comes to containers, and of what the kernel drops.
///
/// # Errors
/// The kernel's.
pub fn listen<'scope>(
    scope: &'scope Scope<'scope, '_>,
    shared: &'scope Shared,
    lab: &Lab,
    mut drops: Drops,
) -> Result<()> {
    fs::create_dir_all(lab.host.file(FOLDER))?;
    let listener = UnixListener::bind(lab.host.file(NOTICES)).context("cannot take notice")?;
    listener.set_nonblocking(true)?;
    scope.spawn(move || {
        while shared.is_listening() {
            let accepted = listener.accept().and_then(|(stream, _)| {
                stream.set_nonblocking(false)?;
                lock(&shared.notices).push(stream.try_clone()?);
                Ok(stream)
            });
            match accepted {
                Ok(stream) => {
                    scope.spawn(move || take_notice(stream, shared));
                }
                Err(_) => thread::sleep(TICK),
            }
        }
    });
    scope.spawn(move || {
        let mut is_last = false;
        while !is_last {
            is_last = !shared.is_listening();
            drops.read(|stamp, reason| shared.ledger().lost(stamp, &reason));
            thread::sleep(TICK);
        }
        let untold = drops.untold();
        let mut ledger = shared.ledger();
        match untold {
            Ok(untold) => ledger.untold = untold,
            Err(error) => ledger.fail(format!("{error:#}")),
        }
    });
    Ok(())
}

/// Reads what a container has to tell, until it is gone.
fn take_notice(mut stream: UnixStream, shared: &Shared) -> io::Result<()> {
    let mut bytes = [0; size_of::<Notice>()];
    loop {
        stream.read_exact(&mut bytes)?;
        let notice: Notice = pod_read_unaligned(&bytes);
        let mut ledger = shared.ledger();
        let answer = Stamp {
            server: notice.server,
            ..notice.stamp
        };
        match notice.kind {
            Notice::CAME => ledger.came(notice.stamp, notice.server, notice.port),
            Notice::ANSWERED => ledger.answered(notice.stamp),
            _ => {
                ledger.answered(notice.stamp);
                let error = Errno::from_raw(notice.errno);
                ledger.lost(answer, &format!("sendto: {error:?}"));
            }
        }
    }
}

/// Starts the clients.
pub fn ask<'scope>(
    scope: &'scope Scope<'scope, '_>,
    shared: &'scope Shared,
    lab: &'scope Lab,
    seed: u64,
) {
    let in_client = move |what: String, work: Box<dyn FnOnce() -> Result<()> + Send + 'scope>| {
        scope.spawn(move || {
            if let Err(error) = lab.client.run(work) {
                shared.ledger().fail(format!("{what}: {error:#}"));
            }
        });
    };
    in_client(
        "datagrams".into(),
        Box::new(move || Asking::new(shared, seed)?.go_on()),
    );
    let tcp = || {
        let lanes = lanes().into_iter().enumerate();
        lanes.filter(|(_, lane)| lane.protocol == Protocol::Tcp)
    };
    for (number, lane) in tcp().filter(|(_, lane)| matches!(lane.holder, Holder::Steady(_))) {
        for client in 0..LASTING {
            let what = format!("lasting connection {client} to {}/tcp", lane.host_port);
            in_client(what, Box::new(move || last(shared, number, lane, client)));
        }
    }
    let all: Vec<_> = tcp().collect();
    for maker in 0..MAKERS {
        let all = all.clone();
        let mut random = Rng::with_seed(seed ^ (1 + maker as u64));
        in_client(
            "a connection".into(),
            Box::new(move || {
                while shared.goes_on() {
                    let (number, lane) = all[random.usize(..all.len())];
                    make(shared, number, lane, &mut random);
                    thread::sleep(Duration::from_millis(random.u64(1..200)));
                }
                Ok(())
            }),
        );
    }
}

/// A client's address, of those that no rule denies.
fn client(lane: Lane, number: usize) -> IpAddr {
    if lane.is_v6 {
        CLIENTS_V6[number % 3].into()
    } else {
        CLIENTS[number % 3].into()
    }
}

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
struct Asking<'a> {
    shared: &'a Shared,
    random: Rng,
    port: u16,
    askers: Vec<Asker>,
    /// Those that wait for their last answers.
    leaving: Vec<Asker>,
}

impl<'a> Asking<'a> {
    fn new(shared: &'a Shared, seed: u64) -> Result<Self> {
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

    fn go_on(mut self) -> Result<()> {
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
fn last(shared: &Shared, number: usize, lane: Lane, which: usize) -> Result<()> {
    let mut stream = greeted(shared, number, lane, client(lane, which))?;
    while shared.goes_on() {
        let said = Instant::now();
        echo(&mut stream).with_context(|| format!("after {} ms", said.elapsed().as_millis()))?;
        shared.ledger().echoed(said.elapsed());
        thread::sleep(LASTING_PERIOD);
    }
    Ok(())
}

/// A connection that ends soon.
fn make(shared: &Shared, number: usize, lane: Lane, random: &mut Rng) {
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
