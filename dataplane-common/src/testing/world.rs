//! The tables, with one client, one host and one container in them.

use std::{
    cell::{Cell, RefCell, RefMut},
    collections::{HashMap, HashSet},
    ops::DerefMut,
};

use super::{buffer::HOST_MAC, sample::Sample};
use crate::{
    flow::{Flow, FlowKey, OuterTuple},
    fragment::{Datagram, FragmentKey},
    headers::{Be16, IpProtocol},
    published::{Backend, BoundPort, PortSlot, Traffic, port_slot},
    reason::Reason,
    settings::{Admission, Settings},
    state::Timeouts,
    tables::{Route, TableFull, Tables},
};

/// The host's external interface.
pub const EXTERNAL: u32 = 2;

/// The bridge that the container is behind.
pub const BRIDGE: u32 = 3;

/// The host's end of the container's veth pair.
pub const VETH: u32 = 7;

/// The container's MAC.
pub const CONTAINER_MAC: [u8; 6] = [2, 0, 0, 0, 17, 2];

/// The port that is published at first, of TCP and of UDP.
pub const HOST_PORT: u16 = 9000;

/// The container's port that it leads to.
pub const CONTAINER_PORT: u16 = 8080;

type Flows<A> = RefCell<HashMap<FlowKey<A>, Flow<A>>>;

/// Plain maps.
pub struct World<F: Sample> {
    /// What the controller says.
    pub settings: Settings,
    /// The monotonic clock, in milliseconds.
    pub millis: Cell<u64>,
    /// What is published on all addresses, by [`port_slot`].
    pub ports: HashMap<u32, PortSlot>,
    /// What is published on single addresses.
    pub bound_ports: HashMap<BoundPort<F::Address>, PortSlot>,
    /// The host's addresses.
    pub local: HashSet<F::Address>,
    /// Backends by number.
    pub backends: HashMap<u32, Backend>,
    /// Flows whose both ends have proved to be there.
    pub flows: Flows<F::Address>,
    /// Other flows.
    pub opening: Flows<F::Address>,
    /// Clients' ports as their container sees them, where these are not their own.
    pub remapped: RefCell<HashMap<OuterTuple<F::Address>, Be16>>,
    /// When others were last heard.
    pub foreign: RefCell<HashMap<OuterTuple<F::Address>, u32>>,
    /// Datagrams that come in fragments.
    pub datagrams: RefCell<HashMap<FragmentKey<F::Address>, Datagram>>,
    /// The next number that `random` gives.
    pub random: Cell<u32>,
    /// Traffic by backend.
    pub traffic: RefCell<HashMap<u32, Traffic>>,
    /// The way to clients that are not behind `gateway`.
    pub routes: HashMap<F::Address, Result<Route<F::Address>, Reason>>,
    /// The way to all others.
    pub gateway: Route<F::Address>,
    /// How often a route was asked for.
    pub routed: Cell<u32>,
    /// From which interface and address it was asked for last.
    pub routed_from: Cell<Option<(u32, F::Address)>>,
    /// Interfaces that have gone.
    pub gone: HashSet<u32>,
    /// Whether the flow table takes no more.
    pub is_full: bool,
}

impl<F: Sample> Default for World<F> {
    fn default() -> Self {
        Self::new()
    }
}

impl<F: Sample> World<F> {
    /// [`HOST_PORT`] of TCP and UDP on all addresses leads to the container's [`CONTAINER_PORT`]; admission
    /// is `direct`.
    pub fn new() -> Self {
        let mut world = Self::empty();
        world.local = [F::HOST, F::SECOND_HOST].into();
        let backend = Backend {
            generation: 1,
            ifindex: VETH,
            route_ifindex: BRIDGE,
            mtu: 1500,
            address: F::to_words(F::CONTAINER),
            mac: CONTAINER_MAC,
            source_mac: HOST_MAC,
            reserved: 0,
        };
        world.backends.insert(1, backend);
        for protocol in [IpProtocol::TCP, IpProtocol::UDP] {
            world.publish(protocol, HOST_PORT, 1, CONTAINER_PORT);
        }
        world
    }

    /// Nothing is published, and the host has no address.
    pub fn empty() -> Self {
        Self {
            settings: Settings {
                admission: Admission::Direct as u32,
                epoch: 0,
                admission_since: 0,
                rules_since: 0,
                tcp_liberal: 1,
                xdp: 0,
                timeouts: Timeouts::DEFAULT,
            },
            millis: Cell::new(100_000),
            ports: HashMap::new(),
            bound_ports: HashMap::new(),
            local: HashSet::new(),
            backends: HashMap::new(),
            flows: RefCell::default(),
            opening: RefCell::default(),
            remapped: RefCell::default(),
            foreign: RefCell::default(),
            datagrams: RefCell::default(),
            random: Cell::new(0),
            traffic: RefCell::default(),
            routes: HashMap::new(),
            gateway: Route {
                ifindex: EXTERNAL,
                next_hop: F::GATEWAY,
                mtu: 1500,
            },
            routed: Cell::new(0),
            routed_from: Cell::new(None),
            gone: HashSet::new(),
            is_full: false,
        }
    }

    /// Lets a port of all addresses lead to a port of a backend.
    pub fn publish(&mut self, protocol: IpProtocol, port: u16, backend: u32, to: u16) {
        self.ports.insert(
            port_slot(protocol, Be16::new(port)),
            PortSlot::new(backend, Be16::new(to)),
        );
    }

    /// Lets time pass.
    pub fn wait(&self, seconds: u32) {
        self.wait_millis(seconds * 1000);
    }

    /// The same by the millisecond.
    pub fn wait_millis(&self, millis: u32) {
        self.millis.set(self.millis.get() + u64::from(millis));
    }

    /// Changes who admits flows, from now on.
    pub fn set_admission(&mut self, admission: Admission) {
        self.settings.admission = admission as u32;
        self.settings.admission_since = self.millis.get() as u32;
        self.change_rules();
    }

    /// Ends all leases, as a change of the firewall's rules does.
    pub fn change_rules(&mut self) {
        self.settings.rules_since = self.millis.get() as u32;
    }

    /// How many flows there are: opening, established.
    pub fn flow_counts(&self) -> (usize, usize) {
        (self.opening.borrow().len(), self.flows.borrow().len())
    }

    /// All flows.
    pub fn all_flows(&self) -> HashMap<FlowKey<F::Address>, Flow<F::Address>> {
        let (flows, opening) = (self.flows.borrow(), self.opening.borrow());
        flows
            .iter()
            .chain(opening.iter())
            .map(|(key, flow)| (*key, *flow))
            .collect()
    }

    /// The flow, which is the only one.
    pub fn only_flow(&self) -> Flow<F::Address> {
        let (flows, opening) = (self.flows.borrow(), self.opening.borrow());
        assert_eq!(flows.len() + opening.len(), 1, "one flow");
        *flows
            .values()
            .chain(opening.values())
            .next()
            .expect("a flow")
    }
}

impl<F: Sample> Tables<F> for World<F> {
    fn settings(&self) -> Option<&Settings> {
        Some(&self.settings)
    }

    fn now(&self) -> u32 {
        (self.millis.get() / 1000) as u32
    }

    fn now_millis(&self) -> u32 {
        self.millis.get() as u32
    }

    fn port(&self, protocol: IpProtocol, port: Be16) -> PortSlot {
        self.ports
            .get(&port_slot(protocol, port))
            .copied()
            .unwrap_or(PortSlot::EMPTY)
    }

    fn bound_port(&self, protocol: IpProtocol, address: &F::Address, port: Be16) -> PortSlot {
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

    fn is_local(&self, address: &F::Address) -> bool {
        self.local.contains(address)
    }

    fn backend(&self, number: u32) -> Option<&Backend> {
        self.backends.get(&number)
    }

    fn flow(&self, key: &FlowKey<F::Address>) -> Option<impl DerefMut<Target = Flow<F::Address>>> {
        let table = [&self.flows, &self.opening]
            .into_iter()
            .find(|table| table.borrow().contains_key(key))?;
        RefMut::filter_map(table.borrow_mut(), |flows| flows.get_mut(key)).ok()
    }

    fn insert_flow(
        &self,
        key: &FlowKey<F::Address>,
        write: impl FnOnce(&mut Flow<F::Address>),
    ) -> Result<(), TableFull> {
        if self.is_full {
            return Err(TableFull);
        }
        let mut flow = bytemuck::Zeroable::zeroed();
        write(&mut flow);
        self.flows.borrow_mut().remove(key);
        self.opening.borrow_mut().insert(*key, flow);
        Ok(())
    }

    fn establish(&self, key: &FlowKey<F::Address>) {
        if let Some(mut flow) = self.opening.borrow_mut().remove(key) {
            flow.marks |= Flow::<F::Address>::KEPT;
            self.flows.borrow_mut().insert(*key, flow);
        }
    }

    fn has_remapped(&self, protocol: IpProtocol, port: Be16) -> bool {
        let remapped = self.remapped.borrow();
        remapped
            .keys()
            .any(|tuple| (tuple.protocol, tuple.host_port) == (protocol, port))
    }

    fn remapped(&self, tuple: &OuterTuple<F::Address>) -> Option<Be16> {
        self.remapped.borrow().get(tuple).copied()
    }

    fn remap(&self, tuple: &OuterTuple<F::Address>, port: Be16) -> Result<(), TableFull> {
        self.remapped.borrow_mut().insert(*tuple, port);
        Ok(())
    }

    fn foreign_since(&self, tuple: &OuterTuple<F::Address>) -> Option<u32> {
        self.foreign.borrow().get(tuple).copied()
    }

    fn note_foreign(&self, tuple: &OuterTuple<F::Address>, now: u32) {
        self.foreign.borrow_mut().insert(*tuple, now);
    }

    fn datagram(&self, key: &FragmentKey<F::Address>) -> Option<impl DerefMut<Target = Datagram>> {
        RefMut::filter_map(self.datagrams.borrow_mut(), |all| all.get_mut(key)).ok()
    }

    fn note_datagram(
        &self,
        key: &FragmentKey<F::Address>,
        datagram: &Datagram,
    ) -> Result<(), TableFull> {
        self.datagrams.borrow_mut().insert(*key, *datagram);
        Ok(())
    }

    fn forget_datagram(&self, key: &FragmentKey<F::Address>) {
        self.datagrams.borrow_mut().remove(key);
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
        container: &F::Address,
        client: &F::Address,
        route: &mut Route<F::Address>,
    ) -> Result<(), Reason> {
        self.routed.set(self.routed.get() + 1);
        self.routed_from.set(Some((from, *container)));
        *route = self
            .routes
            .get(client)
            .copied()
            .unwrap_or(Ok(self.gateway))?;
        Ok(())
    }
}
