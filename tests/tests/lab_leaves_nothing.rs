//! Whatever ends a lab, nothing of it remains.

use std::{
    fs,
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use portway_tests::{
    daemon::Daemon,
    docker::{self, DockerLab},
    harness::{self, Test},
    host::Host,
    netns::Netns,
    requirement::Requirement::{Docker, Kernel, Root},
    wait::{self, PATIENCE},
};

fn main() -> ExitCode {
    harness::run([
        Test::new(
            "a_dropped_lab_leaves_nothing",
            &[Root, Kernel, Docker],
            dropped,
        ),
        Test::with_docker("an_interrupted_demo_leaves_nothing", || {
            ended_by(Signal::SIGINT)
        }),
        Test::with_docker("a_killed_demo_leaves_nothing_running", || {
            ended_by(Signal::SIGKILL)
        }),
    ])
}

fn dropped() -> Result<()> {
    let lab = DockerLab::new()?;
    docker::docker(&lab.host, "run -d --name web -p 9000:8080 echo")?;
    let processes = processes_of(lab.host.pid())?;
    // At least dockerd, containerd, a shim, the container.
    ensure!(processes.len() > 4, "only {processes:?} found");
    let cgroup = lab.host.cgroup().to_owned();
    ensure!(
        !cgroups(&cgroup).is_empty(),
        "the container is in no cgroup of the lab"
    );
    let client = lab.client.clone();
    ensure!(has_cable(&client)?, "the client has no cable");

    drop(lab);
    for process in processes {
        ensure!(!process.is_alive(), "{process:?} of the lab lives on");
    }
    ensure!(
        cgroups(&cgroup).is_empty(),
        "left behind: {:?}",
        cgroups(&cgroup)
    );
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    ensure!(
        !mounts.contains("docker-lab"),
        "mounts were left:\n{mounts}"
    );
    // The client's end of the cable goes with the host's network namespace.
    wait::until_true("the end of the host's network namespace", PATIENCE, || {
        Ok(!has_cable(&client)?)
    })
}

fn ended_by(signal: Signal) -> Result<()> {
    let here = Netns::new()?;
    let demo: Daemon = here.command(env!("CARGO_BIN_EXE_portway-lab")).start()?;
    // Its first container is about to run.
    demo.line("docker run", Duration::from_secs(30))?;
    let mut processes = Vec::new();
    for init in children(demo.pid())? {
        processes.extend(processes_of(init)?);
    }
    ensure!(processes.len() > 2, "only {processes:?} found");
    let cgroup = format!("portway-lab-{}-1", demo.pid());

    demo.signal(signal);
    let code = demo.wait(PATIENCE)?;
    ensure!(
        code == 128 + signal as i32,
        "the demo ended with status {code}"
    );
    for process in processes {
        wait::until_true("the end of the lab's processes", PATIENCE, || {
            Ok(!process.is_alive())
        })?;
    }
    if signal == Signal::SIGKILL {
        // The one thing that the kernel does not remove is left to the next lab.
        drop(Host::new()?);
    }
    ensure!(
        cgroups(&cgroup).is_empty(),
        "left behind: {:?}",
        cgroups(&cgroup)
    );
    Ok(())
}

/// A process, known by its number and by when it was started: numbers are used again.
#[derive(Debug)]
struct Process {
    pid: u32,
    started: String,
}

impl Process {
    fn new(pid: u32) -> Option<Self> {
        let started = Self::started(pid)?;
        Some(Self { pid, started })
    }

    /// Field 22 of /proc/PID/stat (proc_pid_stat(5)), counted from behind the name in parentheses.
    fn started(pid: u32) -> Option<String> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, behind_name) = stat.rsplit_once(')')?;
        behind_name.split_whitespace().nth(19).map(str::to_owned)
    }

    fn is_alive(&self) -> bool {
        Self::started(self.pid).is_some_and(|started| started == self.started)
    }
}

/// The processes of the PID namespace whose first process is `init`.
fn processes_of(init: u32) -> Result<Vec<Process>> {
    let namespace = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/pid"));
    let wanted = namespace(init)?;
    let all = fs::read_dir("/proc")?.flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Ok(pids
        .filter(|pid| namespace(*pid).is_ok_and(|namespace| namespace == wanted))
        .filter_map(Process::new)
        .collect())
}

/// The children of all threads of a process, the lab's first processes among them.
fn children(pid: u32) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let children = fs::read_to_string(thread?.path().join("children")).unwrap_or_default();
        found.extend(children.split_whitespace().flat_map(str::parse::<u32>));
    }
    found.retain(|child| {
        // Not those in this namespace, such as a command that is being run.
        let own = fs::read_link("/proc/self/ns/pid");
        let its = fs::read_link(format!("/proc/{child}/ns/pid"));
        matches!((own, its), (Ok(own), Ok(its)) if own != its)
    });
    Ok(found)
}

/// Where a cgroup of that name is.
fn cgroups(name: &str) -> Vec<String> {
    let found = Command::new("find")
        .args(["/sys/fs/cgroup", "-maxdepth", "2", "-name", name])
        .output();
    let found = found.map(|found| found.stdout).unwrap_or_default();
    String::from_utf8_lossy(&found)
        .lines()
        .map(str::to_owned)
        .collect()
}

fn has_cable(client: &Netns) -> Result<bool> {
    Ok(client.ip("-o link show")?.contains("eth0"))
}
