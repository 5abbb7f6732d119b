//! What runs inside the lab: a host's first process, and the containers' servers. The program
//! `portway-lab-guest` is a command line for this module and for [`crate::conversation`].

use std::{
    convert::Infallible,
    env, fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::Command,
    str::FromStr,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::{
        signal::{SigSet, Signal},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
};
use socket2::{Domain, Socket, Type};

use crate::{cgroup, netns::keep_mounts_private, system::System};

/// The guest's file name, here and in an image.
pub const PROGRAM: &str = "portway-lab-guest";

/// The program that a host boots with.
pub const SYSTEMD: &str = "/usr/lib/systemd/systemd";

/// Where its units are, in the host.
pub const UNITS: &str = "/run/units";

/// What there is of a system that boots.
const TARGETS: [&str; 4] = ["basic", "network-online", "shutdown", "sysinit"];

/// What the guest prints once it can be used.
pub const READY: &str = "ready";

/// What the echo server answers.
pub const GREETING: &str = "Hello Docker!!";

/// The header in which the echo server names the client that it saw.
pub const CLIENT_HEADER: &str = "X-Client";

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 128;

/// A connection that says nothing for this long is given up.
const IDLE: Duration = Duration::from_secs(30);

/// The guest program, which Cargo puts beside this process's own.
///
/// # Errors
/// It has not been built.
pub fn program() -> Result<PathBuf> {
    let own = env::current_exe().context("cannot find this program")?;
    own.ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join(PROGRAM))
        .find(|path| path.is_file())
        .with_context(|| {
            format!(
                "no {PROGRAM} beside {}: run cargo build --package portway-tests",
                own.display()
            )
        })
}

/// What a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// Answers every request with the greeting and the client's address.
    Http,
    /// Sends back what comes in over a connection.
    TcpEcho,
    /// Sends back each datagram.
    UdpEcho,
}

/// A server to be: `http/8080`, `tcp/9`, `udp/53`.
#[derive(Debug, Clone, Copy)]
pub struct Endpoint {
    /// What it speaks.
    pub service: Service,
    /// Where it listens, on any address.
    pub port: u16,
}

impl FromStr for Endpoint {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (service, port) = text.split_once('/').context("expected SERVICE/PORT")?;
        let service = match service {
            "http" => Service::Http,
            "tcp" => Service::TcpEcho,
            "udp" => Service::UdpEcho,
            _ => bail!("{service} is none of http, tcp, udp"),
        };
        let port = port.parse().context("not a port")?;
        Ok(Self { service, port })
    }
}

impl Endpoint {
    /// Listens in the calling thread's namespace and serves for as long as this process lives. Says
    /// who comes: a line `tcp CLIENT` for each connection, `udp CLIENT` for each datagram.
    ///
    /// # Errors
    /// The port is taken.
    pub fn serve(self, greeting: &str) -> Result<()> {
        self.serve_on((Ipv4Addr::UNSPECIFIED, self.port).into(), greeting)?;
        let any_v6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, self.port));
        match Socket::new(Domain::IPV6, Type::STREAM, None) {
            Ok(_) => self.serve_on(any_v6, greeting),
            // A kernel without IPv6.
            Err(_) => Ok(()),
        }
    }

    fn serve_on(self, any: SocketAddr, greeting: &str) -> Result<()> {
        let greeting = greeting.to_owned();
        let context = || format!("cannot listen on {any}");
        if self.service == Service::UdpEcho {
            let socket = UdpSocket::from(bound(any, Type::DGRAM).with_context(context)?);
            thread::spawn(move || udp_echo(&socket));
            return Ok(());
        }
        let socket = bound(any, Type::STREAM).with_context(context)?;
        socket.listen(BACKLOG).with_context(context)?;
        let listener = TcpListener::from(socket);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let Ok(client) = stream.peer_addr() else {
                    continue;
                };
                println!("tcp {client}");
                let greeting = greeting.clone();
                thread::spawn(move || match self.service {
                    Service::Http => http(stream, client, &greeting),
                    _ => tcp_echo(stream),
                });
            }
        });
        Ok(())
    }
}

/// A socket for one IP version, so that each client goes by its own address.
pub(crate) fn bound(address: SocketAddr, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if kind == Type::STREAM {
        socket.set_reuse_address(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

fn udp_echo(socket: &UdpSocket) {
    let mut datagram = [0; 65_536];
    loop {
        // The error may be an ICMP one, of an earlier answer.
        if let Ok((length, client)) = socket.recv_from(&mut datagram) {
            println!("udp {client}");
            let _ = socket.send_to(&datagram[..length], client);
        }
    }
}

pub(crate) fn tcp_echo(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut back = stream.try_clone()?;
    io::copy(&mut stream, &mut back)?;
    back.shutdown(Shutdown::Write)
}

fn http(mut stream: TcpStream, client: SocketAddr, greeting: &str) -> io::Result<()> {
    stream.set_read_timeout(Some(IDLE))?;
    let mut request = BufReader::new(stream.try_clone()?).lines();
    while request
        .next()
        .transpose()?
        .is_some_and(|line| !line.is_empty())
    {}
    let answer = format!(
        "HTTP/1.0 200 OK\r\n{CLIENT_HEADER}: {client}\r\nContent-Type: text/plain\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{greeting}\n",
        greeting.len() + 1,
    );
    stream.write_all(answer.as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    // Closing with unread bytes would reset the connection under the answer.
    io::copy(&mut stream.take(1 << 16), &mut io::sink())?;
    Ok(())
}

/// A host's first process: prepares its namespaces, with another file system if one is given, then waits for orphans
/// until it is killed.
///
/// # Errors
/// A mount is refused.
pub fn init(system: Option<&System>) -> Result<Infallible> {
    prepare(system)?;
    let mut child_ended = SigSet::empty();
    child_ended.add(Signal::SIGCHLD);
    child_ended.thread_block()?;
    println!("{READY}");
    loop {
        while matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(status) if status != WaitStatus::StillAlive)
        {
        }
        child_ended.wait()?;
    }
}

/// The same, but it becomes systemd, in a cgroup of its own. Its units are those in [`UNITS`], at first no more than
/// targets. `system` is one whose files are written nowhere else: systemd takes it for the machine's.
///
/// # Errors
/// A mount is refused, or there is no systemd.
pub fn boot(cgroup: &str, system: &System) -> Result<Infallible> {
    unshare(CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC)?;
    prepare(Some(system))?;
    keep_settings()?;
    cgroup::confine(cgroup)?;
    // What Docker will mount is to be seen by services in mount namespaces of their own.
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SHARED, none)?;
    fs::create_dir(UNITS)?;
    for target in TARGETS {
        let unit = format!("[Unit]\nDescription={target}\nDefaultDependencies=no\n");
        fs::write(format!("{UNITS}/{target}.target"), unit)?;
    }
    println!("{READY}");
    let error = Command::new(SYSTEMD)
        .args(["--system", "--unit=basic.target", "--log-target=null"])
        .env("container", "portway-lab")
        .env("SYSTEMD_UNIT_PATH", UNITS)
        .exec();
    Err(error).context(SYSTEMD)
}

/// Keeps the machine's settings and its console from being written here, but for settings of the network namespace.
fn keep_settings() -> Result<()> {
    const SETTINGS: &str = "/proc/sys";
    const OWN: &str = "/proc/sys/net";
    let none = None::<&str>;
    for folder in [SETTINGS, OWN] {
        mount(Some(folder), folder, none, MsFlags::MS_BIND, none)?;
    }
    let read_only = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(none, SETTINGS, none, read_only, none).context("cannot keep the machine's settings")?;
    let nowhere = Some("/dev/null");
    mount(nowhere, "/dev/console", none, MsFlags::MS_BIND, none)
        .context("cannot keep the machine's console")
}

fn prepare(system: Option<&System>) -> Result<()> {
    let none = None::<&str>;
    keep_mounts_private()?;
    for (kind, target) in [("proc", "/proc"), ("tmpfs", "/run"), ("bpf", "/sys/fs/bpf")] {
        mount(Some(kind), target, Some(kind), MsFlags::empty(), none)
            .with_context(|| format!("cannot mount a {kind} on {target}"))?;
    }
    if let Some(system) = system {
        system.enter()?;
    }
    Ok(())
}
