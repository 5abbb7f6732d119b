//! The map types as aya's typed maps want them.

use core::hash::Hash;

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

/// An address of one of the two IP versions: what has one in it is laid out with the two in mind.
///
/// # Safety
///
/// The types below have no padding with it; their sizes are asserted where they are defined.
pub unsafe trait IpAddress: Pod + bytemuck::Pod + Eq + Hash {}

// SAFETY: see the assertions.
unsafe impl IpAddress for Be32 {}
// SAFETY: the same.
unsafe impl IpAddress for Ip6 {}

macro_rules! pod {
    ($($type:ident $(<$address:ident>)?),+ $(,)?) => {
        $(
            // SAFETY: `repr(C)` or transparent, made of integers and arrays of them, all padding
            // written out (the sizes are asserted where the types are defined), any bytes are valid.
            unsafe impl$(<$address: IpAddress>)? Pod for $type$(<$address>)? {}
        )+
    };
}

// SAFETY: as for `Pod`.
unsafe impl<A: IpAddress> bytemuck::NoUninit for Slot<A> {}

pod!(
    Backend,
    Bucket,
    Be16,
    Be32,
    BoundPort<A>,
    Datagram,
    Flow<A>,
    FlowKey<A>,
    FragmentKey<A>,
    Held,
    HeldKey<A>,
    Hook,
    HookKey,
    Ip6,
    OuterTuple<A>,
    PortNotes,
    PortSlot,
    Record,
    Row,
    Settings,
    Slot<A>,
    XdpInterface,
    Traffic,
);
