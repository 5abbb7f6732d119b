//! The writes. They begin when every check has passed; what fails here can only be dropped.

use crate::{
    checksum::ChecksumDelta,
    family::{End, Family},
    forward::Forward,
    fragment::{Piece, first_l4},
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
        l4::<F, P>(),
        End::Destination,
        forward.address,
        forward.ports,
    )?;
    put_ethernet(packet, forward)
}

/// Gives a container's reply the address and ports its client talks to and from. MACs are left to whoever
/// sends it on, who knows the neighbour.
#[inline(always)]
pub fn to_client<F: Family, P: Packet>(
    packet: &mut P,
    parsed: &Parsed<F>,
    reply: &Reply<F>,
) -> Result<(), WriteFault> {
    translate(
        packet,
        parsed,
        l4::<F, P>(),
        End::Source,
        reply.address,
        reply.ports,
    )
}

/// Gives a datagram's first fragment what [`to_container`] gives a whole packet.
#[inline(always)]
pub fn first_to_container<F: Family, P: Packet>(
    packet: &mut P,
    parsed: &Parsed<F>,
    forward: &Forward<F>,
) -> Result<(), WriteFault> {
    translate(
        packet,
        parsed,
        first_l4::<F, P>(),
        End::Destination,
        forward.address,
        forward.ports,
    )?;
    put_ethernet(packet, forward)
}

/// The same for the fragments behind it, which have no ports.
#[inline(always)]
pub fn piece_to_container<F: Family, P: Packet>(
    packet: &mut P,
    piece: &Piece<F::Address>,
    forward: &Forward<F>,
) -> Result<(), WriteFault> {
    readdress::<F, P>(packet, piece, End::Destination, forward.address)?;
    put_ethernet(packet, forward)
}

/// Gives the first fragment of a container's reply what [`to_client`] gives a whole one.
#[inline(always)]
pub fn first_to_client<F: Family, P: Packet>(
    packet: &mut P,
    parsed: &Parsed<F>,
    reply: &Reply<F>,
) -> Result<(), WriteFault> {
    translate(
        packet,
        parsed,
        first_l4::<F, P>(),
        End::Source,
        reply.address,
        reply.ports,
    )
}

/// The same for the fragments behind it.
#[inline(always)]
pub fn piece_to_client<F: Family, P: Packet>(
    packet: &mut P,
    piece: &Piece<F::Address>,
    reply: &Reply<F>,
) -> Result<(), WriteFault> {
    readdress::<F, P>(packet, piece, End::Source, reply.address)
}

#[inline(always)]
fn put_ethernet<F: Family, P: Packet>(
    packet: &mut P,
    forward: &Forward<F>,
) -> Result<(), WriteFault> {
    packet.put_ethernet(Ethernet {
        destination: forward.mac,
        source: forward.source_mac,
        ether_type: F::ETHER_TYPE,
    })
}

#[inline(always)]
fn readdress<F: Family, P: Packet>(
    packet: &mut P,
    piece: &Piece<F::Address>,
    end: End,
    address: F::Address,
) -> Result<(), WriteFault> {
    let network = &piece.network;
    let old = match end {
        End::Source => network.source,
        End::Destination => network.destination,
    };
    packet.clear_priority_tag()?;
    packet.follow_sum(F::replace_in_fragment(network, old, address));
    F::rewrite(packet, P::L3, end, address)
}

#[inline(always)]
fn translate<F: Family, P: Packet>(
    packet: &mut P,
    parsed: &Parsed<F>,
    l4: usize,
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
        l4 + parsed.checksum_offset(),
        parsed.network.protocol,
        L4Change {
            pseudo_header: F::replace(old_address, address),
            header: ChecksumDelta::NONE
                .replace16(parsed.ports.source, ports.source)
                .replace16(parsed.ports.destination, ports.destination),
            has_header_checksum: F::HAS_HEADER_CHECKSUM,
        },
    )?;
    packet.store(l4, ports)?;
    F::rewrite(packet, P::L3, end, address)
}
