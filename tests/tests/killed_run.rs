//! `portway run` killed at once: traffic goes on, and the next `run` adopts what it finds.

use std::process::ExitCode;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use portway_tests::{
    container::Container,
    conversation::{self, echo_over},
    docker::{self, DockerLab},
    harness::{self, Test},
    lab::{HOST, Lab},
    portway::Portway,
    wait::{self, PATIENCE},
};

fn main() -> ExitCode {
    harness::run([
        Test::of_portway("traffic_goes_on_without_it_and_the_next_adopts", killed),
        Test::with_docker("the_next_catches_up_with_docker", catches_up),
    ])
}

fn killed() -> Result<()> {
    let lab = Lab::new()?;
    let web = Container::new(&lab.host, 1)?.serve(&["http/8080", "tcp/8081"])?;
    let portway = Portway::new(&lab.host)?;
    let args = format!(
        "--no-docker --admission direct --publish 9000:{0}:8080 --publish 9001:{0}:8081",
        web.address
    );
    let run = portway.run(&args)?;
    portway.wait_active("tcp", 9000)?;
    portway.wait_active("tcp", 9001)?;
    let mut connection = lab
        .client
        .run(|| Ok(conversation::connect(None, (HOST, 9001).into())?))?;
    echo_over(&mut connection, "before")?;

    run.signal(Signal::SIGKILL);
    run.wait(PATIENCE)?;
    let mut both_ways = |when: &str| {
        let ((), used) = portway.measure(|| {
            ensure!(lab.get_from_outside(9000).is_ok(), "{when}: no answer");
            echo_over(&mut connection, when)
        })?;
        ensure!(used.both_ways(), "{when}: {used:?}");
        Ok(())
    };
    both_ways("after the kill")?;

    let run = portway.run(&args)?;
    wait::until_true("the next run at work", PATIENCE, || {
        Ok(!run.lines().is_empty())
    })?;
    both_ways("adopted")?;
    portway.interrupt(&run)?;
    both_ways("adopted and left alone")
}

fn catches_up() -> Result<()> {
    let lab = DockerLab::new()?;
    let host = &lab.host;
    docker::docker(host, "run -d --name web -p 9000:8080 echo")?;
    let portway = Portway::new(host)?;
    let run = portway.run_with_docker("")?;
    portway.wait_active("tcp", 9000)?;
    run.signal(Signal::SIGKILL);
    run.wait(PATIENCE)?;
    // What it misses.
    docker::docker(host, "rm --force web")?;
    docker::docker(host, "run -d --name other -p 9001:8080 echo")?;

    let _run = portway.run_with_docker("")?;
    portway.wait_active("tcp", 9001)?;
    wait::until_true("the end of a port that is gone", PATIENCE, || {
        Ok(portway.port("tcp", 9000)?.is_none())
    })?;
    let (answer, used) = portway.measure(|| Ok(lab.get_from_outside(9001)))?;
    ensure!(answer.is_ok() && used.both_ways(), "{answer:?}, {used:?}");
    Ok(())
}
