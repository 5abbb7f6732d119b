//! The program that containers take frames by in place of GRO, for those who ask.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use anyhow::{Context, Result, ensure};
use aya::programs::{Xdp, XdpMode};
use aya_obj::programs::XdpAttachType;
use dataplane_common::layout::programs;
use nix::sys::signal::Signal;
use portway::{hooks::interface_index, instance::Instance, netlink::offload, pinned};
use portway_tests::{
    container::Container,
    conversation::{self, Datagrams},
    footprint::Footprint,
    lab::{CLIENTS, EXTERNAL, HOST, HOST_V6, Lab},
    tun::{Kind, Tunnel},
    wait::{self, PATIENCE},
};

use crate::{ALL_BY_XDP, PORT, echo, is_by_xdp, load, publish, tcp, udp};

/// By what a container takes frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    /// It does not.
    Nothing,
    Gro,
    Program,
}

fn takes(container: &Container) -> Result<Takes> {
    let (has_program, has_gro) = (container.has_xdp()?, container.has_gro()?);
    ensure!(!(has_program && has_gro), "the program and GRO as well");
    Ok(match (has_program, has_gro) {
        (true, _) => Takes::Program,
        (_, true) => Takes::Gro,
        _ => Takes::Nothing,
    })
}

fn ensure_takes(container: &Container, expected: Takes, when: &str) -> Result<()> {
    let found = takes(container)?;
    ensure!(found == expected, "{when}: {found:?}, not {expected:?}");
    Ok(())
}

/// And it goes however portway leaves the container.
pub fn program() -> Result<()> {
    let lab = Lab::new()?;
    let container = echo(&lab, 1)?;
    let portway = load(&lab, &container, "--mode xdp --intake pass")?;
    lab.finish_checksums()?;
    ensure_takes(&container, Takes::Program, "published")?;
    for host in [IpAddr::from(HOST), HOST_V6.into()] {
        let used = udp(&portway, &lab.client, (host, PORT))?;
        ensure!(used == ALL_BY_XDP, "UDP to {host}: {used:?}");
        let used = tcp(&portway, &lab.client, (host, PORT))?;
        ensure!(is_by_xdp(used), "TCP to {host}: {used:?}");
    }
    let why = portway.status()?.external(EXTERNAL)?.xdp.why.clone();
    ensure!(
        why.ends_with("; containers that take frames by a program, without GRO: 1"),
        "{why}"
    );
    let change = |args: &str, expected| {
        portway.load(args)?;
        ensure_takes(&container, expected, args)
    };
    change("--intake gro", Takes::Gro)?;
    change("--intake pass", Takes::Program)?;
    change("", Takes::Program)?;
    let output = portway.output("load --mode tc --intake pass")?;
    ensure!(
        output.code() == 0
            && output
                .stderr
                .contains("--intake pass is for native XDP, which no external interface has"),
        "{output:?}"
    );
    ensure_takes(&container, Takes::Nothing, "without XDP")?;
    change("--mode xdp", Takes::Program)?;
    for port in [format!("{PORT}/udp"), format!("{PORT}/tcp")] {
        portway.text(&format!("unpublish {port}"))?;
    }
    ensure_takes(&container, Takes::Nothing, "withdrawn")?;
    publish(&portway, &container)?;
    let footprint = Footprint::of(&lab.host)?;
    portway.text("unload")?;
    ensure_takes(&container, Takes::Nothing, "unloaded")?;
    footprint.wait_gone(&lab.host)?;

    let run = portway.run(&format!(
        "--no-docker --admission direct --mode xdp --intake pass --publish {PORT}:{}:8080/udp",
        container.address
    ))?;
    portway.wait_active("udp", PORT)?;
    wait::until_true("the program in the container", PATIENCE, || {
        Ok(takes(&container)? == Takes::Program)
    })?;
    run.signal(Signal::SIGKILL);
    run.wait(PATIENCE)?;
    let used = udp(&portway, &lab.client, (HOST, PORT))?;
    ensure!(used == ALL_BY_XDP, "after a kill: {used:?}");
    let footprint = Footprint::of(&lab.host)?;
    portway.text("unload")?;
    ensure_takes(&container, Takes::Nothing, "unloaded after a kill")?;
    footprint.wait_gone(&lab.host)
}

/// Each of many that are under way has an answer.
pub fn changes() -> Result<()> {
    const CHANGES: usize = 20;
    let lab = Lab::new()?;
    let container = echo(&lab, 1)?;
    let portway = load(&lab, &container, "--mode xdp")?;
    lab.finish_checksums()?;
    let mut askers = lab.client.run(|| {
        let target = (HOST, PORT).into();
        let askers = CLIENTS.iter().cycle().take(4 * CLIENTS.len());
        askers
            .map(|client| Datagrams::new(conversation::from_address(*client), target))
            .collect::<Result<Vec<_>>>()
    })?;
    let is_over = AtomicBool::new(false);
    let ((), used) = portway.measure(|| {
        thread::scope(|scope| {
            let askers: Vec<_> = askers
                .iter_mut()
                .map(|asker| {
                    scope.spawn(|| {
                        while !is_over.load(Ordering::Relaxed) {
                            asker.echo(64)?;
                        }
                        Ok::<_, anyhow::Error>(())
                    })
                })
                .collect();
            let changed = ["pass", "gro"]
                .iter()
                .cycle()
                .take(CHANGES)
                .try_for_each(|intake| portway.load(&format!("--intake {intake}")).map(drop));
            is_over.store(true, Ordering::Relaxed);
            for asker in askers {
                let asked = asker.join().expect("no panic");
                asked.context("a datagram has no answer")?;
            }
            changed
        })
    })?;
    ensure!(used.by_xdp > 1000, "{used:?}");
    Ok(())
}

/// Frames of any size, both ways, and with a large MTU.
pub fn slow_path() -> Result<()> {
    let lab = Lab::new()?;
    let container = echo(&lab, 1)?;
    lab.host
        .ip(&format!("link set {} mtu 9000", container.veth))?;
    container.netns.ip("link set eth0 mtu 9000")?;
    let portway = load(&lab, &container, "--mode xdp --intake pass")?;
    ensure_takes(&container, Takes::Program, "with a large MTU")?;
    lab.host.run(|| {
        for address in [IpAddr::from(container.address), container.address_v6.into()] {
            conversation::bulk_echo(None, (address, 8081).into(), 1 << 22)?;
            let mut datagrams = Datagrams::new(None, (address, 8080).into())?;
            for length in [4, 1400, 8000, 30_000] {
                datagrams
                    .echo(length)
                    .with_context(|| format!("{length} bytes"))?;
            }
        }
        Ok(())
    })?;
    portway.text("unload").map(drop)
}

/// It goes on, by GRO.
pub fn foreign() -> Result<()> {
    let lab = Lab::new()?;
    let container = echo(&lab, 1)?;
    let portway = load(&lab, &container, "--mode xdp")?;
    lab.finish_checksums()?;
    let instance: Instance = portway.instance().parse()?;
    let program = lab.host.file(instance.program(programs::XDP));
    let mut program = Xdp::from_pin(program, XdpAttachType::Interface)?;
    // Where it has no frames to look for it passes all.
    container.netns.run(|| {
        program.attach_to_if_index(interface_index("eth0")?, XdpMode::Driver)?;
        Ok(())
    })?;
    let before = container.netns.ip("link show eth0")?;
    portway.load("--intake pass")?;
    ensure!(container.has_gro()?, "neither GRO nor a program of its own");
    let used = udp(&portway, &lab.client, (HOST, PORT))?;
    ensure!(used == ALL_BY_XDP, "{used:?}");
    portway.text("unload")?;
    let after = container.netns.ip("link show eth0")?;
    ensure!(before == after, "{before}\n{after}");
    Ok(())
}

/// Without it, and without GRO, what XDP redirects would be lost.
pub fn comes_back() -> Result<()> {
    let lab = Lab::new()?;
    let container = echo(&lab, 1)?;
    let portway = load(&lab, &container, "--mode xdp --intake pass")?;
    let run = portway.run("--no-docker")?;
    lab.finish_checksums()?;
    wait::until_true("run at work", PATIENCE, || Ok(!run.lines().is_empty()))?;
    let instance: Instance = portway.instance().parse()?;
    let pin = format!("{}-{}", programs::PASS, lab.host.index(&container.veth)?);
    pinned::detach(&lab.host.file(instance.links().join(pin)))?;
    wait::until_true("the program in the container", PATIENCE, || {
        Ok(takes(&container).is_ok_and(|takes| takes == Takes::Program))
    })?;
    let used = udp(&portway, &lab.client, (HOST, PORT))?;
    ensure!(used == ALL_BY_XDP, "{used:?}");
    portway.interrupt(&run)
}

/// One that is reached by TC anyway has nothing to gain.
pub fn tcp_alone() -> Result<()> {
    let lab = Lab::new()?;
    let _tap = Tunnel::new(Kind::Tap, "tap0", &lab.host, &lab.client)?;
    lab.host.ip("address add 10.97.0.1/24 dev tap0")?;
    let [with_udp, with_tcp] = [echo(&lab, 1)?, echo(&lab, 2)?];
    let portway = load(&lab, &with_udp, "--external tap0 --intake pass")?;
    portway.publish(&format!("9001:{}:8081/tcp", with_tcp.address))?;
    ensure_takes(&with_udp, Takes::Program, "with UDP")?;
    ensure_takes(&with_tcp, Takes::Gro, "with TCP alone")?;
    portway.publish(&format!("9001:{}:8080/udp", with_tcp.address))?;
    ensure_takes(&with_tcp, Takes::Program, "with UDP as well")?;
    portway.text("unpublish 9001/udp")?;
    ensure_takes(&with_tcp, Takes::Gro, "with TCP alone again")
}

/// Somebody has turned it on for reasons of his own.
pub fn gro_stays() -> Result<()> {
    let lab = Lab::new()?;
    let container = echo(&lab, 1)?;
    container
        .netns
        .run(|| offload::set_gro(interface_index("eth0")?, true))?;
    let portway = load(&lab, &container, "--mode xdp --intake pass")?;
    ensure_takes(&container, Takes::Program, "published")?;
    portway.text("unload")?;
    ensure_takes(&container, Takes::Gro, "unloaded")
}
