//! Writing published ports: the slots by which the programs find a backend.

use std::net::IpAddr;

use anyhow::{Context as _, bail};
use aya::maps::{Array, HashMap, MapData, MapError};
use dataplane_common::{
    headers::{Be16, Be32, Ip6, IpProtocol},
    layout::MAX_BOUND_PORTS,
    pod::IpAddress,
    published::{BoundPort, PortSlot, port_slot},
};

use crate::{
    address::Address,
    batch::{read_range, write_range},
    dataplane::Dataplane,
    publication::{PortRange, Publication},
    rows::{Row, protocol_number},
};

/// Refuses a publication on a single address whose ports find no room beside those of `rows`. The table of each IP
/// version would be found full only when some of them are written.
pub fn check_room(publication: &Publication, rows: &[Row]) -> anyhow::Result<()> {
    let is_v4 = publication.host_ip.is_ipv4();
    let others = rows.iter().map(|row| &row.publication);
    let taken: u32 = others
        .filter(|other| {
            other.host_ip.is_ipv4() == is_v4 && other.identity() != publication.identity()
        })
        .map(bound_count)
        .sum();
    let wanted = bound_count(publication);
    if wanted > 0 && taken + wanted > MAX_BOUND_PORTS {
        bail!(
            "{publication}: no room for {wanted} ports of a single address: {taken} of {MAX_BOUND_PORTS} are taken; \
             publish them on all addresses"
        );
    }
    Ok(())
}

/// How many entries a publication has in the table of ports on single addresses.
fn bound_count(publication: &Publication) -> u32 {
    if publication.host_ip.is_unspecified() {
        return 0;
    }
    let PortRange { first, last } = publication.host_ports;
    u32::from(last - first) + 1
}

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

impl<A: Address> Slots<'_, A> {
    fn publish(&mut self, number: u32, publication: &Publication) -> anyhow::Result<()> {
        let protocol = protocol_number(publication.protocol);
        self.change(publication, |bound_ports, (port, container_port), old| {
            let slot = PortSlot::new(number, Be16::new(container_port));
            match bound_key(publication, protocol, port) {
                None => Ok(slot.with_bound(old.has_bound())),
                // The entry first, then the word that there is one.
                Some(key) => {
                    bound_ports
                        .insert(key, slot, 0)
                        .context("cannot publish a port of a single address")?;
                    Ok(old.with_bound(true))
                }
            }
        })
    }

    fn unpublish(
        &mut self,
        number: u32,
        publication: &Publication,
        live: &[Row],
    ) -> anyhow::Result<()> {
        let protocol = protocol_number(publication.protocol);
        self.change(publication, |bound_ports, (port, _), old| {
            match bound_key(publication, protocol, port) {
                None if old.backend() == number => Ok(PortSlot::EMPTY.with_bound(old.has_bound())),
                None => Ok(old),
                Some(key) => {
                    remove_bound(bound_ports, &key, number)?;
                    let still_bound = live.iter().any(|row| {
                        protocol_number(row.publication.protocol) == protocol
                            && bound_key::<A>(&row.publication, protocol, port).is_some()
                            && row
                                .publication
                                .host_ports
                                .first_shared(PortRange::single(port))
                                .is_some()
                    });
                    Ok(old.with_bound(still_bound))
                }
            }
        })
    }

    /// Changes the slot of each port of a publication, all of them with two system calls.
    fn change(
        &mut self,
        publication: &Publication,
        mut change: impl FnMut(
            &mut HashMap<MapData, BoundPort<A>, PortSlot>,
            (u16, u16),
            PortSlot,
        ) -> anyhow::Result<PortSlot>,
    ) -> anyhow::Result<()> {
        let protocol = protocol_number(publication.protocol);
        let range = publication.host_ports;
        let first = port_slot(protocol, Be16::new(range.first));
        let count = u32::from(range.last - range.first) + 1;
        let mut slots =
            read_range(self.ports, first, count).context("cannot read the published ports")?;
        for (slot, port) in slots.iter_mut().zip(ports(publication)) {
            *slot = change(self.bound_ports, port, *slot)?;
        }
        write_range(self.ports, first, &slots).context("cannot write the published ports")
    }
}

/// Removes a port of a single address if it leads to the backend of this number.
fn remove_bound<A: IpAddress>(
    bound_ports: &mut HashMap<MapData, BoundPort<A>, PortSlot>,
    key: &BoundPort<A>,
    number: u32,
) -> anyhow::Result<()> {
    match bound_ports.get(key, 0) {
        Ok(slot) if slot.backend() == number => bound_ports
            .remove(key)
            .context("cannot unpublish a port of a single address"),
        Ok(_) | Err(MapError::KeyNotFound) => Ok(()),
        Err(error) => Err(error).context("cannot read a published port"),
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
