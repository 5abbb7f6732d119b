//! Packets and what becomes of them, in either IP version.
//!
//! - `translation`: what is rewritten, both ways
//! - `malformed`: bytes that are no whole, plain packet
//! - `strangers`: packets that are not for a published port, or from nobody who could be a client
//! - `flows`: how flows begin, go on and end
//! - `collisions`: flows whose replies look alike
//! - `fragments`: datagrams in fragments, in any order
//! - `links`: priority tags, links without an Ethernet header
//! - `adoption`: conversations that the kernel has translated so far
//! - `handing_over`: flows born under `direct`, after admission has changed
//! - `leases`: admission by the host's firewall

mod adoption;
mod collisions;
mod flows;
mod fragments;
mod handing_over;
mod leases;
mod links;
mod malformed;
mod strangers;
mod translation;

use super::{
    buffer::{Buffer, NUMBER},
    programs::{Verdict, run_forward, run_reply},
    sample::Sample,
    world::{BRIDGE, CONTAINER_PORT, EXTERNAL, HOST_PORT, VETH, World},
};
use crate::{
    headers::{IpProtocol, TcpFlags},
    reason::Reason,
};

type Spec<F> = super::buffer::Spec<F>;

const SYN: u8 = TcpFlags::SYN;
const SYN_ACK: u8 = TcpFlags::SYN | TcpFlags::ACK;
const ACK: u8 = TcpFlags::ACK;
const FIN_ACK: u8 = TcpFlags::FIN | TcpFlags::ACK;
const RST: u8 = TcpFlags::RST;

/// The port the client talks from.
const CLIENT_PORT: u16 = 5000;

/// Makes a test of each IP version out of each case.
macro_rules! both_families {
    ($($case:ident),+ $(,)?) => {
        mod v4 {
            $(#[test] fn $case() { super::$case::<crate::family::V4>(); })+
        }
        mod v6 {
            $(#[test] fn $case() { super::$case::<crate::family::V6>(); })+
        }
    };
}
use both_families;

/// A datagram to the published port.
fn from_client<F: Sample>() -> Spec<F> {
    Spec {
        protocol: IpProtocol::UDP,
        source: (F::CLIENT, CLIENT_PORT),
        destination: (F::HOST, HOST_PORT),
        flags: 0,
        sequence: NUMBER,
        acknowledgement: NUMBER,
        ttl: 64,
        payload: 33,
    }
}

/// The answer to it.
fn from_container<F: Sample>() -> Spec<F> {
    Spec {
        source: (F::CONTAINER, CONTAINER_PORT),
        destination: (F::CLIENT, CLIENT_PORT),
        ..from_client::<F>()
    }
}

/// What becomes of a packet from outside: its new bytes, or why it stays as it is.
fn send_in<F: Sample, const L3: usize>(
    world: &World<F>,
    packet: &Buffer<L3>,
) -> Result<Buffer<L3>, Reason> {
    let mut sent = packet.clone();
    match run_forward(world, &mut sent, EXTERNAL) {
        Verdict::Forwarded(VETH) => Ok(sent),
        Verdict::Passed(reason) => {
            assert_eq!(sent, *packet, "what passes is not touched");
            Err(reason)
        }
        other => panic!("{other:?}"),
    }
}

/// What becomes of a container's packet.
fn send_out<F: Sample>(world: &World<F>, packet: &Buffer) -> Result<Buffer, Reason> {
    let mut sent = packet.clone();
    match run_reply(world, &mut sent, VETH) {
        Verdict::Replied(EXTERNAL) => Ok(sent),
        Verdict::Passed(reason) => {
            assert_eq!(sent, *packet, "what passes is not touched");
            Err(reason)
        }
        other => panic!("{other:?}"),
    }
}

/// Opens a TCP connection.
fn shake_hands<F: Sample>(world: &World<F>) {
    for (is_forward, flags) in [(true, SYN), (false, SYN_ACK), (true, ACK)] {
        send(world, is_forward, flags).expect("translated");
    }
}

/// Sends a segment of the TCP connection, either way.
fn send<F: Sample>(world: &World<F>, is_forward: bool, flags: u8) -> Result<Buffer, Reason> {
    if is_forward {
        send_in(world, &from_client::<F>().tcp(flags).build())
    } else {
        send_out(world, &from_container::<F>().tcp(flags).build())
    }
}

fn expect_left_alone<F: Sample>(world: &World<F>, packet: &Buffer, reason: Reason) {
    assert_eq!(send_in(world, packet), Err(reason));
    assert_eq!(world.flow_counts(), (0, 0), "and leaves no flow behind");
}
