//! The systemd unit: what it leaves portway, and that portway works with that, started by systemd.

use std::{
    fs,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, ensure};
use portway_tests::{
    docker::{self, DockerLab},
    footprint, guest,
    harness::{self, Test},
    host::Host,
    portway::{self, AT_WORK, Portway},
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

/// What it says, in the host.
const WORDS: &str = "/run/portway-words";

fn tight() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let installed = folder.path().join(unit::NAME);
    let program = portway::program()?.canonicalize()?;
    let text = unit::text()?.replace(unit::PROGRAM, &program.display().to_string());
    fs::write(&installed, text)?;
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
    let lab = DockerLab::around(Host::booted()?)?;
    lab.finish_checksums()?;
    docker::link_namespaces(&lab.host)?;
    docker::docker(&lab.host, "run -d --name web -p 9000:8080 echo")?;
    install(&lab.host, "PORTWAY_ARGS=--mode xdp\n")?;

    let portway = Portway::again(&lab.host, "default")?;
    let is_answered_by_xdp = |port| {
        let answered = portway.wait_answer_by_xdp(&lab, port);
        answered.with_context(|| words(&lab.host))
    };
    systemctl(&lab.host, "start portway")?;
    is_answered_by_xdp(9000)?;

    let first = main_pid(&lab.host)?;
    systemctl(&lab.host, "kill --signal=SIGKILL portway")?;
    ensure!(lab.get_from_outside(9000).is_ok(), "no answer without it");
    wait::until_true("its next life", PATIENCE, || {
        let pid = main_pid(&lab.host)?;
        Ok(pid != 0 && pid != first)
    })?;
    docker::docker(&lab.host, "run -d --name other -p 9001:8080 echo")?;
    is_answered_by_xdp(9001)?;

    // One that cannot begin, and one that ends, leave what another follows.
    let following = main_pid(&lab.host)?;
    let bad = portway.output("run --unload-at-end --mode tc --publish 9001:10.0.0.1:80")?;
    ensure!(bad.code() == 1, "{bad}");
    let second = portway.run_with_docker("--unload-at-end")?;
    second.line(AT_WORK, PATIENCE)?;
    portway.interrupt(&second)?;
    is_answered_by_xdp(9001)?;
    let pid = main_pid(&lab.host)?;
    ensure!(pid == following, "started again: {}", words(&lab.host));

    systemctl(&lab.host, "stop portway")?;
    footprint::ensure_none(&lab.host).with_context(|| words(&lab.host))?;
    ensure!(lab.get_from_outside(9000).is_ok(), "no answer after it");
    Ok(())
}

/// Installs it as its first lines say.
fn install(host: &Host, defaults: &str) -> Result<()> {
    let program = host.file(unit::PROGRAM);
    fs::copy(portway::program()?, program).context("cannot install the program")?;
    fs::write(host.file("/etc/default/portway"), defaults)?;
    let units = host.file(guest::UNITS);
    fs::write(units.join(unit::NAME), unit::text()?)?;
    let own = units.join(format!("{}.d", unit::NAME));
    fs::create_dir(&own)?;
    // Nobody keeps a journal.
    let output =
        format!("[Service]\nStandardOutput=append:{WORDS}\nStandardError=append:{WORDS}\n");
    fs::write(own.join("output.conf"), output)?;
    systemctl(host, "daemon-reload")?;
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
