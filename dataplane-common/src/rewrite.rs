//! The writes. They begin when every check has passed; what fails here can only be dropped.

use crate::{
    checksum::ChecksumDelta,
    family::{End, Family},
    forward::Forward,
    headers::{Ethernet, Ports},
    packet::{L4Change, Packet, WriteFault},
    parse::{Parsed, l4},
    reply::Reply,
};

/// Gives a packet from outside its container's address, port and MAC.
#[inline(always)]
pub fn to_container<F: Family, P: Packet>(
    packet: &mut P,
    parsed: &Parsed<F>,
    forward: &Forward<F>,
) -> Result<(), WriteFault> {
    translate(
        packet,
        parsed,
        End::Destination,
        forward.address,
        forward.ports,
    )?;
    packet.put_ethernet(Ethernet {
        destination: forward.mac,
        source: forward.source_mac,
        ether_type: F::ETHER_TYPE,
    })
}

/// Gives a container's reply the address and ports its client talks to and from. MACs are left to whoever
/// sends it on, who knows the neighbour.
#[inline(always)]
pub fn to_client<F: Family, P: Packet>(
    packet: &mut P,
    parsed: &Parsed<F>,
    reply: &Reply<F>,
) -> Result<(), WriteFault> {
    translate(packet, parsed, End::Source, reply.address, reply.ports)
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
    packet.clear_priority_tag()?;
    packet.update_l4_checksum(
        parsed.checksum_offset::<P>(),
        parsed.network.protocol,
        L4Change {
            pseudo_header: F::replace(old_address, address),
            header: ChecksumDelta::NONE
                .replace16(parsed.ports.source, ports.source)
                .replace16(parsed.ports.destination, ports.destination),
            has_header_checksum: F::HAS_HEADER_CHECKSUM,
        },
    )?;
    packet.store(l4::<F, P>(), ports)?;
    F::rewrite(packet, P::L3, end, address)
}
