//! Maps, clock and routing as the core's tables.

use core::{marker::PhantomData, ops::DerefMut};

use aya_ebpf::{
    EbpfContext,
    bindings::{
        BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS, bpf_fib_lookup as FibLookup,
        xdp_action::{XDP_PASS, XDP_REDIRECT},
    },
    helpers::{bpf_check_mtu, bpf_fib_lookup, bpf_get_prandom_u32, bpf_ktime_get_coarse_ns},
};
use dataplane_common::{
    flow::{Flow, FlowKey, OuterTuple},
    fragment::{Datagram, FragmentKey},
    headers::{Be16, IpProtocol},
    published::{Backend, BoundPort, PortSlot, Traffic, port_slot},
    reason::{Counter, Reason},
    settings::Settings,
    tables::{Route, TableFull, Tables},
};

use crate::{
    maps::{self, FamilyMaps},
    routing::Routing,
};

const NANOSECONDS: u64 = 1_000_000_000;
const NANOSECONDS_IN_MILLISECOND: u64 = 1_000_000;

/// The hook that a program runs at, as far as it matters to the tables.
pub trait Hook {
    /// Whether a program at a later hook sees what is let pass here.
    const IS_SEEN_AGAIN: bool;

    /// Whether packets can be handed to the backend with this number from here.
    fn can_reach(backend: u32) -> bool;
}

/// TC, from where every container can be reached.
pub struct Tc;

impl Hook for Tc {
    const IS_SEEN_AGAIN: bool = false;

    #[inline(always)]
    fn can_reach(_: u32) -> bool {
        true
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

/// What is published on a port of one address. A function of its own in the eBPF program, as the two below,
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

/// Asks for a route and writes it.
#[inline(never)]
fn ask_route<F: Routing, H>(
    kernel: &Kernel<H>,
    from: u32,
    container: &F::Address,
    client: &F::Address,
    route: &mut Route<F::Address>,
) -> Result<(), Reason> {
    // SAFETY: integers and arrays of them; zero is what the helper wants where nothing is said.
    let mut query: FibLookup = unsafe { core::mem::zeroed() };
    query.family = F::AF;
    query.ifindex = from;
    F::ask(&mut query, *container, *client);
    // SAFETY: `query` is as long as said, and outlives the call.
    let result = unsafe {
        bpf_fib_lookup(
            kernel.context,
            &raw mut query,
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
    // SAFETY: the helper puts the route's MTU where the query had the length.
    let mtu = match unsafe { query.__bindgen_anon_1.mtu_result } {
        // Not told while the neighbour is unresolved. The next look at the route will.
        0 => kernel.device_mtu(query.ifindex).ok_or(Reason::NoRoute)?,
        mtu => mtu,
    };
    *route = Route {
        ifindex: query.ifindex,
        next_hop: F::next_hop(&query),
        mtu,
    };
    Ok(())
}

/// Moves a flow to the established ones.
#[inline(never)]
fn establish<F: FamilyMaps>(key: &FlowKey<F::Address>) {
    let Some(flow) = F::opening().get_ptr_mut(key) else {
        return;
    };
    // SAFETY: as for `flow`; the helper copies it.
    let flow = unsafe { &mut *flow };
    flow.marks |= Flow::<F::Address>::KEPT;
    // It is found in either table, so it only goes from the one when it is in the other.
    let kept: &Flow<_> = flow;
    if F::flows().insert(key, kept, 0).is_ok() {
        let _ = F::opening().remove(key);
    } else {
        flow.marks &= !Flow::<F::Address>::KEPT;
    }
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
        // SAFETY: the helper has no preconditions. A tick's resolution is enough for seconds.
        (unsafe { bpf_ktime_get_coarse_ns() } / NANOSECONDS) as u32
    }

    #[inline(always)]
    fn now_millis(&self) -> u32 {
        // SAFETY: as for `now`. A tick's resolution is enough here, too.
        (unsafe { bpf_ktime_get_coarse_ns() } / NANOSECONDS_IN_MILLISECOND) as u32
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
        F::local().get_ptr(*address).is_some()
    }

    #[inline(always)]
    fn backend(&self, number: u32) -> Option<&Backend> {
        maps::BACKENDS.get(number)
    }

    #[inline(always)]
    fn flow(&self, key: &FlowKey<F::Address>) -> Option<impl DerefMut<Target = Flow<F::Address>>> {
        let flow = F::flows()
            .get_ptr_mut(key)
            .or_else(|| F::opening().get_ptr_mut(key))?;
        // SAFETY: the entry's memory stays a flow's for as long as the program runs. Other CPUs may
        // write to it meanwhile, or an eviction give it to another flow: every field is an integer, valid
        // whatever it holds, and a packet that meets such a moment goes astray alone, as one that meets a
        // change of routes does.
        Some(unsafe { &mut *flow })
    }

    #[inline(always)]
    fn insert_flow(
        &self,
        key: &FlowKey<F::Address>,
        flow: &Flow<F::Address>,
    ) -> Result<(), TableFull> {
        // One that is over would be found first. Not there is the usual case, and no error.
        let _ = F::flows().remove(key);
        F::opening().insert(key, flow, 0).map_err(|_| TableFull)
    }

    #[inline(always)]
    fn establish(&self, key: &FlowKey<F::Address>) {
        establish::<F>(key);
    }

    #[inline(always)]
    fn remapped(&self, tuple: &OuterTuple<F::Address>) -> Option<Be16> {
        // SAFETY: the port is copied out at once, and is whole whenever it is read.
        unsafe { F::remapped().get(tuple) }.copied()
    }

    #[inline(always)]
    fn remap(&self, tuple: &OuterTuple<F::Address>, port: Be16) -> Result<(), TableFull> {
        F::remapped().insert(tuple, port, 0).map_err(|_| TableFull)
    }

    #[inline(always)]
    fn foreign_since(&self, tuple: &OuterTuple<F::Address>) -> Option<u32> {
        // SAFETY: as for `remapped`.
        unsafe { F::foreign().get(tuple) }.copied()
    }

    #[inline(always)]
    fn note_foreign(&self, tuple: &OuterTuple<F::Address>, now: u32) {
        // An LRU map takes it, unless memory is short; then the note is missed, as conntrack's would be.
        let _ = F::foreign().insert(tuple, now, 0);
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
        self.device_mtu(ifindex).is_some()
    }

    #[inline(always)]
    fn route(
        &self,
        from: u32,
        container: &F::Address,
        client: &F::Address,
        route: &mut Route<F::Address>,
    ) -> Result<(), Reason> {
        ask_route::<F, H>(self, from, container, client, route)
    }
}
