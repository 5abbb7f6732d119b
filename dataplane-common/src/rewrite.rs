//! The writes. They begin when every check has passed; what fails here can only be dropped.

use core::mem::offset_of;

use crate::{
    checksum::ChecksumDelta,
    family::{End, Family},
    forward::Forward,
    headers::{Be16, Ethernet, Mac, Ports},
    packet::{L4Change, Packet, WriteFault},
    parse::{L3, Parsed},
    reply::Reply,
};

/// Gives a packet from outside its container's address, port and MAC.
#[inline(always)]
pub fn to_container<F: Family, P: Packet>(
    packet: &mut P,
    forward: &Forward<F>,
) -> Result<(), WriteFault> {
    translate(
        packet,
        &forward.parsed,
        End::Destination,
        forward.address,
        forward.port,
    )?;
    packet.store::<[Mac; 2]>(
        offset_of!(Ethernet, destination),
        [forward.mac, forward.source_mac],
    )
}

/// Gives a container's reply the address and port its client talks to. MACs are left to whoever sends
/// it on, who knows the neighbour.
#[inline(always)]
pub fn to_client<F: Family, P: Packet>(packet: &mut P, reply: &Reply<F>) -> Result<(), WriteFault> {
    translate(
        packet,
        &reply.parsed,
        End::Source,
        reply.address,
        reply.port,
    )
}

#[inline(always)]
fn translate<F: Family, P: Packet>(
    packet: &mut P,
    parsed: &Parsed<F>,
    end: End,
    address: F::Address,
    port: Be16,
) -> Result<(), WriteFault> {
    let (old_address, old_port, port_offset) = match end {
        End::Source => (
            parsed.network.source,
            parsed.ports.source,
            offset_of!(Ports, source),
        ),
        End::Destination => (
            parsed.network.destination,
            parsed.ports.destination,
            offset_of!(Ports, destination),
        ),
    };
    packet.update_l4_checksum(
        parsed.checksum_offset(),
        parsed.network.protocol,
        L4Change {
            pseudo_header: F::replace(old_address, address),
            header: ChecksumDelta::NONE.replace16(old_port, port),
        },
    )?;
    packet.store(Parsed::<F>::L4 + port_offset, port)?;
    F::rewrite(packet, L3, end, address)
}
