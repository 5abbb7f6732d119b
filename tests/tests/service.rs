//! The systemd unit: what it leaves portway, and that portway works with that, started by systemd.

use std::{
    fs,
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, ensure};
use portway_tests::{
    docker::{self, DockerLab},
    footprint,
    harness::{self, Test},
    host::Host,
    portway::{self, Portway},
    requirement::Requirement,
    unit,
    wait::{self, PATIENCE},
};

fn main() -> ExitCode {
    use Requirement::{Docker, Ethtool, Kernel, Portway, Root, Systemd};
    harness::run([
        Test::new("the_unit_is_tight", &[Systemd, Portway], tight),
        Test::new(
            "systemd_starts_it_again_and_ends_it",
            &[Root, Kernel, Ethtool, Docker, Systemd, Portway],
            service,
        ),
    ])
}

/// The highest exposure that `systemd-analyze security` may find, in tenths.
const EXPOSURE: &str = "27";

/// Where the program is, and what it says, in the host.
const PROGRAM: &str = "/run/portway-program";
const WORDS: &str = "/run/portway-words";

/// The unit's own way to arguments.
const ARGUMENTS: &str = "/run/portway-arguments";

/// What the unit names of a system that boots.
const TARGETS: [&str; 4] = ["basic", "network-online", "shutdown", "sysinit"];

fn tight() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let installed = folder.path().join(unit::NAME);
    let program = portway::program()?.canonicalize()?;
    fs::write(&installed, unit::with_program(&program)?)?;
    for arguments in [
        &["verify"][..],
        &[
            "security",
            "--offline=true",
            "--no-pager",
            "--threshold",
            EXPOSURE,
        ],
    ] {
        let output = Command::new("systemd-analyze")
            .args(arguments)
            .arg(&installed)
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        let table = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "{arguments:?}: {said}{table}");
        // What it does not know it only warns of.
        ensure!(!said.contains(unit::NAME), "{arguments:?}: {said}");
    }
    Ok(())
}

fn service() -> Result<()> {
    let units = tempfile::tempdir()?;
    install(units.path())?;
    let lab = DockerLab::around(Host::booted(units.path())?)?;
    fs::copy(portway::program()?, lab.host.file(PROGRAM))?;
    fs::write(lab.host.file(ARGUMENTS), "PORTWAY_ARGS=--mode xdp\n")?;
    let ethtool = lab.client.command("ethtool");
    ethtool.args(["-K", "eth0", "tx", "off"]).text()?;
    docker::link_namespaces(&lab.host)?;
    docker::docker(&lab.host, "run -d --name web -p 9000:8080 echo")?;

    let portway = Portway::again(&lab.host, "default")?;
    let answers_by_xdp = || {
        wait::until_true("an answer by XDP alone", PATIENCE, || {
            let (answer, used) = portway.measure(|| Ok(lab.get_from_outside(9000)))?;
            Ok(answer.is_ok() && used.both_ways() && used.by_xdp == used.forwarded)
        })
    };
    systemctl(&lab.host, "start portway")?;
    let active = |port| {
        portway
            .wait_active("tcp", port)
            .with_context(|| words(&lab.host))
    };
    active(9000)?;
    answers_by_xdp()?;

    let first = main_pid(&lab.host)?;
    systemctl(&lab.host, "kill --signal=SIGKILL portway")?;
    ensure!(lab.get_from_outside(9000).is_ok(), "no answer without it");
    wait::until_true("its next life", PATIENCE, || {
        let pid = main_pid(&lab.host)?;
        Ok(pid != 0 && pid != first)
    })?;
    docker::docker(&lab.host, "run -d --name other -p 9001:8080 echo")?;
    active(9001)?;
    answers_by_xdp()?;

    systemctl(&lab.host, "stop portway")?;
    footprint::ensure_none(&lab.host).with_context(|| words(&lab.host))?;
    ensure!(lab.get_from_outside(9000).is_ok(), "no answer after it");
    Ok(())
}

/// Makes the unit one of a system that has nothing else.
fn install(units: &Path) -> Result<()> {
    for target in TARGETS {
        let text = format!("[Unit]\nDescription={target}\nDefaultDependencies=no\n");
        fs::write(units.join(format!("{target}.target")), text)?;
    }
    fs::write(
        units.join(unit::NAME),
        unit::with_program(Path::new(PROGRAM))?,
    )?;
    let own = units.join(format!("{}.d", unit::NAME));
    fs::create_dir(&own)?;
    let own_text = format!(
        "[Service]\nEnvironmentFile=\nEnvironmentFile={ARGUMENTS}\n\
         StandardOutput=append:{WORDS}\nStandardError=append:{WORDS}\n"
    );
    fs::write(own.join("lab.conf"), own_text)?;
    Ok(())
}

fn systemctl(host: &Host, args: &str) -> Result<String> {
    let command = host.command("systemctl").args(args.split_whitespace());
    command.text().with_context(|| words(host))
}

fn main_pid(host: &Host) -> Result<u32> {
    Ok(systemctl(host, "show --value --property=MainPID portway")?.parse()?)
}

/// What the service has said.
fn words(host: &Host) -> String {
    fs::read_to_string(host.file(WORDS)).unwrap_or_default()
}
