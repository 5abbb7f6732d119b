//! Maps, clock and routing as the core's tables.

use core::{hint::black_box, marker::PhantomData, mem::transmute, ops::DerefMut};

use aya_ebpf::{
    EbpfContext,
    bindings::{
        BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS, bpf_fib_lookup as FibLookup,
        xdp_action::{XDP_PASS, XDP_REDIRECT},
    },
    helpers::{bpf_check_mtu, bpf_fib_lookup, bpf_get_prandom_u32},
};
use dataplane_common::{
    flow::{Flow, FlowKey, OuterTuple},
    fragment::{Datagram, FragmentKey},
    headers::{Be16, IpProtocol},
    published::{Backend, BoundPort, PortNotes, PortSlot, Traffic, port_slot},
    reason::{Counter, Reason},
    settings::Settings,
    tables::{Route, TableFull, Tables},
};

use crate::{
    clock, flows,
    maps::{self, FamilyMaps},
    recent,
    routing::Routing,
};

/// The hook that a program runs at, as far as it matters to the tables.
pub trait Hook {
    /// Whether a program at a later hook sees what is let pass here.
    const IS_SEEN_AGAIN: bool;

    /// Whether packets can be handed to the backend with this number from here.
    fn can_reach(backend: u32) -> bool;

    /// Whether there is an interface with this index, that of a container which can be reached.
    fn is_there(kernel: &Kernel<Self>, ifindex: u32) -> bool
    where
        Self: Sized;
}

/// TC, from where every container can be reached.
pub struct Tc;

impl Hook for Tc {
    const IS_SEEN_AGAIN: bool = false;

    #[inline(always)]
    fn can_reach(_: u32) -> bool {
        true
    }

    #[inline(always)]
    fn is_there(kernel: &Kernel<Self>, ifindex: u32) -> bool {
        kernel.device_mtu(ifindex).is_some()
    }
}

/// XDP, from where those can be reached whose interface takes frames from XDP.
pub struct Xdp;

impl Hook for Xdp {
    const IS_SEEN_AGAIN: bool = true;

    #[inline(always)]
    fn can_reach(backend: u32) -> bool {
        // This also settles where the frame goes when the program returns `XDP_REDIRECT`.
        maps::DEVICES.redirect(backend, XDP_PASS.into()) == Ok(XDP_REDIRECT)
    }

    #[inline(always)]
    fn is_there(_: &Kernel<Self>, _: u32) -> bool {
        // The device map lets go of an interface that goes.
        true
    }
}

/// What a running program at a hook can ask the kernel.
pub struct Kernel<H = Tc> {
    context: *mut core::ffi::c_void,
    hook: PhantomData<H>,
}

impl<H> Kernel<H> {
    /// The MTU of an interface.
    #[inline(always)]
    fn device_mtu(&self, ifindex: u32) -> Option<u16> {
        let mut mtu = 0;
        // SAFETY: `mtu` outlives the call. The packet is measured as well, which does not matter here.
        let result = unsafe { bpf_check_mtu(self.context, ifindex, &raw mut mtu, 0, 0) };
        (result >= 0).then_some(mtu.min(u16::MAX.into()) as u16)
    }

    /// For the program with this context.
    #[inline(always)]
    pub fn new(context: &impl EbpfContext) -> Self {
        Self {
            context: context.as_ptr(),
            hook: PhantomData,
        }
    }
}

/// Adds one to a counter of this CPU.
#[inline(always)]
pub fn count(counter: Counter) {
    if let Some(value) = maps::COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: the entry is this CPU's own, and programs at one hook do not interrupt each other.
        unsafe { *value += 1 };
    }
}

/// What is published on a port of one address. A function of its own in the eBPF program, as [`find_route`],
/// which leaves the stack of the fast path small.
#[inline(never)]
fn bound_port<F: FamilyMaps>(protocol: IpProtocol, address: &F::Address, port: Be16) -> PortSlot {
    let key = BoundPort {
        address: *address,
        port,
        protocol,
        padding: 0,
    };
    // SAFETY: the word is copied out at once, and is whole whenever it is read.
    unsafe { F::bound_ports().get(key) }
        .copied()
        .unwrap_or(PortSlot::EMPTY)
}

/// What has been noted of a port of the host.
#[inline(always)]
fn port_notes<F: FamilyMaps>(protocol: IpProtocol, port: Be16) -> Option<&'static mut PortNotes> {
    let notes = F::port_notes().get_ptr_mut(port_slot(protocol, port))?;
    // SAFETY: as for a flow (`flows::find`).
    Some(unsafe { &mut *notes })
}

/// Writes the route, be it known or asked for.
#[inline(never)]
fn find_route<F: FamilyMaps + Routing, H>(
    kernel: &Kernel<H>,
    from: u32,
    container: &F::Address,
    client: &F::Address,
    route: &mut Route<F::Address>,
) -> Result<(), Reason> {
    recent::route::<F>(from, container, client, route, |route| {
        ask_route::<F, H>(kernel, from, container, client, route)
    })
}

/// Asks for a route and writes it.
#[inline(always)]
fn ask_route<F: Routing, H>(
    kernel: &Kernel<H>,
    from: u32,
    container: &F::Address,
    client: &F::Address,
    route: &mut Route<F::Address>,
) -> Result<(), Reason> {
    let query = maps::FIB_QUERY.get_ptr_mut(0).ok_or(Reason::NoRoute)?;
    // Had the compiler known it, it would call a loop (`memset`), whose frame is one more on the stack.
    let zero = black_box(0_u64);
    // SAFETY: the entry is this CPU's own, and programs that use it do not interrupt each other. It is made of
    // integers and arrays of them; zero is what the helper wants where nothing is said.
    let query = unsafe {
        query.write(transmute::<[u64; _], FibLookup>(
            [zero; size_of::<FibLookup>() / 8],
        ));
        &mut *query
    };
    query.family = F::AF;
    query.ifindex = from;
    // Else it is the device's MTU that TC is told, where XDP is told the route's. No route has a smaller one.
    query.__bindgen_anon_1.tot_len = 1;
    F::ask(query, *container, *client);
    // SAFETY: `query` is as long as said, and stays where it is.
    let result = unsafe {
        bpf_fib_lookup(
            kernel.context,
            &raw mut *query,
            size_of::<FibLookup>() as i32,
            0,
        )
    };
    // A neighbour that is not resolved yet is no obstacle: the kernel resolves it when sending.
    let found = result == i64::from(BPF_FIB_LKUP_RET_SUCCESS)
        || result == i64::from(BPF_FIB_LKUP_RET_NO_NEIGH);
    // An IPv6 gateway (RFC 5549) is left to the slow path.
    if !found || query.family != F::AF {
        return Err(Reason::NoRoute);
    }
    let mtu = if result == i64::from(BPF_FIB_LKUP_RET_SUCCESS) {
        // SAFETY: the helper puts the route's MTU where the query had the length.
        unsafe { query.__bindgen_anon_1.mtu_result }
    } else {
        // Not told while the neighbour is unresolved. The next look at the route will.
        kernel.device_mtu(query.ifindex).ok_or(Reason::NoRoute)?
    };
    *route = Route {
        ifindex: query.ifindex,
        next_hop: F::next_hop(query),
        mtu,
    };
    Ok(())
}

impl<F: FamilyMaps + Routing, H: Hook> Tables<F> for Kernel<H> {
    const IS_SEEN_AGAIN: bool = H::IS_SEEN_AGAIN;

    #[inline(always)]
    fn can_reach(&self, backend: u32) -> bool {
        H::can_reach(backend)
    }

    #[inline(always)]
    fn settings(&self) -> Option<&Settings> {
        maps::SETTINGS.get(0)
    }

    #[inline(always)]
    fn now(&self) -> u32 {
        clock::seconds()
    }

    #[inline(always)]
    fn now_millis(&self) -> u32 {
        clock::milliseconds()
    }

    #[inline(always)]
    fn port(&self, protocol: IpProtocol, port: Be16) -> PortSlot {
        F::ports()
            .get(port_slot(protocol, port))
            .copied()
            .unwrap_or(PortSlot::EMPTY)
    }

    #[inline(always)]
    fn bound_port(&self, protocol: IpProtocol, address: &F::Address, port: Be16) -> PortSlot {
        bound_port::<F>(protocol, address, port)
    }

    #[inline(always)]
    fn is_local(&self, address: &F::Address) -> bool {
        // A copy: what it is part of need not lie on the stack then.
        recent::is_local::<F>(&{ *address })
    }

    #[inline(always)]
    fn backend(&self, number: u32) -> Option<&Backend> {
        maps::BACKENDS.get(number)
    }

    #[inline(always)]
    fn flow(&self, key: &FlowKey<F::Address>) -> Option<impl DerefMut<Target = Flow<F::Address>>> {
        // XDP is for speed, and its program has stack to spare. A call is what takes time there.
        let flow = if H::IS_SEEN_AGAIN {
            flows::find_inline::<F>(key)
        } else {
            flows::find::<F>(key)
        };
        // SAFETY: see `flows::find`.
        flow.map(|flow| unsafe { &mut *flow })
    }

    #[inline(always)]
    fn insert_flow(
        &self,
        key: &FlowKey<F::Address>,
        write: impl FnOnce(&mut Flow<F::Address>),
    ) -> Result<(), TableFull> {
        flows::insert::<F>(key, write)
    }

    #[inline(always)]
    fn establish(&self, key: &FlowKey<F::Address>) {
        flows::keep::<F>(key);
    }

    #[inline(always)]
    fn has_remapped(&self, protocol: IpProtocol, port: Be16) -> bool {
        port_notes::<F>(protocol, port).is_some_and(|notes| notes.has_remapped != 0)
    }

    #[inline(always)]
    fn remapped(&self, tuple: &OuterTuple<F::Address>) -> Option<Be16> {
        // SAFETY: the port is copied out at once, and is whole whenever it is read.
        unsafe { F::remapped().get(tuple) }.copied()
    }

    #[inline(always)]
    fn remap(&self, tuple: &OuterTuple<F::Address>, port: Be16) -> Result<(), TableFull> {
        port_notes::<F>(tuple.protocol, tuple.host_port)
            .ok_or(TableFull)?
            .has_remapped = 1;
        F::remapped().insert(tuple, port, 0).map_err(|_| TableFull)
    }

    #[inline(always)]
    fn foreign_since(&self, tuple: &OuterTuple<F::Address>) -> Option<u32> {
        if port_notes::<F>(tuple.protocol, tuple.host_port)?.has_foreign == 0 {
            return None;
        }
        // SAFETY: as for `remapped`.
        unsafe { F::foreign().get(tuple) }.copied()
    }

    #[inline(always)]
    fn note_foreign(&self, tuple: &OuterTuple<F::Address>, now: u32) {
        // An LRU map takes it, unless memory is short; then the note is missed, as conntrack's would be.
        let _ = F::foreign().insert(tuple, now, 0);
        if let Some(notes) = port_notes::<F>(tuple.protocol, tuple.host_port) {
            notes.has_foreign = 1;
        }
    }

    #[inline(always)]
    fn datagram(&self, key: &FragmentKey<F::Address>) -> Option<impl DerefMut<Target = Datagram>> {
        let datagram = F::datagrams().get_ptr_mut(key)?;
        // SAFETY: as for `flow`.
        Some(unsafe { &mut *datagram })
    }

    #[inline(always)]
    fn note_datagram(
        &self,
        key: &FragmentKey<F::Address>,
        datagram: &Datagram,
    ) -> Result<(), TableFull> {
        F::datagrams()
            .insert(key, datagram, 0)
            .map_err(|_| TableFull)
    }

    #[inline(always)]
    fn forget_datagram(&self, key: &FragmentKey<F::Address>) {
        // Gone already is as good.
        let _ = F::datagrams().remove(key);
    }

    #[inline(always)]
    fn random(&self) -> u32 {
        // SAFETY: the helper has no preconditions.
        unsafe { bpf_get_prandom_u32() }
    }

    #[inline(always)]
    fn with_traffic(&self, backend: u32, with: impl FnOnce(&mut Traffic)) {
        if let Some(traffic) = maps::TRAFFIC.get_ptr_mut(backend) {
            // SAFETY: as for `count`.
            with(unsafe { &mut *traffic });
        }
    }

    #[inline(always)]
    fn is_there(&self, ifindex: u32) -> bool {
        H::is_there(self, ifindex)
    }

    #[inline(always)]
    fn route(
        &self,
        from: u32,
        container: &F::Address,
        client: &F::Address,
        route: &mut Route<F::Address>,
    ) -> Result<(), Reason> {
        find_route::<F, H>(self, from, container, client, route)
    }
}
