//! Writing flows for the controller. Buckets have many flows and are written to under a lock that only programs
//! take, so the controller cannot write one itself. It has this program do it, which is attached nowhere:
//! `BPF_PROG_TEST_RUN` on a frame whose EtherType tells the IP version and whose payload is the flow.

use aya_ebpf::{
    EbpfContext as _, helpers::bpf_skb_load_bytes, macros::classifier, programs::TcContext,
};
use dataplane_common::{
    adoption::{Adoption, adopt},
    bucket::Slot,
    family::{V4, V6},
    headers::{Be32, EtherType, Ip6},
};

use crate::{
    kernel::{Kernel, Tc},
    maps::{self, FamilyMaps},
    routing::Routing,
    skb::{ETHERNET, ether_type},
};

/// Returns what has come of it, an [`Adoption`].
#[classifier]
pub fn portway_adopt(context: TcContext) -> i32 {
    let adoption = match ether_type(&context) {
        EtherType::IPV4 => of::<V4>(&context),
        EtherType::IPV6 => of::<V6>(&context),
        _ => Adoption::Refused,
    };
    adoption as i32
}

#[inline(never)]
fn of<F: FamilyMaps + Routing>(context: &TcContext) -> Adoption {
    let Some(room) = maps::ADOPTED.get_ptr_mut(0) else {
        return Adoption::Refused;
    };
    let room = room.cast::<Slot<F::Address>>();
    // SAFETY: the entry is this CPU's own, and this program does not interrupt itself. An IPv6 slot's room is enough
    // for one of either version (asserted below), aligned as both are, and a slot is valid whatever it holds.
    let (result, slot) = unsafe {
        let size = size_of::<Slot<F::Address>>() as u32;
        let result =
            bpf_skb_load_bytes(context.as_ptr().cast(), ETHERNET as u32, room.cast(), size);
        (result, &mut *room)
    };
    if result != 0 {
        return Adoption::Refused;
    }
    adopt::<F, _>(slot, &Kernel::<Tc>::new(context))
}

const _: () = assert!(size_of::<Slot<Be32>>() <= size_of::<Slot<Ip6>>());
