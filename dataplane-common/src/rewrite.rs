//! The writes. They begin when every check has passed; what fails here can only be dropped.

use core::mem::offset_of;

use crate::{
    checksum::ChecksumDelta,
    family::{End, Family},
    forward::Forward,
    fragment::Piece,
    headers::{Be16, Ethernet, Icmp, IpProtocol, Ports},
    icmp::{IcmpError, quoted_l3},
    packet::{L4Change, Packet, WriteFault},
    parse::{Parsed, l4},
    reply::Reply,
};

/// Gives a packet from outside, or a datagram's first fragment, its container's address, port and MAC. `l4` is
/// where its transport header begins.
#[inline(always)]
pub fn to_container<F: Family, P: Packet>(
    packet: &mut P,
    parsed: &Parsed<F>,
    l4: usize,
    forward: &Forward<F>,
) -> Result<(), WriteFault> {
    translate(
        packet,
        parsed,
        l4,
        End::Destination,
        forward.address,
        forward.ports,
    )?;
    put_ethernet(packet, forward)
}

/// Gives a container's reply, or its first fragment, the address and ports its client talks to and from. MACs
/// are left to whoever sends it on, who knows the neighbour.
#[inline(always)]
pub fn to_client<F: Family, P: Packet>(
    packet: &mut P,
    parsed: &Parsed<F>,
    l4: usize,
    reply: &Reply<F>,
) -> Result<(), WriteFault> {
    translate(packet, parsed, l4, End::Source, reply.address, reply.ports)
}

/// Gives a fragment behind the first one, which has no ports, its container's address and MAC.
#[inline(always)]
pub fn piece_to_container<F: Family, P: Packet>(
    packet: &mut P,
    piece: &Piece<F::Address>,
    forward: &Forward<F>,
) -> Result<(), WriteFault> {
    readdress::<F, P>(packet, piece, End::Destination, forward.address)?;
    put_ethernet(packet, forward)
}

/// Gives one of a reply the address its client talks to.
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
    packet.follow_sum(F::replace_in_header(network, old, address));
    F::rewrite(packet, P::L3, end, address, 1)
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
    let old_address = parsed.network.address(end);
    packet.clear_priority_tag()?;
    packet.update_l4_checksum(
        l4 + parsed.checksum_offset(),
        parsed.network.protocol,
        L4Change {
            pseudo_header: F::replace(old_address, address),
            header: ChecksumDelta::NONE
                .replace16(parsed.ports.source, ports.source)
                .replace16(parsed.ports.destination, ports.destination),
            ip_header: F::replace_in_header(&parsed.network, old_address, address),
        },
    )?;
    packet.store(l4, ports)?;
    F::rewrite(packet, P::L3, end, address, 1)
}

/// Gives an ICMP error from outside its container's address and MAC, and the packet that it quotes the
/// addresses and ports with which it left the container.
#[inline(always)]
pub fn error_to_container<F: Family, P: Packet>(
    packet: &mut P,
    error: &IcmpError<F>,
    forward: &Forward<F>,
) -> Result<(), WriteFault> {
    translate_error(
        packet,
        error,
        End::Destination,
        forward.address,
        forward.ports,
    )?;
    // Where the client has another port for the container, netfilter has its packets come from the client,
    // whoever they are from: to it the flow's source is translated, too.
    if forward.ports.destination != error.ports.destination {
        let client = error.quoted.destination;
        F::rewrite(packet, P::L3, End::Source, client, 0)?;
        if !F::HAS_HEADER_CHECKSUM {
            let change = F::replace(error.network.source, client);
            update_icmp_checksum::<F, P>(packet, change)?;
        }
    }
    put_ethernet::<F, P>(packet, forward)
}

/// Gives an ICMP error from behind a container the host's address, and the packet that it quotes the
/// addresses and ports with which it left its client.
#[inline(always)]
pub fn error_to_client<F: Family, P: Packet>(
    packet: &mut P,
    error: &IcmpError<F>,
    reply: &Reply<F>,
) -> Result<(), WriteFault> {
    translate_error(packet, error, End::Source, reply.address, reply.ports)
}

/// Puts `address` at one `end` of the error and at the other one of the packet it quotes, which went the
/// other way, and gives that packet its `ports`.
#[inline(always)]
fn translate_error<F: Family, P: Packet>(
    packet: &mut P,
    error: &IcmpError<F>,
    end: End,
    address: F::Address,
    ports: Ports,
) -> Result<(), WriteFault> {
    packet.clear_priority_tag()?;
    if !F::HAS_HEADER_CHECKSUM {
        let hops = |limit: u8| Be16::new(limit.into());
        let limit = error.network.ttl;
        packet.follow_sum(ChecksumDelta::NONE.replace16(hops(limit), hops(limit.wrapping_sub(1))));
    }
    let quoted_end = end.opposite();
    let addresses = F::replace(error.quoted.address(quoted_end), address);
    let mut change = ChecksumDelta::NONE
        .replace16(error.ports.source, ports.source)
        .replace16(error.ports.destination, ports.destination);
    if let Some(at) = error.quoted_checksum::<P>() {
        let old: Be16 = packet.load(at).ok_or(WriteFault)?;
        let new = if error.quoted.protocol == IpProtocol::UDP {
            addresses.and(change).apply_udp(old)
        } else {
            addresses.and(change).apply(old)
        };
        packet.store(at, new)?;
        change = change.replace16(old, new);
    }
    packet.store(error.quoted_l4::<P>(), ports)?;
    F::rewrite(packet, quoted_l3::<F, P>(), quoted_end, address, 0)?;
    F::rewrite(packet, P::L3, end, address, 1)?;
    // An IPv4 header makes up for its address by its own checksum. ICMPv6's checksum covers those of the
    // quoted header and, by the pseudo-header, those of its own.
    if !F::HAS_HEADER_CHECKSUM {
        change = change
            .and(addresses)
            .and(F::replace(error.network.address(end), address));
    }
    update_icmp_checksum::<F, P>(packet, change)
}

/// Brings the ICMP checksum up to date. Nobody leaves it unfinished (`icmp_push_reply` in net/ipv4/icmp.c,
/// `icmpv6_push_pending_frames` in net/ipv6/icmp.c). A sum that a NIC has computed over the whole packet
/// (CHECKSUM_COMPLETE) stays as right as it was: this change makes up for all others that no checksum follows.
#[inline(always)]
fn update_icmp_checksum<F: Family, P: Packet>(
    packet: &mut P,
    change: ChecksumDelta,
) -> Result<(), WriteFault> {
    let at = l4::<F, P>() + offset_of!(Icmp, checksum);
    let checksum: Be16 = packet.load(at).ok_or(WriteFault)?;
    packet.store(at, change.apply(checksum))
}
