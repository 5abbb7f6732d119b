//! XDP in a container. What counts is that there is a program: a veth takes redirected frames if its peer has one
//! (`veth_xdp_xmit`, drivers/net/veth.c), and then needs no GRO for that.

use aya_ebpf::{bindings::xdp_action::XDP_PASS, macros::xdp, programs::XdpContext};

/// Passes every frame on, also one in several pieces: else it would keep interfaces from having a large MTU.
#[xdp(frags)]
pub fn portway_pass(_: XdpContext) -> u32 {
    XDP_PASS
}
