//! IPv6: the kernel's own path is the oracle, with ip6tables' DNAT and with Docker's.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6},
    process::ExitCode,
};

use anyhow::{Context, Result, ensure};
use nix::{libc, setsockopt_impl, sockopt_impl, sys::socket::setsockopt};
use portway_tests::{
    container::{Container, GATEWAY_V6},
    conversation::{self, Datagrams, Silence, echo_over},
    docker::{self, DockerLab},
    guest::GREETING,
    harness::{self, Test},
    image::GUEST,
    iptables,
    lab::{CLIENTS, CLIENTS_V6, EXTERNAL, HOST, HOST_SECONDARY_V6, HOST_V6, Lab},
    netns::Netns,
    pass::words,
    portway::{Port, Portway, Used},
    wait::{self, PATIENCE},
};

fn main() -> ExitCode {
    harness::run([
        Test::of_portway("conversations_of_many_kinds", many_kinds),
        Test::of_portway("a_port_of_one_address_is_on_that_one_only", one_address),
        Test::of_portway("a_port_of_any_address_is_on_all_of_the_hosts", any_address),
        Test::of_portway("addresses_come_and_go_while_portway_runs", later_addresses),
        Test::of_portway("a_taken_port_is_refused_by_ip_version", taken),
        Test::of_portway("extension_headers_are_left_to_the_kernel", extensions),
        Test::of_portway("two_host_ports_of_one_container_port", colliding_replies),
        Test::of_portway("a_client_behind_a_link_local_gateway", gateway),
        Test::of_portway("a_container_that_comes_later_is_found", comes_later),
        Test::of_portway("a_default_route_of_ipv6_alone_is_followed", default_route),
        Test::with_dockerd("dockers_ports_over_both_ip_versions", with_docker),
        Test::with_dockerd("a_stopped_containers_flows_end", stopped),
        Test::with_dockerd("a_client_without_a_global_address_is_passed", link_local),
        Test::with_dockerd("what_docker_proxy_alone_serves_is_left_to_it", proxied),
        Test::with_dockerd("a_rule_of_ip6tables_keeps_its_say", firewall),
    ])
}

/// Lengths of UDP payloads: tiny, odd, as long as a frame takes, and fragmented.
const LENGTHS: [usize; 7] = [4, 5, 100, 511, 1452, 1453, 5000];

fn many_kinds() -> Result<()> {
    let lab = Lab::new()?;
    let web = Container::new(&lab.host, 1)?.serve(&["http/8080", "tcp/8081", "udp/8080"])?;
    let second = Container::new(&lab.host, 2)?.serve(&["http/8080"])?;
    for (container, protocol, host_port, port) in [
        (&web, "tcp", 9000, 8080),
        (&web, "tcp", 9001, 8081),
        (&web, "udp", 9000, 8080),
        (&second, "tcp", 9002, 8080),
        // Published, but nobody listens there.
        (&second, "tcp", 9003, 8088),
    ] {
        container.publish_with_ip6tables(&lab.host, protocol, host_port, port)?;
    }
    let mut before = Vec::new();
    converse(&lab, &mut before)?;
    let clients_before = [clients(&web, "tcp"), clients(&web, "udp")];
    ensure!(
        clients_before[0].len() == CLIENTS_V6.len(),
        "the oracle itself fails: {before:#?}"
    );

    let portway = Portway::new(&lab.host)?;
    portway.load("--admission direct")?;
    for spec in [
        format!("9000:[{}]:8080", web.address_v6),
        format!("[::]:9001:[{}]:8081", web.address_v6),
        format!("9000:[{}]:8080/udp", web.address_v6),
        format!("9002:[{}]:8080", second.address_v6),
        format!("9003:[{}]:8088", second.address_v6),
    ] {
        portway.publish(&spec)?;
    }
    let dnat = || -> Result<Vec<_>> {
        let ports = [("tcp", 9000), ("tcp", 9001), ("tcp", 9002)];
        let counted =
            ports.map(|(protocol, port)| iptables::dnat_packets_v6(&lab.host, protocol, port));
        counted.into_iter().collect()
    };
    let counted = dnat()?;
    let mut after = Vec::new();
    let ((), used) = portway.measure(|| converse(&lab, &mut after))?;
    let differences: Vec<_> = before.iter().zip(&after).filter(|(a, b)| a != b).collect();
    ensure!(
        differences.is_empty() && before.len() == after.len(),
        "without and with portway: {differences:#?}"
    );
    let clients_after = [clients(&web, "tcp"), clients(&web, "udp")];
    ensure!(
        clients_before == clients_after,
        "{clients_before:?}, with portway {clients_after:?}"
    );
    ensure!(used.both_ways(), "{used:?}");
    ensure!(
        counted == dnat()?,
        "TCP went through ip6tables: {counted:?}, now {:?}",
        dnat()?
    );
    Ok(())
}

fn converse(lab: &Lab, outcomes: &mut Vec<(String, String)>) -> Result<()> {
    for client in CLIENTS_V6 {
        for (address, port) in [
            (HOST_V6, 9000),
            (HOST_SECONDARY_V6, 9000),
            (HOST_V6, 9002),
            (HOST_V6, 9003),
            (HOST_V6, 9004),
            (HOST_V6, 8080),
        ] {
            let outcome = words(lab.get_from(client, (address, port)));
            outcomes.push((format!("http {client} -> [{address}]:{port}"), outcome));
        }
        let bulk = lab.client.run(|| {
            let source = conversation::from_address(client);
            let target = (HOST_V6, 9001).into();
            Ok(conversation::bulk_echo(source, target, 3 << 20))
        })?;
        outcomes.push((format!("bulk {client}"), format!("{bulk:?}")));
        for address in [HOST_V6, HOST_SECONDARY_V6] {
            for length in LENGTHS {
                let outcome = lab.client.run(|| {
                    let source = conversation::from_address(client);
                    let mut datagrams = Datagrams::new(source, (address, 9000).into())?;
                    // A small one first makes the flow.
                    let first = datagrams.echo(8);
                    Ok(format!("{first:?}, {:?}", datagrams.echo(length)))
                })?;
                let what = format!("udp {client} -> [{address}]:9000, {length} bytes");
                outcomes.push((what, outcome));
            }
        }
    }
    Ok(())
}

fn clients(container: &Container, protocol: &str) -> BTreeSet<IpAddr> {
    let clients = container.clients(protocol).into_iter();
    clients.map(|client| client.ip()).collect()
}

fn one_address() -> Result<()> {
    let lab = Lab::new()?;
    let web = Container::new(&lab.host, 1)?.serve(&["http/8080"])?;
    let portway = Portway::new(&lab.host)?;
    portway.load("--admission direct")?;
    portway.publish(&format!(
        "[{HOST_SECONDARY_V6}]:9000:[{}]:8080",
        web.address_v6
    ))?;
    expect_fast(&lab, &portway, HOST_SECONDARY_V6)?;
    expect_slow(&lab, &portway, HOST_V6)?;
    // The same port in the other IP version is another one.
    expect_slow(&lab, &portway, HOST)?;
    portway.publish(&format!("9000:{}:8080", web.address))?;
    expect_fast(&lab, &portway, HOST)?;
    portway.text(&format!("unpublish [{HOST_SECONDARY_V6}]:9000"))?;
    expect_slow(&lab, &portway, HOST_SECONDARY_V6)?;
    expect_fast(&lab, &portway, HOST)
}

fn any_address() -> Result<()> {
    let lab = Lab::new()?;
    let lo: Ipv6Addr = "2001:db8:96::1".parse()?;
    lab.host.ip(&format!("address add {lo}/128 dev lo"))?;
    let web = Container::new(&lab.host, 1)?.serve(&["http/8080"])?;
    let portway = Portway::new(&lab.host)?;
    portway.load("--admission direct")?;
    portway.publish(&format!("9000:[{}]:8080", web.address_v6))?;
    for address in [HOST_V6, HOST_SECONDARY_V6, lo, GATEWAY_V6] {
        expect_fast(&lab, &portway, address)?;
    }
    // To a container itself the host is only a router.
    let neighbour = Container::new(&lab.host, 2)?.serve(&["http/9000"])?;
    let target = (neighbour.address_v6, 9000);
    let (answer, used) = portway.measure(|| Ok(lab.get_from(CLIENTS_V6[0], target)))?;
    ensure!(
        answer.is_ok() && used == Used::NOTHING,
        "{answer:?}, {used:?}"
    );
    Ok(())
}

fn later_addresses() -> Result<()> {
    let lab = Lab::new()?;
    let later: Ipv6Addr = "2001:db8:99::77".parse()?;
    let web = Container::new(&lab.host, 1)?.serve(&["http/8080"])?;
    let portway = Portway::new(&lab.host)?;
    let publish = format!("9000:[{}]:8080", web.address_v6);
    let run = portway.run(&format!(
        "--no-docker --admission direct --publish {publish}"
    ))?;
    wait_active_v6(&portway, "tcp", 9000)?;
    lab.host
        .ip(&format!("address add {later}/64 dev {EXTERNAL}"))?;
    wait::until_true("the new address on the fast path", PATIENCE, || {
        Ok(expect_fast(&lab, &portway, later).is_ok())
    })?;
    lab.host
        .ip(&format!("address del {later}/64 dev {EXTERNAL}"))?;
    wait::until_true("the removed address off the fast path", PATIENCE, || {
        let target = (later, 9000);
        let (_, used) = portway.measure(|| Ok(lab.get_from(CLIENTS_V6[0], target)))?;
        Ok(used == Used::NOTHING)
    })?;
    portway.interrupt(&run)
}

/// A socket of the host is in the way of a publication of its own IP version only.
fn taken() -> Result<()> {
    let lab = Lab::new()?;
    let web = Container::new(&lab.host, 1)?.serve(&["http/8080"])?;
    let portway = Portway::new(&lab.host)?;
    portway.load("--admission direct")?;
    let v4 = lab
        .host
        .run(|| Ok(std::net::TcpListener::bind("0.0.0.0:9000")?))?;
    let spec = format!("9000:[{}]:8080", web.address_v6);
    portway.publish(&spec)?;
    let again = portway.output(&format!("publish {spec}"))?;
    ensure!(
        again.code() == 1
            && again
                .stderr
                .contains("Bind for :::9000 failed: port is already allocated"),
        "{again:?}"
    );
    portway.text("unpublish [::]:9000")?;
    drop(v4);
    // A child that has just been forked for another test holds the one before until it begins its own program.
    let _v6 = wait::until("a free port", PATIENCE, || {
        lab.host
            .run(|| Ok(std::net::TcpListener::bind("[::]:9000").ok()))
    })?;
    let refused = portway.output(&format!("publish {spec}"))?;
    let expected = format!(
        "failed to bind host port for [::]:9000:[{}]:8080/tcp: address already in use",
        web.address_v6
    );
    ensure!(
        refused.code() == 1 && refused.stderr.contains(&expected),
        "{refused:?}"
    );
    Ok(())
}

/// Options between IP and UDP header, before a flow is there and after.
fn extensions() -> Result<()> {
    let lab = Lab::new()?;
    let dns = Container::new(&lab.host, 1)?.serve(&["udp/8080"])?;
    dns.publish_with_ip6tables(&lab.host, "udp", 9000, 8080)?;
    let portway = Portway::new(&lab.host)?;
    portway.load("--admission direct")?;
    portway.publish(&format!("9000:[{}]:8080/udp", dns.address_v6))?;
    let options = portway.status()?.counter("ip_options");
    let (outcomes, used) = portway.measure(|| {
        lab.client.run(|| {
            let source = conversation::from_address(CLIENTS_V6[0]);
            let mut datagrams = Datagrams::new(source, (HOST_V6, 9000).into())?;
            add_destination_option(&datagrams)?;
            Ok([datagrams.echo(100), datagrams.echo(100)])
        })
    })?;
    ensure!(
        outcomes == [Ok(()), Ok(())] && used == Used::NOTHING,
        "{outcomes:?}, {used:?}"
    );
    let (outcomes, used) = portway.measure(|| {
        lab.client.run(|| {
            let source = conversation::from_address(CLIENTS_V6[1]);
            let mut datagrams = Datagrams::new(source, (HOST_V6, 9000).into())?;
            let without = datagrams.echo(100);
            add_destination_option(&datagrams)?;
            Ok([without, datagrams.echo(100)])
        })
    })?;
    ensure!(
        outcomes == [Ok(()), Ok(())] && used.forwarded == 1,
        "{outcomes:?}, {used:?}"
    );
    let counted = portway.status()?.counter("ip_options") - options;
    // The network's own reports of multicast listeners have one, too.
    ensure!(counted >= 3, "{counted} counted as such");
    Ok(())
}

sockopt_impl!(
    /// The header of destination options that every datagram carries (ipv6(7)).
    DestinationOptions,
    SetOnly,
    libc::IPPROTO_IPV6,
    libc::IPV6_DSTOPTS,
    [u8; 8]
);

/// Has every datagram carry a destination option that says nothing.
fn add_destination_option(datagrams: &Datagrams) -> Result<()> {
    // Next header and length, which the kernel and 8 bytes fill in, and PadN (RFC 8200 4.2).
    let header: [u8; 8] = [0, 0, 1, 4, 0, 0, 0, 0];
    setsockopt(datagrams.socket(), DestinationOptions, &header)
        .context("cannot set a destination option")
}

/// The replies of both flows look the same as they leave the container, unless one is given another
/// source port, as netfilter does.
fn colliding_replies() -> Result<()> {
    let lab = Lab::new()?;
    let dns = Container::new(&lab.host, 1)?.serve(&["udp/8080", "tcp/8081"])?;
    for host_port in [9000, 9001] {
        dns.publish_with_ip6tables(&lab.host, "udp", host_port, 8080)?;
        dns.publish_with_ip6tables(&lab.host, "tcp", host_port, 8081)?;
    }
    let without = both(&lab, SocketAddr::from((CLIENTS_V6[0], 5555)))?;
    let portway = Portway::new(&lab.host)?;
    portway.load("--admission direct")?;
    for host_port in [9000, 9001] {
        portway.publish(&format!("{host_port}:[{}]:8080/udp", dns.address_v6))?;
        portway.publish(&format!("{host_port}:[{}]:8081", dns.address_v6))?;
    }
    // Another port than before: netfilter remembers the first.
    let source = SocketAddr::from((CLIENTS_V6[0], 5556));
    let (with, used) = portway.measure(|| both(&lab, source))?;
    ensure!(
        without == with && used.both_ways(),
        "without portway {without:?}, with {with:?}, {used:?}"
    );
    Ok(())
}

/// Talks to both ports in turns, over UDP and TCP.
fn both(lab: &Lab, source: SocketAddr) -> Result<Vec<String>> {
    let targets = [9000, 9001].map(|port| SocketAddr::from((HOST_V6, port)));
    lab.client.run(|| {
        let mut sockets = Vec::new();
        let mut connections = Vec::new();
        for target in targets {
            sockets.push(Datagrams::sharing(source, target)?);
            connections.push(conversation::connect(Some(source), target)?);
        }
        let mut outcomes = Vec::new();
        for turn in 0..3 {
            for socket in &mut sockets {
                outcomes.push(format!("udp {turn}: {:?}", socket.echo(32)));
            }
            for connection in &mut connections {
                let echo = echo_over(connection, "hello").is_ok();
                outcomes.push(format!("tcp {turn}: {echo}"));
            }
        }
        Ok(outcomes)
    })
}

/// As router advertisements have it.
fn gateway() -> Result<()> {
    let lab = Lab::new()?;
    let far: Ipv6Addr = "2001:db8:77::1".parse()?;
    lab.client.ip(&format!("address add {far}/128 dev lo"))?;
    lab.client.sysctl("ipv6/conf/all/forwarding", "1")?;
    let gateway = link_local_address(&lab.client, "eth0")?;
    lab.host.ip("-6 route del default")?;
    lab.host
        .ip(&format!("route add default via {gateway} dev {EXTERNAL}"))?;
    let web = Container::new(&lab.host, 1)?.serve(&["http/8080"])?;
    let portway = Portway::new(&lab.host)?;
    portway.load("--admission direct")?;
    portway.publish(&format!("9000:[{}]:8080", web.address_v6))?;
    let (answer, used) = portway.measure(|| Ok(lab.get_from(far, (HOST_V6, 9000))))?;
    ensure!(answer.is_ok() && used.both_ways(), "{answer:?}, {used:?}");
    let seen: Vec<_> = web.clients("tcp").iter().map(SocketAddr::ip).collect();
    ensure!(seen == [IpAddr::from(far)], "{seen:?}");
    Ok(())
}

fn comes_later() -> Result<()> {
    let lab = Lab::new()?;
    // Makes the bridge.
    let _other = Container::new(&lab.host, 1)?;
    let portway = Portway::new(&lab.host)?;
    let run = portway.run("--no-docker --admission direct --publish 9000:[fd00:98::3]:8080")?;
    wait::until_true("a pending publication", PATIENCE, || {
        let port = port_v6(&portway, "tcp", 9000).ok().flatten();
        Ok(port.is_some_and(|port| port.state == "pending"))
    })?;
    let web = Container::new(&lab.host, 2)?.serve(&["http/8080"])?;
    ensure!(web.address_v6 == "fd00:98::3".parse::<Ipv6Addr>()?);
    wait_active_v6(&portway, "tcp", 9000)?;
    expect_fast(&lab, &portway, HOST_V6)?;
    portway.interrupt(&run)
}

fn default_route() -> Result<()> {
    let lab = Lab::new()?;
    let web = Container::new(&lab.host, 1)?.serve(&["http/8080"])?;
    lab.host.ip("-4 route del default")?;
    let portway = Portway::new(&lab.host)?;
    portway.text("load --admission direct")?;
    portway.publish(&format!("9000:[{}]:8080", web.address_v6))?;
    expect_fast(&lab, &portway, HOST_V6)
}

fn with_docker() -> Result<()> {
    let lab = DockerLab::with_ipv6(true)?;
    let host = &lab.host;
    docker::docker(host, "run -d --name web -p 9000:8080 echo")?;
    docker::docker(host, "network create v4only")?;
    docker::docker(host, "run -d --name old --network v4only -p 9001:8080 echo")?;
    docker::docker(host, "network create --ipv6 --subnet fd00:2::/64 dual")?;
    docker::docker(
        host,
        &format!("run -d --name bound --network dual -p [{HOST_SECONDARY_V6}]:9002:8080 echo"),
    )?;
    // Whether each is answered, and whether the container sees the client itself.
    let clients = || {
        let targets: [SocketAddr; 7] = [
            (HOST, 9000).into(),
            (HOST, 9001).into(),
            (HOST, 9002).into(),
            (HOST_V6, 9000).into(),
            (HOST_V6, 9001).into(),
            (HOST_V6, 9002).into(),
            (HOST_SECONDARY_V6, 9002).into(),
        ];
        targets.map(|target| {
            let client = client_of(target.ip());
            let answer = lab.get_from(client, target);
            let seen = answer.as_ref().ok().and_then(|answer| answer.client);
            let sees_client = seen.is_some_and(|seen| seen.ip() == client);
            (target, words(answer), sees_client)
        })
    };
    let without = clients();
    ensure!(
        without
            .iter()
            .filter(|(_, words, _)| words == GREETING)
            .count()
            == 5,
        "the oracle itself fails: {without:#?}"
    );
    let portway = Portway::new(host)?;
    let run = portway.run_with_docker("")?;
    portway.wait_active("tcp", 9000)?;
    let v6 = wait_active_v6(&portway, "tcp", 9000)?;
    ensure!(
        (&*v6.source, v6.name.as_deref(), v6.container_port) == ("docker", Some("web"), 8080)
            && v6.container_ip.starts_with("fd00:1::"),
        "{v6:?}"
    );
    portway.wait_active("tcp", 9001)?;
    let declined = port_v6(&portway, "tcp", 9001)?.context("no row for the IPv6 port")?;
    ensure!(
        declined.state == "declined"
            && declined.reason.as_deref()
                == Some("the container has no IPv6 address; docker-proxy serves it"),
        "{declined:?}"
    );
    let admission = portway.status()?.admission.context("no admission")?;
    ensure!(
        admission.mode == "direct" && admission.why == "only Docker's own rules are in force",
        "{admission:?}"
    );
    let dnat = iptables::dnat_packets_v6(host, "tcp", 9000)?;
    wait_active_v6(&portway, "tcp", 9002)?;
    let with = clients();
    ensure!(without == with, "without {without:#?}, with {with:#?}");
    ensure!(
        dnat.is_some() && dnat == iptables::dnat_packets_v6(host, "tcp", 9000)?,
        "went through ip6tables: {dnat:?}"
    );
    expect_fast(&lab, &portway, HOST_V6)?;
    expect_fast(&lab, &portway, HOST)?;
    let target = (HOST_SECONDARY_V6, 9002);
    let (answer, used) = portway.measure(|| Ok(lab.get_from(CLIENTS_V6[0], target)))?;
    ensure!(answer.is_ok() && used.both_ways(), "{answer:?}, {used:?}");
    let flows = portway.flows()?;
    let flow = flows
        .iter()
        .find(|flow| flow.host == format!("[{HOST_V6}]:9000"))
        .with_context(|| format!("{flows:?}"))?;
    ensure!(
        flow.client.starts_with(&format!("[{}]:", CLIENTS_V6[0]))
            && flow.container == format!("[{}]:8080", v6.container_ip)
            && flow.packets_in > 0
            && flow.packets_out > 0,
        "{flow:?}"
    );
    let by_port = |port: &Port| (port.packets_in > 0, port.packets_out > 0);
    let row = port_v6(&portway, "tcp", 9000)?.context("no row")?;
    ensure!(by_port(&row) == (true, true), "{row:?}");
    let status = portway.status()?;
    ensure!(status.ports == 5, "{status:?}");
    ensure!(
        usize::try_from(status.flows)? == portway.flows()?.len(),
        "{status:?}"
    );
    portway.interrupt(&run)
}

fn stopped() -> Result<()> {
    let lab = DockerLab::with_ipv6(true)?;
    let host = &lab.host;
    docker::docker(
        host,
        &format!("run -d --name dns -p 9000:8080/udp echo {GUEST} serve udp/8080"),
    )?;
    let portway = Portway::new(host)?;
    let run = portway.run_with_docker("--admission direct")?;
    wait_active_v6(&portway, "udp", 9000)?;
    let mut datagrams = lab
        .client
        .run(|| Datagrams::new(None, (HOST_V6, 9000).into()))?;
    let (answer, used) = portway.measure(|| Ok(datagrams.echo(100)))?;
    ensure!(answer.is_ok() && used.both_ways(), "{answer:?}, {used:?}");
    ensure!(portway.flows()?.len() == 1, "{:?}", portway.flows()?);
    docker::docker(host, "restart --time 0 dns")?;
    docker::wait_serving(host, "dns")?;
    ensure!(
        portway.flows()?.is_empty(),
        "still there: {:?}",
        portway.flows()?
    );
    wait_active_v6(&portway, "udp", 9000)?;
    let (answer, used) = portway.measure(|| Ok(datagrams.echo(100)))?;
    ensure!(answer.is_ok() && used.both_ways(), "{answer:?}, {used:?}");
    portway.interrupt(&run)
}

/// From 27 on Docker leaves such clients to docker-proxy; before, the kernel does not forward for them.
fn link_local() -> Result<()> {
    let lab = DockerLab::with_ipv6(true)?;
    docker::docker(&lab.host, "run -d --name web -p 9000:8080 echo")?;
    let source = SocketAddrV6::new(
        link_local_address(&lab.client, "eth0")?,
        0,
        0,
        lab.client.run(|| interface_index("eth0"))?,
    );
    let get = |target: SocketAddr| {
        lab.client.run(|| {
            Ok(conversation::http_get(
                Some(source.into()),
                &target.to_string(),
            ))
        })
    };
    let target = SocketAddr::from((HOST_V6, 9000));
    let without = words(get(target)?);
    let portway = Portway::new(&lab.host)?;
    let run = portway.run_with_docker("")?;
    wait_active_v6(&portway, "tcp", 9000)?;
    let (with, used) = portway.measure(|| get(target))?;
    ensure!(
        without == words(with.clone()) && used == Used::NOTHING,
        "without {without}, with {with:?}, {used:?}"
    );
    portway.interrupt(&run)
}

/// Its clients meet the rules for the host's own services, not those for containers.
fn proxied() -> Result<()> {
    let lab = DockerLab::with_ipv6(false)?;
    let host = &lab.host;
    docker::docker(host, "run -d --name web -p 9000:8080 echo")?;
    let portway = Portway::new(host)?;
    let run = portway.run_with_docker("")?;
    portway.wait_active("tcp", 9000)?;
    let declined = port_v6(&portway, "tcp", 9000)?.context("no row for the IPv6 port")?;
    ensure!(
        declined.state == "declined"
            && declined
                .reason
                .as_deref()
                .is_some_and(|reason| reason.contains("no rules for IPv6")),
        "{declined:?}"
    );
    let get = || Ok(lab.get_from(CLIENTS_V6[0], (HOST_V6, 9000)));
    let (answer, used) = portway.measure(get)?;
    ensure!(
        answer.is_ok() && used == Used::NOTHING,
        "{answer:?}, {used:?}"
    );
    let rule = "-w -I INPUT -p tcp --dport 9000 -j DROP";
    let ip6tables = host.command("ip6tables").args(rule.split_whitespace());
    ip6tables.text()?;
    let shut_out = lab.get_from(CLIENTS_V6[0], (HOST_V6, 9000));
    ensure!(shut_out == Err(Silence::NoAnswer), "{shut_out:?}");
    expect_fast(&lab, &portway, HOST)?;
    portway.interrupt(&run)
}

fn firewall() -> Result<()> {
    let lab = DockerLab::with_ipv6(true)?;
    let host = &lab.host;
    docker::docker(
        host,
        &format!(
            "run -d --name web -p 9000:8080 -p 9001:8081 echo {GUEST} serve http/8080 tcp/8081"
        ),
    )?;
    let portway = Portway::new(host)?;
    let run = portway.run_with_docker("")?;
    wait_active_v6(&portway, "tcp", 9000)?;
    expect_fast(&lab, &portway, HOST_V6)?;
    // Docker 20.10 has no chain DOCKER-USER here.
    let rule = format!("FORWARD -s {} -j DROP", CLIENTS_V6[1]);
    let ip6tables = |action: &str| {
        let command = host.command("ip6tables").args(["-w", action]);
        command.args(rule.split_whitespace()).text()
    };
    ip6tables("-I")?;
    let admission = wait::until("another admission", PATIENCE, || {
        let admission = portway.status()?.admission;
        Ok(admission.filter(|admission| admission.mode != "direct"))
    })?;
    ensure!(
        admission.why.starts_with("IPv6: filter FORWARD has rules"),
        "{admission:?}"
    );
    let shut_out = lab.get_from(CLIENTS_V6[1], (HOST_V6, 9000));
    ensure!(shut_out == Err(Silence::NoAnswer), "{shut_out:?}");
    // Whom the rule does not concern is accelerated as soon as ip6tables has let some packets through.
    let mut connection = lab.client.run(|| {
        let source = conversation::from_address(CLIENTS_V6[0]);
        Ok(conversation::connect(source, (HOST_V6, 9001).into())?)
    })?;
    wait::until_true("a lease", PATIENCE, || {
        let (echo, used) = portway.measure(|| Ok(echo_over(&mut connection, "hello")))?;
        echo?;
        Ok(used.both_ways())
    })?;
    ip6tables("-D")?;
    wait::until_true("admission direct again", PATIENCE, || {
        let admission = portway.status()?.admission;
        Ok(admission.is_some_and(|admission| admission.mode == "direct"))
    })?;
    expect_fast(&lab, &portway, HOST_V6)?;
    portway.interrupt(&run)
}

/// The row of an IPv6 port.
fn port_v6(portway: &Portway<'_>, protocol: &str, host_port: u16) -> Result<Option<Port>> {
    Ok(portway.ls()?.into_iter().find(|port| {
        port.protocol == protocol && port.host_port == host_port && port.host_ip.contains(':')
    }))
}

fn wait_active_v6(portway: &Portway<'_>, protocol: &str, host_port: u16) -> Result<Port> {
    let what = format!("portway having {protocol} {host_port} active over IPv6");
    wait::until(&what, PATIENCE, || {
        // A `run` that has just begun may not have loaded yet.
        let port = port_v6(portway, protocol, host_port).ok().flatten();
        Ok(port.filter(|port| port.state == "active"))
    })
    .with_context(|| portway.text("ls").unwrap_or_default())
}

fn client_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => CLIENTS[0].into(),
        IpAddr::V6(_) => CLIENTS_V6[0].into(),
    }
}

fn expect_fast(lab: &Lab, portway: &Portway<'_>, address: impl Into<IpAddr>) -> Result<()> {
    let address = address.into();
    let get = || Ok(lab.get_from(client_of(address), (address, 9000)));
    let (answer, used) = portway.measure(get)?;
    let body = answer.map(|answer| answer.body);
    ensure!(body.as_deref() == Ok(GREETING), "{address}: {body:?}");
    ensure!(used.both_ways(), "{address}: not the fast path: {used:?}");
    Ok(())
}

fn expect_slow(lab: &Lab, portway: &Portway<'_>, address: impl Into<IpAddr>) -> Result<()> {
    let address = address.into();
    let get = || Ok(lab.get_from(client_of(address), (address, 9000)));
    let (answer, used) = portway.measure(get)?;
    ensure!(
        answer == Err(Silence::Refused) && used == Used::NOTHING,
        "{address}: {answer:?}, {used:?}"
    );
    Ok(())
}

fn interface_index(name: &str) -> Result<u32> {
    Ok(nix::net::if_::if_nametoindex(name)?)
}

/// An interface's own link-local address.
fn link_local_address(netns: &Netns, interface: &str) -> Result<Ipv6Addr> {
    let shown = netns.ip(&format!("-6 -o address show dev {interface} scope link"))?;
    let address = shown
        .split_whitespace()
        .find_map(|word| word.strip_suffix("/64"));
    address
        .context("no link-local address")?
        .parse()
        .with_context(|| shown.clone())
}
