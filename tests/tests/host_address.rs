//! Which of the host's addresses a port is published on.

use std::{net::Ipv4Addr, process::ExitCode};

use anyhow::{Result, ensure};
use portway_tests::{
    container::{Container, GATEWAY},
    conversation::Silence,
    guest::GREETING,
    harness::{self, Test},
    lab::{CLIENTS, HOST, HOST_SECONDARY, Lab},
    portway::{Portway, Used},
};

fn main() -> ExitCode {
    harness::run([
        Test::of_portway("a_port_of_one_address_is_on_that_one_only", one_address),
        Test::of_portway("a_port_of_any_address_is_on_all_of_the_hosts", any_address),
        Test::of_portway(
            "an_address_added_later_counts_while_portway_runs",
            added_later,
        ),
        Test::of_portway("an_address_that_is_not_the_hosts_is_passed", transit),
    ])
}

fn one_address() -> Result<()> {
    let lab = Lab::new()?;
    let web = Container::new(&lab.host, 1)?.serve(&["http/8080"])?;
    let portway = Portway::new(&lab.host)?;
    portway.load("--admission direct")?;
    portway.publish(&format!("{HOST_SECONDARY}:9000:{}:8080", web.address))?;
    expect_fast(&lab, &portway, HOST_SECONDARY)?;
    expect_slow(&lab, &portway, HOST, &Silence::Refused)
}

fn any_address() -> Result<()> {
    let lab = Lab::new()?;
    let lo = Ipv4Addr::new(10, 96, 0, 1);
    lab.host.ip(&format!("address add {lo}/32 dev lo"))?;
    let web = Container::new(&lab.host, 1)?.serve(&["http/8080"])?;
    let portway = Portway::new(&lab.host)?;
    portway.load("--admission direct")?;
    portway.publish(&format!("9000:{}:8080", web.address))?;
    for address in [HOST, HOST_SECONDARY, lo, GATEWAY] {
        expect_fast(&lab, &portway, address)?;
    }
    Ok(())
}

fn added_later() -> Result<()> {
    let lab = Lab::new()?;
    let later = Ipv4Addr::new(10, 99, 0, 77);
    let web = Container::new(&lab.host, 1)?.serve(&["http/8080"])?;
    let portway = Portway::new(&lab.host)?;
    let publish = format!("9000:{}:8080", web.address);
    let run = portway.run(&format!(
        "--no-docker --admission direct --publish {publish}"
    ))?;
    portway.wait_active("tcp", 9000)?;
    lab.host.ip(&format!("address add {later}/24 dev ext0"))?;
    portway_tests::wait::until_true(
        "the new address on the fast path",
        portway_tests::wait::PATIENCE,
        || Ok(expect_fast(&lab, &portway, later).is_ok()),
    )?;
    lab.host.ip(&format!("address del {later}/24 dev ext0"))?;
    portway_tests::wait::until_true(
        "the removed address off the fast path",
        portway_tests::wait::PATIENCE,
        || {
            let (_, used) = portway.measure(|| Ok(lab.get_from(CLIENTS[0], (later, 9000))))?;
            Ok(used == Used::NOTHING)
        },
    )?;
    portway.interrupt(&run)
}

fn transit() -> Result<()> {
    let lab = Lab::new()?;
    let web = Container::new(&lab.host, 1)?.serve(&["http/8080", "http/9000"])?;
    // A neighbour that listens on the port itself: the host is only a router to it.
    let neighbour = Container::new(&lab.host, 2)?.serve(&["http/9000"])?;
    let portway = Portway::new(&lab.host)?;
    portway.load("--admission direct")?;
    portway.publish(&format!("9000:{}:8080", web.address))?;
    for target in [neighbour.address, web.address] {
        let (answer, used) = portway.measure(|| Ok(lab.get_from(CLIENTS[0], (target, 9000))))?;
        ensure!(
            answer.is_ok() && used == Used::NOTHING,
            "{target}: {answer:?}, {used:?}"
        );
    }
    Ok(())
}

fn expect_fast(lab: &Lab, portway: &Portway<'_>, address: Ipv4Addr) -> Result<()> {
    let (answer, used) = portway.measure(|| Ok(lab.get_from(CLIENTS[0], (address, 9000))))?;
    let body = answer.map(|answer| answer.body);
    ensure!(body.as_deref() == Ok(GREETING), "{address}: {body:?}");
    ensure!(used.both_ways(), "{address}: not the fast path: {used:?}");
    Ok(())
}

fn expect_slow(
    lab: &Lab,
    portway: &Portway<'_>,
    address: Ipv4Addr,
    expected: &Silence,
) -> Result<()> {
    let (answer, used) = portway.measure(|| Ok(lab.get_from(CLIENTS[0], (address, 9000))))?;
    ensure!(answer.as_ref() == Err(expected), "{address}: {answer:?}");
    ensure!(used == Used::NOTHING, "{address}: {used:?}");
    Ok(())
}
