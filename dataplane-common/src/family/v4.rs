//! IPv4.

use core::mem::offset_of;

use super::{End, Family, Network};
use crate::{
    checksum::ChecksumDelta,
    fragment::Piece,
    headers::{Be16, Be32, EtherType, IpProtocol, Ipv4},
    packet::{Packet, WriteFault},
    reason::Reason,
};

/// IPv4 (RFC 791).
#[derive(Clone, Copy, Debug)]
pub struct V4;

impl Family for V4 {
    type Address = Be32;

    const HEADER_LEN: usize = size_of::<Ipv4>();
    const FRAGMENT_HEADER_LEN: usize = 0;
    const ETHER_TYPE: EtherType = EtherType::IPV4;
    const ICMP: IpProtocol = IpProtocol::ICMP;
    const HAS_HEADER_CHECKSUM: bool = true;

    #[inline(always)]
    fn parse<P: Packet>(packet: &P, offset: usize) -> Result<Network<Be32>, Reason> {
        let (header, length) = header(packet, offset)?;
        if header.fragment.get() & Ipv4::FRAGMENT_MASK != 0 {
            return Err(Reason::Fragment);
        }
        Ok(Network {
            source: header.source,
            destination: header.destination,
            protocol: header.protocol,
            ttl: header.ttl,
            length,
        })
    }

    #[inline(always)]
    fn quoted<P: Packet>(packet: &P, offset: usize) -> Option<(Network<Be32>, usize)> {
        let header: Ipv4 = packet.load(offset)?;
        // A first fragment has the ports, the others do not.
        let is_readable =
            header.version_ihl == Ipv4::PLAIN && header.fragment.get() & Ipv4::OFFSET_MASK == 0;
        let network = Network {
            source: header.source,
            destination: header.destination,
            protocol: header.protocol,
            ttl: header.ttl,
            length: header.total_length.get().into(),
        };
        is_readable.then_some((network, Self::HEADER_LEN))
    }

    #[inline(always)]
    fn is_error(kind: u8) -> bool {
        // RFC 792: destination unreachable, source quench, time exceeded, parameter problem.
        matches!(kind, 3 | 4 | 11 | 12)
    }

    #[inline(always)]
    fn parse_fragment<P: Packet>(packet: &P, offset: usize) -> Result<Piece<Be32>, Reason> {
        let (header, length) = header(packet, offset)?;
        let fragment = header.fragment.get();
        Piece {
            network: Network {
                source: header.source,
                destination: header.destination,
                protocol: header.protocol,
                ttl: header.ttl,
                length,
            },
            id: header.id.get().into(),
            offset: u32::from(fragment & Ipv4::OFFSET_MASK) * 8,
            payload: length - Self::HEADER_LEN as u32,
            is_last: fragment & Ipv4::MORE_FRAGMENTS == 0,
            interface: 0,
        }
        .checked()
    }

    #[inline(always)]
    fn replace_in_header(_: &Network<Be32>, _: Be32, _: Be32) -> ChecksumDelta {
        // The header's own checksum makes up for it.
        ChecksumDelta::NONE
    }

    #[inline(always)]
    fn rewrite<P: Packet>(
        packet: &mut P,
        offset: usize,
        end: End,
        address: Be32,
        hops: u8,
    ) -> Result<(), WriteFault> {
        let header: Ipv4 = packet.load(offset).ok_or(WriteFault)?;
        let (old, at) = match end {
            End::Source => (header.source, offset_of!(Ipv4, source)),
            End::Destination => (header.destination, offset_of!(Ipv4, destination)),
        };
        // The checksum counts time to live and protocol as one word.
        let word = |ttl: u8| Be16::new(u16::from(ttl) << 8 | u16::from(header.protocol.0));
        let ttl = header.ttl.wrapping_sub(hops);
        let change = Self::replace(old, address).replace16(word(header.ttl), word(ttl));
        packet.store(offset + at, address)?;
        packet.store(offset + offset_of!(Ipv4, ttl), ttl)?;
        packet.store(
            offset + offset_of!(Ipv4, checksum),
            change.apply(header.checksum),
        )
    }

    #[inline(always)]
    fn replace(old: Be32, new: Be32) -> ChecksumDelta {
        ChecksumDelta::NONE.replace32(old, new)
    }

    #[inline(always)]
    fn from_words(words: &[u32; 4]) -> Be32 {
        Be32::from_raw(words[0])
    }

    #[inline(always)]
    fn is_martian(source: Be32) -> bool {
        // RFC 6890: "this network", loopback, and from 224.0.0.0 up multicast, reserved and broadcast.
        matches!(source.get() >> 24, 0 | 127 | 224..)
    }
}

/// Reads a plain header, and tells the packet's length.
#[inline(always)]
fn header<P: Packet>(packet: &P, offset: usize) -> Result<(Ipv4, u32), Reason> {
    let header: Ipv4 = packet.load(offset).ok_or(Reason::Malformed)?;
    if header.version_ihl != Ipv4::PLAIN {
        return Err(
            if header.version_ihl > Ipv4::PLAIN && header.version_ihl <= 0x4f {
                Reason::IpOptions
            } else {
                Reason::Malformed
            },
        );
    }
    let length = u32::from(header.total_length.get());
    if length < V4::HEADER_LEN as u32 || offset as u32 + length > packet.size() {
        return Err(Reason::Malformed);
    }
    Ok((header, length))
}
