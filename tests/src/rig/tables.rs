//! The rig's maps, and a [`World`] that holds the same.

use anyhow::Result;
use aya::maps::{Array, Map, MapData, MapError};
use bytemuck::Zeroable;
use dataplane_common::{
    bucket::{Bucket, Slot},
    family::{V4, V6},
    flow::Flow,
    headers::{Be16, Be32, Ip6, IpProtocol},
    layout::maps,
    pod::IpAddress,
    published::{Backend, BoundPort, PortSlot, port_slot},
    reason::Reason,
    registry::Record,
    settings::Settings,
    tables::Route,
    testing::{
        sample::{Sample, ip4, ip6},
        world::World,
    },
};
use portway::{
    batch::Batches,
    dataplane::{FamilyMaps, entries},
    flows,
};

use super::{BOUND_PORT, CONTAINER_MTU, CONTAINER_PORT, HOST_PORTS, Rig};

/// The number of the backend that IPv6's ports lead to; portway counts its own from one.
const BACKEND_V6: u32 = 4711;

/// The maps of the programs.
pub struct Tables {
    hash_seed: u64,
    settings: Array<MapData, Settings>,
    backends: Array<MapData, Backend>,
    v4: FamilyMaps<Be32>,
    v6: FamilyMaps<Ip6>,
}

/// An IP version and its addresses in the rig.
pub trait Version: Sample {
    /// Clients on the host's link; the first is its router to all others.
    const CLIENTS: [Self::Address; 4];
    /// The host's own addresses: the external interface's two, the bridge's.
    const HOSTS: [Self::Address; 3];
    /// The container.
    const TARGET: Self::Address;
    /// Where another container would be.
    const BESIDE: Self::Address;

    /// The way to `address` from the container, as the host's routes have it; the host's own addresses and
    /// broadcast ones aside.
    fn route(rig: &Rig<'_>, address: Self::Address) -> Route<Self::Address> {
        // /24 and /64.
        let prefix = |address: &Self::Address| {
            let bytes = bytemuck::bytes_of(address);
            bytes[..(bytes.len() / 2).max(3)].to_vec()
        };
        let is_beside = |other: &Self::Address| prefix(&address) == prefix(other);
        let (ifindex, next_hop) = if is_beside(&Self::TARGET) {
            (rig.bridge, address)
        } else if is_beside(&Self::CLIENTS[0]) {
            (rig.external, address)
        } else {
            (rig.external, Self::CLIENTS[0])
        };
        Route {
            ifindex,
            next_hop,
            mtu: 1500,
        }
    }

    /// A world that holds what the maps hold, with the flows that they hold now.
    ///
    /// # Errors
    /// The kernel refuses.
    fn world(rig: &Rig<'_>) -> Result<World<Self>>;

    /// Makes the world's flows those of the maps.
    ///
    /// # Errors
    /// The kernel refuses.
    fn follow(rig: &Rig<'_>, world: &World<Self>) -> Result<()>;

    /// Changes each flow, in the maps.
    ///
    /// # Errors
    /// The kernel refuses.
    fn change_flows(rig: &mut Rig<'_>, change: impl FnMut(&mut Flow<Self::Address>)) -> Result<()>;

    /// Forgets all flows, and everything else that packets have left behind.
    ///
    /// # Errors
    /// The kernel refuses.
    fn forget(rig: &mut Rig<'_>) -> Result<()>;
}

impl Tables {
    pub(super) fn open(
        map: impl Fn(&str) -> Result<Map>,
        settings: Array<MapData, Settings>,
        backends: Array<MapData, Backend>,
    ) -> Result<Self> {
        macro_rules! family {
            ($names:expr) => {
                FamilyMaps {
                    ports: map($names.ports)?.try_into()?,
                    bound_ports: map($names.bound_ports)?.try_into()?,
                    local: map($names.local)?.try_into()?,
                    buckets: map($names.buckets)?.try_into()?,
                    slots: map($names.slots)?.try_into()?,
                    spilled: map($names.spilled)?.try_into()?,
                    port_notes: map($names.port_notes)?.try_into()?,
                    remapped: map($names.remapped)?.try_into()?,
                    foreign: map($names.foreign)?.try_into()?,
                }
            };
        }
        let record: Array<MapData, Record> = map(maps::RECORD)?.try_into()?;
        Ok(Self {
            hash_seed: record.get(&0, 0)?.hash_seed,
            settings,
            backends,
            v4: family!(maps::V4),
            v6: family!(maps::V6),
        })
    }

    /// Publishes in IPv6 what is published in IPv4, and sets the container's MTU.
    pub(super) fn adjust(&mut self) -> Result<()> {
        let mut last = Backend::default();
        for number in 1..16 {
            let mut backend = self.backends.get(&number, 0)?;
            if backend.generation != 0 {
                backend.mtu = CONTAINER_MTU;
                self.backends.set(number, backend, 0)?;
                last = backend;
            }
        }
        last.generation = BACKEND_V6;
        last.address = V6::to_words(V6::TARGET);
        self.backends.set(BACKEND_V6, last, 0)?;
        for address in V6::HOSTS {
            self.v6.local.insert(address, 0, 0)?;
        }
        let slot = PortSlot::new(BACKEND_V6, Be16::new(CONTAINER_PORT));
        for protocol in [IpProtocol::TCP, IpProtocol::UDP] {
            for port in HOST_PORTS {
                let index = port_slot(protocol, Be16::new(port));
                self.v6.ports.set(index, slot, 0)?;
            }
            let port = Be16::new(BOUND_PORT);
            let bound = PortSlot::EMPTY.with_bound(true);
            self.v6.ports.set(port_slot(protocol, port), bound, 0)?;
            let key = BoundPort {
                address: V6::HOSTS[1],
                port,
                protocol,
                padding: 0,
            };
            self.v6.bound_ports.insert(key, slot, 0)?;
        }
        Ok(())
    }

    /// What the controller tells the programs.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn settings(&self) -> Result<Settings> {
        Ok(self.settings.get(&0, 0)?)
    }

    /// Tells them something else.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn set_settings(&mut self, settings: Settings) -> Result<()> {
        Ok(self.settings.set(0, settings, 0)?)
    }
}

/// The slots with flows, and their numbers.
fn slots_in_use<A: IpAddress>(slots: &Array<MapData, Slot<A>>) -> Result<Vec<(u32, Slot<A>)>> {
    let mut found = Vec::new();
    let mut batches = Batches::default();
    while let Some(batch) = batches.read(slots)? {
        found.extend(batch.filter(|(_, slot)| !slot.is_empty()));
    }
    Ok(found)
}

macro_rules! version {
    ($maps:ident) => {
        fn world(rig: &Rig<'_>) -> Result<World<Self>> {
            let maps = &rig.tables.$maps;
            let mut world = World::empty();
            world.settings = rig.tables.settings()?;
            for port in HOST_PORTS.into_iter().chain([BOUND_PORT]) {
                for protocol in [IpProtocol::TCP, IpProtocol::UDP] {
                    let index = port_slot(protocol, Be16::new(port));
                    world.ports.insert(index, maps.ports.get(&index, 0)?);
                }
            }
            world.bound_ports = entries(&maps.bound_ports)?.into_iter().collect();
            let local = entries(&maps.local)?;
            world.local = local.into_iter().map(|(address, _)| address).collect();
            for number in (1..16).chain([BACKEND_V6]) {
                let backend = rig.tables.backends.get(&number, 0)?;
                world.backends.insert(number, backend);
            }
            for address in Self::CLIENTS
                .into_iter()
                .chain([Self::TARGET, Self::BESIDE])
            {
                let route = Self::route(rig, address);
                world.routes.insert(address, Ok(route));
            }
            for address in Self::HOSTS {
                world.routes.insert(address, Err(Reason::NoRoute));
            }
            Self::follow(rig, &world)?;
            Ok(world)
        }

        fn follow(rig: &Rig<'_>, world: &World<Self>) -> Result<()> {
            let maps = &rig.tables.$maps;
            let (mut kept, mut others) = (world.flows.borrow_mut(), world.opening.borrow_mut());
            kept.clear();
            others.clear();
            flows::visit(maps, rig.tables.hash_seed, |key, flow| {
                let table = if flow.is_kept() {
                    &mut kept
                } else {
                    &mut others
                };
                table.insert(*key, *flow);
                Ok(())
            })?;
            *world.remapped.borrow_mut() = entries(&maps.remapped)?.into_iter().collect();
            *world.foreign.borrow_mut() = entries(&maps.foreign)?.into_iter().collect();
            Ok(())
        }

        fn change_flows(
            rig: &mut Rig<'_>,
            mut change: impl FnMut(&mut Flow<Self::Address>),
        ) -> Result<()> {
            let maps = &mut rig.tables.$maps;
            for (index, mut slot) in slots_in_use(&maps.slots)? {
                change(&mut slot.flow);
                maps.slots.set(index, slot, 0)?;
            }
            for (key, mut flow) in entries(&maps.spilled)? {
                change(&mut flow);
                maps.spilled.insert(key, flow, 0)?;
            }
            Ok(())
        }

        fn forget(rig: &mut Rig<'_>) -> Result<()> {
            let maps = &mut rig.tables.$maps;
            macro_rules! clear {
                ($map:expr) => {
                    for (key, _) in entries(&$map)? {
                        match $map.remove(&key) {
                            Ok(()) | Err(MapError::KeyNotFound) => {}
                            Err(error) => return Err(error.into()),
                        }
                    }
                };
            }
            clear!(maps.spilled);
            for index in 0..maps.buckets.len() {
                maps.buckets.set(index, Bucket::zeroed(), 0)?;
            }
            for (index, _) in slots_in_use(&maps.slots)? {
                maps.slots.set(index, Slot::zeroed(), 0)?;
            }
            clear!(maps.remapped);
            clear!(maps.foreign);
            Ok(())
        }
    };
}

impl Version for V4 {
    const CLIENTS: [Be32; 4] = [
        ip4(10, 99, 0, 2),
        ip4(10, 99, 0, 3),
        ip4(10, 99, 0, 4),
        ip4(10, 99, 0, 5),
    ];
    const HOSTS: [Be32; 3] = [ip4(10, 99, 0, 1), ip4(10, 99, 0, 11), ip4(10, 98, 0, 1)];
    const TARGET: Be32 = ip4(10, 98, 0, 2);
    const BESIDE: Be32 = ip4(10, 98, 0, 9);

    version!(v4);
}

impl Version for V6 {
    const CLIENTS: [Ip6; 4] = [
        ip6([0xfd99, 0, 0, 0, 0, 0, 0, 2]),
        ip6([0xfd99, 0, 0, 0, 0, 0, 0, 3]),
        ip6([0xfd99, 0, 0, 0, 0, 0, 0, 4]),
        ip6([0xfd99, 0, 0, 0, 0, 0, 0, 5]),
    ];
    const HOSTS: [Ip6; 3] = [
        ip6([0xfd99, 0, 0, 0, 0, 0, 0, 1]),
        ip6([0xfd99, 0, 0, 0, 0, 0, 0, 0x11]),
        ip6([0xfd98, 0, 0, 0, 0, 0, 0, 1]),
    ];
    const TARGET: Ip6 = ip6([0xfd98, 0, 0, 0, 0, 0, 0, 2]);
    const BESIDE: Ip6 = ip6([0xfd98, 0, 0, 0, 0, 0, 0, 9]);

    version!(v6);
}
