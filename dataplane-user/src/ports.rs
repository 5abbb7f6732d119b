//! Writing published ports: the slots by which the programs find a backend.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Context as _;
use aya::maps::MapError;
use dataplane_common::{
    headers::{Be16, Be32, Ip6, IpProtocol},
    published::{BoundPort, PortSlot, port_slot},
};

use crate::{
    dataplane::Dataplane,
    publication::{PortRange, Publication},
    rows::{Row, protocol_number},
};

/// An address as the maps have it.
pub trait Address: Copy {
    /// From what everybody else has; none if it is of the other family.
    fn from_ip(ip: IpAddr) -> Option<Self>;

    /// As everybody else has it.
    fn to_ip(self) -> IpAddr;
}

impl Address for Be32 {
    fn from_ip(ip: IpAddr) -> Option<Self> {
        match ip {
            IpAddr::V4(ip) => Some(be32(ip)),
            IpAddr::V6(_) => None,
        }
    }

    fn to_ip(self) -> IpAddr {
        ipv4(self).into()
    }
}

impl Address for Ip6 {
    fn from_ip(ip: IpAddr) -> Option<Self> {
        match ip {
            IpAddr::V6(ip) => Some(Self::new(ip.octets())),
            IpAddr::V4(_) => None,
        }
    }

    fn to_ip(self) -> IpAddr {
        Ipv6Addr::from(self.bytes()).into()
    }
}

/// An IPv4 address as the maps have it.
pub fn be32(address: Ipv4Addr) -> Be32 {
    Be32::new(address.to_bits())
}

/// An IPv4 address of the maps.
pub fn ipv4(address: Be32) -> Ipv4Addr {
    Ipv4Addr::from_bits(address.get())
}

/// Lets a publication's ports lead to the backend of this number, whatever they led to before.
pub fn publish(
    dataplane: &mut Dataplane,
    number: u32,
    publication: &Publication,
) -> anyhow::Result<()> {
    let protocol = protocol_number(publication.protocol);
    for (port, container_port) in ports(publication) {
        let slot = PortSlot::new(number, Be16::new(container_port));
        match bound_key(publication, protocol, port) {
            None => {
                let old = slot_at(dataplane, protocol, port)?;
                set_slot(dataplane, protocol, port, slot.with_bound(old.has_bound()))?;
            }
            // The entry first, then the word that there is one.
            Some(key) => {
                dataplane
                    .v4
                    .bound_ports
                    .insert(key, slot, 0)
                    .context("cannot publish a port of a single address")?;
                let old = slot_at(dataplane, protocol, port)?;
                set_slot(dataplane, protocol, port, old.with_bound(true))?;
            }
        }
    }
    Ok(())
}

/// Takes a publication's ports off the backend of this number, where they still lead to it. `live` are the
/// other rows with ports that lead somewhere.
pub fn unpublish(
    dataplane: &mut Dataplane,
    number: u32,
    publication: &Publication,
    live: &[Row],
) -> anyhow::Result<()> {
    let protocol = protocol_number(publication.protocol);
    for (port, _) in ports(publication) {
        let old = slot_at(dataplane, protocol, port)?;
        match bound_key(publication, protocol, port) {
            None if old.backend() == number => {
                let empty = PortSlot::EMPTY.with_bound(old.has_bound());
                set_slot(dataplane, protocol, port, empty)?;
            }
            None => {}
            Some(key) => {
                match dataplane.v4.bound_ports.get(&key, 0) {
                    Ok(slot) if slot.backend() == number => {
                        dataplane
                            .v4
                            .bound_ports
                            .remove(&key)
                            .context("cannot unpublish a port of a single address")?
                    }
                    Ok(_) | Err(MapError::KeyNotFound) => {}
                    Err(error) => return Err(error).context("cannot read a published port"),
                }
                let still_bound = live.iter().any(|row| {
                    protocol_number(row.publication.protocol) == protocol
                        && bound_key(&row.publication, protocol, port).is_some()
                        && row
                            .publication
                            .host_ports
                            .first_shared(PortRange::single(port))
                            .is_some()
                });
                set_slot(dataplane, protocol, port, old.with_bound(still_bound))?;
            }
        }
    }
    Ok(())
}

/// Each host port of a publication with the container's port it leads to.
fn ports(publication: &Publication) -> impl Iterator<Item = (u16, u16)> + use<> {
    let first = publication.host_ports.first;
    let container_port = publication.container_port;
    (first..=publication.host_ports.last).map(move |port| (port, container_port + (port - first)))
}

/// The key of a publication on a single address; `None` for one on all addresses.
fn bound_key(
    publication: &Publication,
    protocol: IpProtocol,
    port: u16,
) -> Option<BoundPort<Be32>> {
    match publication.host_ip {
        IpAddr::V4(address) if !address.is_unspecified() => Some(BoundPort {
            address: be32(address),
            port: Be16::new(port),
            protocol,
            padding: 0,
        }),
        _ => None,
    }
}

fn slot_at(dataplane: &Dataplane, protocol: IpProtocol, port: u16) -> anyhow::Result<PortSlot> {
    dataplane
        .v4
        .ports
        .get(&port_slot(protocol, Be16::new(port)), 0)
        .context("cannot read a published port")
}

fn set_slot(
    dataplane: &mut Dataplane,
    protocol: IpProtocol,
    port: u16,
    slot: PortSlot,
) -> anyhow::Result<()> {
    dataplane
        .v4
        .ports
        .set(port_slot(protocol, Be16::new(port)), slot, 0)
        .context("cannot write a published port")
}
