//! The writes. They begin when every check has passed; what fails here can only be dropped.

use core::mem::offset_of;

use crate::{
    checksum::ChecksumDelta,
    family::{End, Family},
    forward::Forward,
    headers::{Ethernet, Mac, Ports},
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
        forward.ports,
    )?;
    packet.store::<[Mac; 2]>(
        offset_of!(Ethernet, destination),
        [forward.mac, forward.source_mac],
    )
}

/// Gives a container's reply the address and ports its client talks to and from. MACs are left to whoever
/// sends it on, who knows the neighbour.
#[inline(always)]
pub fn to_client<F: Family, P: Packet>(packet: &mut P, reply: &Reply<F>) -> Result<(), WriteFault> {
    translate(
        packet,
        &reply.parsed,
        End::Source,
        reply.address,
        reply.ports,
    )
}

#[inline(always)]
fn translate<F: Family, P: Packet>(
    packet: &mut P,
    parsed: &Parsed<F>,
    end: End,
    address: F::Address,
    ports: Ports,
) -> Result<(), WriteFault> {
    let old_address = match end {
        End::Source => parsed.network.source,
        End::Destination => parsed.network.destination,
    };
    packet.update_l4_checksum(
        parsed.checksum_offset(),
        parsed.network.protocol,
        L4Change {
            pseudo_header: F::replace(old_address, address),
            header: ChecksumDelta::NONE
                .replace16(parsed.ports.source, ports.source)
                .replace16(parsed.ports.destination, ports.destination),
        },
    )?;
    packet.store(Parsed::<F>::L4, ports)?;
    F::rewrite(packet, L3, end, address)
}
