//! The same over IPv6.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use anyhow::{Context, Result, ensure};
use portway_tests::{
    container::Container,
    lab::{CLIENTS_V6, HOST_V6, Lab},
    portway::{Portway, Used},
    raw::{Datagram, Sender},
};

use crate::{
    load,
    talk::{CUTS, FULL, content, count, expect, orders, pick, socket},
};

const CLIENT: SocketAddr = SocketAddr::new(IpAddr::V6(CLIENTS_V6[0]), 5555);
const HOST: SocketAddr = SocketAddr::new(IpAddr::V6(HOST_V6), 9000);
const PORT: u16 = 8080;

/// A client, and a container that has nothing but a socket.
struct Scene<'a> {
    portway: Portway<'a>,
    lab: &'a Lab,
    container: &'a Container,
    address: SocketAddr,
    client: UdpSocket,
    server: UdpSocket,
}

impl<'a> Scene<'a> {
    fn new(lab: &'a Lab, container: &'a Container) -> Result<Self> {
        let portway = load(lab, &[(9000, container)])?;
        let address = SocketAddr::from((container.address_v6, PORT));
        portway.publish(&format!("{}:{address}/udp", HOST.port()))?;
        Ok(Self {
            portway,
            lab,
            container,
            address,
            client: lab.client.run(|| socket(CLIENT, Some(HOST)))?,
            server: container.netns.run(|| socket(address, None))?,
        })
    }
}

pub fn big_answers() -> Result<()> {
    const LENGTH: usize = 8192;
    let lab = Lab::new()?;
    let container = Container::new(&lab.host, 1)?;
    let scene = Scene::new(&lab, &container)?;
    let ((), used) = scene.portway.measure(|| {
        for seed in 0..20 {
            scene.client.send(b"small")?;
            let asker = expect(&scene.server, b"small")?;
            scene.server.send_to(&content(seed, LENGTH), asker)?;
            expect(&scene.client, &content(seed, LENGTH))
                .with_context(|| format!("answer {seed}"))?;
        }
        Ok(())
    })?;
    let expected = Used {
        forwarded: 20,
        by_xdp: 0,
        replied: 20 * count(LENGTH, FULL) as u64,
    };
    ensure!(used == expected, "{used:?}");
    Ok(())
}

pub fn any_order() -> Result<()> {
    let lab = Lab::new()?;
    let container = Container::new(&lab.host, 1)?;
    let scene = Scene::new(&lab, &container)?;
    let to_container = lab.client.run(|| Sender::new(CLIENT.ip()))?;
    let to_client = container.netns.run(|| Sender::new(scene.address.ip()))?;
    let talk = || {
        let mut id = 0;
        for (length, size) in CUTS {
            for (number, order) in orders(count(length, size)).into_iter().enumerate() {
                id += 1;
                let payload = content(id as usize, length);
                for (sender, receiver, source, destination) in [
                    (&to_container, &scene.server, CLIENT, HOST),
                    (&to_client, &scene.client, scene.address, CLIENT),
                ] {
                    let datagram = Datagram {
                        source,
                        destination,
                        id,
                        payload: &payload,
                    };
                    let fragments = datagram.fragments(size);
                    sender.send(destination.ip(), pick(&fragments, &order))?;
                    expect(receiver, &payload).with_context(|| {
                        format!("{length} bytes by {size}, order {number}, from {source}")
                    })?;
                }
            }
        }
        Ok(())
    };
    let said = || scene.portway.text("status").unwrap_or_default();
    let ((), used) = scene.portway.measure(talk).with_context(said)?;
    ensure!(used.both_ways(), "{used:?}");
    Ok(())
}

/// A whole packet that has a fragment header (RFC 6946).
pub fn whole() -> Result<()> {
    let lab = Lab::new()?;
    let container = Container::new(&lab.host, 1)?;
    let scene = Scene::new(&lab, &container)?;
    let ((), used) = scene.portway.measure(|| {
        for (netns, receiver, source, destination) in [
            (&scene.lab.client, &scene.server, CLIENT, HOST),
            (&scene.container.netns, &scene.client, scene.address, CLIENT),
        ] {
            let payload = content(1, 100);
            let datagram = Datagram {
                source,
                destination,
                id: 1,
                payload: &payload,
            };
            let fragments = datagram.fragments(FULL);
            netns.run(|| Sender::new(source.ip())?.send(destination.ip(), &fragments))?;
            expect(receiver, &payload)?;
        }
        Ok(())
    })?;
    let expected = Used {
        forwarded: 1,
        by_xdp: 0,
        replied: 1,
    };
    ensure!(used == expected, "{used:?}");
    Ok(())
}
