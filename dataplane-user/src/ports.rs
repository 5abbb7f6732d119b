//! Writing published ports: the slots by which the programs find a backend.

use std::net::IpAddr;

use anyhow::Context as _;
use aya::{
    Pod,
    maps::{Array, HashMap, MapData, MapError},
};
use dataplane_common::{
    headers::{Be16, Be32, Ip6, IpProtocol},
    published::{BoundPort, PortSlot, port_slot},
};

use crate::{
    address::Address,
    dataplane::Dataplane,
    publication::{PortRange, Publication},
    rows::{Row, protocol_number},
};

/// Lets a publication's ports lead to the backend of this number, whatever they led to before.
pub fn publish(
    dataplane: &mut Dataplane,
    number: u32,
    publication: &Publication,
) -> anyhow::Result<()> {
    match publication.host_ip {
        IpAddr::V4(_) => Slots::v4(dataplane).publish(number, publication),
        IpAddr::V6(_) => Slots::v6(dataplane).publish(number, publication),
    }
}

/// Takes a publication's ports off the backend of this number, where they still lead to it. `live` are the
/// other rows with ports that lead somewhere.
pub fn unpublish(
    dataplane: &mut Dataplane,
    number: u32,
    publication: &Publication,
    live: &[Row],
) -> anyhow::Result<()> {
    match publication.host_ip {
        IpAddr::V4(_) => Slots::v4(dataplane).unpublish(number, publication, live),
        IpAddr::V6(_) => Slots::v6(dataplane).unpublish(number, publication, live),
    }
}

/// The slots of one IP version.
struct Slots<'a, A> {
    ports: &'a mut Array<MapData, PortSlot>,
    bound_ports: &'a mut HashMap<MapData, BoundPort<A>, PortSlot>,
}

impl<'a> Slots<'a, Be32> {
    fn v4(dataplane: &'a mut Dataplane) -> Self {
        Self {
            ports: &mut dataplane.v4.ports,
            bound_ports: &mut dataplane.v4.bound_ports,
        }
    }
}

impl<'a> Slots<'a, Ip6> {
    fn v6(dataplane: &'a mut Dataplane) -> Self {
        Self {
            ports: &mut dataplane.v6.ports,
            bound_ports: &mut dataplane.v6.bound_ports,
        }
    }
}

impl<A: Address> Slots<'_, A>
where
    BoundPort<A>: Pod,
{
    fn publish(&mut self, number: u32, publication: &Publication) -> anyhow::Result<()> {
        let protocol = protocol_number(publication.protocol);
        for (port, container_port) in ports(publication) {
            let slot = PortSlot::new(number, Be16::new(container_port));
            let old = self.get(protocol, port)?;
            match bound_key(publication, protocol, port) {
                None => self.set(protocol, port, slot.with_bound(old.has_bound()))?,
                // The entry first, then the word that there is one.
                Some(key) => {
                    self.bound_ports
                        .insert(key, slot, 0)
                        .context("cannot publish a port of a single address")?;
                    self.set(protocol, port, old.with_bound(true))?;
                }
            }
        }
        Ok(())
    }

    fn unpublish(
        &mut self,
        number: u32,
        publication: &Publication,
        live: &[Row],
    ) -> anyhow::Result<()> {
        let protocol = protocol_number(publication.protocol);
        for (port, _) in ports(publication) {
            let old = self.get(protocol, port)?;
            match bound_key(publication, protocol, port) {
                None if old.backend() == number => {
                    let empty = PortSlot::EMPTY.with_bound(old.has_bound());
                    self.set(protocol, port, empty)?;
                }
                None => {}
                Some(key) => {
                    self.remove_bound(&key, number)?;
                    let still_bound = live.iter().any(|row| {
                        protocol_number(row.publication.protocol) == protocol
                            && bound_key::<A>(&row.publication, protocol, port).is_some()
                            && row
                                .publication
                                .host_ports
                                .first_shared(PortRange::single(port))
                                .is_some()
                    });
                    self.set(protocol, port, old.with_bound(still_bound))?;
                }
            }
        }
        Ok(())
    }

    /// Removes a port of a single address if it leads to the backend of this number.
    fn remove_bound(&mut self, key: &BoundPort<A>, number: u32) -> anyhow::Result<()> {
        match self.bound_ports.get(key, 0) {
            Ok(slot) if slot.backend() == number => self
                .bound_ports
                .remove(key)
                .context("cannot unpublish a port of a single address"),
            Ok(_) | Err(MapError::KeyNotFound) => Ok(()),
            Err(error) => Err(error).context("cannot read a published port"),
        }
    }

    fn get(&self, protocol: IpProtocol, port: u16) -> anyhow::Result<PortSlot> {
        self.ports
            .get(&port_slot(protocol, Be16::new(port)), 0)
            .context("cannot read a published port")
    }

    fn set(&mut self, protocol: IpProtocol, port: u16, slot: PortSlot) -> anyhow::Result<()> {
        self.ports
            .set(port_slot(protocol, Be16::new(port)), slot, 0)
            .context("cannot write a published port")
    }
}

/// Each host port of a publication with the container's port it leads to.
fn ports(publication: &Publication) -> impl Iterator<Item = (u16, u16)> + use<> {
    let first = publication.host_ports.first;
    let container_port = publication.container_port;
    (first..=publication.host_ports.last).map(move |port| (port, container_port + (port - first)))
}

/// The key of a publication on a single address; `None` for one on all addresses, or of the other IP
/// version.
fn bound_key<A: Address>(
    publication: &Publication,
    protocol: IpProtocol,
    port: u16,
) -> Option<BoundPort<A>> {
    let address = A::from_ip(publication.host_ip)?;
    (!publication.host_ip.is_unspecified()).then_some(BoundPort {
        address,
        port: Be16::new(port),
        protocol,
        padding: 0,
    })
}
