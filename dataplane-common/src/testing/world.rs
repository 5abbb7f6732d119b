//! The tables, with one client, one host and one container in them.

use std::{
    cell::{Cell, RefCell, RefMut},
    collections::{HashMap, HashSet},
    ops::DerefMut,
};

use crate::{
    family::V4,
    flow::{Flow, FlowKey, OuterTuple},
    headers::{Be16, Be32, IpProtocol},
    published::{Backend, BoundPort, PortSlot, Traffic, port_slot},
    reason::Reason,
    settings::{Admission, Settings},
    state::Timeouts,
    tables::{Route, TableFull, Tables},
};

pub const CLIENT: Be32 = ip(203, 0, 113, 7);
pub const HOST: Be32 = ip(198, 51, 100, 1);
pub const SECOND_HOST: Be32 = ip(198, 51, 100, 2);
pub const CONTAINER: Be32 = ip(172, 17, 0, 2);
pub const GATEWAY: Be32 = ip(198, 51, 100, 254);

pub const EXTERNAL: u32 = 2;
pub const BRIDGE: u32 = 3;
pub const VETH: u32 = 7;

pub const fn ip(a: u8, b: u8, c: u8, d: u8) -> Be32 {
    Be32::new(u32::from_be_bytes([a, b, c, d]))
}

/// Plain maps.
pub struct World {
    pub settings: Settings,
    pub now: Cell<u32>,
    pub ports: HashMap<u32, PortSlot>,
    pub bound_ports: HashMap<BoundPort<Be32>, PortSlot>,
    pub local: HashSet<Be32>,
    pub backends: HashMap<u32, Backend>,
    /// Established flows.
    pub flows: RefCell<HashMap<FlowKey<Be32>, Flow<Be32>>>,
    /// Flows that only the client has been heard of.
    pub opening: RefCell<HashMap<FlowKey<Be32>, Flow<Be32>>>,
    pub remapped: RefCell<HashMap<OuterTuple<Be32>, Be16>>,
    pub foreign: RefCell<HashMap<OuterTuple<Be32>, u32>>,
    /// The next number that `random` gives.
    pub random: Cell<u32>,
    pub traffic: RefCell<HashMap<u32, Traffic>>,
    /// Where clients are; anyone not here is behind the gateway of the external interface.
    pub routes: HashMap<Be32, Result<Route<Be32>, Reason>>,
    pub routed: Cell<u32>,
    /// Interfaces that have gone.
    pub gone: HashSet<u32>,
    pub is_full: bool,
}

impl World {
    /// Port 9000 of TCP and UDP on all addresses leads to the container's 8080.
    pub fn new() -> Self {
        let backend = Backend {
            generation: 1,
            ifindex: VETH,
            route_ifindex: BRIDGE,
            mtu: 1500,
            address: [CONTAINER.raw(), 0, 0, 0],
            mac: [2, 0, 0, 0, 17, 2],
            source_mac: [2, 0, 0, 0, 0, 1],
            reserved: 0,
        };
        let mut world = Self {
            settings: Settings {
                admission: Admission::Direct as u32,
                epoch: 0,
                rules_since: 0,
                tcp_liberal: 1,
                timeouts: Timeouts::DEFAULT,
            },
            now: Cell::new(100),
            ports: HashMap::new(),
            bound_ports: HashMap::new(),
            local: [HOST, SECOND_HOST].into(),
            backends: [(1, backend)].into(),
            flows: RefCell::default(),
            opening: RefCell::default(),
            remapped: RefCell::default(),
            foreign: RefCell::default(),
            random: Cell::new(0),
            traffic: RefCell::default(),
            routes: HashMap::new(),
            routed: Cell::new(0),
            gone: HashSet::new(),
            is_full: false,
        };
        for protocol in [IpProtocol::TCP, IpProtocol::UDP] {
            world.publish(protocol, 9000, 1, 8080);
        }
        world
    }

    pub fn publish(&mut self, protocol: IpProtocol, port: u16, backend: u32, to: u16) {
        self.ports.insert(
            port_slot(protocol, Be16::new(port)),
            PortSlot::new(backend, Be16::new(to)),
        );
    }

    pub fn wait(&self, seconds: u32) {
        self.now.set(self.now.get() + seconds);
    }

    pub fn only_flow(&self) -> Flow<Be32> {
        let (flows, opening) = (self.flows.borrow(), self.opening.borrow());
        assert_eq!(flows.len() + opening.len(), 1, "one flow");
        *flows
            .values()
            .chain(opening.values())
            .next()
            .expect("a flow")
    }
}

impl Tables<V4> for World {
    fn settings(&self) -> Option<&Settings> {
        Some(&self.settings)
    }

    fn now(&self) -> u32 {
        self.now.get()
    }

    fn now_millis(&self) -> u32 {
        self.now.get() * 1000
    }

    fn port(&self, protocol: IpProtocol, port: Be16) -> PortSlot {
        self.ports
            .get(&port_slot(protocol, port))
            .copied()
            .unwrap_or(PortSlot::EMPTY)
    }

    fn bound_port(&self, protocol: IpProtocol, address: &Be32, port: Be16) -> PortSlot {
        let key = BoundPort {
            address: *address,
            port,
            protocol,
            padding: 0,
        };
        self.bound_ports
            .get(&key)
            .copied()
            .unwrap_or(PortSlot::EMPTY)
    }

    fn is_local(&self, address: &Be32) -> bool {
        self.local.contains(address)
    }

    fn backend(&self, number: u32) -> Option<&Backend> {
        self.backends.get(&number)
    }

    fn flow(&self, key: &FlowKey<Be32>) -> Option<impl DerefMut<Target = Flow<Be32>>> {
        let table = [&self.flows, &self.opening]
            .into_iter()
            .find(|table| table.borrow().contains_key(key))?;
        RefMut::filter_map(table.borrow_mut(), |flows| flows.get_mut(key)).ok()
    }

    fn insert_flow(&self, key: &FlowKey<Be32>, flow: &Flow<Be32>) -> Result<(), TableFull> {
        if self.is_full {
            return Err(TableFull);
        }
        self.flows.borrow_mut().remove(key);
        self.opening.borrow_mut().insert(*key, *flow);
        Ok(())
    }

    fn establish(&self, key: &FlowKey<Be32>) {
        if let Some(mut flow) = self.opening.borrow_mut().remove(key) {
            flow.is_kept = 1;
            self.flows.borrow_mut().insert(*key, flow);
        }
    }

    fn remapped(&self, tuple: &OuterTuple<Be32>) -> Option<Be16> {
        self.remapped.borrow().get(tuple).copied()
    }

    fn remap(&self, tuple: &OuterTuple<Be32>, port: Be16) -> Result<(), TableFull> {
        self.remapped.borrow_mut().insert(*tuple, port);
        Ok(())
    }

    fn foreign_since(&self, tuple: &OuterTuple<Be32>) -> Option<u32> {
        self.foreign.borrow().get(tuple).copied()
    }

    fn note_foreign(&self, tuple: &OuterTuple<Be32>, now: u32) {
        self.foreign.borrow_mut().insert(*tuple, now);
    }

    fn random(&self) -> u32 {
        self.random.replace(self.random.get() + 1)
    }

    fn with_traffic(&self, backend: u32, with: impl FnOnce(&mut Traffic)) {
        with(self.traffic.borrow_mut().entry(backend).or_default());
    }

    fn is_there(&self, ifindex: u32) -> bool {
        !self.gone.contains(&ifindex)
    }

    fn route(
        &self,
        from: u32,
        container: &Be32,
        client: &Be32,
        route: &mut Route<Be32>,
    ) -> Result<(), Reason> {
        assert_eq!(
            (from, *container),
            (BRIDGE, CONTAINER),
            "asked as the reply would be routed"
        );
        self.routed.set(self.routed.get() + 1);
        *route = self.routes.get(client).copied().unwrap_or(Ok(Route {
            ifindex: EXTERNAL,
            next_hop: GATEWAY,
            mtu: 1500,
        }))?;
        Ok(())
    }
}
