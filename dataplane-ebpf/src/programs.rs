//! The programs: family by EtherType, decide, rewrite, redirect. Whatever is not ours passes on as it
//! came, with its reason counted.

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC, bpf_redir_neigh as Neighbour},
    helpers::{bpf_redirect_neigh, bpf_redirect_peer},
    macros::classifier,
    programs::TcContext,
};
use aya_log_ebpf::info;
use dataplane_common::{
    family::V4,
    foreign::observe_outgoing,
    forward::{Forward, forward},
    headers::EtherType,
    packet::WriteFault,
    parse::Parsed,
    reason::Counter,
    reply::reply,
    rewrite,
};

use crate::{
    kernel::{AF_INET, Kernel, count},
    skb::Skb,
};

/// Lets the next program at the hook, and then the stack, have the packet: `TCX_NEXT`, which is also what
/// a clsact filter returns to go on.
const NEXT: i32 = TC_ACT_UNSPEC;

/// TC ingress of an external interface: client -> container.
#[classifier]
pub fn portway_forward(context: TcContext) -> i32 {
    let kernel = Kernel::new(&context);
    let mut skb = Skb::new(context);
    let decision = match skb.ether_type() {
        EtherType::IPV4 => forward::<V4, _, _>(&skb, &kernel, skb.ingress()),
        other => Err(not_ipv4(other)),
    };
    let forward = match decision {
        Ok(forward) => forward,
        Err(reason) => return pass(reason),
    };
    if forward.is_first {
        trace(&skb, &forward);
    }
    if let Err(WriteFault) = rewrite::to_container(&mut skb, &forward) {
        return drop();
    }
    count(Counter::Forwarded);
    // SAFETY: the helper has no preconditions; it acts when the program has returned.
    unsafe { bpf_redirect_peer(forward.ifindex, 0) as i32 }
}

/// TC ingress of a container's host veth: container -> client.
#[classifier]
pub fn portway_reply(context: TcContext) -> i32 {
    let kernel = Kernel::new(&context);
    let mut skb = Skb::new(context);
    let decision = match skb.ether_type() {
        EtherType::IPV4 => reply::<V4, _, _>(&skb, &kernel, skb.ingress()),
        other => Err(not_ipv4(other)),
    };
    let reply = match decision {
        Ok(reply) => reply,
        Err(reason) => return pass(reason),
    };
    if let Err(WriteFault) = rewrite::to_client(&mut skb, &reply) {
        return drop();
    }
    count(Counter::Replied);
    skb.set_ours();
    // SAFETY: integers; the unused rest of the union is zero.
    let mut neighbour: Neighbour = unsafe { core::mem::zeroed() };
    neighbour.nh_family = AF_INET.into();
    neighbour.__bindgen_anon_1.ipv4_nh = reply.next_hop.raw();
    // SAFETY: `neighbour` is as long as said, and the helper copies it before it returns.
    unsafe {
        bpf_redirect_neigh(
            reply.ifindex,
            &raw mut neighbour,
            size_of::<Neighbour>() as i32,
            0,
        ) as i32
    }
}

/// TC egress of an external interface: takes note of conversations that are not ours.
#[classifier]
pub fn portway_egress(context: TcContext) -> i32 {
    let kernel = Kernel::new(&context);
    let skb = Skb::new(context);
    if skb.ether_type() == EtherType::IPV4 && !skb.is_ours() {
        observe_outgoing::<V4, _, _>(&skb, &kernel);
    }
    NEXT
}

/// Tells of a new flow, where the program was loaded to do so; else the verifier removes it all, since
/// the log level is a constant by then.
#[inline(always)]
fn trace(skb: &Skb, forward: &Forward<V4>) {
    let Parsed { network, ports, .. } = &forward.parsed;
    info!(
        skb.context(),
        "protocol {}: {:i}:{} to {:i}:{} goes to {:i}:{}",
        network.protocol.0,
        network.source.get(),
        ports.source.get(),
        network.destination.get(),
        ports.destination.get(),
        forward.address.get(),
        forward.ports.destination.get()
    );
}

#[inline(always)]
fn not_ipv4(ether_type: EtherType) -> Counter {
    if ether_type == EtherType::IPV6 {
        Counter::Ipv6
    } else {
        Counter::NotIp
    }
}

#[inline(always)]
fn pass(reason: Counter) -> i32 {
    count(reason);
    NEXT
}

#[inline(always)]
fn drop() -> i32 {
    count(Counter::WriteFault);
    TC_ACT_SHOT
}
