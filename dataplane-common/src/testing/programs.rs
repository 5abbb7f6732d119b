//! What the programs of `dataplane-ebpf` make of a packet, with the core alone.

use super::{buffer::Buffer, sample::Sample, world::World};
use crate::{
    forward::forward,
    icmp::{forward_error, parse_error, reply_error},
    packet::WriteFault,
    parse::{l4, parse},
    reason::{Counter, Reason},
    reply::reply,
    rewrite,
};

/// What becomes of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It goes to a container, by this interface.
    Forwarded(u32),
    /// It goes to a client, by this interface.
    Replied(u32),
    /// It is an ICMP error and goes to a container, by this interface.
    ErrorForwarded(u32),
    /// It is an ICMP error and goes to a client, by this interface.
    ErrorReplied(u32),
    /// It goes on as it came.
    Passed(Reason),
    /// It goes nowhere.
    Dropped,
}

impl Verdict {
    /// What counts it.
    pub fn counter(self) -> Counter {
        match self {
            Self::Forwarded(_) => Counter::Forwarded,
            Self::Replied(_) => Counter::Replied,
            Self::ErrorForwarded(_) => Counter::IcmpForwarded,
            Self::ErrorReplied(_) => Counter::IcmpReplied,
            Self::Passed(reason) => reason,
            Self::Dropped => Counter::WriteFault,
        }
    }
}

/// `portway_forward`, and `portway_forward_l3` of a bare packet: `packet` comes in on the external interface
/// `ingress`. Fragments are [`fragments`](super::fragments)'.
pub fn run_forward<F: Sample, const L3: usize>(
    world: &World<F>,
    packet: &mut Buffer<L3>,
    ingress: u32,
) -> Verdict {
    let parsed = match parse::<F, _>(packet) {
        Ok(parsed) => parsed,
        Err(Reason::Icmp) => return run_error_forward(world, packet),
        Err(reason) => return Verdict::Passed(reason),
    };
    let decision = match forward(packet, &parsed, world, ingress) {
        Ok(decision) => decision,
        Err(reason) => return Verdict::Passed(reason),
    };
    match rewrite::to_container(packet, &parsed, l4::<F, Buffer<L3>>(), &decision) {
        Ok(()) => Verdict::Forwarded(decision.ifindex),
        Err(WriteFault) => Verdict::Dropped,
    }
}

fn run_error_forward<F: Sample, const L3: usize>(
    world: &World<F>,
    packet: &mut Buffer<L3>,
) -> Verdict {
    let error = match parse_error::<F, _>(packet) {
        Ok(error) => error,
        Err(reason) => return Verdict::Passed(reason),
    };
    let decision = match forward_error(packet, &error, world) {
        Ok(decision) => decision,
        Err(reason) => return Verdict::Passed(reason),
    };
    match rewrite::error_to_container(packet, &error, &decision) {
        Ok(()) => Verdict::ErrorForwarded(decision.ifindex),
        Err(WriteFault) => Verdict::Dropped,
    }
}

/// `portway_reply`: `packet` comes in on `ingress`, the host's end of a container's veth pair. Fragments are
/// [`fragments`](super::fragments)'.
pub fn run_reply<F: Sample>(world: &World<F>, packet: &mut Buffer, ingress: u32) -> Verdict {
    let parsed = match parse::<F, _>(packet) {
        Ok(parsed) => parsed,
        Err(Reason::Icmp) => return run_error_reply(world, packet, ingress),
        Err(reason) => return Verdict::Passed(reason),
    };
    let decision = match reply(packet, &parsed, world, ingress) {
        Ok(decision) => decision,
        Err(reason) => return Verdict::Passed(reason),
    };
    match rewrite::to_client(packet, &parsed, l4::<F, Buffer>(), &decision) {
        Ok(()) => Verdict::Replied(decision.ifindex),
        Err(WriteFault) => Verdict::Dropped,
    }
}

fn run_error_reply<F: Sample>(world: &World<F>, packet: &mut Buffer, ingress: u32) -> Verdict {
    let error = match parse_error::<F, _>(packet) {
        Ok(error) => error,
        Err(reason) => return Verdict::Passed(reason),
    };
    let decision = match reply_error(packet, &error, world, ingress) {
        Ok(decision) => decision,
        Err(reason) => return Verdict::Passed(reason),
    };
    match rewrite::error_to_client(packet, &error, &decision) {
        Ok(()) => Verdict::ErrorReplied(decision.ifindex),
        Err(WriteFault) => Verdict::Dropped,
    }
}
