//! A publication of an address that does not answer is kept, said to be pending, and becomes active
//! with the container.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use portway_tests::{
    container::Container,
    harness::{self, Test},
    lab::Lab,
    portway::{Portway, Used},
    wait::{self, PATIENCE},
};

fn main() -> ExitCode {
    harness::run([
        Test::of_portway("an_address_that_does_not_answer_is_pending", pending),
        Test::of_portway(
            "a_pending_port_follows_its_container_while_portway_runs",
            comes_later,
        ),
    ])
}

/// An address of the bridge that no container has.
const NOBODY: &str = "10.98.0.66";

/// What `publish` may take to give up waiting: a second, and the machine's own time.
const LIMIT: Duration = Duration::from_secs(3);

fn pending() -> Result<()> {
    let lab = Lab::new()?;
    let _bridge = Container::new(&lab.host, 1)?;
    let portway = Portway::new(&lab.host)?;
    portway.load("--admission direct")?;
    let begin = Instant::now();
    let said = portway.text(&format!("publish 9000:{NOBODY}:8080"))?;
    let took = begin.elapsed();
    ensure!(
        said.contains("pending"),
        "does not say that it is pending: {said:?}"
    );
    ensure!(took < LIMIT, "took {took:?}");
    let port = portway.port("tcp", 9000)?.context("not kept")?;
    ensure!(
        port.state == "pending"
            && port
                .reason
                .as_deref()
                .is_some_and(|reason| !reason.is_empty()),
        "{port:?}"
    );
    let (outcome, used) = portway.measure(|| Ok(lab.get_from_outside(9000)))?;
    ensure!(
        outcome.is_err() && used == Used::NOTHING,
        "{outcome:?}, {used:?}"
    );
    portway.text("unpublish 9000")?;
    ensure!(portway.ls()?.is_empty(), "still there");
    Ok(())
}

fn comes_later() -> Result<()> {
    let lab = Lab::new()?;
    let _bridge = Container::new(&lab.host, 1)?;
    let portway = Portway::new(&lab.host)?;
    let run = portway.run(&format!(
        "--no-docker --admission direct --publish 9000:{NOBODY}:8080"
    ))?;
    wait::until_true("the pending port", PATIENCE, || {
        let port = portway.port("tcp", 9000).ok().flatten();
        Ok(port.is_some_and(|port| port.state == "pending"))
    })?;
    let _late = Container::at(&lab.host, 2, NOBODY.parse()?)?.serve(&["http/8080"])?;
    portway.wait_active("tcp", 9000)?;
    let (outcome, used) = portway.measure(|| Ok(lab.get_from_outside(9000)))?;
    ensure!(outcome.is_ok() && used.both_ways(), "{outcome:?}, {used:?}");
    portway.interrupt(&run)
}
