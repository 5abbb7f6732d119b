//! The same over IPv6. What is published there is written into the maps by hand, so that this is about the
//! programs alone.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, HashMap, Map, MapData};
use dataplane_common::{
    headers::{Be16, Ip6, IpProtocol},
    layout::maps,
    published::{Backend, PortSlot, port_slot},
};
use portway::instance::Instance;
use portway_tests::{
    container::{BRIDGE, Container},
    lab::{EXTERNAL, Lab},
    portway::{Portway, Used},
    raw::{Datagram, Sender},
};

use crate::{
    load,
    talk::{CUTS, FULL, content, count, expect, orders, pick, socket},
};

const CLIENT: SocketAddr = at(0xfd99, 2, 5555);
const HOST: SocketAddr = at(0xfd99, 1, 9000);
const CONTAINER: SocketAddr = at(0xfd98, 2, 8080);

const fn at(network: u16, host: u16, port: u16) -> SocketAddr {
    let address = Ipv6Addr::new(network, 0, 0, 0, 0, 0, 0, host);
    SocketAddr::V6(SocketAddrV6::new(address, port, 0, 0))
}

/// A client, and a container that has nothing but a socket.
struct Scene<'a> {
    portway: Portway<'a>,
    lab: &'a Lab,
    container: &'a Container,
    client: UdpSocket,
    server: UdpSocket,
}

impl<'a> Scene<'a> {
    fn new(lab: &'a Lab, container: &'a Container) -> Result<Self> {
        lab.host.sysctl("ipv6/conf/all/forwarding", "1")?;
        for (netns, address, interface) in [
            (&lab.client, CLIENT, "eth0"),
            (&*lab.host, HOST, EXTERNAL),
            (&*lab.host, at(0xfd98, 1, 0), BRIDGE),
            (&container.netns, CONTAINER, "eth0"),
        ] {
            let address = address.ip();
            netns.ip(&format!("address add {address}/64 dev {interface} nodad"))?;
        }
        let gateway = at(0xfd98, 1, 0).ip();
        container
            .netns
            .ip(&format!("-6 route add default via {gateway}"))?;
        let portway = load(lab, &[(9000, container)])?;
        publish(lab, &portway)?;
        Ok(Self {
            portway,
            lab,
            container,
            client: lab.client.run(|| socket(CLIENT, Some(HOST)))?,
            server: container.netns.run(|| socket(CONTAINER, None))?,
        })
    }
}

/// Gives the published container an IPv6 address, and it the same port.
fn publish(lab: &Lab, portway: &Portway<'_>) -> Result<()> {
    let instance: Instance = portway.instance().parse()?;
    let map = |name| -> Result<Map> {
        let path = lab.host.file(instance.map(name));
        let data = MapData::from_pin(&path).with_context(|| format!("no {}", path.display()))?;
        Ok(Map::from_map_data(data)?)
    };
    let mut backends: Array<MapData, Backend> = map(maps::BACKENDS)?.try_into()?;
    let mut ports: Array<MapData, PortSlot> = map(maps::V6.ports)?.try_into()?;
    let mut local: HashMap<MapData, Ip6, u32> = map(maps::V6.local)?.try_into()?;
    let published = (1..100).filter_map(|number| backends.get(&number, 0).ok());
    let mut backend = published
        .max_by_key(|backend| backend.generation)
        .filter(|backend| backend.generation != 0)
        .context("nothing is published")?;
    backend.address = ip6(CONTAINER)?.raw();
    backend.generation += 1;
    backends.set(100, backend, 0)?;
    local.insert(ip6(HOST)?, 1, 0)?;
    let slot = port_slot(IpProtocol::UDP, Be16::new(HOST.port()));
    let port = Be16::new(CONTAINER.port());
    ports.set(slot, PortSlot::new(100, port), 0)?;
    Ok(())
}

fn ip6(address: SocketAddr) -> Result<Ip6> {
    match address.ip() {
        IpAddr::V6(address) => Ok(Ip6::new(address.octets())),
        IpAddr::V4(address) => anyhow::bail!("{address} is no IPv6 address"),
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
    let to_client = container.netns.run(|| Sender::new(CONTAINER.ip()))?;
    let talk = || {
        let mut id = 0;
        for (length, size) in CUTS {
            for (number, order) in orders(count(length, size)).into_iter().enumerate() {
                id += 1;
                let payload = content(id as usize, length);
                for (sender, receiver, source, destination) in [
                    (&to_container, &scene.server, CLIENT, HOST),
                    (&to_client, &scene.client, CONTAINER, CLIENT),
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
            (&scene.container.netns, &scene.client, CONTAINER, CLIENT),
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
        replied: 1,
    };
    ensure!(used == expected, "{used:?}");
    Ok(())
}
