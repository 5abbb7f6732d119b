//! `portway run` waits for a Docker daemon that is not there yet, and lives through its restart.

use std::process::ExitCode;

use anyhow::{Result, ensure};
use portway_tests::{
    docker::{self, Docker},
    guest::GREETING,
    harness::{self, Test},
    lab::Lab,
    pass::words,
    portway::Portway,
    wait::{self, PATIENCE},
};

fn main() -> ExitCode {
    harness::run([Test::with_docker(
        "run_follows_docker_through_a_restart",
        restart,
    )])
}

fn restart() -> Result<()> {
    let lab = Lab::new()?;
    let mut docker = Docker::start(&lab.host)?;
    docker::docker(&lab.host, "run -d --name web -p 9000:8080 echo")?;
    docker.down()?;

    let portway = Portway::new(&lab.host)?;
    let run = portway.run_with_docker("")?;
    wait::until_true("portway being loaded", PATIENCE, || {
        Ok(portway.status().is_ok_and(|status| status.loaded))
    })?;
    docker.up(&lab.host)?;
    docker::docker(&lab.host, "start web")?;
    answers(&lab, &portway)?;

    docker.down()?;
    docker.up(&lab.host)?;
    docker::docker(&lab.host, "start web")?;
    answers(&lab, &portway)?;
    portway.interrupt(&run)
}

fn answers(lab: &Lab, portway: &Portway<'_>) -> Result<()> {
    portway.wait_active("tcp", 9000)?;
    let (outcome, used) = portway.measure(|| Ok(words(lab.get_from_outside(9000))))?;
    ensure!(
        outcome == GREETING && used.both_ways(),
        "{outcome}, {used:?}"
    );
    Ok(())
}
