//! The maps. Their layout is `dataplane-common`'s, their names are `dataplane_common::layout::maps`.

use aya_ebpf::{
    bindings::bpf_fib_lookup as FibLookup,
    macros::map,
    maps::{Array, DevMap, HashMap, LruHashMap, PerCpuArray},
};
use dataplane_common::{
    bucket::{Bucket, Slot},
    family::{Family, V4, V6},
    flow::{Flow, FlowKey, OuterTuple},
    fragment::{Datagram, FragmentKey, Held, HeldKey},
    headers::{Be16, Be32, Ip6},
    layout::{
        DEFAULT_MAX_FLOWS, LESS_V6, MAX_BACKENDS, MAX_BOUND_PORTS, MAX_DATAGRAMS, MAX_FOREIGN,
        MAX_HELD, MAX_HOOKS, MAX_LOCAL_ADDRESSES, MAX_REMAPPED, MAX_ROUTES, MAX_XDP_INTERFACES,
        buckets, ring, slots, spilled,
    },
    published::{Backend, BoundPort, PORT_SLOTS, PortNotes, PortSlot, Traffic},
    reason::Counter,
    registry::{Hook, HookKey, Record, Row},
    settings::{Settings, XdpInterface},
};

use crate::recent::{KnownRoute, LastLocal};

/// Hash maps that are mostly empty take memory by the entry.
const NO_PREALLOC: u32 = aya_ebpf::bindings::BPF_F_NO_PREALLOC;

/// Entries of such an array begin where a page does, and so do cache lines then.
const MMAPABLE: u32 = aya_ebpf::bindings::BPF_F_MMAPABLE;

#[map]
pub static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);

#[map]
pub static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::ALL.len() as u32, 0);

#[map]
pub static BACKENDS: Array<Backend> = Array::with_max_entries(MAX_BACKENDS, 0);

#[map]
pub static TRAFFIC: PerCpuArray<Traffic> = PerCpuArray::with_max_entries(MAX_BACKENDS, 0);

#[map]
pub static ROWS: HashMap<u32, Row> = HashMap::with_max_entries(MAX_BACKENDS, NO_PREALLOC);

#[map]
pub static HOOKS: HashMap<HookKey, Hook> = HashMap::with_max_entries(MAX_HOOKS, NO_PREALLOC);

#[map]
pub static RECORD: Array<Record> = Array::with_max_entries(1, 0);

/// The interfaces by which XDP reaches containers.
#[map]
pub static DEVICES: DevMap = DevMap::with_max_entries(MAX_BACKENDS, 0);

#[map]
pub static XDP_INTERFACES: Array<XdpInterface> = Array::with_max_entries(MAX_XDP_INTERFACES, 0);

/// What the clock said, and at which tick.
#[map]
pub static CLOCK: Array<u64> = Array::with_max_entries(1, 0);

/// What is asked of the routing table, which is more than the stack has room for.
#[map]
pub static FIB_QUERY: PerCpuArray<FibLookup> = PerCpuArray::with_max_entries(1, 0);

/// Where the flow is copied to that the controller wants to be written, of either IP version.
#[map]
pub static ADOPTED: PerCpuArray<Slot<Ip6>> = PerCpuArray::with_max_entries(1, 0);

/// Where a frame is copied to.
#[map]
pub static SCRATCH: PerCpuArray<Held> = PerCpuArray::with_max_entries(1, 0);

/// Overwritten when the programs are loaded.
#[unsafe(no_mangle)]
static HASH_SEED: u64 = 0;

/// Decides which flows share a bucket.
#[inline(always)]
pub fn hash_seed() -> u64 {
    constant(&HASH_SEED)
}

/// What was written over a constant when the programs were loaded, which the compiler must not take for known.
#[inline(always)]
fn constant<T: Copy>(constant: &'static T) -> T {
    // SAFETY: a reference can be read from.
    unsafe { core::ptr::read_volatile(constant) }
}

/// The maps that each IP version has for itself.
pub trait FamilyMaps: Family {
    /// What is published on ports of all addresses.
    fn ports() -> &'static Array<PortSlot>;
    /// What is published on ports of single addresses.
    fn bound_ports() -> &'static HashMap<BoundPort<Self::Address>, PortSlot>;
    /// What has been noted of ports.
    fn port_notes() -> &'static Array<PortNotes>;
    /// The host's own addresses.
    fn local() -> &'static HashMap<Self::Address, u32>;
    /// Per CPU, what was last found among these.
    fn last_local() -> &'static PerCpuArray<LastLocal<Self::Address>>;
    /// How many routes each CPU remembers.
    const ROUTES: u32;
    /// Per CPU, routes that were looked up lately.
    fn routes() -> &'static PerCpuArray<KnownRoute<Self::Address>>;
    /// Which flows are where.
    fn buckets() -> &'static Array<Bucket>;
    /// Flows that are kept, by bucket and way, and behind them those that are opening.
    fn slots() -> &'static Array<Slot<Self::Address>>;
    /// The number of buckets.
    fn bucket_count() -> u32;
    /// The size of the ring, a power of two.
    fn ring_size() -> u32;
    /// How many flows have ever begun.
    fn begun() -> &'static Array<u64>;
    /// Established flows that have found no place in their bucket.
    fn spilled() -> &'static HashMap<FlowKey<Self::Address>, Flow<Self::Address>>;
    /// Ports of clients as their containers see them, where these are not the clients' own.
    fn remapped() -> &'static LruHashMap<OuterTuple<Self::Address>, Be16>;
    /// When others were last heard in conversations of their own.
    fn foreign() -> &'static LruHashMap<OuterTuple<Self::Address>, u32>;
    /// Datagrams that come in fragments.
    fn datagrams() -> &'static LruHashMap<FragmentKey<Self::Address>, Datagram>;
    /// Copies of fragments that came before their datagram's first one.
    fn held() -> &'static LruHashMap<HeldKey<Self::Address>, Held>;
}

/// Declares a family's maps.
macro_rules! family_maps {
    ($family:ty, $address:ty, $less:expr, $ports:ident, $bound_ports:ident, $port_notes:ident,
     $local:ident, $last_local:ident, $routes:ident, $buckets:ident, $bucket_count:ident,
     $slots:ident, $ring_size:ident, $begun:ident, $spilled:ident, $remapped:ident,
     $foreign:ident, $datagrams:ident, $held:ident) => {
        #[map]
        pub static $ports: Array<PortSlot> = Array::with_max_entries(PORT_SLOTS, 0);

        #[map]
        pub static $bound_ports: HashMap<BoundPort<$address>, PortSlot> =
            HashMap::with_max_entries(MAX_BOUND_PORTS, NO_PREALLOC);

        #[map]
        pub static $port_notes: Array<PortNotes> = Array::with_max_entries(PORT_SLOTS, 0);

        #[map]
        pub static $local: HashMap<$address, u32> =
            HashMap::with_max_entries(MAX_LOCAL_ADDRESSES, NO_PREALLOC);

        #[map]
        pub static $last_local: PerCpuArray<LastLocal<$address>> =
            PerCpuArray::with_max_entries(1, 0);

        #[map]
        pub static $routes: PerCpuArray<KnownRoute<$address>> =
            PerCpuArray::with_max_entries(MAX_ROUTES / $less, 0);

        #[map]
        pub static $buckets: Array<Bucket> =
            Array::with_max_entries(buckets(DEFAULT_MAX_FLOWS / $less), MMAPABLE);

        #[map]
        pub static $slots: Array<Slot<$address>> =
            Array::with_max_entries(slots(DEFAULT_MAX_FLOWS / $less), MMAPABLE);

        /// Overwritten when the programs are loaded.
        #[unsafe(no_mangle)]
        static $bucket_count: u32 = buckets(DEFAULT_MAX_FLOWS / $less);

        /// Overwritten when the programs are loaded.
        #[unsafe(no_mangle)]
        static $ring_size: u32 = ring(DEFAULT_MAX_FLOWS / $less);

        #[map]
        pub static $begun: Array<u64> = Array::with_max_entries(1, 0);

        #[map]
        pub static $spilled: HashMap<FlowKey<$address>, Flow<$address>> =
            HashMap::with_max_entries(spilled(DEFAULT_MAX_FLOWS / $less), NO_PREALLOC);

        #[map]
        pub static $remapped: LruHashMap<OuterTuple<$address>, Be16> =
            LruHashMap::with_max_entries(MAX_REMAPPED / $less, 0);

        #[map]
        pub static $foreign: LruHashMap<OuterTuple<$address>, u32> =
            LruHashMap::with_max_entries(MAX_FOREIGN / $less, 0);

        #[map]
        pub static $datagrams: LruHashMap<FragmentKey<$address>, Datagram> =
            LruHashMap::with_max_entries(MAX_DATAGRAMS, 0);

        #[map]
        pub static $held: LruHashMap<HeldKey<$address>, Held> =
            LruHashMap::with_max_entries(MAX_HELD, 0);

        impl FamilyMaps for $family {
            const ROUTES: u32 = MAX_ROUTES / $less;

            #[inline(always)]
            fn ports() -> &'static Array<PortSlot> {
                &$ports
            }

            #[inline(always)]
            fn bound_ports() -> &'static HashMap<BoundPort<$address>, PortSlot> {
                &$bound_ports
            }

            #[inline(always)]
            fn port_notes() -> &'static Array<PortNotes> {
                &$port_notes
            }

            #[inline(always)]
            fn local() -> &'static HashMap<$address, u32> {
                &$local
            }

            #[inline(always)]
            fn last_local() -> &'static PerCpuArray<LastLocal<$address>> {
                &$last_local
            }

            #[inline(always)]
            fn routes() -> &'static PerCpuArray<KnownRoute<$address>> {
                &$routes
            }

            #[inline(always)]
            fn buckets() -> &'static Array<Bucket> {
                &$buckets
            }

            #[inline(always)]
            fn slots() -> &'static Array<Slot<$address>> {
                &$slots
            }

            #[inline(always)]
            fn bucket_count() -> u32 {
                constant(&$bucket_count)
            }

            #[inline(always)]
            fn ring_size() -> u32 {
                constant(&$ring_size)
            }

            #[inline(always)]
            fn begun() -> &'static Array<u64> {
                &$begun
            }

            #[inline(always)]
            fn spilled() -> &'static HashMap<FlowKey<$address>, Flow<$address>> {
                &$spilled
            }

            #[inline(always)]
            fn remapped() -> &'static LruHashMap<OuterTuple<$address>, Be16> {
                &$remapped
            }

            #[inline(always)]
            fn foreign() -> &'static LruHashMap<OuterTuple<$address>, u32> {
                &$foreign
            }

            #[inline(always)]
            fn datagrams() -> &'static LruHashMap<FragmentKey<$address>, Datagram> {
                &$datagrams
            }

            #[inline(always)]
            fn held() -> &'static LruHashMap<HeldKey<$address>, Held> {
                &$held
            }
        }
    };
}

family_maps!(
    V4,
    Be32,
    1,
    PORTS_V4,
    BOUND_PORTS_V4,
    PORT_NOTES_V4,
    LOCAL_V4,
    LAST_LOCAL_V4,
    ROUTES_V4,
    BUCKETS_V4,
    BUCKET_COUNT_V4,
    SLOTS_V4,
    RING_SIZE_V4,
    BEGUN_V4,
    SPILLED_V4,
    REMAPPED_V4,
    FOREIGN_V4,
    DATAGRAMS_V4,
    HELD_V4
);

family_maps!(
    V6,
    Ip6,
    LESS_V6,
    PORTS_V6,
    BOUND_PORTS_V6,
    PORT_NOTES_V6,
    LOCAL_V6,
    LAST_LOCAL_V6,
    ROUTES_V6,
    BUCKETS_V6,
    BUCKET_COUNT_V6,
    SLOTS_V6,
    RING_SIZE_V6,
    BEGUN_V6,
    SPILLED_V6,
    REMAPPED_V6,
    FOREIGN_V6,
    DATAGRAMS_V6,
    HELD_V6
);
