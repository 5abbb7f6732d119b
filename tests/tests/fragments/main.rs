//! Datagrams in fragments: none is lost that the kernel would have delivered, whichever way it goes, in
//! whatever order its fragments come, and whether or not the kernel's rules could translate it as well.

mod ipv6;
mod talk;

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    process::ExitCode,
};

use anyhow::{Context, Result, ensure};
use portway_tests::{
    container::Container,
    harness::{self, Test},
    lab::{CLIENTS, HOST, Lab},
    portway::{Portway, Used},
    raw::{Datagram, Sender},
};
use talk::{CUTS, FULL, content, count, expect, orders, pick, socket};

fn main() -> ExitCode {
    harness::run([
        Test::of_portway("a_small_request_has_a_big_answer", || {
            big_answers(false)?;
            big_answers(true)
        }),
        Test::of_portway("a_request_in_any_order", || any_order(false)),
        Test::of_portway("a_request_in_any_order_with_rules_behind", || {
            any_order(true)
        }),
        Test::of_portway("an_answer_in_any_order", || {
            answers_in_any_order(false)?;
            answers_in_any_order(true)
        }),
        Test::of_portway("one_identification_again_and_again", || {
            one_identification(false)?;
            one_identification(true)
        }),
        Test::of_portway(
            "what_is_not_published_reaches_the_hosts_socket",
            not_published,
        ),
        Test::of_portway("a_big_request_of_the_hosts_own_is_noted", own_request),
        Test::of_portway(
            "a_small_request_has_a_big_answer_over_ipv6",
            ipv6::big_answers,
        ),
        Test::of_portway("both_ways_in_any_order_over_ipv6", ipv6::any_order),
        Test::of_portway(
            "a_whole_packet_with_a_fragment_header_over_ipv6",
            ipv6::whole,
        ),
        Test::of_portway("nothing_is_held_where_the_kernel_admits", kernel_admits),
    ])
}

const CLIENT: SocketAddr = at(CLIENTS[0], 5555);
const SERVICE: SocketAddr = at(HOST, 9000);

const fn at(address: Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddr::V4(SocketAddrV4::new(address, port))
}

/// A container that is published at 9000 and echoes, with the kernel's rules for it or without any.
fn echo(lab: &Lab, number: u8, host_port: u16, with_rules: bool) -> Result<Container> {
    let container = Container::new(&lab.host, number)?.serve(&["udp/8080"])?;
    if with_rules {
        container.publish_with_iptables(&lab.host, "udp", host_port, 8080)?;
    }
    Ok(container)
}

fn load<'a>(lab: &'a Lab, published: &[(u16, &Container)]) -> Result<Portway<'a>> {
    let portway = Portway::new(&lab.host)?;
    portway.load("--admission direct")?;
    for (port, container) in published {
        portway.publish(&format!("{port}:{}:8080/udp", container.address))?;
    }
    Ok(portway)
}

fn big_answers(with_rules: bool) -> Result<()> {
    const LENGTH: usize = 8192;
    let lab = Lab::new()?;
    let container = Container::new(&lab.host, 1)?;
    if with_rules {
        container.publish_with_iptables(&lab.host, "udp", 9000, 8080)?;
    }
    let portway = load(&lab, &[(9000, &container)])?;
    let own = at(container.address, 8080);
    let server = container.netns.run(|| socket(own, None))?;
    let client = lab.client.run(|| socket(CLIENT, Some(SERVICE)))?;
    let ((), used) = portway
        .measure(|| {
            for seed in 0..20 {
                client.send(b"small")?;
                let asker = expect(&server, b"small")?;
                server.send_to(&content(seed, LENGTH), asker)?;
                // Connected, the socket hears the published port only.
                expect(&client, &content(seed, LENGTH))
                    .with_context(|| format!("answer {seed}, rules: {with_rules}"))?;
            }
            Ok(())
        })
        .with_context(|| portway.text("status").unwrap_or_default())?;
    let pieces = (LENGTH + 8).div_ceil(1480) as u64;
    let expected = Used {
        forwarded: 20,
        by_xdp: 0,
        replied: 20 * pieces,
    };
    ensure!(used == expected, "{used:?}, rules: {with_rules}");
    Ok(())
}

fn any_order(with_rules: bool) -> Result<()> {
    let lab = Lab::new()?;
    let container = echo(&lab, 1, 9000, with_rules)?;
    // The kernel alone first, to see that it delivers all of it.
    if with_rules {
        converse(&lab, 1).context("without portway")?;
    }
    let portway = load(&lab, &[(9000, &container)])?;
    let ((), used) = portway
        .measure(|| converse(&lab, 2))
        .with_context(|| portway.text("status").unwrap_or_default())?;
    ensure!(used.both_ways(), "{used:?}");
    if with_rules {
        let conversations = portway_tests::iptables::dnat_packets(&lab.host, "udp", 9000)?;
        ensure!(
            conversations == Some(1),
            "the kernel translated {conversations:?} conversations, one of them without portway"
        );
    }
    Ok(())
}

/// Sends datagrams of several lengths in every order, and reads their echoes.
fn converse(lab: &Lab, round: u16) -> Result<()> {
    let source = at(CLIENTS[0], 5550 + round);
    lab.client.run(|| {
        let client = socket(source, Some(SERVICE))?;
        let sender = Sender::new(CLIENT.ip())?;
        let mut id = 0;
        for (length, size) in CUTS {
            for (number, order) in orders(count(length, size)).into_iter().enumerate() {
                id += 1;
                let payload = content(id as usize, length);
                let datagram = Datagram {
                    source,
                    destination: SERVICE,
                    id,
                    payload: &payload,
                };
                sender.send(HOST.into(), pick(&datagram.fragments(size), &order))?;
                expect(&client, &payload)
                    .with_context(|| format!("{length} bytes by {size}, order {number}"))?;
            }
        }
        Ok(())
    })
}

fn answers_in_any_order(with_rules: bool) -> Result<()> {
    let lab = Lab::new()?;
    let container = Container::new(&lab.host, 1)?;
    if with_rules {
        container.publish_with_iptables(&lab.host, "udp", 9000, 8080)?;
    }
    let portway = load(&lab, &[(9000, &container)])?;
    let own = at(container.address, 8080);
    let server = container.netns.run(|| socket(own, None))?;
    let sender = container.netns.run(|| Sender::new(own.ip()))?;
    let client = lab.client.run(|| socket(CLIENT, Some(SERVICE)))?;
    client.send(b"small")?;
    expect(&server, b"small")?;
    let mut id = 0;
    let ((), used) = portway
        .measure(|| {
            for (length, size) in CUTS {
                for (number, order) in orders(count(length, size)).into_iter().enumerate() {
                    // A duplicate that comes late would spoil the next datagram of its identification anywhere.
                    id += 1;
                    let payload = content(id as usize, length);
                    let datagram = Datagram {
                        source: own,
                        destination: CLIENT,
                        id,
                        payload: &payload,
                    };
                    sender.send(CLIENT.ip(), pick(&datagram.fragments(size), &order))?;
                    expect(&client, &payload)
                        .with_context(|| format!("{length} bytes by {size}, order {number}"))?;
                }
            }
            Ok(())
        })
        .with_context(|| portway.text("status").unwrap_or_default())?;
    ensure!(used.replied > 0, "{used:?}");
    Ok(())
}

/// Datagrams to two containers in turns, all of one identification: none gets a fragment of another's.
fn one_identification(with_rules: bool) -> Result<()> {
    let lab = Lab::new()?;
    let one = echo(&lab, 1, 9000, with_rules)?;
    let other = echo(&lab, 2, 9001, with_rules)?;
    let portway = load(&lab, &[(9000, &one), (9001, &other)])?;
    let sources = [5561, 5562].map(|port| at(CLIENTS[0], port));
    let targets = [9000, 9001].map(|port| at(HOST, port));
    lab.client
        .run(|| {
            let clients = [
                socket(sources[0], Some(targets[0]))?,
                socket(sources[1], Some(targets[1]))?,
            ];
            let sender = Sender::new(CLIENT.ip())?;
            let send = |content: &[u8], size: usize, way: usize, order: &[usize]| -> Result<()> {
                let datagram = Datagram {
                    source: sources[way],
                    destination: targets[way],
                    id: 77,
                    payload: content,
                };
                sender.send(HOST.into(), pick(&datagram.fragments(size), order))
            };
            // As fast as can be, in order.
            for burst in 0..100 {
                for way in [0, 1, 0, 1, 1, 0] {
                    send(&content(burst, 4000), FULL, way, &[0, 1, 2])?;
                }
                for client in [0, 1] {
                    for _ in 0..3 {
                        expect(&clients[client], &content(burst, 4000))
                            .with_context(|| format!("burst {burst}"))?;
                    }
                }
            }
            // One after the other, in any order, and as narrow as links can be.
            for (length, size) in [(4000, FULL), (100, 48), (40, 16)] {
                for (number, order) in orders(3)[..6].iter().cycle().take(120).enumerate() {
                    let content = content(number, length);
                    send(&content, size, number % 2, order)?;
                    expect(&clients[number % 2], &content)
                        .with_context(|| format!("datagram {number} of {length} bytes"))?;
                }
            }
            Ok(())
        })
        .with_context(|| portway.text("status").unwrap_or_default())
}

fn not_published() -> Result<()> {
    let lab = Lab::new()?;
    let container = echo(&lab, 1, 9000, true)?;
    let portway = load(&lab, &[(9000, &container)])?;
    let target = at(HOST, 9100);
    let server = lab.host.run(|| socket(target, None))?;
    let ((), used) = portway.measure(|| {
        lab.client.run(|| {
            let sender = Sender::new(CLIENT.ip())?;
            for (number, order) in orders(6).into_iter().enumerate() {
                let payload = content(number, 8192);
                let datagram = Datagram {
                    source: CLIENT,
                    destination: target,
                    id: number as u32 + 1,
                    payload: &payload,
                };
                sender.send(HOST.into(), pick(&datagram.fragments(FULL), &order))?;
                expect(&server, &payload).with_context(|| format!("order {number}"))?;
            }
            Ok(())
        })
    })?;
    ensure!(used == Used::NOTHING, "{used:?}");
    Ok(())
}

/// A process of the host asks from a published port, at length. The answer is for it, not for the container.
fn own_request() -> Result<()> {
    let lab = Lab::new()?;
    let container = echo(&lab, 1, 9000, false)?;
    let portway = load(&lab, &[(9000, &container)])?;
    let server = lab
        .client
        .run(|| socket(at(Ipv4Addr::UNSPECIFIED, 5300), None))?;
    let asker = lab.host.run(|| socket(SERVICE, None))?;
    asker.send_to(&content(1, 4000), (CLIENTS[0], 5300))?;
    let from = expect(&server, &content(1, 4000))?;
    let (_, used) = portway.measure(|| {
        server.send_to(b"answer", from)?;
        expect(&asker, b"answer")
    })?;
    ensure!(used == Used::NOTHING, "{used:?}");
    Ok(())
}

/// Without `direct`, fragments are the kernel's.
fn kernel_admits() -> Result<()> {
    let lab = Lab::new()?;
    let container = echo(&lab, 1, 9000, true)?;
    let portway = Portway::new(&lab.host)?;
    portway.load("--admission netfilter")?;
    portway.publish(&format!("9000:{}:8080/udp", container.address))?;
    converse(&lab, 1).with_context(|| portway.text("status").unwrap_or_default())
}
