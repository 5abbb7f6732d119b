//! Fragments, off the fast path: what the core decides on them, and copies of those that come early.
//!
//! Each step is a function of its own that reads the packet anew, because none may need much stack. They
//! return numbers, because the verifier wants to know every bit of what comes back.
//!
//! An early fragment is copied into a map. When the first one comes, the skb is made into each copy in turn,
//! and a clone of it put back to where the fragment had come in: there it finds its datagram known.

use core::hint::black_box;

use aya_ebpf::{
    EbpfContext as _, bindings::BPF_F_INGRESS, helpers::bpf_clone_redirect, programs::TcContext,
};
use dataplane_common::{
    forward::forward,
    fragment::{self, Held, HeldKey, MAX_HELD_PIECES, Piece, Step, first_l4},
    headers::Be16,
    packet::{Packet as _, WriteFault},
    reason::{Counter, Reason},
    reply::reply,
    rewrite,
    tables::Tables,
};

use crate::{
    kernel::{Kernel, Tc},
    maps::{self, FamilyMaps},
    programs::{MAX_TRANSPORT_HEADER, drop, hand_over, pass, send_on},
    routing::Routing,
    skb::{ETHERNET, Skb, interface},
    trace::Trace,
};

/// What is to be done with a fragment: leave it to the kernel.
const LEAVE: u32 = 0;
/// Decide on its datagram, of which it is the first.
const BEGIN: u32 = 1;
/// Translate it and send it on.
const SEND: u32 = 2;
/// Drop it.
const DROP: u32 = 3;
/// This and above: leave it to the kernel, but keep a copy, as the datagram's copy of this index.
const HOLD: u32 = 4;

/// Does with a fragment from outside what [`programs`](crate::programs) does with a whole packet.
#[inline(always)]
pub fn from_outside<F: FamilyMaps + Routing + Trace, const L3: usize>(context: &TcContext) -> i32 {
    let mut next = sort::<F, L3, true>(same(context));
    if next == BEGIN {
        let client_port = join::<F, L3>(same(context));
        next = if client_port != 0 && begin_forward::<F, L3>(same(context), client_port).is_ok() {
            release::<F, L3>(same(context))
        } else {
            LEAVE
        };
        if next == LEAVE {
            return leave::<F, L3>(same(context));
        }
    }
    match next {
        LEAVE => pass(Counter::Fragment),
        SEND => to_container::<F, L3>(same(context)),
        DROP => drop(),
        hold => keep::<F, L3>(same(context), hold.wrapping_sub(HOLD)),
    }
}

/// The same for one from a container.
#[inline(always)]
pub fn from_container<F: FamilyMaps + Routing>(context: &TcContext) -> i32 {
    let mut next = sort::<F, ETHERNET, false>(same(context));
    if next == BEGIN {
        let mtu = answer::<F>(same(context));
        next = if mtu != 0 && begin_reply::<F>(same(context), mtu).is_ok() {
            release::<F, ETHERNET>(same(context))
        } else {
            LEAVE
        };
        if next == LEAVE {
            return leave::<F, ETHERNET>(same(context));
        }
    }
    match next {
        LEAVE => pass(Counter::Fragment),
        SEND => to_client::<F>(same(context)),
        DROP => drop(),
        hold => keep::<F, ETHERNET>(same(context), hold.wrapping_sub(HOLD)),
    }
}

/// The context once more, for one more function.
#[inline(always)]
pub fn same(context: &TcContext) -> TcContext {
    TcContext::new(context.as_ptr().cast())
}

/// The packet and its surroundings, and what its IP header says.
#[inline(always)]
fn read<F: FamilyMaps + Routing, const L3: usize>(
    context: TcContext,
) -> (Skb<L3>, Kernel, Result<Piece<F::Address>, Reason>) {
    let skb = Skb::<L3>::new(context);
    skb.pull(F::HEADER_LEN + F::FRAGMENT_HEADER_LEN + MAX_TRANSPORT_HEADER);
    let kernel = Kernel::<Tc>::new(skb.context());
    let piece = fragment::piece::<F, _, _>(&skb, &kernel, interface(skb.context()));
    (skb, kernel, piece)
}

#[inline(never)]
fn sort<F: FamilyMaps + Routing, const L3: usize, const IS_OUTSIDE: bool>(
    context: TcContext,
) -> u32 {
    let (skb, kernel, Ok(piece)) = read::<F, L3>(context) else {
        return LEAVE;
    };
    if IS_OUTSIDE && !skb.is_to_host() {
        return LEAVE;
    }
    if piece.is_first() {
        return BEGIN;
    }
    let is_ours_to_hold = || {
        // A container's frames to other stations of its bridge are not told apart: their first fragment is.
        !IS_OUTSIDE || Tables::<F>::is_local(&kernel, &piece.network.destination)
    };
    match fragment::follow::<F, _>(&kernel, &piece, is_ours_to_hold) {
        Step::Pass => LEAVE,
        Step::Send => SEND,
        Step::Hold(index) => HOLD + index,
    }
}

/// Has a first fragment from outside join its flow. Returns the client's port as the container sees it, in
/// network order; zero, which is no port, if it is to be left to the kernel.
#[inline(never)]
fn join<F: FamilyMaps + Routing, const L3: usize>(context: TcContext) -> u32 {
    let (skb, kernel, Ok(piece)) = read::<F, L3>(context) else {
        return 0;
    };
    let Ok(parsed) = fragment::parse_first::<F, _>(&skb, &piece) else {
        return 0;
    };
    match forward(&skb, &parsed, &kernel, interface(skb.context())) {
        Ok(forward) => unknown(forward.ports.source.raw()),
        Err(_) => 0,
    }
}

/// The same number, of which the verifier knows nothing any more: it would go through all that follows once for
/// each range that it has found. It keeps no track of single bytes on the stack.
#[inline(always)]
fn unknown(number: u16) -> u32 {
    let [low, high] = number.to_ne_bytes();
    let [_, low, high] = black_box([0, low, high]);
    u16::from_ne_bytes([low, high]).into()
}

/// Takes note that the first fragment's datagram is ours.
#[inline(never)]
fn begin_forward<F: FamilyMaps + Routing, const L3: usize>(
    context: TcContext,
    client_port: u32,
) -> Result<(), Reason> {
    let (skb, kernel, piece) = read::<F, L3>(context);
    let piece = piece?;
    let parsed = fragment::parse_first::<F, _>(&skb, &piece)?;
    let client_port = Be16::from_raw(client_port as u16);
    fragment::begin_forward(&kernel, &piece, &parsed, client_port)
}

/// The same as [`join`] for one from a container. Returns the MTU of its way; zero if it is to be left to the
/// kernel.
#[inline(never)]
fn answer<F: FamilyMaps + Routing>(context: TcContext) -> u32 {
    let (skb, kernel, Ok(piece)) = read::<F, ETHERNET>(context) else {
        return 0;
    };
    let Ok(parsed) = fragment::parse_first::<F, _>(&skb, &piece) else {
        return 0;
    };
    match reply(&skb, &parsed, &kernel, interface(skb.context())) {
        Ok(reply) => unknown(reply.mtu as u16),
        Err(_) => 0,
    }
}

/// Takes note that the first fragment's datagram is ours.
#[inline(never)]
fn begin_reply<F: FamilyMaps + Routing>(context: TcContext, mtu: u32) -> Result<(), Reason> {
    let (skb, kernel, piece) = read::<F, ETHERNET>(context);
    let piece = piece?;
    let parsed = fragment::parse_first::<F, _>(&skb, &piece)?;
    fragment::begin_reply(&kernel, &piece, &parsed, mtu)
}

/// Takes note that a datagram is the kernel's, and leaves its first fragment to it.
#[inline(never)]
fn leave<F: FamilyMaps + Routing, const L3: usize>(context: TcContext) -> i32 {
    if let (_, kernel, Ok(piece)) = read::<F, L3>(context) {
        fragment::leave::<F, _>(&kernel, &piece);
    }
    leave_opaquely()
}

/// Copies a fragment, and leaves it to the kernel.
#[inline(never)]
fn keep<F: FamilyMaps + Routing, const L3: usize>(context: TcContext, index: u32) -> i32 {
    if let (skb, kernel, Ok(piece)) = read::<F, L3>(context)
        && let Some(room) = maps::SCRATCH.get_ptr_mut(0)
    {
        // SAFETY: the entry is this CPU's own, and no program that uses it interrupts another.
        let room = unsafe { &mut *room };
        let key = HeldKey {
            datagram: piece.key(),
            index,
        };
        let is_copied = skb.copy_to(room);
        let copy: &Held = room;
        if is_copied && F::held().insert(key, copy, 0).is_ok() {
            fragment::hold::<F, _>(&kernel, &piece, index);
        } else {
            fragment::give_up::<F, _>(&kernel, &piece);
        }
    }
    leave_opaquely()
}

/// Leaves a fragment to the kernel, with a verdict that the compiler cannot know, as `programs::next` has it.
#[inline(always)]
fn leave_opaquely() -> i32 {
    black_box(pass(Counter::Fragment))
}

/// Sends the copies of a datagram's early fragments after its first one, which this is.
#[inline(never)]
fn release<F: FamilyMaps + Routing, const L3: usize>(context: TcContext) -> u32 {
    let held = count_held::<F, L3>(same(&context));
    if held == 0 {
        return SEND;
    }
    // The kernel has got all the others.
    if held == u32::MAX {
        return LEAVE;
    }
    let mut skb = Skb::<L3>::new(context);
    let Some(first) = maps::SCRATCH.get_ptr_mut(0) else {
        return LEAVE;
    };
    // SAFETY: as in `keep`.
    let first = unsafe { &mut *first };
    if !skb.copy_to(first) {
        return LEAVE;
    }
    for index in 0..MAX_HELD_PIECES {
        if index >= held {
            break;
        }
        put_back::<F, L3>(same(skb.context()), index);
    }
    match skb.become_copy(first) {
        Ok(()) => SEND,
        Err(WriteFault) => DROP,
    }
}

/// How many copies there are; [`u32::MAX`] if one has had to make room, which is the oldest first.
#[inline(never)]
fn count_held<F: FamilyMaps + Routing, const L3: usize>(context: TcContext) -> u32 {
    let (_, kernel, Ok(piece)) = read::<F, L3>(context) else {
        return 0;
    };
    let datagram = piece.key();
    let held = fragment::held::<F, _>(&kernel, &datagram);
    let oldest = HeldKey { datagram, index: 0 };
    if held != 0 && F::held().get_ptr(oldest).is_none() {
        return u32::MAX;
    }
    held
}

/// Puts a copied fragment of the packet's datagram back to where it had come in. Reads the key anew, which all
/// fragments of a datagram have in common: in the loop's own stack it would be another one in each round, and
/// the verifier go through all that follows once for each.
#[inline(never)]
fn put_back<F: FamilyMaps + Routing, const L3: usize>(context: TcContext, index: u32) -> i64 {
    let (mut skb, _, Ok(piece)) = read::<F, L3>(context) else {
        return -1;
    };
    let key = HeldKey {
        datagram: piece.key(),
        index,
    };
    let Some(held) = F::held().get_ptr(key) else {
        return -1;
    };
    // SAFETY: the entry's memory stays that of a copy for as long as the program runs. Should it be given to
    // another one meanwhile, a fragment comes in that did come in.
    if skb.become_copy(unsafe { &*held }).is_err() {
        return -1;
    }
    let _ = F::held().remove(key);
    // SAFETY: the context is this program's.
    unsafe {
        bpf_clone_redirect(
            skb.context().as_ptr().cast(),
            interface(skb.context()),
            u64::from(BPF_F_INGRESS),
        )
    }
}

#[inline(never)]
fn to_container<F: FamilyMaps + Routing + Trace, const L3: usize>(context: TcContext) -> i32 {
    let (mut skb, kernel, Ok(piece)) = read::<F, L3>(context) else {
        return pass(Counter::Fragment);
    };
    let forward = match fragment::to_container::<F, _>(&kernel, &piece) {
        Ok(forward) => forward,
        Err(reason) => return pass(reason),
    };
    let written = if piece.is_first() {
        match fragment::parse_first::<F, _>(&skb, &piece) {
            Ok(parsed) => {
                if forward.is_first {
                    F::trace(skb.context(), &parsed, &forward);
                }
                rewrite::to_container(&mut skb, &parsed, first_l4::<F, Skb<L3>>(), &forward)
            }
            Err(reason) => return pass(reason),
        }
    } else {
        rewrite::piece_to_container::<F, _>(&mut skb, &piece, &forward)
    };
    match written {
        Ok(()) => hand_over(forward.ifindex, Counter::Forwarded),
        Err(WriteFault) => drop(),
    }
}

#[inline(never)]
fn to_client<F: FamilyMaps + Routing>(context: TcContext) -> i32 {
    let (mut skb, kernel, Ok(piece)) = read::<F, ETHERNET>(context) else {
        return pass(Counter::Fragment);
    };
    let reply = match fragment::to_client::<F, _>(&kernel, &piece) {
        Ok(reply) => reply,
        Err(reason) => return pass(reason),
    };
    let written = if piece.is_first() {
        match fragment::parse_first::<F, _>(&skb, &piece) {
            Ok(parsed) => {
                rewrite::to_client(&mut skb, &parsed, first_l4::<F, Skb<ETHERNET>>(), &reply)
            }
            Err(reason) => return pass(reason),
        }
    } else {
        rewrite::piece_to_client::<F, _>(&mut skb, &piece, &reply)
    };
    match written {
        Ok(()) => send_on(skb.context(), &reply, Counter::Replied),
        Err(WriteFault) => drop(),
    }
}
