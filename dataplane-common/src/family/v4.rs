//! IPv4.

use core::mem::offset_of;

use super::{End, Family, Network};
use crate::{
    checksum::ChecksumDelta,
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
    const ETHER_TYPE: EtherType = EtherType::IPV4;
    const ICMP: IpProtocol = IpProtocol::ICMP;
    const HAS_HEADER_CHECKSUM: bool = true;

    #[inline(always)]
    fn parse<P: Packet>(packet: &P, offset: usize) -> Result<Network<Be32>, Reason> {
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
        if length < Self::HEADER_LEN as u32 || offset as u32 + length > packet.size() {
            return Err(Reason::Malformed);
        }
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
    fn rewrite<P: Packet>(
        packet: &mut P,
        offset: usize,
        end: End,
        address: Be32,
    ) -> Result<(), WriteFault> {
        let header: Ipv4 = packet.load(offset).ok_or(WriteFault)?;
        let (old, at) = match end {
            End::Source => (header.source, offset_of!(Ipv4, source)),
            End::Destination => (header.destination, offset_of!(Ipv4, destination)),
        };
        // The checksum counts time to live and protocol as one word.
        let hops = |ttl: u8| Be16::new(u16::from(ttl) << 8 | u16::from(header.protocol.0));
        let ttl = header.ttl.wrapping_sub(1);
        let change = Self::replace(old, address).replace16(hops(header.ttl), hops(ttl));
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
