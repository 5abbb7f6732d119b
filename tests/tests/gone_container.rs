//! With no process of portway to follow it, a container that has gone is noticed by the programs: its
//! packets are the kernel's again.

use std::process::ExitCode;

use anyhow::{Result, ensure};
use portway_tests::{
    container::Container,
    harness::{self, Test},
    lab::Lab,
    portway::Portway,
    wait::{self, PATIENCE},
};

fn main() -> ExitCode {
    harness::run([Test::of_portway(
        "the_kernel_serves_a_container_that_took_its_place",
        replaced,
    )])
}

fn replaced() -> Result<()> {
    let lab = Lab::new()?;
    let first = Container::new(&lab.host, 1)?.serve(&["http/8080"])?;
    first.publish_with_iptables(&lab.host, "tcp", 9000, 8080)?;
    let portway = Portway::new(&lab.host)?;
    portway.load("--admission direct")?;
    portway.publish(&format!("9000:{}:8080", first.address))?;
    let (answer, used) = portway.measure(|| Ok(lab.get_from_outside(9000)))?;
    ensure!(answer.is_ok() && used.both_ways(), "{answer:?}, {used:?}");

    let address = first.address;
    drop(first);
    wait::until_true("the end of its interface", PATIENCE, || {
        Ok(lab.host.ip("link show c1").is_err())
    })?;
    let _second = Container::at(&lab.host, 2, address)?.serve(&["http/8080"])?;
    // What the kernel remembers of the first one's MAC.
    lab.host.ip("neighbour flush all")?;
    let (answer, used) = portway.measure(|| Ok(lab.get_from_outside(9000)))?;
    ensure!(answer.is_ok() && !used.both_ways(), "{answer:?}, {used:?}");
    Ok(())
}
