//! Commands that are killed at any moment, that come two at once, or that run out of something: the next one finds
//! its way, nothing is left half-done, and no packet reaches a container that it was not for.
//!
//! `PORTWAY_KILLS` and `PORTWAY_REFUSALS` are how often, `PORTWAY_SEED` decides where.

use std::{
    collections::HashMap,
    io,
    mem::{Discriminant, discriminant},
    net::{SocketAddr, UdpSocket},
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use fastrand::Rng;
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    sys::{
        resource::Resource,
        signal::{Signal, kill},
    },
};
use portway_tests::{
    cgroup,
    container::Container,
    footprint::{self, Footprint},
    harness::{self, Test},
    lab::{CLIENTS, EXTERNAL, HOST, Lab},
    portway::Portway,
    process::Finished,
    requirement::Requirement,
    setting::{self, setting},
    tracer::{self, End, Fate},
    wait::{self, PATIENCE},
};

fn main() -> ExitCode {
    use Requirement::{Kernel, MemoryCgroup, Portway, Root};
    harness::run([
        Test::of_portway("killed_at_any_system_call", || killed("")),
        Test::of_portway("killed_at_any_system_call_with_xdp", || killed(WITH_XDP)),
        Test::of_portway("refused_any_use_of_bpf", || refused("")),
        Test::of_portway("refused_any_use_of_bpf_with_xdp", || refused(WITH_XDP)),
        Test::of_portway("two_at_once", two_at_once),
        Test::of_portway("one_that_does_not_end_is_named", endless),
        Test::of_portway("out_of_file_descriptors_and_lockable_memory", limits),
        Test::new(
            "out_of_memory",
            &[Root, Kernel, Portway, MemoryCgroup],
            out_of_memory,
        ),
        Test::of_portway("out_of_room_for_ports", ports_full),
        Test::of_portway("a_read_only_bpffs", read_only),
    ])
}

/// How to load so that programs are attached also inside containers.
const WITH_XDP: &str = "--mode xdp --intake pass";

/// How to have those programs taken off again.
const WITH_GRO: &str = "--admission direct --intake gro";

/// How many commands are killed, unless PORTWAY_KILLS says otherwise.
const KILLS: usize = 5;

/// How many times the kernel refuses something, unless PORTWAY_REFUSALS says otherwise.
const REFUSALS: usize = 4;

/// What it says where there is no memory for a map, program, link or entry, and none for a pin.
const FULL: [Errno; 2] = [Errno::ENOMEM, Errno::ENOSPC];

/// What it says where one of the first calls is refused: aya tries what the kernel can do, and takes that for a no.
const MISTAKEN: &str = "cannot create the eBPF maps: is this process allowed to use BPF?";

/// What is done, and killed in turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    Load,
    Unload,
    Publish(usize),
    Unpublish(usize),
    /// A container is elsewhere, and `run` follows it.
    Reconcile,
    /// Containers get GRO in place of a program.
    Intake,
}

/// The last one is for those who load [`WITH_XDP`].
const DEEDS: [Deed; 6] = [
    Deed::Publish(0),
    Deed::Unpublish(1),
    Deed::Reconcile,
    Deed::Unload,
    Deed::Load,
    Deed::Intake,
];

/// How long a `run` that has done its work goes on when it was not killed before.
const AT_REST: Duration = Duration::from_secs(2);

/// The ports of the two containers, on the host and, the same for both, in the container.
const PORTS: [u16; 2] = [9000, 9001];
const INSIDE: u16 = 8080;

/// What a command says that has waited for another one in vain.
const AT_WORK: &str = "another portway command has been at work";

/// Who asks for which of them: ports of the client, by which containers tell whose packets came.
const ASKERS: [u16; 2] = [20_000, 30_000];

/// How many client ports ask for each, in turns.
const ASKERS_EACH: u16 = 500;

/// Ends the asking when it goes, also by a panic.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Scene<'a> {
    lab: &'a Lab,
    /// How portway is loaded.
    options: &'static str,
    containers: [Container; 2],
    portway: Portway<'a>,
    /// How many system calls each kind of deed takes.
    lengths: HashMap<Discriminant<Deed>, u64>,
    moves: u8,
}

fn killed(options: &'static str) -> Result<()> {
    let kills = setting("PORTWAY_KILLS")?.unwrap_or(KILLS);
    let seed = setting::seed("PORTWAY_SEED")?;
    println!("{kills} kills of PORTWAY_SEED={seed}");
    let mut random = Rng::with_seed(seed);
    let lab = Lab::new()?;
    let serve = |number| Container::new(&lab.host, number)?.serve(&["udp/8080"]);
    let mut scene = Scene {
        lab: &lab,
        options,
        containers: [serve(1)?, serve(2)?],
        portway: Portway::new(&lab.host)?,
        lengths: HashMap::new(),
        moves: 0,
    };
    let is_over = AtomicBool::new(false);
    let asked = thread::scope(|scope| {
        let over = Over(&is_over);
        let asking = scope.spawn(|| lab.client.run(|| ask(&is_over)));
        let result = scene.measure().and_then(|()| {
            (0..kills).try_for_each(|number| {
                let deeds = scene.deeds();
                let deed = match deeds[number % deeds.len()] {
                    Deed::Publish(_) => Deed::Publish(random.usize(..2)),
                    Deed::Unpublish(_) => Deed::Unpublish(random.usize(..2)),
                    other => other,
                };
                scene
                    .kill(deed, &mut random)
                    .with_context(|| format!("kill {number}, {deed:?}, of PORTWAY_SEED={seed}"))
            })
        });
        drop(over);
        let asked = asking.join();
        result?;
        asked.unwrap_or_else(|_| Ok(0))
    })?;
    ensure!(asked > 0, "nobody asked");
    scene.ensure_no_strangers()?;
    scene.portway.text("unload")?;
    footprint::ensure_none(&lab.host)
}

impl Scene<'_> {
    fn deeds(&self) -> &'static [Deed] {
        match self.options {
            WITH_XDP => &DEEDS,
            _ => &DEEDS[..5],
        }
    }

    /// Has each deed done to its end.
    fn measure(&mut self) -> Result<()> {
        for &deed in self.deeds() {
            self.prepare(deed)?;
            match self.begin(deed, u64::MAX)? {
                End::Exited {
                    status: 0, calls, ..
                } => self.lengths.insert(discriminant(&deed), calls),
                end => bail!("{deed:?}: {end:?}"),
            };
        }
        self.repair()
    }

    /// Has a command killed in the middle of a deed, then the next ones repair what it has left.
    fn kill(&mut self, deed: Deed, random: &mut Rng) -> Result<()> {
        loop {
            self.prepare(deed)?;
            let length = self.lengths[&discriminant(&deed)];
            let end = self.begin(deed, random.u64(..length))?;
            println!("{deed:?}: {end:?} of {length}");
            match end {
                End::Killed(_) => break,
                // It had less to do this time.
                End::Exited {
                    status: 0, calls, ..
                } => self.lengths.insert(discriminant(&deed), calls),
                End::Exited { status, said, .. } => bail!("fails with status {status}: {said}"),
            };
        }
        self.ensure_no_strangers().context("after the kill")?;
        if deed == Deed::Unload && random.bool() {
            self.portway.text("unload")?;
            footprint::ensure_none(&self.lab.host)?;
        }
        if deed == Deed::Intake {
            self.portway.load(WITH_GRO)?;
            for container in &self.containers {
                ensure!(container.has_gro()? && !container.has_xdp()?, "no GRO");
            }
        }
        self.repair()
    }

    /// Brings about what the deed begins with.
    fn prepare(&mut self, deed: Deed) -> Result<()> {
        match deed {
            Deed::Load => {
                self.portway.text("unload")?;
            }
            Deed::Publish(which) => {
                self.load()?;
                if self.is_published(which)? {
                    self.portway
                        .text(&format!("unpublish {}/udp", PORTS[which]))?;
                }
            }
            Deed::Unpublish(_) | Deed::Unload | Deed::Intake => self.repair()?,
            Deed::Reconcile => {
                self.repair()?;
                // The other container changes its MAC address, as one that is started anew does.
                self.moves = self.moves.wrapping_add(1);
                let mac = format!("02:00:00:00:01:{:02x}", self.moves);
                let netns = &self.containers[1].netns;
                netns.ip(&format!("link set eth0 address {mac}"))?;
                let address = self.containers[1].address;
                self.lab.host.ip(&format!(
                    "neighbour replace {address} lladdr {mac} dev br0 nud reachable"
                ))?;
            }
        }
        Ok(())
    }

    fn begin(&self, deed: Deed, kill_at: u64) -> Result<End> {
        let command = match deed {
            Deed::Load => load(self.options),
            Deed::Intake => format!("load {WITH_GRO}"),
            Deed::Unload => "unload".to_owned(),
            Deed::Publish(which) => format!("publish {}", self.spec(which)),
            Deed::Unpublish(which) => format!("unpublish {}/udp", PORTS[which]),
            Deed::Reconcile => format!("run --no-docker --external {EXTERNAL}"),
        };
        let command = self.portway.command(&command);
        tracer::run(command, Fate::Kill(kill_at), |pid, has_ended| {
            if deed == Deed::Reconcile {
                // It goes on for ever; what it has come for is done soon.
                let _ = wait::until_true("its end", AT_REST, || Ok(has_ended()));
                if !has_ended() {
                    let _ = kill(pid, Signal::SIGINT);
                }
            }
        })
    }

    fn load(&self) -> Result<()> {
        let options = self.options;
        self.portway
            .load(&format!("--admission direct {options}"))
            .map(drop)
    }

    fn spec(&self, which: usize) -> String {
        let address = self.containers[which].address;
        format!("{}:{address}:{INSIDE}/udp", PORTS[which])
    }

    fn is_published(&self, which: usize) -> Result<bool> {
        Ok(self.portway.port("udp", PORTS[which])?.is_some())
    }

    /// The next commands, after which all is as it should be.
    fn repair(&mut self) -> Result<()> {
        self.load().context("the next load")?;
        for (which, port) in PORTS.iter().enumerate() {
            let row = self.portway.port("udp", *port)?;
            if row.is_none_or(|row| row.state != "active") {
                self.portway
                    .publish(&self.spec(which))
                    .context("the next publish")?;
            }
        }
        let rows = self.portway.ls()?;
        ensure!(rows.len() == PORTS.len(), "{rows:?}");
        for (which, port) in PORTS.iter().enumerate() {
            let ((), used) = self.portway.measure(|| {
                wait::until_true("an answer", PATIENCE, || {
                    let source = (CLIENTS[1], ASKERS[which]).into();
                    self.lab.client.run(|| answers(source, *port))
                })
            })?;
            ensure!(
                used.forwarded > 0,
                "port {port} not by the fast path: {used:?}"
            );
        }
        for container in &self.containers {
            let has_program = self.options == WITH_XDP;
            ensure!(
                container.has_xdp()? == has_program && !container.has_gro()?,
                "{}: another program, or GRO",
                container.address
            );
        }
        self.ensure_no_strangers()
    }

    /// Nobody has got what was another's.
    fn ensure_no_strangers(&self) -> Result<()> {
        for (container, first) in self.containers.iter().zip(ASKERS) {
            let own = first..first + ASKERS_EACH;
            for client in container.clients("udp") {
                ensure!(
                    own.contains(&client.port()),
                    "{} has a packet of {client}",
                    container.address
                );
            }
        }
        Ok(())
    }
}

/// The command that loads.
fn load(options: &str) -> String {
    format!("load --external {EXTERNAL} --admission direct {options}")
}

/// One call of bpf(2) after the other fails, as where memory or bpffs is full.
fn refused(options: &str) -> Result<()> {
    let refusals = setting("PORTWAY_REFUSALS")?.unwrap_or(REFUSALS);
    let seed = setting::seed("PORTWAY_SEED")?;
    println!("{refusals} refusals of PORTWAY_SEED={seed}");
    let mut random = Rng::with_seed(seed);
    let lab = Lab::new()?;
    let web = Container::new(&lab.host, 1)?.serve(&["udp/8080"])?;
    let portway = Portway::new(&lab.host)?;
    let load = load(options);
    let publish = format!("publish 9000:{}:{INSIDE}/udp", web.address);
    // Whether it came to a good end, and after how many calls.
    let run = |command: &str, fate| match tracer::run(portway.command(command), fate, |_, _| {})? {
        End::Exited {
            status: 0, calls, ..
        } => Ok((true, calls)),
        End::Exited {
            status: 1,
            calls,
            said,
        } if said.trim().lines().count() == 1
            && (said.contains(MISTAKEN)
                || FULL
                    .iter()
                    .any(|error| said.contains(&io::Error::from(*error).to_string()))) =>
        {
            Ok((false, calls))
        }
        end => bail!("{command}, {fate:?}: {end:?}"),
    };
    let all = |command| run(command, Fate::Refuse(u64::MAX, FULL[0]));
    let lengths = [all(&load)?.1, all(&publish)?.1];
    println!("{lengths:?} calls");
    for number in 0..refusals {
        let context = || format!("refusal {number} of PORTWAY_SEED={seed}");
        let error = FULL[number / 2 % 2];
        portway.text("unload")?;
        let fate = Fate::Refuse(random.u64(..lengths[0]), error);
        if !run(&load, fate).with_context(context)?.0 {
            footprint::ensure_none(&lab.host).with_context(context)?;
            portway.text(&load)?;
        }
        let fate = Fate::Refuse(random.u64(..lengths[1]), error);
        if !run(&publish, fate).with_context(context)?.0 {
            ensure!(portway.ls()?.is_empty(), "{fate:?}: {:?}", portway.ls()?);
        }
        // It may wait for a hook, and says so.
        if portway.ls()?.iter().all(|row| row.state != "active") {
            portway.text(&publish).with_context(context)?;
        }
        wait::until_true("an answer by the fast path", PATIENCE, || {
            let source = (CLIENTS[0], ASKERS[0]).into();
            let (answered, used) =
                portway.measure(|| lab.client.run(|| answers(source, PORTS[0])))?;
            Ok(answered && used.forwarded > 0)
        })
        .with_context(context)?;
    }
    portway.text("unload")?;
    footprint::ensure_none(&lab.host)
}

/// Whether a datagram is answered.
fn answers(source: SocketAddr, port: u16) -> Result<bool> {
    let socket = UdpSocket::bind(source)?;
    socket.connect((HOST, port))?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    // One that is refused tells so at the next call.
    Ok(socket.send(b"portway").is_ok() && socket.recv(&mut [0; 16]).is_ok())
}

/// Asks for both ports all the while, from new client ports and old ones. Returns how often.
fn ask(is_over: &AtomicBool) -> Result<u64> {
    let mut asked = 0;
    let mut sockets = Vec::new();
    for number in 1..ASKERS_EACH {
        for (first, port) in ASKERS.into_iter().zip(PORTS) {
            let socket = UdpSocket::bind((CLIENTS[0], first + number))?;
            socket.connect((HOST, port))?;
            sockets.push(socket);
        }
    }
    while !is_over.load(Ordering::Relaxed) {
        for socket in &sockets {
            // Where the port is not published, an error of the datagram before is told.
            let _ = socket.send(b"portway");
            asked += 1;
            if asked % 8 == 0 {
                thread::sleep(Duration::from_millis(4));
            }
        }
    }
    Ok(asked)
}

fn two_at_once() -> Result<()> {
    let lab = Lab::new()?;
    let web = Container::new(&lab.host, 1)?.serve(&["udp/8080"])?;
    let portway = Portway::new(&lab.host)?;
    let all = |commands: Vec<String>| {
        thread::scope(|scope| {
            let running: Vec<_> = commands
                .iter()
                .map(|command| scope.spawn(|| portway.output(command)))
                .collect();
            let ended = running.into_iter().map(|run| {
                let ended = run.join();
                ended.unwrap_or_else(|_| Err(anyhow::anyhow!("panicked")))
            });
            ended.collect::<Result<Vec<Finished>>>()
        })
    };
    let loads = all(vec![load(""), load("")])?;
    let (done, waited): (Vec<_>, Vec<_>) = loads
        .iter()
        .partition(|load| load.stdout.starts_with("loaded"));
    // Where loading takes longer than the other waits, that one says so.
    let has_waited = waited
        .iter()
        .all(|load| load.stdout.starts_with("already loaded") || load.stderr.contains(AT_WORK));
    ensure!(done.len() == 1 && has_waited, "{loads:?}");

    let publish = |port: u16| format!("publish {port}:{}:{INSIDE}/udp", web.address);
    let elsewhere = format!("publish 9000:{}:9/udp", web.address);
    let published = all((9000..9004).map(publish).chain([elsewhere]).collect())?;
    let refused: Vec<_> = published.iter().filter(|end| end.code() != 0).collect();
    ensure!(
        refused.len() == 1 && refused[0].stderr.contains("port is already allocated"),
        "{published:?}"
    );
    let rows = portway.ls()?;
    ensure!(
        rows.len() == 4 && rows.iter().all(|row| row.state == "active"),
        "{rows:?}"
    );
    let unloads = all(vec!["unload".into(), "unload".into()])?;
    ensure!(
        unloads.iter().all(|unload| unload.code() == 0),
        "{unloads:?}"
    );
    footprint::ensure_none(&lab.host)
}

fn endless() -> Result<()> {
    let lab = Lab::new()?;
    let portway = Portway::new(&lab.host)?;
    portway.load("--admission direct")?;
    let folder = lab
        .host
        .file("/sys/fs/bpf/portway")
        .join(portway.instance());
    let other = Flock::lock(std::fs::File::open(folder)?, FlockArg::LockExclusive)
        .map_err(|(_, error)| error)?;
    let unload = portway.output("unload")?;
    ensure_refused("unload", &unload, AT_WORK)?;
    drop(other);
    portway.text("unload")?;
    footprint::ensure_none(&lab.host)
}

fn limits() -> Result<()> {
    let lab = Lab::new()?;
    let web = Container::new(&lab.host, 1)?.serve(&["udp/8080"])?;
    let portway = Portway::new(&lab.host)?;
    let load = format!("load --external {EXTERNAL} --admission direct");
    let few = |command: &str, most: u64| {
        portway
            .command(command)
            .with_limit(Resource::RLIMIT_NOFILE, most)
            .output()
    };
    for most in [4, 8, 16, 32] {
        let refused = few(&load, most)?;
        if refused.code() != 0 {
            ensure_refused(&load, &refused, "Too many open files")
                .with_context(|| format!("{most} descriptors"))?;
            footprint::ensure_none(&lab.host).with_context(|| format!("{most} descriptors"))?;
        }
    }
    // Since Linux 5.11 that limit counts no more: maps are charged to the cgroup.
    portway
        .command(&load)
        .with_limit(Resource::RLIMIT_MEMLOCK, 0)
        .text()?;
    let publish = format!("publish 9000:{}:{INSIDE}/udp", web.address);
    for most in [4, 8, 12, 16, 20, 24, 28, 32] {
        let refused = few(&publish, most)?;
        if refused.code() == 0 {
            break;
        }
        ensure_refused(&publish, &refused, "Too many open files")
            .with_context(|| format!("{most} descriptors"))?;
    }
    if portway.ls()?.iter().all(|row| row.state != "active") {
        portway.text(&publish)?;
    }
    let answered = lab
        .client
        .run(|| answers((CLIENTS[0], ASKERS[0]).into(), PORTS[0]))?;
    ensure!(answered, "no answer");
    portway.text("unload")?;
    footprint::ensure_none(&lab.host)
}

/// In a cgroup with too little memory the kernel refuses maps, or kills the command.
fn out_of_memory() -> Result<()> {
    const KILLED: i32 = 128 + Signal::SIGKILL as i32;
    let lab = Lab::new()?;
    let portway = Portway::new(&lab.host)?;
    let load = format!("load --external {EXTERNAL} --admission direct");
    let (mut refused, mut killed) = (0, 0);
    for most in (0..).map(|step| (16 << 20) + step * (24 << 20)) {
        let memory = cgroup::Memory::new(lab.host.cgroup(), most)?;
        let command = portway.command(&load).in_cgroup(memory.processes());
        let finished = command.output()?;
        match finished.code() {
            0 => break,
            KILLED => killed += 1,
            _ => {
                ensure_refused(&load, &finished, "Cannot allocate memory")?;
                refused += 1;
            }
        }
        ensure!(most < 1 << 30, "not loaded with {most} bytes: {finished}");
        ensure!(!portway.status()?.loaded, "half loaded with {most} bytes");
        portway.text("unload")?;
        footprint::ensure_none(&lab.host).with_context(|| format!("{most} bytes"))?;
    }
    println!("{refused} refused, {killed} killed");
    ensure!(refused + killed > 0, "there was always memory enough");
    let status = portway.status()?;
    ensure!(status.loaded, "{status:?}");
    portway.text("unload")?;
    footprint::ensure_none(&lab.host)
}

/// More ports of single addresses than there is room for: two whole ranges are.
fn ports_full() -> Result<()> {
    let lab = Lab::new()?;
    let web = Container::new(&lab.host, 1)?.serve(&["udp/8080"])?;
    let portway = Portway::new(&lab.host)?;
    portway.load("--admission direct")?;
    let range = |address: &str, protocol: &str| {
        format!(
            "publish {address}:1-65535:{}:1-65535/{protocol}",
            web.address
        )
    };
    portway.text(&range("10.99.0.1", "udp"))?;
    portway.text(&range("10.99.0.11", "udp"))?;
    let before = portway.ls()?.len();
    let refused = portway.output(&range("10.99.0.1", "tcp"))?;
    ensure_refused("a third range", &refused, "no room")?;
    ensure!(portway.ls()?.len() == before, "{:?}", portway.ls()?);
    // Nothing of it is in the way of others.
    portway.publish(&format!("9000:{}:{INSIDE}/tcp", web.address))?;
    let answered = lab
        .client
        .run(|| answers((CLIENTS[0], ASKERS[0]).into(), INSIDE))?;
    ensure!(answered, "no answer");
    portway.text("unpublish 9000/tcp")?;
    portway.text("unpublish 10.99.0.11:1-65535/udp")?;
    portway.text(&range("10.99.0.1", "tcp"))?;
    portway.text("unload")?;
    footprint::ensure_none(&lab.host)
}

fn read_only() -> Result<()> {
    let lab = Lab::new()?;
    let web = Container::new(&lab.host, 1)?.serve(&["udp/8080"])?;
    let portway = Portway::new(&lab.host)?;
    let remount = |how: &str| {
        let options = format!("remount,{how}");
        let mount = lab.host.command("mount");
        mount.args(["-o", &options, "/sys/fs/bpf"]).text()
    };
    remount("ro")?;
    let load = format!("load --external {EXTERNAL} --admission direct");
    for command in [&load, "run --no-docker --external ext0"] {
        ensure_refused(command, &portway.output(command)?, "Read-only file system")?;
    }
    remount("rw")?;
    footprint::ensure_none(&lab.host)?;
    portway.text(&load)?;
    let publish = format!("publish 9000:{}:{INSIDE}/udp", web.address);
    portway.text(&publish)?;
    let loaded = Footprint::of(&lab.host)?.to_string();
    remount("ro")?;
    let another = format!("publish 9001:{}:{INSIDE}/udp", web.address);
    for command in [another.as_str(), "unpublish 9000/udp", "unload"] {
        ensure_refused(command, &portway.output(command)?, "Read-only file system")?;
        let answered = lab
            .client
            .run(|| answers((CLIENTS[0], ASKERS[0]).into(), PORTS[0]))?;
        ensure!(answered, "no answer after {command}");
    }
    remount("rw")?;
    let now = Footprint::of(&lab.host)?.to_string();
    ensure!(now == loaded, "before: {loaded}\nnow: {now}");
    portway.text("unload")?;
    footprint::ensure_none(&lab.host)
}

/// One line that says why, and a status that says that nothing was done.
fn ensure_refused(command: &str, finished: &Finished, why: &str) -> Result<()> {
    ensure!(
        finished.code() == 1
            && finished.stderr.contains(why)
            && finished.stderr.trim().lines().count() == 1,
        "{command}: {finished}"
    );
    Ok(())
}
