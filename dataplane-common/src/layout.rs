//! Names, sizes and version of the pinned maps.

use crate::bucket::WAYS;

/// The layout's version: part of the pin path, and to be raised by every change to a map's key, value,
/// type or meaning.
pub const LAYOUT_VERSION: u32 = 7;

/// Backends, and thus rows of `portway ls`, that one instance can hold. Index 0 is never used.
pub const MAX_BACKENDS: u32 = 16_384;

/// Publications on a single address, counted by port, that one instance can hold.
pub const MAX_BOUND_PORTS: u32 = 131_072;

/// Addresses of one family that the host may have.
pub const MAX_LOCAL_ADDRESSES: u32 = 16_384;

/// Routes that each CPU remembers for IPv4 clients, and as many times fewer for IPv6 as [`LESS_V6`] says.
pub const MAX_ROUTES: u32 = 4096;

/// Interfaces that programs may be attached to.
pub const MAX_HOOKS: u32 = 16_384;

/// IPv4 flows, unless the user says otherwise.
pub const DEFAULT_MAX_FLOWS: u32 = 262_144;

/// Buckets of the table of flows, for so many flows.
pub const fn buckets(max_flows: u32) -> u32 {
    max_flows.div_ceil(WAYS as u32)
}

/// Slots for flows: those of all these buckets, and behind them the ring. One array, so that the verifier has one kind
/// of pointer to follow.
pub const fn slots(max_flows: u32) -> u32 {
    first_of_ring(buckets(max_flows)) + ring(max_flows)
}

/// The first slot of the ring, behind those of so many buckets.
pub const fn first_of_ring(buckets: u32) -> u32 {
    buckets * WAYS as u32
}

/// The largest ring: what is left of a word beside a place in it has to tell flows of a bucket apart.
const MAX_RING: u32 = 1 << 20;

/// Places in the ring of those that are opening, a power of two: some fourth of so many flows.
pub const fn ring(max_flows: u32) -> u32 {
    let fourth = max_flows.div_ceil(4).next_power_of_two();
    if fourth > MAX_RING { MAX_RING } else { fourth }
}

/// Room in the table behind, for so many flows: for those that find no place in their bucket when all of them are
/// established. Of as many flows as there are ways, spread by chance, 14 % are more than eight in a bucket.
pub const fn spilled(max_flows: u32) -> u32 {
    buckets(max_flows).div_ceil(2) * 3
}

const _: () = assert!(WAYS == 8);

/// IPv6 has so many times less room for flows and all that goes with them: the tables take their memory whether
/// they are full or empty, and on most hosts most flows are IPv4's.
pub const LESS_V6: u32 = 8;

/// IPv4 flows whose client the container sees under another port.
pub const MAX_REMAPPED: u32 = 16_384;

/// Conversations of others from published ports that are kept in mind, in IPv4.
pub const MAX_FOREIGN: u32 = 65_536;

/// Datagrams of one family that are under way in fragments.
pub const MAX_DATAGRAMS: u32 = 16_384;

/// Fragments of one family that came before their datagram's first one, and are held until it comes.
pub const MAX_HELD: u32 = 1024;

/// Slots for external interfaces whose frames are translated in XDP; see
/// [`XdpInterface`](crate::settings::XdpInterface).
pub const MAX_XDP_INTERFACES: u32 = 64;

/// The maps' names, in the object file and under the pin path.
pub mod maps {
    /// [`Settings`](crate::settings::Settings), one entry.
    pub const SETTINGS: &str = "SETTINGS";
    /// Per-CPU counters by [`Counter`](crate::reason::Counter).
    pub const COUNTERS: &str = "COUNTERS";
    /// [`Backend`](crate::published::Backend) by its number.
    pub const BACKENDS: &str = "BACKENDS";
    /// Per-CPU [`Traffic`](crate::published::Traffic) by backend number.
    pub const TRAFFIC: &str = "TRAFFIC";
    /// [`Row`](crate::registry::Row) by backend number: what the controller alone reads.
    pub const ROWS: &str = "ROWS";
    /// [`Hook`](crate::registry::Hook) by [`HookKey`](crate::registry::HookKey): what is attached where.
    pub const HOOKS: &str = "HOOKS";
    /// [`Record`](crate::registry::Record), one entry.
    pub const RECORD: &str = "RECORD";

    /// Device map: by backend number the interface by which XDP reaches its container.
    pub const DEVICES: &str = "DEVICES";
    /// [`XdpInterface`](crate::settings::XdpInterface) by [`xdp_slot`](crate::settings::xdp_slot).
    pub const XDP_INTERFACES: &str = "XDP_INTERFACES";

    /// The second of the monotonic clock (low half) at a tick of the timer (high half).
    pub const CLOCK: &str = "CLOCK";
    /// Per-CPU room for what is asked of the routing table.
    pub const FIB_QUERY: &str = "FIB_QUERY";
    /// Per-CPU room for a flow that the controller wants to be written.
    pub const ADOPTED: &str = "ADOPTED";
    /// Per-CPU room to copy a frame to.
    pub const SCRATCH: &str = "SCRATCH";

    /// The names of the maps that each IP version has for itself.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct FamilyMaps {
        /// [`PortSlot`](crate::published::PortSlot) by protocol and port.
        pub ports: &'static str,
        /// [`PortSlot`](crate::published::PortSlot) by [`BoundPort`](crate::published::BoundPort).
        pub bound_ports: &'static str,
        /// [`PortNotes`](crate::published::PortNotes) by protocol and port.
        pub port_notes: &'static str,
        /// The host's own addresses.
        pub local: &'static str,
        /// Per CPU, what was last found in the one above.
        pub last_local: &'static str,
        /// Per CPU, routes that were looked up lately.
        pub routes: &'static str,
        /// [`Bucket`](crate::bucket::Bucket)s: which flows are where.
        pub buckets: &'static str,
        /// [`Slot`](crate::bucket::Slot)s: the flows that are kept, by bucket and way, and behind them those that are
        /// opening, in the order in which they began.
        pub slots: &'static str,
        /// How many flows have ever begun.
        pub begun: &'static str,
        /// [`Flow`](crate::flow::Flow) by [`FlowKey`](crate::flow::FlowKey): established ones that have found
        /// no place in their bucket.
        pub spilled: &'static str,
        /// Client port by [`OuterTuple`](crate::flow::OuterTuple), where the container sees another.
        pub remapped: &'static str,
        /// Seconds of the monotonic clock by [`OuterTuple`](crate::flow::OuterTuple): what is not ours.
        pub foreign: &'static str,
        /// [`Datagram`](crate::fragment::Datagram) by [`FragmentKey`](crate::fragment::FragmentKey).
        pub datagrams: &'static str,
        /// [`Held`](crate::fragment::Held) by [`HeldKey`](crate::fragment::HeldKey).
        pub held: &'static str,
    }

    /// IPv4's.
    pub const V4: FamilyMaps = FamilyMaps {
        ports: "PORTS_V4",
        bound_ports: "BOUND_PORTS_V4",
        port_notes: "PORT_NOTES_V4",
        local: "LOCAL_V4",
        last_local: "LAST_LOCAL_V4",
        routes: "ROUTES_V4",
        buckets: "BUCKETS_V4",
        slots: "SLOTS_V4",
        begun: "BEGUN_V4",
        spilled: "SPILLED_V4",
        remapped: "REMAPPED_V4",
        foreign: "FOREIGN_V4",
        datagrams: "DATAGRAMS_V4",
        held: "HELD_V4",
    };

    /// IPv6's.
    pub const V6: FamilyMaps = FamilyMaps {
        ports: "PORTS_V6",
        bound_ports: "BOUND_PORTS_V6",
        port_notes: "PORT_NOTES_V6",
        local: "LOCAL_V6",
        last_local: "LAST_LOCAL_V6",
        routes: "ROUTES_V6",
        buckets: "BUCKETS_V6",
        slots: "SLOTS_V6",
        begun: "BEGUN_V6",
        spilled: "SPILLED_V6",
        remapped: "REMAPPED_V6",
        foreign: "FOREIGN_V6",
        datagrams: "DATAGRAMS_V6",
        held: "HELD_V6",
    };

    /// All of them.
    pub fn all() -> impl Iterator<Item = &'static str> {
        let shared = [
            SETTINGS,
            COUNTERS,
            BACKENDS,
            TRAFFIC,
            ROWS,
            HOOKS,
            RECORD,
            DEVICES,
            XDP_INTERFACES,
            CLOCK,
            FIB_QUERY,
            ADOPTED,
            SCRATCH,
        ];
        shared
            .into_iter()
            .chain([V4, V6].into_iter().flat_map(|family| {
                [
                    family.ports,
                    family.bound_ports,
                    family.port_notes,
                    family.local,
                    family.last_local,
                    family.routes,
                    family.buckets,
                    family.slots,
                    family.begun,
                    family.spilled,
                    family.remapped,
                    family.foreign,
                    family.datagrams,
                    family.held,
                ]
            }))
    }
}

/// The names of constants that the programs are given when they are loaded.
pub mod constants {
    /// A random number (`u64`) that decides which flows share a bucket.
    pub const HASH_SEED: &str = "HASH_SEED";
    /// The number of IPv4's buckets (`u32`).
    pub const BUCKET_COUNT_V4: &str = "BUCKET_COUNT_V4";
    /// The number of IPv6's buckets (`u32`).
    pub const BUCKET_COUNT_V6: &str = "BUCKET_COUNT_V6";
    /// The size of IPv4's ring (`u32`), a power of two.
    pub const RING_SIZE_V4: &str = "RING_SIZE_V4";
    /// The size of IPv6's ring (`u32`), a power of two.
    pub const RING_SIZE_V6: &str = "RING_SIZE_V6";
}

/// The programs' names, in the object file and under the pin path.
pub mod programs {
    /// TC ingress of external interfaces: client -> container.
    pub const FORWARD: &str = "portway_forward";
    /// The same for interfaces without an Ethernet header.
    pub const FORWARD_L3: &str = "portway_forward_l3";
    /// TC ingress of containers' host veths: container -> client.
    pub const REPLY: &str = "portway_reply";
    /// TC egress of external interfaces: takes note of what is not ours, and of what the kernel lets through.
    pub const EGRESS: &str = "portway_egress";
    /// The same for interfaces without an Ethernet header.
    pub const EGRESS_L3: &str = "portway_egress_l3";
    /// TC egress of containers' host veths: takes note of what the kernel lets through.
    pub const ADMIT: &str = "portway_admit";

    /// Attached nowhere: the controller runs it to have a flow written.
    pub const ADOPT: &str = "portway_adopt";

    /// XDP of external interfaces: client -> container, for what is plain.
    pub const XDP: &str = "portway_xdp";

    /// XDP in containers: passes every frame on.
    pub const PASS: &str = "portway_pass";

    /// Those that every load needs.
    pub const ALWAYS: [&str; 6] = [FORWARD, REPLY, EGRESS, ADMIT, ADOPT, XDP];

    /// Those that are loaded once there is an interface for them.
    pub const ON_DEMAND: [&str; 3] = [FORWARD_L3, EGRESS_L3, PASS];
}
