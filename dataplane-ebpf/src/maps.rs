//! The maps. Their layout is `dataplane-common`'s, their names are `dataplane_common::layout::maps`.

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray},
};
use dataplane_common::{
    flow::{Flow, FlowKey, OuterTuple},
    headers::{Be16, Be32},
    layout::{
        DEFAULT_MAX_FLOWS, MAX_BACKENDS, MAX_BOUND_PORTS, MAX_FOREIGN, MAX_HOOKS,
        MAX_LOCAL_ADDRESSES, MAX_OPENING, MAX_REMAPPED,
    },
    published::{Backend, BoundPort, PORT_SLOTS, PortSlot, Traffic},
    reason::Counter,
    registry::{Hook, HookKey, Record, Row},
    settings::Settings,
};

/// Hash maps that are mostly empty take memory by the entry.
const NO_PREALLOC: u32 = aya_ebpf::bindings::BPF_F_NO_PREALLOC;

#[map]
pub static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);

#[map]
pub static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::ALL.len() as u32, 0);

#[map]
pub static PORTS_V4: Array<PortSlot> = Array::with_max_entries(PORT_SLOTS, 0);

#[map]
pub static BOUND_PORTS_V4: HashMap<BoundPort<Be32>, PortSlot> =
    HashMap::with_max_entries(MAX_BOUND_PORTS, NO_PREALLOC);

#[map]
pub static LOCAL_V4: HashMap<Be32, u32> =
    HashMap::with_max_entries(MAX_LOCAL_ADDRESSES, NO_PREALLOC);

#[map]
pub static BACKENDS: Array<Backend> = Array::with_max_entries(MAX_BACKENDS, 0);

#[map]
pub static TRAFFIC: PerCpuArray<Traffic> = PerCpuArray::with_max_entries(MAX_BACKENDS, 0);

#[map]
pub static FLOWS_V4: LruHashMap<FlowKey<Be32>, Flow<Be32>> =
    LruHashMap::with_max_entries(DEFAULT_MAX_FLOWS, 0);

#[map]
pub static OPENING_V4: LruHashMap<FlowKey<Be32>, Flow<Be32>> =
    LruHashMap::with_max_entries(MAX_OPENING, 0);

#[map]
pub static REMAPPED_V4: LruHashMap<OuterTuple<Be32>, Be16> =
    LruHashMap::with_max_entries(MAX_REMAPPED, 0);

#[map]
pub static FOREIGN_V4: LruHashMap<OuterTuple<Be32>, u32> =
    LruHashMap::with_max_entries(MAX_FOREIGN, 0);

#[map]
pub static ROWS: HashMap<u32, Row> = HashMap::with_max_entries(MAX_BACKENDS, NO_PREALLOC);

#[map]
pub static HOOKS: HashMap<HookKey, Hook> = HashMap::with_max_entries(MAX_HOOKS, NO_PREALLOC);

#[map]
pub static RECORD: Array<Record> = Array::with_max_entries(1, 0);
