//! Writing flows for the controller. Buckets have many flows and are written to under a lock that only programs
//! take, so the controller cannot write one itself. It has this program do it, which is attached nowhere:
//! `BPF_PROG_TEST_RUN` on a frame whose EtherType tells the IP version and whose payload is the flow.

use aya_ebpf::{macros::classifier, programs::TcContext};
use dataplane_common::{
    adoption::{Adoption, adopt},
    bucket::Slot,
    family::{V4, V6},
    headers::EtherType,
};

use crate::{
    kernel::{Kernel, Tc},
    maps::FamilyMaps,
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
    match context.load::<Slot<F::Address>>(ETHERNET) {
        Ok(mut slot) => adopt::<F, _>(&mut slot, &Kernel::<Tc>::new(context)),
        Err(_) => Adoption::Refused,
    }
}
