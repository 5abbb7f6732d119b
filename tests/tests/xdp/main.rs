//! XDP in front of TC: what goes by it, who decides, and that nothing of it stays.

mod intake;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    process::ExitCode,
};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use portway::{hooks::interface_index, netlink::offload};
use portway_tests::{
    container::Container,
    conversation::{self, Datagrams, echo_over},
    docker::{self, DockerLab},
    footprint::{self, Footprint},
    harness::{self, Test},
    kernel::{self, tc_hook},
    lab::{CLIENTS, EXTERNAL, HOST, HOST_V6, Lab},
    netns::Netns,
    portway::{Portway, Used},
    requirement::Requirement,
    tun::{Kind, Tunnel},
    wait::{self, PATIENCE},
};

fn main() -> ExitCode {
    use Requirement::{Docker, Ethtool, Kernel, Portway, Root, XdpFeatures};
    let with_ethtool =
        |name, run: fn() -> Result<()>| Test::new(name, &[Root, Kernel, Ethtool, Portway], run);
    harness::run([
        with_ethtool("finished_checksums_go_by_xdp", finished),
        Test::of_portway("unfinished_checksums_are_left_to_tc", unfinished),
        with_ethtool("a_flow_whose_route_is_renewed_stays_with_xdp", renewed),
        with_ethtool("containers_come_and_go", || containers("gro")),
        with_ethtool("containers_with_the_program_come_and_go", || {
            containers("pass")
        }),
        with_ethtool("gro_is_put_back", gro_is_put_back),
        Test::of_portway("gro_that_was_on_stays_on", gro_stays),
        with_ethtool("gro_that_somebody_turns_off_comes_back", gro_comes_back),
        with_ethtool("a_program_takes_the_place_of_gro", intake::program),
        with_ethtool(
            "no_datagram_is_lost_when_the_intake_changes",
            intake::changes,
        ),
        Test::of_portway(
            "the_kernels_own_path_leads_to_the_program_as_well",
            intake::slow_path,
        ),
        with_ethtool(
            "a_container_with_a_program_of_its_own_keeps_it",
            intake::foreign,
        ),
        Test::new(
            "a_program_that_somebody_takes_off_comes_back",
            &[Root, Kernel, Ethtool, XdpFeatures, Portway],
            intake::comes_back,
        ),
        Test::new(
            "a_container_with_tcp_alone_needs_no_program",
            &[Root, Kernel, XdpFeatures, Portway],
            intake::tcp_alone,
        ),
        Test::of_portway(
            "gro_that_was_on_before_the_program_stays_on",
            intake::gro_stays,
        ),
        with_ethtool("a_container_that_cannot_be_entered_stays_with_tc", hidden),
        Test::new(
            "auto_takes_udp_where_it_costs_nothing",
            &[Root, Kernel, XdpFeatures, Portway],
            auto,
        ),
        Test::of_portway("somebody_elses_program_stays", foreign),
        Test::of_portway("a_driver_without_xdp_is_refused", no_driver),
        Test::of_portway("a_driver_that_refuses_is_left_alone", refused),
        with_ethtool("the_mode_stays_until_it_is_changed", modes),
        with_ethtool("generic_xdp_is_there_for_those_who_ask", generic),
        with_ethtool("another_mac_is_the_hosts_as_well", another_mac),
        with_ethtool("the_firewall_has_its_say", firewall),
        Test::new(
            "a_docker_container_is_reached_also_when_it_is_restarted",
            &[Root, Kernel, Ethtool, Docker, Portway],
            restarted,
        ),
    ])
}

/// The published port, TCP's and UDP's, of both IP versions.
const PORT: u16 = 9000;

/// A container with an echo of TCP and of UDP.
fn echo(lab: &Lab, number: u8) -> Result<Container> {
    Container::new(&lab.host, number)?.serve(&["tcp/8081", "udp/8080"])
}

/// Loads portway, which admits flows, and publishes such a container.
fn load<'a>(lab: &'a Lab, container: &Container, args: &str) -> Result<Portway<'a>> {
    let portway = Portway::new(&lab.host)?;
    portway.load(&format!("--admission direct {args}"))?;
    publish(&portway, container)?;
    Ok(portway)
}

fn publish(portway: &Portway, container: &Container) -> Result<()> {
    for spec in specs(container) {
        portway.publish(&spec)?;
    }
    Ok(())
}

fn specs(container: &Container) -> [String; 4] {
    let (v4, v6) = (container.address, container.address_v6);
    [
        format!("{PORT}:{v4}:8081"),
        format!("{PORT}:{v4}:8080/udp"),
        format!("{PORT}:[{v6}]:8081"),
        format!("{PORT}:[{v6}]:8080/udp"),
    ]
}

/// Twenty datagrams there and back, always the same, and from the same port: their checksums are never those
/// that look unfinished.
fn udp(portway: &Portway, client: &Netns, target: impl Into<SocketAddr>) -> Result<Used> {
    let target = target.into();
    let ((), used) = portway.measure(|| {
        client.run(|| {
            let any: IpAddr = match target {
                SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            };
            let mut datagrams = Datagrams::new(Some((any, 5000).into()), target)?;
            for length in [4, 100, 1000, 1452].repeat(5) {
                datagrams.echo(length)?;
            }
            Ok(())
        })
    })?;
    Ok(used)
}

/// A TCP connection with many packets.
fn tcp(portway: &Portway, client: &Netns, target: impl Into<SocketAddr>) -> Result<Used> {
    let target = target.into();
    let ((), used) =
        portway.measure(|| client.run(|| conversation::bulk_echo(None, target, 1 << 20)))?;
    Ok(used)
}

/// Whether XDP has taken a TCP connection. One in 65,536 of its segments looks as if it had an unfinished
/// checksum.
fn is_by_xdp(used: Used) -> bool {
    used.both_ways() && used.forwarded - used.by_xdp <= 3
}

const ALL_BY_XDP: Used = Used {
    forwarded: 20,
    by_xdp: 20,
    replied: 20,
};

const ALL_BY_TC: Used = Used {
    by_xdp: 0,
    ..ALL_BY_XDP
};

fn finished() -> Result<()> {
    let lab = Lab::new()?;
    let container = echo(&lab, 1)?;
    let portway = load(&lab, &container, "--mode xdp")?;
    lab.finish_checksums()?;
    let status = portway.status()?;
    let external = status.external(EXTERNAL)?;
    ensure!(
        external.hooks == ["xdp", tc_hook()]
            && external.xdp.mode == "native"
            && external.xdp.protocols == ["tcp", "udp"]
            && external.xdp.why == "asked for with --mode xdp",
        "{external:?}"
    );
    for host in [IpAddr::from(HOST), HOST_V6.into()] {
        let used = udp(&portway, &lab.client, (host, PORT))?;
        ensure!(used == ALL_BY_XDP, "UDP to {host}: {used:?}");
        let used = tcp(&portway, &lab.client, (host, PORT))?;
        ensure!(is_by_xdp(used), "TCP to {host}: {used:?}");
    }
    let clients = container.clients("udp");
    ensure!(
        clients.len() == 40 && clients.iter().all(|client| !client.ip().is_loopback()),
        "{clients:?}"
    );
    let footprint = Footprint::of(&lab.host)?;
    portway.text("unload")?;
    footprint.wait_gone(&lab.host)
}

/// Its next packet is the one that has the route looked up.
fn renewed() -> Result<()> {
    let lab = Lab::new()?;
    let container = echo(&lab, 1)?;
    let portway = load(&lab, &container, "--mode xdp")?;
    lab.finish_checksums()?;
    for host in [IpAddr::from(HOST), HOST_V6.into()] {
        let used = udp(&portway, &lab.client, (host, PORT))?;
        ensure!(used == ALL_BY_XDP, "UDP to {host}: {used:?}");
    }
    // Another address of the host is a reason to look at every route again, once a command has seen it.
    lab.host.ip("address add 10.99.1.7/32 dev lo")?;
    portway.publish(&format!("9500:{}:8080/udp", container.address))?;
    for host in [IpAddr::from(HOST), HOST_V6.into()] {
        let used = udp(&portway, &lab.client, (host, PORT))?;
        ensure!(used == ALL_BY_XDP, "UDP to {host}, then: {used:?}");
    }
    Ok(())
}

/// A veth's sender leaves them to the link, which never does it. Real sockets do not notice.
fn unfinished() -> Result<()> {
    let lab = Lab::new()?;
    let container = echo(&lab, 1)?;
    let portway = load(&lab, &container, "--mode xdp")?;
    for host in [IpAddr::from(HOST), HOST_V6.into()] {
        let used = udp(&portway, &lab.client, (host, PORT))?;
        ensure!(used == ALL_BY_TC, "UDP to {host}: {used:?}");
        let used = tcp(&portway, &lab.client, (host, PORT))?;
        ensure!(used.both_ways(), "TCP to {host}: {used:?}");
    }
    Ok(())
}

/// Several at once, one of which is replaced by another at its address.
fn containers(intake: &str) -> Result<()> {
    let lab = Lab::new()?;
    let mut containers: Vec<_> = (1..=3)
        .map(|number| Container::new(&lab.host, number)?.serve(&["udp/8080"]))
        .collect::<Result<_>>()?;
    let published: Vec<_> = (PORT..)
        .zip(&containers)
        .map(|(port, container)| format!("--publish {port}:{}:8080/udp", container.address))
        .collect();
    let portway = Portway::new(&lab.host)?;
    let run = portway.run(&format!(
        "--no-docker --admission direct --mode xdp --intake {intake} {}",
        published.join(" ")
    ))?;
    lab.finish_checksums()?;
    let all_by_xdp = || {
        for port in PORT..PORT + 3 {
            portway.wait_active("udp", port)?;
            wait::until_true("all datagrams by XDP", PATIENCE, || {
                Ok(udp(&portway, &lab.client, (HOST, port))? == ALL_BY_XDP)
            })?;
        }
        Ok::<_, anyhow::Error>(())
    };
    all_by_xdp()?;

    let first = containers.remove(0);
    let address = first.address;
    drop(first);
    wait::until_true("its end", PATIENCE, || {
        Ok(lab.host.ip("link show c1").is_err())
    })?;
    let again = Container::at(&lab.host, 1, address)?.serve(&["udp/8080"])?;
    all_by_xdp()?;
    ensure!(
        again.has_gro()? == (intake == "gro"),
        "the new container takes frames by something else"
    );
    portway.interrupt(&run)?;
    footprint::ensure_none(&lab.host)
}

/// However portway leaves a container: its port is withdrawn, XDP is not wanted any more, portway is unloaded,
/// be it after its process was killed.
fn gro_is_put_back() -> Result<()> {
    let lab = Lab::new()?;
    let [one, two] = [echo(&lab, 1)?, echo(&lab, 2)?];
    let ensure_gro = |when: &str, expected: [bool; 2]| {
        let found = [one.has_gro()?, two.has_gro()?];
        ensure!(
            found == expected,
            "{when}: {found:?}, expected {expected:?}"
        );
        Ok(())
    };
    let portway = Portway::new(&lab.host)?;
    ensure_gro("before", [false, false])?;
    portway.load("--admission direct --mode xdp")?;
    publish(&portway, &one)?;
    portway.publish(&format!("9001:{}:8080/udp", two.address))?;
    ensure_gro("published", [true, true])?;
    portway.text("unpublish 9001/udp")?;
    ensure_gro("one withdrawn", [true, false])?;
    portway.text(&format!("unpublish {PORT}/udp"))?;
    ensure_gro("one port of several withdrawn", [true, false])?;
    portway.load("--mode tc")?;
    ensure_gro("TC alone", [false, false])?;
    portway.load("--mode xdp")?;
    ensure_gro("XDP again", [true, false])?;
    portway.text("unload")?;
    ensure_gro("unloaded", [false, false])?;

    let run = portway.run(&format!(
        "--no-docker --admission direct --mode xdp --publish 9001:{}:8080/udp",
        two.address
    ))?;
    portway.wait_active("udp", 9001)?;
    wait::until_true("GRO in the container", PATIENCE, || two.has_gro())?;
    run.signal(Signal::SIGKILL);
    run.wait(PATIENCE)?;
    ensure_gro("run is killed", [false, true])?;
    let footprint = Footprint::of(&lab.host)?;
    portway.text("unload")?;
    ensure_gro("unloaded after a kill", [false, false])?;
    footprint.wait_gone(&lab.host)
}

fn gro_stays() -> Result<()> {
    let lab = Lab::new()?;
    let container = echo(&lab, 1)?;
    container
        .netns
        .run(|| offload::set_gro(interface_index("eth0")?, true))?;
    let portway = load(&lab, &container, "--mode xdp")?;
    portway.text("unload")?;
    ensure!(container.has_gro()?, "somebody else's GRO is off");
    Ok(())
}

/// Without it, what XDP redirects would be lost.
fn gro_comes_back() -> Result<()> {
    let lab = Lab::new()?;
    let container = echo(&lab, 1)?;
    let portway = load(&lab, &container, "--mode xdp")?;
    let run = portway.run("--no-docker")?;
    lab.finish_checksums()?;
    wait::until_true("run at work", PATIENCE, || Ok(!run.lines().is_empty()))?;
    // Where the kernel tells, before portway would look by itself, which it does every ten seconds.
    let seen_within = if kernel::release() >= kernel::XDP_FEATURES {
        PATIENCE / 2
    } else {
        PATIENCE * 3
    };
    for _ in 0..3 {
        // It may be back before this has looked whether it is off, which is an error then.
        let _ = container
            .netns
            .run(|| offload::set_gro(interface_index("eth0")?, false));
        wait::until_true("GRO in the container", seen_within, || container.has_gro())?;
        let used = udp(&portway, &lab.client, (HOST, PORT))?;
        ensure!(used == ALL_BY_XDP, "{used:?}");
    }
    portway.interrupt(&run)
}

/// No process and no file on the host stands for its network namespace.
fn hidden() -> Result<()> {
    let lab = Lab::new()?;
    let container = Container::new(&lab.host, 1)?;
    let address = SocketAddr::from((container.address, 8080));
    let socket = container
        .netns
        .run(|| Ok(std::net::UdpSocket::bind(address)?))?;
    let portway = Portway::new(&lab.host)?;
    portway.load("--admission direct --mode xdp")?;
    portway.publish(&format!("{PORT}:{address}/udp"))?;
    lab.finish_checksums()?;
    let mut datagrams = lab
        .client
        .run(|| Datagrams::new(None, (HOST, PORT).into()))?;
    let ((), used) = portway.measure(|| {
        datagrams.send(64)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let (length, _) = socket.recv_from(&mut [0; 100])?;
        ensure!(length == 64, "{length} bytes");
        Ok(())
    })?;
    ensure!(used.forwarded == 1 && used.by_xdp == 0, "{used:?}");
    ensure!(!container.has_gro()?, "GRO all the same");
    let why = &portway.status()?.external(EXTERNAL)?.xdp.why.clone();
    ensure!(why.contains("cannot be reached"), "{why}");
    Ok(())
}

/// Not where clients come by a veth, but where they come by a tap device; and TCP nowhere.
fn auto() -> Result<()> {
    let lab = Lab::new()?;
    let _tap = Tunnel::new(Kind::Tap, "tap0", &lab.host, &lab.client)?;
    for (netns, number) in [(&*lab.host, 1), (&lab.client, 2)] {
        netns.ip(&format!("address add 10.97.0.{number}/24 dev tap0"))?;
        netns.ip(&format!("address add 2001:db8:97::{number}/64 dev tap0"))?;
    }
    let container = echo(&lab, 1)?;
    let portway = load(&lab, &container, "--external tap0")?;
    let status = portway.status()?;
    let by_veth = status.external(EXTERNAL)?;
    ensure!(
        by_veth.hooks == [tc_hook()]
            && by_veth.xdp.mode == "off"
            && by_veth.xdp.protocols.is_empty()
            && by_veth.xdp.why == "a veth's peer would lose segmentation offload",
        "{by_veth:?}"
    );
    let by_tap = status.external("tap0")?;
    ensure!(
        by_tap.hooks == ["xdp", tc_hook()]
            && by_tap.xdp.mode == "native"
            && by_tap.xdp.protocols == ["udp"]
            && by_tap.xdp.why == "it costs nothing here; TCP is left to TC, behind GRO",
        "{by_tap:?}"
    );
    for host in ["10.97.0.1", "2001:db8:97::1"] {
        let host: IpAddr = host.parse()?;
        let used = udp(&portway, &lab.client, (host, PORT))?;
        ensure!(used == ALL_BY_XDP, "UDP to {host}: {used:?}");
        let used = tcp(&portway, &lab.client, (host, PORT))?;
        ensure!(
            used.by_xdp == 0 && used.both_ways(),
            "TCP to {host}: {used:?}"
        );
    }
    let used = udp(&portway, &lab.client, (HOST, PORT))?;
    ensure!(used == ALL_BY_TC, "UDP by the veth: {used:?}");

    portway.load("--external tap0 --mode xdp")?;
    let used = tcp(
        &portway,
        &lab.client,
        ("10.97.0.1".parse::<IpAddr>()?, PORT),
    )?;
    ensure!(is_by_xdp(used), "TCP by XDP: {used:?}");
    let footprint = Footprint::of(&lab.host)?;
    portway.text("unload")?;
    footprint.wait_gone(&lab.host)
}

/// Another portway's, for one.
fn foreign() -> Result<()> {
    let lab = Lab::new()?;
    let container = echo(&lab, 1)?;
    let [first, second] = [Portway::new(&lab.host)?, Portway::new(&lab.host)?];
    first.load("--admission direct --mode xdp")?;
    let before = lab.host.ip(&format!("link show {EXTERNAL}"))?;
    let loaded = second.output(&format!(
        "load --external {EXTERNAL} --admission direct --mode xdp"
    ))?;
    ensure!(
        loaded.code() == 0 && loaded.stderr.contains("somebody else's XDP program"),
        "{loaded:?}"
    );
    publish(&second, &container)?;
    let status = second.status()?;
    let external = status.external(EXTERNAL)?;
    ensure!(
        external.hooks == [tc_hook()]
            && external.xdp.mode == "off"
            && external
                .xdp
                .why
                .contains("somebody else's XDP program is there")
            && external.xdp.why.contains("portway_xdp"),
        "{external:?}"
    );
    let used = udp(&second, &lab.client, (HOST, PORT))?;
    ensure!(used == ALL_BY_TC, "{used:?}");
    second.text("unload")?;
    let after = lab.host.ip(&format!("link show {EXTERNAL}"))?;
    ensure!(before == after, "{before}\n{after}");

    // When it is gone, the place is free.
    first.text("unload")?;
    second.load("--admission direct --mode xdp")?;
    ensure!(second.status()?.external(EXTERNAL)?.hooks == ["xdp", tc_hook()]);
    Ok(())
}

fn no_driver() -> Result<()> {
    let lab = Lab::new()?;
    lab.host.ip("link add ext1 type bridge")?;
    lab.host.ip("link set ext1 up")?;
    let portway = Portway::new(&lab.host)?;
    let refused = |args: &str| {
        let output = portway.output(args)?;
        ensure!(
            output.code() == 1
                && output
                    .stderr
                    .contains("no XDP on ext1: its driver has no native XDP")
                && output.stderr.contains("xdp-generic")
                && output.stderr.trim().lines().count() == 1,
            "{output:?}"
        );
        Ok(())
    };
    refused("load --external ext1 --admission direct --mode xdp")?;
    footprint::ensure_none(&lab.host)?;
    portway.text("load --external ext1 --admission direct")?;
    let why = &portway.status()?.external("ext1")?.xdp.why.clone();
    let expected = if kernel::release() >= kernel::XDP_FEATURES {
        "its driver has no native XDP"
    } else {
        "only Linux 6.3 and later tell what its driver can do"
    };
    ensure!(why == expected, "{why}");
    refused("load --mode xdp")?;
    let why = &portway.status()?.external("ext1")?.xdp.why.clone();
    ensure!(why == expected, "{why}");
    portway.text("load --mode xdp-generic")?;
    ensure!(portway.status()?.external("ext1")?.hooks == ["xdp-generic", tc_hook()]);
    Ok(())
}

/// As veth's does where the peer's MTU is too large for a frame in one piece. It is not asked again before the
/// next load.
fn refused() -> Result<()> {
    let lab = Lab::new()?;
    let container = echo(&lab, 1)?;
    lab.client.ip("link set eth0 mtu 9000")?;
    let portway = load(&lab, &container, "--mode xdp")?;
    let status = portway.status()?;
    let external = status.external(EXTERNAL)?;
    ensure!(
        external.hooks == [tc_hook()] && external.xdp.why.contains("its driver refuses"),
        "{external:?}"
    );
    ensure!(!container.has_gro()?, "GRO for nothing");
    lab.client.ip("link set eth0 mtu 1500")?;
    portway.publish(&format!("9001:{}:8080/udp", container.address))?;
    ensure!(portway.status()?.external(EXTERNAL)?.hooks == [tc_hook()]);
    portway.load("")?;
    ensure!(portway.status()?.external(EXTERNAL)?.hooks == ["xdp", tc_hook()]);
    Ok(())
}

/// Whoever comes later goes on with it; a change reaches what is published, and flows that live.
fn modes() -> Result<()> {
    let lab = Lab::new()?;
    let container = echo(&lab, 1)?;
    let portway = load(&lab, &container, "--mode xdp")?;
    lab.finish_checksums()?;
    let run = portway.run("--no-docker")?;
    wait::until_true("run at work", PATIENCE, || Ok(!run.lines().is_empty()))?;
    let mut connection: TcpStream = lab
        .client
        .run(|| Ok(conversation::connect(None, (HOST, PORT).into())?))?;
    let mut by_xdp = |portway: &Portway| {
        let ((), used) = portway.measure(|| echo_over(&mut connection, "over and over"))?;
        ensure!(used.both_ways(), "{used:?}");
        Ok(used.by_xdp > 0)
    };
    ensure!(by_xdp(&portway)?, "run has changed the mode");
    portway.interrupt(&run)?;
    for (mode, expected) in [
        ("tc", false),
        ("xdp", true),
        ("xdp-generic", true),
        ("auto", false),
        ("xdp", true),
    ] {
        portway.load(&format!("--mode {mode}"))?;
        ensure!(by_xdp(&portway)? == expected, "--mode {mode}");
    }
    Ok(())
}

fn generic() -> Result<()> {
    let lab = Lab::new()?;
    let container = echo(&lab, 1)?;
    let portway = load(&lab, &container, "--mode xdp-generic")?;
    lab.finish_checksums()?;
    let status = portway.status()?;
    let external = status.external(EXTERNAL)?;
    ensure!(
        external.hooks == ["xdp-generic", tc_hook()] && external.xdp.mode == "generic",
        "{external:?}"
    );
    ensure!(!container.has_gro()?, "GRO is of no use to it");
    for host in [IpAddr::from(HOST), HOST_V6.into()] {
        let used = udp(&portway, &lab.client, (host, PORT))?;
        ensure!(used == ALL_BY_XDP, "UDP to {host}: {used:?}");
        let used = tcp(&portway, &lab.client, (host, PORT))?;
        ensure!(used.both_ways(), "TCP to {host}: {used:?}");
    }
    let footprint = Footprint::of(&lab.host)?;
    portway.text("unload")?;
    footprint.wait_gone(&lab.host)
}

/// The program knows the host's frames by their destination.
fn another_mac() -> Result<()> {
    let lab = Lab::new()?;
    let container = echo(&lab, 1)?;
    let portway = Portway::new(&lab.host)?;
    let specs = specs(&container).map(|spec| format!("--publish {spec}"));
    let run = portway.run(&format!(
        "--no-docker --admission direct --mode xdp {}",
        specs.join(" ")
    ))?;
    portway.wait_active("udp", PORT)?;
    lab.finish_checksums()?;
    lab.host
        .ip(&format!("link set {EXTERNAL} address 02:00:00:00:99:77"))?;
    lab.client.ip("neigh flush all")?;
    wait::until_true("all datagrams by XDP", PATIENCE, || {
        Ok(udp(&portway, &lab.client, (HOST, PORT))? == ALL_BY_XDP)
    })?;
    portway.interrupt(&run)
}

/// Whom it admits goes by XDP, but for the packets that it has to see; whom it denies never gets through.
fn firewall() -> Result<()> {
    let lab = Lab::new()?;
    let container = echo(&lab, 1)?;
    container.publish_with_iptables(&lab.host, "udp", PORT, 8080)?;
    container.publish_with_iptables(&lab.host, "tcp", PORT, 8081)?;
    let iptables = lab.host.command("iptables");
    let rule = format!("-w -I FORWARD -s {} -j DROP", CLIENTS[1]);
    iptables.args(rule.split_whitespace()).text()?;
    let portway = Portway::new(&lab.host)?;
    portway.load("--admission netfilter --mode xdp")?;
    publish(&portway, &container)?;
    lab.finish_checksums()?;
    let target = SocketAddr::from((HOST, PORT));
    let mut admitted = lab
        .client
        .run(|| Datagrams::new(conversation::from_address(CLIENTS[0]), target))?;
    let ((), used) = portway.measure(|| {
        for _ in 0..100 {
            admitted.echo(64)?;
        }
        Ok(())
    })?;
    ensure!(used.by_xdp > 50 && used.by_xdp < 100, "{used:?}");
    let ((), used) = portway.measure(|| {
        lab.client
            .run(|| conversation::bulk_echo(None, target, 1 << 20))
    })?;
    ensure!(used.by_xdp > 50, "{used:?}");

    let mut denied = lab
        .client
        .run(|| Datagrams::new(conversation::from_address(CLIENTS[1]), target))?;
    let ((), used) = portway.measure(|| {
        for _ in 0..100 {
            denied.send(64)?;
        }
        // What comes after them has overtaken none of them.
        admitted.echo(64).context("one that is admitted")
    })?;
    ensure!(used.forwarded <= 1, "{used:?}");
    ensure!(
        container
            .clients("udp")
            .iter()
            .all(|client| client.ip() == CLIENTS[0]),
        "a client that is denied has been served"
    );
    Ok(())
}

fn restarted() -> Result<()> {
    let lab = DockerLab::new()?;
    docker::docker(&lab.host, "run -d --name web -p 9000:8080 echo")?;
    let portway = Portway::new(&lab.host)?;
    let run = portway.run_with_docker("--mode xdp")?;
    lab.finish_checksums()?;
    portway.wait_answer_by_xdp(&lab, PORT)?;
    docker::docker(&lab.host, "restart --time 0 web")?;
    portway.wait_answer_by_xdp(&lab, PORT)?;
    portway.interrupt(&run)?;
    footprint::ensure_none(&lab.host)
}
