//! Names, sizes and version of the pinned maps.

/// The layout's version: part of the pin path, and to be raised by every change to a map's key, value,
/// type or meaning.
pub const LAYOUT_VERSION: u32 = 1;

/// Backends, and thus rows of `portway ls`, that one instance can hold. Index 0 is never used.
pub const MAX_BACKENDS: u32 = 16_384;

/// Publications on a single address, counted by port, that one instance can hold.
pub const MAX_BOUND_PORTS: u32 = 131_072;

/// Addresses of one family that the host may have.
pub const MAX_LOCAL_ADDRESSES: u32 = 16_384;

/// Interfaces that programs may be attached to.
pub const MAX_HOOKS: u32 = 16_384;

/// Flows of one family that only the client has been heard of.
pub const MAX_OPENING: u32 = 65_536;

/// Established flows of one family, unless the user says otherwise.
pub const DEFAULT_MAX_FLOWS: u32 = 262_144;

/// Flows of one family whose client the container sees under another port.
pub const MAX_REMAPPED: u32 = 16_384;

/// Conversations of others from published ports that are kept in mind, of one family.
pub const MAX_FOREIGN: u32 = 65_536;

/// The maps' names, in the object file and under the pin path.
pub mod maps {
    /// [`Settings`](crate::settings::Settings), one entry.
    pub const SETTINGS: &str = "SETTINGS";
    /// Per-CPU counters by [`Counter`](crate::reason::Counter).
    pub const COUNTERS: &str = "COUNTERS";
    /// [`PortSlot`](crate::published::PortSlot) by protocol and port, IPv4.
    pub const PORTS_V4: &str = "PORTS_V4";
    /// [`PortSlot`](crate::published::PortSlot) by [`BoundPort`](crate::published::BoundPort), IPv4.
    pub const BOUND_PORTS_V4: &str = "BOUND_PORTS_V4";
    /// The host's own IPv4 addresses.
    pub const LOCAL_V4: &str = "LOCAL_V4";
    /// [`Backend`](crate::published::Backend) by its number.
    pub const BACKENDS: &str = "BACKENDS";
    /// Per-CPU [`Traffic`](crate::published::Traffic) by backend number.
    pub const TRAFFIC: &str = "TRAFFIC";
    /// [`Flow`](crate::flow::Flow) by [`FlowKey`](crate::flow::FlowKey): established ones, IPv4.
    pub const FLOWS_V4: &str = "FLOWS_V4";
    /// The same: those that only the client has been heard of.
    pub const OPENING_V4: &str = "OPENING_V4";
    /// Client port by [`OuterTuple`](crate::flow::OuterTuple), where the container sees another, IPv4.
    pub const REMAPPED_V4: &str = "REMAPPED_V4";
    /// Seconds of the monotonic clock by [`OuterTuple`](crate::flow::OuterTuple): what is not ours, IPv4.
    pub const FOREIGN_V4: &str = "FOREIGN_V4";
    /// [`Row`](crate::registry::Row) by backend number: what the controller alone reads.
    pub const ROWS: &str = "ROWS";
    /// [`Hook`](crate::registry::Hook) by [`HookKey`](crate::registry::HookKey): what is attached where.
    pub const HOOKS: &str = "HOOKS";
    /// [`Record`](crate::registry::Record), one entry.
    pub const RECORD: &str = "RECORD";

    /// All of them.
    pub const ALL: &[&str] = &[
        SETTINGS,
        COUNTERS,
        PORTS_V4,
        BOUND_PORTS_V4,
        LOCAL_V4,
        BACKENDS,
        TRAFFIC,
        FLOWS_V4,
        OPENING_V4,
        REMAPPED_V4,
        FOREIGN_V4,
        ROWS,
        HOOKS,
        RECORD,
    ];
}

/// The programs' names, in the object file and under the pin path.
pub mod programs {
    /// TC ingress of external interfaces: client -> container.
    pub const FORWARD: &str = "portway_forward";
    /// TC ingress of containers' host veths: container -> client.
    pub const REPLY: &str = "portway_reply";
    /// TC egress of external interfaces: takes note of what is not ours.
    pub const EGRESS: &str = "portway_egress";

    /// All of them.
    pub const ALL: &[&str] = &[FORWARD, REPLY, EGRESS];
}
