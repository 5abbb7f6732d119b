//! The map types as aya's typed maps want them.

use aya::Pod;

use crate::{
    bucket::{Bucket, Slot},
    flow::{Flow, FlowKey, OuterTuple},
    fragment::{Datagram, FragmentKey, Held, HeldKey},
    headers::{Be16, Be32, Ip6},
    published::{Backend, BoundPort, PortNotes, PortSlot, Traffic},
    registry::{Hook, HookKey, Record, Row},
    settings::{Settings, XdpInterface},
};

macro_rules! pod {
    ($($type:ty),+ $(,)?) => {
        $(
            // SAFETY: `repr(C)` or transparent, made of integers and arrays of them, all padding
            // written out (the sizes are asserted where the types are defined), any bytes are valid.
            unsafe impl Pod for $type {}
        )+
    };
}

// SAFETY: as for `Pod`.
unsafe impl bytemuck::NoUninit for Slot<Be32> {}
// SAFETY: the same.
unsafe impl bytemuck::NoUninit for Slot<Ip6> {}

pod!(
    Backend,
    Bucket,
    Be16,
    Be32,
    BoundPort<Be32>,
    BoundPort<Ip6>,
    Datagram,
    Flow<Be32>,
    Flow<Ip6>,
    FlowKey<Be32>,
    FlowKey<Ip6>,
    FragmentKey<Be32>,
    FragmentKey<Ip6>,
    Held,
    HeldKey<Be32>,
    HeldKey<Ip6>,
    Hook,
    HookKey,
    Ip6,
    OuterTuple<Be32>,
    OuterTuple<Ip6>,
    PortNotes,
    PortSlot,
    Record,
    Row,
    Settings,
    Slot<Be32>,
    Slot<Ip6>,
    XdpInterface,
    Traffic,
);
