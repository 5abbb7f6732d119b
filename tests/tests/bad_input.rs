//! What portway is told wrong, or lacks: one clear sentence, the right exit status, nothing left behind.

use std::process::ExitCode;

use anyhow::{Result, ensure};
use portway_tests::{
    container::Container,
    footprint,
    harness::{self, Test},
    lab::{EXTERNAL, Lab},
    portway::{self, Portway},
    process::Finished,
    wait::PATIENCE,
};

fn main() -> ExitCode {
    harness::run([
        Test::of_portway("a_bad_spec_is_wrong_usage", specs),
        Test::of_portway("wrong_usage", usage),
        Test::of_portway("what_cannot_be_done", impossible),
        Test::of_portway("without_being_loaded", not_loaded),
        Test::of_portway("a_taken_port", taken),
        Test::of_portway("not_root", not_root),
        Test::of_portway("no_bpffs", no_bpffs),
        Test::of_portway("no_docker_at_the_socket", no_docker),
    ])
}

/// SPECs that are refused, and why; `docker run -p`'s words where it has any.
const SPECS: &[(&str, &str)] = &[
    ("9000:", "no port specified: 9000:"),
    ("9000", "no container address specified"),
    ("9000:80", "no container address specified"),
    ("127.0.0.1:80", "no container address specified"),
    ("9000:10.98.0.2:", "no port specified"),
    ("9000:10.98.0.2:80/foo", "invalid proto: foo"),
    ("9000:10.98.0.2:80/sctp", "sctp"),
    ("localhost:80:10.98.0.2:80", "invalid IP address: localhost"),
    ("9000:web:80", "invalid IP address: web"),
    ("9000:0.0.0.0:80", "invalid IP address: 0.0.0.0"),
    ("9000:127.0.0.1:80", "invalid IP address: 127.0.0.1"),
    ("9000:224.0.0.1:80", "invalid IP address: 224.0.0.1"),
    ("8000-8002:10.98.0.2:80-81", "invalid ranges specified"),
    ("8000-8002:10.98.0.2:80", "invalid ranges specified"),
    ("8002-8000:10.98.0.2:80", "invalid hostPort: 8002-8000"),
    ("65536:10.98.0.2:80", "invalid hostPort: 65536"),
    ("0:10.98.0.2:80", "invalid hostPort: 0"),
    ("-1:10.98.0.2:80", "invalid hostPort: -1"),
    ("http:10.98.0.2:80", "invalid hostPort: http"),
    ("9000:10.98.0.2:65536", "invalid containerPort: 65536"),
    ("9000:10.98.0.2:0", "invalid containerPort: 0"),
    ("127.0.0.1::10.98.0.2:80", "no hostPort specified"),
    ("[::1]:9000:10.98.0.2:80", "address families"),
    ("9000:fd00::2:80", "brackets"),
    ("", "no port specified"),
];

fn specs() -> Result<()> {
    let lab = Lab::new()?;
    let portway = Portway::new(&lab.host)?;
    for loaded in [false, true] {
        if loaded {
            portway.load("--admission direct")?;
        }
        for (spec, expected) in SPECS {
            // Not `output`, which would lose an empty SPEC; `--`, because one begins with a dash.
            let publish = portway.command("publish").args(["--", spec]).output()?;
            refused(&format!("publish {spec:?}"), &publish, 2, expected)?;
        }
        for (spec, expected) in [("65536", "invalid hostPort"), ("", "no port specified")] {
            let unpublish = portway.command("unpublish").args(["--", spec]).output()?;
            refused(&format!("unpublish {spec:?}"), &unpublish, 2, expected)?;
        }
        if !loaded {
            footprint::ensure_none(&lab.host)?;
        }
    }
    ensure!(
        portway.ls()?.is_empty(),
        "something was published: {:?}",
        portway.ls()?
    );
    // A bad --publish must not cost what is loaded, nor leave behind what it has just loaded.
    let refuse_run = || {
        let run = portway.output("run --no-docker --publish 9000:80")?;
        refused(
            "run --publish 9000:80",
            &run,
            2,
            "no container address specified",
        )
    };
    refuse_run()?;
    ensure!(
        portway.status()?.loaded,
        "a refused run has unloaded what it found"
    );
    portway.text("unload")?;
    refuse_run()?;
    footprint::ensure_none(&lab.host)
}

fn usage() -> Result<()> {
    let lab = Lab::new()?;
    for args in [
        "",
        "publsh",
        "publish",
        "publish 1:10.98.0.2:1 2:10.98.0.2:2",
        "load --mode fast",
        "load --admission everybody",
        "load --external",
        "run --docker",
        "ls --yaml",
        "status --instance",
        "ls --instance ../default",
        "ls --instance a.b",
    ] {
        let run = portway::program()?;
        let finished = lab
            .host
            .command(run)
            .args(args.split_whitespace())
            .output()?;
        ensure!(finished.code() == 2, "portway {args}: {finished}");
        ensure!(!finished.stderr.is_empty(), "portway {args}: says nothing");
    }
    footprint::ensure_none(&lab.host)
}

fn impossible() -> Result<()> {
    let lab = Lab::new()?;
    let portway = Portway::new(&lab.host)?;
    for (args, expected) in [
        ("load --external nosuch0", "nosuch0"),
        ("run --no-docker --external nosuch0", "nosuch0"),
        ("load --external ext0 --external nosuch0", "nosuch0"),
        (
            "run --no-docker --external ext0 --config /nosuch.toml",
            "/nosuch.toml",
        ),
    ] {
        refused(args, &portway.output(args)?, 1, expected)?;
        footprint::ensure_none(&lab.host)?;
    }
    // Without a default route nobody knows where clients come from.
    lab.host.ip("route del default")?;
    lab.host.ip("-6 route del default")?;
    refused("load", &portway.output("load")?, 1, "default route")?;
    footprint::ensure_none(&lab.host)
}

fn not_loaded() -> Result<()> {
    let lab = Lab::new()?;
    let portway = Portway::new(&lab.host)?;
    let unload = portway.output("unload")?;
    ensure!(unload.code() == 0, "unload: {unload}");
    let status = portway.status()?;
    ensure!(!status.loaded, "{status:?}");
    for args in ["publish 9000:10.98.0.2:80", "unpublish 9000", "flows"] {
        refused(args, &portway.output(args)?, 1, "load")?;
    }
    footprint::ensure_none(&lab.host)
}

fn taken() -> Result<()> {
    let lab = Lab::new()?;
    let web = Container::new(&lab.host, 1)?.serve(&["http/8080"])?;
    let host_process = Container::new(&lab.host, 2)?;
    let portway = Portway::new(&lab.host)?;
    portway.load("--admission direct")?;
    let container = web.address;
    portway.publish(&format!("9000:{container}:8080"))?;
    portway.publish(&format!("10.99.0.11:9100:{container}:8080"))?;
    for (spec, expected) in [
        (
            format!("9000:{}:80", host_process.address),
            "Bind for 0.0.0.0:9000 failed: port is already allocated",
        ),
        (
            format!("10.99.0.1:9000:{}:80", host_process.address),
            "Bind for 10.99.0.1:9000 failed: port is already allocated",
        ),
        (
            format!("9100:{}:80", host_process.address),
            "Bind for 0.0.0.0:9100 failed: port is already allocated",
        ),
        (
            format!("8999-9001:{}:80-82", host_process.address),
            "failed: port is already allocated",
        ),
    ] {
        let publish = portway.output(&format!("publish {spec}"))?;
        refused(&format!("publish {spec}"), &publish, 1, expected)?;
    }
    // Distinct addresses and protocols live side by side.
    portway.publish(&format!("10.99.0.1:9100:{container}:8080"))?;
    portway.publish(&format!("9000:{container}:8080/udp"))?;
    let unpublish = portway.output("unpublish 9055")?;
    refused("unpublish 9055", &unpublish, 1, "9055")?;
    ensure!(
        lab.get_from_outside(9000).is_ok(),
        "the first publication is gone"
    );
    ensure!(portway.ls()?.len() == 4, "{:?}", portway.ls()?);
    Ok(())
}

fn not_root() -> Result<()> {
    let lab = Lab::new()?;
    // Where nobody may read it, whatever the workspace's folders allow. Not copied by this process: a
    // test forking beside this one would keep the file open for writing, and so from being run.
    let program = "/run/portway";
    let install = lab.host.command("install").args(["-m", "755"]);
    install.arg(portway::program()?).arg(program).text()?;
    let as_nobody = |args: &str| {
        let command = lab.host.command(program).args(args.split_whitespace());
        refused(args, &command.as_nobody().output()?, 1, "root")
    };
    let changing = [
        "run --no-docker",
        "load",
        "unload",
        "publish 9000:10.98.0.2:80",
        "unpublish 9000",
    ];
    for args in changing {
        as_nobody(args)?;
    }
    footprint::ensure_none(&lab.host)?;
    lab.host.command(program).arg("load").text()?;
    for args in changing.into_iter().chain(["ls", "status", "flows"]) {
        as_nobody(args)?;
    }
    lab.host.command(program).arg("unload").text()?;
    footprint::ensure_none(&lab.host)
}

fn no_bpffs() -> Result<()> {
    let lab = Lab::new()?;
    let portway = Portway::new(&lab.host)?;
    // The machine's own may lie under the lab's.
    while lab
        .host
        .command("umount")
        .arg("/sys/fs/bpf")
        .output()?
        .code()
        == 0
    {}
    for args in ["load", "run --no-docker"] {
        let finished = portway.output(&format!("{args} --external {EXTERNAL}"))?;
        refused(args, &finished, 1, "mount -t bpf")?;
    }
    Ok(())
}

/// Docker may come yet: `run` says so and goes on.
fn no_docker() -> Result<()> {
    let lab = Lab::new()?;
    let portway = Portway::new(&lab.host)?;
    let run = portway.run("--docker unix:///run/nosuch.sock")?;
    run.line("/run/nosuch.sock", PATIENCE)?;
    ensure!(run.ended().is_none(), "ended:\n{}", run.said());
    portway.interrupt(&run)?;
    footprint::ensure_none(&lab.host)
}

/// Looks that a command has failed as it must: its exit status, one line on stderr, with `expected` in it.
fn refused(what: &str, finished: &Finished, code: i32, expected: &str) -> Result<()> {
    ensure!(
        finished.code() == code
            && finished.stderr.trim_end().lines().count() == 1
            && finished.stderr.contains(expected),
        "portway {what}: expected status {code} and one line with {expected:?}, got {finished}"
    );
    Ok(())
}
