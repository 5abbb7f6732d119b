//! What nobody who rewrites packets can be faster than: into the container, and out again, with the MAC
//! addresses right and everything else as it came.

use aya_ebpf::{
    Global,
    bindings::{TC_ACT_UNSPEC, xdp_action},
    macros::{classifier, map, xdp},
    maps::DevMap,
    programs::{TcContext, XdpContext},
};
use dataplane_common::headers::Mac;
use portway_bench_ebpf::Headers;

use crate::{out, packet::Within};

/// The container's MAC address.
#[unsafe(no_mangle)]
static CONTAINER_MAC: Global<Mac> = Global::new([0; 6]);

/// The host's end of the container's veth pair.
#[map]
static TO_CONTAINER: DevMap = DevMap::with_max_entries(1, 0);

/// At the external interface: to the container.
#[xdp]
pub fn limit(context: XdpContext) -> u32 {
    let Some(within) = Within::xdp(&context).filter(Within::is_ours) else {
        return xdp_action::XDP_PASS;
    };
    let mut headers: Headers = within.get();
    headers.ethernet.destination = CONTAINER_MAC.load();
    within.set(headers);
    match TO_CONTAINER.redirect(0, 0) {
        Ok(action) | Err(action) => action,
    }
}

/// At the host's end of the container's veth pair: to the client. XDP would have to copy each packet first,
/// because a container sends skbs.
#[classifier]
pub fn limit_reply(context: TcContext) -> i32 {
    if Within::tc(&context).is_some_and(|within| within.is_ours()) {
        out::redirect() as i32
    } else {
        TC_ACT_UNSPEC
    }
}
