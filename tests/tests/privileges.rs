//! With which privileges portway works, and that it keeps no others.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, TcpListener},
    os::unix::{
        fs::PermissionsExt as _,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use portway_tests::{
    container::Container,
    docker::{self, DockerLab},
    footprint,
    harness::{self, Test},
    lab::{EXTERNAL, Lab},
    portway::{AT_WORK, Portway},
    requirement::Requirement,
    unit,
    wait::{self, PATIENCE},
};
use rustix::thread::CapabilitySet;

fn main() -> ExitCode {
    use Requirement::{Docker, Ethtool, Kernel, Portway, Root};
    harness::run([
        Test::with_docker("three_capabilities_do_for_docker", three),
        Test::new(
            "the_services_capabilities_do_for_xdp",
            &[Root, Kernel, Ethtool, Docker, Portway],
            service,
        ),
        Test::of_portway("three_capabilities_do_for_every_command", commands),
        Test::of_portway("what_root_has_more_is_dropped", dropped),
        Test::of_portway("a_missing_capability_is_named", missing),
        Test::of_portway("a_taken_low_port_is_noticed", low_port),
        Test::of_portway("pins_are_roots_alone", pins),
        Test::with_docker("docker_is_only_asked", only_asked),
    ])
}

/// What portway cannot do without.
const WORKING: CapabilitySet = CapabilitySet::NET_ADMIN
    .union(CapabilitySet::BPF)
    .union(CapabilitySet::PERFMON);

/// What it holds back for single system calls.
const HELD_BACK: CapabilitySet = CapabilitySet::SYS_ADMIN
    .union(CapabilitySet::SYS_PTRACE)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::NET_RAW);

/// How long loading may take where the machine is busy.
const LOADING: Duration = Duration::from_secs(60);

fn three() -> Result<()> {
    let lab = DockerLab::new()?;
    docker::docker(&lab.host, "run -d --name web -p 9000:8080 echo")?;
    let portway = Portway::new(&lab.host)?.with_capabilities(WORKING);
    let run = portway.run_with_docker("")?;
    run.line(AT_WORK, LOADING)?;
    portway.wait_active("tcp", 9000)?;
    // The tools that tell the firewall's rules have had what they need.
    let admission = portway.status()?.admission.context("no admission")?;
    ensure!(admission.mode == "direct", "{admission:?}");
    let (answer, used) = portway.measure(|| Ok(lab.get_from_outside(9000)))?;
    ensure!(answer.is_ok() && used.both_ways(), "{answer:?}, {used:?}");
    docker::docker(&lab.host, "restart --time 0 web")?;
    wait::until_true("an answer of the container's next life", PATIENCE, || {
        let (answer, used) = portway.measure(|| Ok(lab.get_from_outside(9000)))?;
        Ok(answer.is_ok() && used.both_ways())
    })?;
    check_threads(run.pid(), WORKING, WORKING)?;
    portway.interrupt(&run)?;
    footprint::ensure_none(&lab.host)
}

fn service() -> Result<()> {
    let lab = DockerLab::new()?;
    docker::docker(&lab.host, "run -d --name web -p 9000:8080 echo")?;
    docker::link_namespaces(&lab.host)?;
    lab.finish_checksums()?;
    let capabilities = unit::capabilities()?;
    let portway = Portway::new(&lab.host)?.with_capabilities(capabilities);
    let run = portway.run_with_docker("--mode xdp --intake pass")?;
    run.line(AT_WORK, LOADING)?;
    portway.wait_answer_by_xdp(&lab, 9000)?;
    wait::until_true("the program in the container", PATIENCE, || {
        let status = portway.status()?;
        Ok(status.external(EXTERNAL)?.xdp.why.contains("by a program"))
    })?;
    check_threads(run.pid(), WORKING, capabilities)?;
    portway.interrupt(&run)?;
    footprint::ensure_none(&lab.host)
}

fn commands() -> Result<()> {
    let lab = Lab::new()?;
    let web = Container::new(&lab.host, 1)?.serve(&["http/8080"])?;
    let portway = Portway::new(&lab.host)?.with_capabilities(WORKING);
    portway.load("--tc-hook clsact --admission netfilter")?;
    portway.publish(&format!("9000:{}:8080", web.address))?;
    web.publish_with_iptables(&lab.host, "tcp", 9000, 8080)?;
    wait::until_true("an answer by the fast path", PATIENCE, || {
        let (answer, used) = portway.measure(|| Ok(lab.get_from_outside(9000)))?;
        Ok(answer.is_ok() && used.forwarded > 0)
    })?;
    ensure!(!portway.flows()?.is_empty(), "no flows");
    portway.text("unpublish 9000")?;
    ensure!(portway.ls()?.is_empty(), "{:?}", portway.ls()?);
    portway.text("unload")?;
    footprint::ensure_none(&lab.host)
}

fn dropped() -> Result<()> {
    let lab = Lab::new()?;
    let portway = Portway::new(&lab.host)?;
    let run = portway.run("--no-docker --trace")?;
    run.line(AT_WORK, LOADING)?;
    check_threads(run.pid(), WORKING, WORKING | HELD_BACK)?;
    portway.interrupt(&run)?;
    footprint::ensure_none(&lab.host)
}

fn missing() -> Result<()> {
    let lab = Lab::new()?;
    let portway = Portway::new(&lab.host)?;
    for (lacking, names) in [
        (CapabilitySet::BPF, "CAP_BPF"),
        (CapabilitySet::PERFMON, "CAP_PERFMON"),
        (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"),
    ] {
        let portway = Portway::new(&lab.host)?.with_capabilities(lacking.complement());
        for command in ["load --external ext0", "run --no-docker --external ext0"] {
            let finished = portway.output(command)?;
            ensure!(
                finished.code() == 1
                    && finished.stderr.contains(names)
                    && finished.stderr.trim().lines().count() == 1,
                "{command} without {names}: {finished}"
            );
            footprint::ensure_none(&lab.host)?;
        }
    }
    drop(portway);
    Ok(())
}

fn low_port() -> Result<()> {
    let lab = Lab::new()?;
    let web = Container::new(&lab.host, 1)?.serve(&["http/8080"])?;
    let _taken = lab
        .host
        .run(|| Ok(TcpListener::bind((Ipv4Addr::UNSPECIFIED, 80))?))?;
    let portway = Portway::new(&lab.host)?.with_capabilities(unit::capabilities()?);
    portway.load("--admission direct")?;
    let publish = portway.output(&format!("publish 80:{}:8080", web.address))?;
    ensure!(
        publish.code() == 1 && publish.stderr.contains("address already in use"),
        "{publish}"
    );
    Ok(())
}

fn pins() -> Result<()> {
    let lab = Lab::new()?;
    let web = Container::new(&lab.host, 1)?.serve(&["http/8080"])?;
    let portway = Portway::new(&lab.host)?;
    portway.load("--admission direct")?;
    portway.publish(&format!("9000:{}:8080", web.address))?;
    let mut folders = vec![lab.host.file("/sys/fs/bpf/portway")];
    let mut pins = 0;
    while let Some(folder) = folders.pop() {
        ensure!(
            mode(&folder)? == 0o700,
            "{}: others may enter",
            folder.display()
        );
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else {
                let path = entry.path();
                ensure!(
                    mode(&path)? == 0o600,
                    "{}: others may use it",
                    path.display()
                );
                pins += 1;
            }
        }
    }
    ensure!(pins > 20, "{pins} pins, no more");
    Ok(())
}

fn mode(path: &Path) -> Result<u32> {
    Ok(fs::metadata(path)?.permissions().mode() & 0o7777)
}

fn only_asked() -> Result<()> {
    let lab = DockerLab::new()?;
    docker::docker(&lab.host, "run -d --name web -p 9000:8080 echo")?;
    let watched = "/run/watched.sock";
    let requests = watch(&lab.host.file(watched), lab.host.file(docker::SOCKET))?;
    let portway = Portway::new(&lab.host)?;
    let run = portway.run(&format!("--docker unix://{watched}"))?;
    run.line(AT_WORK, LOADING)?;
    portway.wait_active("tcp", 9000)?;
    docker::docker(&lab.host, "run -d --name other -p 9001:8080 echo")?;
    portway.wait_active("tcp", 9001)?;
    docker::docker(&lab.host, "rm --force web")?;
    wait::until_true("the end of a port that is gone", PATIENCE, || {
        Ok(portway.port("tcp", 9000)?.is_none())
    })?;
    portway.interrupt(&run)?;
    let asked = requests.lock().unwrap_or_else(PoisonError::into_inner);
    let text = String::from_utf8_lossy(&asked);
    let requests: Vec<_> = text
        .lines()
        .filter(|line| line.ends_with("HTTP/1.1"))
        .collect();
    ensure!(
        requests.len() > 3,
        "no more than this was asked: {requests:?}"
    );
    for request in requests {
        ensure!(request.starts_with("GET "), "not a question: {request}");
    }
    Ok(())
}

/// Passes on what comes to a socket, and keeps it. Answers are passed back.
fn watch(listen: &Path, target: PathBuf) -> Result<Arc<Mutex<Vec<u8>>>> {
    let listener = UnixListener::bind(listen).context("no socket to be watched")?;
    let asked = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&asked);
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            if let Err(error) = pass_on(client, &target, &kept) {
                eprintln!("watching Docker's socket: {error}");
            }
        }
    });
    Ok(asked)
}

fn pass_on(mut client: UnixStream, target: &Path, kept: &Arc<Mutex<Vec<u8>>>) -> io::Result<()> {
    let mut docker = UnixStream::connect(target)?;
    let (mut back, mut to_client) = (docker.try_clone()?, client.try_clone()?);
    thread::spawn(move || io::copy(&mut back, &mut to_client));
    let kept = Arc::clone(kept);
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = client.read(&mut buffer) {
            let bytes = &buffer[..length];
            kept.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .extend_from_slice(bytes);
            if docker.write_all(bytes).is_err() {
                break;
            }
        }
        docker.shutdown(Shutdown::Both)
    });
    Ok(())
}

/// Checks every thread of a process: what it has in force and permitted, and that nothing else is to be had.
fn check_threads(pid: u32, effective: CapabilitySet, permitted: CapabilitySet) -> Result<()> {
    let none = CapabilitySet::empty();
    let expected = [
        ("CapInh", none),
        ("CapPrm", permitted),
        ("CapEff", effective),
        ("CapBnd", permitted),
        ("CapAmb", none),
    ];
    // A thread that raises what it holds back does so for the time of a system call.
    let mut wrong = BTreeSet::new();
    let settled = wait::until_true("capabilities", PATIENCE, || {
        wrong.clear();
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            // A thread may have ended by now.
            let Ok(status) = fs::read_to_string(task?.path().join("status")) else {
                continue;
            };
            for (name, set) in expected {
                if field(&status, name)? != format!("{:016x}", set.bits()) {
                    wrong.insert(format!("{name} {}", field(&status, name)?));
                }
            }
            if field(&status, "NoNewPrivs")? != "1" {
                wrong.insert("new privileges".to_owned());
            }
        }
        Ok(wrong.is_empty())
    });
    settled.with_context(|| format!("{wrong:?}"))
}

fn field<'a>(status: &'a str, name: &str) -> Result<&'a str> {
    for line in status.lines() {
        if let Some((key, value)) = line.split_once(':')
            && key == name
        {
            return Ok(value.trim());
        }
    }
    bail!("no {name} in a thread's status")
}
