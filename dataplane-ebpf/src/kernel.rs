//! Maps, clock and routing as the core's tables.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS, bpf_fib_lookup as FibLookup},
    helpers::{bpf_check_mtu, bpf_fib_lookup, bpf_get_prandom_u32, bpf_ktime_get_coarse_ns},
    programs::TcContext,
};
use dataplane_common::{
    family::V4,
    flow::{Flow, FlowKey, OuterTuple},
    headers::{Be16, Be32, IpProtocol},
    published::{Backend, BoundPort, PortSlot, Traffic, port_slot},
    reason::{Counter, Reason},
    settings::Settings,
    tables::{Route, TableFull, Tables},
};

use crate::maps;

/// `AF_INET` in include/linux/socket.h.
pub const AF_INET: u8 = 2;

const NANOSECONDS: u64 = 1_000_000_000;
const NANOSECONDS_IN_MILLISECOND: u64 = 1_000_000;

/// What a running program can ask the kernel.
pub struct Kernel {
    context: *mut core::ffi::c_void,
}

impl Kernel {
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
    pub fn new(context: &TcContext) -> Self {
        Self {
            context: context.as_ptr(),
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

impl Tables<V4> for Kernel {
    #[inline(always)]
    fn settings(&self) -> Settings {
        // Not there is not possible; all zero would mean that nothing is admitted.
        maps::SETTINGS.get(0).copied().unwrap_or_default()
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
        maps::PORTS_V4
            .get(port_slot(protocol, port))
            .copied()
            .unwrap_or(PortSlot::EMPTY)
    }

    #[inline(always)]
    fn bound_port(&self, key: &BoundPort<Be32>) -> PortSlot {
        // SAFETY: the word is copied out at once, and is whole whenever it is read.
        unsafe { maps::BOUND_PORTS_V4.get(key) }
            .copied()
            .unwrap_or(PortSlot::EMPTY)
    }

    #[inline(always)]
    fn is_local(&self, address: Be32) -> bool {
        maps::LOCAL_V4.get_ptr(address).is_some()
    }

    #[inline(always)]
    fn backend(&self, number: u32) -> Option<&Backend> {
        maps::BACKENDS.get(number)
    }

    #[inline(always)]
    fn with_flow<R>(
        &self,
        key: &FlowKey<Be32>,
        with: impl FnOnce(&mut Flow<Be32>) -> R,
    ) -> Option<R> {
        let flow = maps::FLOWS_V4
            .get_ptr_mut(key)
            .or_else(|| maps::OPENING_V4.get_ptr_mut(key))?;
        // SAFETY: the entry's memory stays a flow's for as long as the program runs. Other CPUs may
        // write to it meanwhile, or an eviction give it to another flow: every field is an integer, valid
        // whatever it holds, and a packet that meets such a moment goes astray alone, as one that meets a
        // change of routes does.
        Some(with(unsafe { &mut *flow }))
    }

    #[inline(always)]
    fn insert_flow(&self, key: &FlowKey<Be32>, flow: &Flow<Be32>) -> Result<(), TableFull> {
        // One that is over would be found first. Not there is the usual case, and no error.
        let _ = maps::FLOWS_V4.remove(key);
        maps::OPENING_V4.insert(key, flow, 0).map_err(|_| TableFull)
    }

    #[inline(always)]
    fn establish(&self, key: &FlowKey<Be32>) {
        let Some(flow) = maps::OPENING_V4.get_ptr(key) else {
            return;
        };
        // SAFETY: as for `with_flow`; the helper copies it.
        let flow = unsafe { &*flow };
        // It is found in either table, so it only goes from the one when it is in the other.
        if maps::FLOWS_V4.insert(key, flow, 0).is_ok() {
            let _ = maps::OPENING_V4.remove(key);
        }
    }

    #[inline(always)]
    fn remapped(&self, tuple: &OuterTuple<Be32>) -> Option<Be16> {
        // SAFETY: the port is copied out at once, and is whole whenever it is read.
        unsafe { maps::REMAPPED_V4.get(tuple) }.copied()
    }

    #[inline(always)]
    fn remap(&self, tuple: &OuterTuple<Be32>, port: Be16) -> Result<(), TableFull> {
        maps::REMAPPED_V4
            .insert(tuple, port, 0)
            .map_err(|_| TableFull)
    }

    #[inline(always)]
    fn foreign_since(&self, tuple: &OuterTuple<Be32>) -> Option<u32> {
        // SAFETY: as for `remapped`.
        unsafe { maps::FOREIGN_V4.get(tuple) }.copied()
    }

    #[inline(always)]
    fn note_foreign(&self, tuple: &OuterTuple<Be32>, now: u32) {
        // An LRU map takes it, unless memory is short; then the note is missed, as conntrack's would be.
        let _ = maps::FOREIGN_V4.insert(tuple, now, 0);
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
    fn route(&self, from: u32, container: Be32, client: Be32) -> Result<Route<Be32>, Reason> {
        // SAFETY: integers and arrays of them; zero is what the helper wants where nothing is said.
        let mut query: FibLookup = unsafe { core::mem::zeroed() };
        query.family = AF_INET;
        query.ifindex = from;
        query.__bindgen_anon_3.ipv4_src = container.raw();
        query.__bindgen_anon_4.ipv4_dst = client.raw();
        // SAFETY: `query` is as long as said, and outlives the call.
        let result = unsafe {
            bpf_fib_lookup(
                self.context,
                &raw mut query,
                size_of::<FibLookup>() as i32,
                0,
            )
        };
        // A neighbour that is not resolved yet is no obstacle: the kernel resolves it when sending.
        let found = result == i64::from(BPF_FIB_LKUP_RET_SUCCESS)
            || result == i64::from(BPF_FIB_LKUP_RET_NO_NEIGH);
        // An IPv6 gateway (RFC 5549) is left to the slow path.
        if !found || query.family != AF_INET {
            return Err(Reason::NoRoute);
        }
        // SAFETY: the helper puts the route's MTU where the query had the length.
        let mtu = match unsafe { query.__bindgen_anon_1.mtu_result } {
            // Not told while the neighbour is unresolved. The next look at the route will.
            0 => self.device_mtu(query.ifindex).ok_or(Reason::NoRoute)?,
            mtu => mtu,
        };
        Ok(Route {
            ifindex: query.ifindex,
            // SAFETY: an IPv4 answer has the neighbour's IPv4 address there.
            next_hop: Be32::from_raw(unsafe { query.__bindgen_anon_4.ipv4_dst }),
            mtu,
        })
    }
}
