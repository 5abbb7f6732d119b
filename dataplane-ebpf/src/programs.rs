//! The programs: family by EtherType, decide, rewrite, redirect. Whatever is not ours passes on as it
//! came, with its reason counted.
//!
//! What a program does for an IP version is a function of its own, because the verifier counts the stack of
//! both if they are one.

use core::hint::black_box;

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC, bpf_redir_neigh as Neighbour},
    helpers::{bpf_redirect_neigh, bpf_redirect_peer},
    macros::classifier,
    programs::TcContext,
};
use dataplane_common::{
    family::{V4, V6},
    foreign::observe_outgoing,
    forward::forward,
    headers::{EtherType, Tcp},
    icmp::{self, forward_error, parse_error, reply_error},
    lease::{admit_forward, admit_reply},
    packet::WriteFault,
    parse::{l4, parse},
    reason::Counter,
    reply::{Reply, reply},
    rewrite,
};

use crate::{
    fragments::{self, same},
    kernel::{Kernel, Tc, count},
    maps::FamilyMaps,
    routing::Routing,
    skb::{BARE, ETHERNET, Mark, Skb, ether_type, interface},
    trace::Trace,
};

/// Lets the next program at the hook, and then the stack, have the packet: `TCX_NEXT`, which is also what
/// a clsact filter returns to go on.
const NEXT: i32 = TC_ACT_UNSPEC;

/// The longest transport header that is looked at: TCP's without options.
pub const MAX_TRANSPORT_HEADER: usize = size_of::<Tcp>();

/// What a packet's usual way returns, as nothing that TC knows, where the packet has to go a rare one. That
/// is begun by the caller, when the stack of the usual way is free again.
const FRAGMENT: i32 = 0x7001;
/// The same for ICMP.
const ICMP: i32 = 0x7002;

/// TC ingress of an external interface: client -> container.
#[classifier]
pub fn portway_forward(context: TcContext) -> i32 {
    from_outside::<ETHERNET>(context)
}

/// The same for interfaces without an Ethernet header.
#[classifier]
pub fn portway_forward_l3(context: TcContext) -> i32 {
    from_outside::<BARE>(context)
}

/// TC ingress of a container's host veth: container -> client.
#[classifier]
pub fn portway_reply(context: TcContext) -> i32 {
    Mark::clear(&context);
    match ether_type(&context) {
        EtherType::IPV4 => from_container::<V4>(&context),
        EtherType::IPV6 => from_container::<V6>(&context),
        _ => pass(Counter::NotIp),
    }
}

/// TC egress of an external interface: takes note of what leaves and is not ours, and of replies that the
/// kernel lets through.
#[classifier]
pub fn portway_egress(context: TcContext) -> i32 {
    leaving::<ETHERNET>(context)
}

/// The same for interfaces without an Ethernet header.
#[classifier]
pub fn portway_egress_l3(context: TcContext) -> i32 {
    leaving::<BARE>(context)
}

/// TC egress of a container's host veth: takes note of packets from outside that the kernel lets through.
#[classifier]
pub fn portway_admit(context: TcContext) -> i32 {
    match ether_type(&context) {
        _ if !Mark::AsksForward.is_on(&context) => NEXT,
        EtherType::IPV4 => note_admitted::<V4>(context),
        EtherType::IPV6 => note_admitted::<V6>(context),
        _ => NEXT,
    }
}

#[inline(always)]
fn from_outside<const L3: usize>(context: TcContext) -> i32 {
    Mark::clear(&context);
    match ether_type(&context) {
        EtherType::IPV4 => from_client::<V4, L3>(&context),
        EtherType::IPV6 => from_client::<V6, L3>(&context),
        _ => pass(Counter::NotIp),
    }
}

#[inline(always)]
fn from_client<F: FamilyMaps + Routing + Trace, const L3: usize>(context: &TcContext) -> i32 {
    match to_container::<F, L3>(same(context)) {
        FRAGMENT => fragments::from_outside::<F, L3>(context),
        ICMP => error_to_container::<F, L3>(context),
        action => action,
    }
}

#[inline(always)]
fn from_container<F: FamilyMaps + Routing>(context: &TcContext) -> i32 {
    match to_client::<F>(same(context)) {
        FRAGMENT => fragments::from_container::<F>(context),
        ICMP => error_to_client::<F>(context),
        action => action,
    }
}

#[inline(never)]
fn to_container<F: FamilyMaps + Routing + Trace, const L3: usize>(context: TcContext) -> i32 {
    let skb = &mut Skb::<L3>::new(context);
    skb.pull(F::HEADER_LEN + MAX_TRANSPORT_HEADER);
    let kernel = Kernel::<Tc>::new(skb.context());
    let parsed = match parse::<F, _>(skb) {
        Ok(parsed) => parsed,
        Err(Counter::Icmp) => return ICMP,
        Err(Counter::Fragment) => return FRAGMENT,
        Err(reason) => return pass(reason),
    };
    let forward = match forward(skb, &parsed, &kernel, interface(skb.context())) {
        Ok(forward) => forward,
        Err(reason) => {
            if reason == Counter::Lease {
                Mark::AsksForward.put_on(skb.context());
            }
            return pass(reason);
        }
    };
    if forward.is_first {
        F::trace(skb.context(), &parsed, &forward);
    }
    if let Err(WriteFault) = rewrite::to_container(skb, &parsed, l4::<F, Skb<L3>>(), &forward) {
        return drop();
    }
    hand_over(forward.ifindex, Counter::Forwarded)
}

/// Has a packet from outside, all written, appear in its container, whose host veth's index is `ifindex`.
#[inline(always)]
pub fn hand_over(ifindex: u32, counter: Counter) -> i32 {
    count(counter);
    // SAFETY: the helper has no preconditions; it acts when the program has returned.
    unsafe { bpf_redirect_peer(ifindex, 0) as i32 }
}

#[inline(never)]
fn error_to_container<F: FamilyMaps + Routing, const L3: usize>(context: &TcContext) -> i32 {
    let skb = &mut Skb::<L3>::new(same(context));
    skb.pull(icmp::looked_at::<F>());
    let kernel = Kernel::<Tc>::new(skb.context());
    let error = match parse_error::<F, _>(skb) {
        Ok(error) => error,
        Err(reason) => return pass(reason),
    };
    let forward = match forward_error(skb, &error, &kernel) {
        Ok(forward) => forward,
        Err(reason) => return pass(reason),
    };
    if let Err(WriteFault) = rewrite::error_to_container(skb, &error, &forward) {
        return drop();
    }
    hand_over(forward.ifindex, Counter::IcmpForwarded)
}

#[inline(never)]
fn to_client<F: FamilyMaps + Routing>(context: TcContext) -> i32 {
    let skb = &mut Skb::<ETHERNET>::new(context);
    skb.pull(F::HEADER_LEN + MAX_TRANSPORT_HEADER);
    let kernel = Kernel::<Tc>::new(skb.context());
    let parsed = match parse::<F, _>(skb) {
        Ok(parsed) => parsed,
        Err(Counter::Icmp) => return ICMP,
        Err(Counter::Fragment) => return FRAGMENT,
        Err(reason) => return pass(reason),
    };
    let reply = match reply(skb, &parsed, &kernel, interface(skb.context())) {
        Ok(reply) => reply,
        Err(reason) => {
            if reason == Counter::Lease {
                Mark::AsksReply.put_on(skb.context());
            }
            return pass(reason);
        }
    };
    if let Err(WriteFault) = rewrite::to_client(skb, &parsed, l4::<F, Skb<ETHERNET>>(), &reply) {
        return drop();
    }
    send_on(skb.context(), &reply, Counter::Replied)
}

#[inline(never)]
fn error_to_client<F: FamilyMaps + Routing>(context: &TcContext) -> i32 {
    let skb = &mut Skb::<ETHERNET>::new(same(context));
    skb.pull(icmp::looked_at::<F>());
    let kernel = Kernel::<Tc>::new(skb.context());
    let error = match parse_error::<F, _>(skb) {
        Ok(error) => error,
        Err(reason) => return pass(reason),
    };
    let reply = match reply_error(skb, &error, &kernel, interface(skb.context())) {
        Ok(reply) => reply,
        Err(reason) => return pass(reason),
    };
    if let Err(WriteFault) = rewrite::error_to_client(skb, &error, &reply) {
        return drop();
    }
    send_on(skb.context(), &reply, Counter::IcmpReplied)
}

/// Sends a packet to a client, all written, to its next hop.
#[inline(always)]
pub fn send_on<F: FamilyMaps + Routing>(
    context: &TcContext,
    reply: &Reply<F>,
    counter: Counter,
) -> i32 {
    count(counter);
    Mark::Translated.put_on(context);
    // SAFETY: integers; the unused rest of the union is zero.
    let mut neighbour: Neighbour = unsafe { core::mem::zeroed() };
    neighbour.nh_family = F::AF.into();
    F::set_neighbour(&mut neighbour, reply.next_hop);
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

#[inline(always)]
fn leaving<const L3: usize>(context: TcContext) -> i32 {
    match ether_type(&context) {
        _ if Mark::Translated.is_on(&context) => NEXT,
        EtherType::IPV4 => note_leaving::<V4, L3>(context),
        EtherType::IPV6 => note_leaving::<V6, L3>(context),
        _ => NEXT,
    }
}

#[inline(never)]
fn note_leaving<F: FamilyMaps + Routing, const L3: usize>(context: TcContext) -> i32 {
    let skb = &Skb::<L3>::new(context);
    skb.pull(F::HEADER_LEN + MAX_TRANSPORT_HEADER);
    let kernel = Kernel::<Tc>::new(skb.context());
    if Mark::AsksReply.is_on(skb.context()) {
        admit_reply::<F, _, _>(skb, &kernel, interface(skb.context()));
    } else {
        observe_outgoing::<F, _, _>(skb, &kernel);
    }
    next()
}

#[inline(never)]
fn note_admitted<F: FamilyMaps + Routing>(context: TcContext) -> i32 {
    let skb = &Skb::<ETHERNET>::new(context);
    skb.pull(F::HEADER_LEN + MAX_TRANSPORT_HEADER);
    let kernel = Kernel::<Tc>::new(skb.context());
    admit_forward::<F, _, _>(skb, &kernel, interface(skb.context()));
    next()
}

/// [`NEXT`] as the compiler cannot know it. A function that always returns the same would be made to return
/// nothing, and the verifier refuses that if it leaves a pointer into its stack in the register.
#[inline(always)]
fn next() -> i32 {
    black_box(NEXT)
}

#[inline(always)]
pub fn pass(reason: Counter) -> i32 {
    count(reason);
    NEXT
}

#[inline(always)]
pub fn drop() -> i32 {
    count(Counter::WriteFault);
    TC_ACT_SHOT
}
