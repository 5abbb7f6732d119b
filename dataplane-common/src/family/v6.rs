//! IPv6.

use core::mem::offset_of;

use super::{End, Family, Network};
use crate::{
    checksum::ChecksumDelta,
    fragment::Piece,
    headers::{Be16, Be32, EtherType, Ip6, IpProtocol, Ipv6, Ipv6Fragment},
    packet::{Packet, WriteFault},
    reason::Reason,
};

/// IPv6 (RFC 8200). Packets with extension headers are left alone, but for fragments.
#[derive(Clone, Copy, Debug)]
pub struct V6;

impl Family for V6 {
    type Address = Ip6;

    const HEADER_LEN: usize = size_of::<Ipv6>();
    const FRAGMENT_HEADER_LEN: usize = size_of::<Ipv6Fragment>();
    const ETHER_TYPE: EtherType = EtherType::IPV6;
    const ICMP: IpProtocol = IpProtocol::ICMPV6;
    const HAS_HEADER_CHECKSUM: bool = false;

    #[inline(always)]
    fn parse<P: Packet>(packet: &P, offset: usize) -> Result<Network<Ip6>, Reason> {
        let header: Ipv6 = packet.load(offset).ok_or(Reason::Malformed)?;
        if header.version_class_label.get() >> 28 != 6 {
            return Err(Reason::Malformed);
        }
        // No payload length belongs to a jumbogram (RFC 2675), whose real length an option tells, or to a
        // packet of segments that came in as one and are too many to count.
        let length = Self::HEADER_LEN as u32 + u32::from(header.payload_length.get());
        if offset as u32 + length > packet.size() {
            return Err(Reason::Malformed);
        }
        if header.next_header == IpProtocol::FRAGMENT {
            return Err(Reason::Fragment);
        }
        if IpProtocol::EXTENSIONS.contains(&header.next_header) {
            return Err(Reason::IpOptions);
        }
        Ok(Network {
            source: header.source,
            destination: header.destination,
            protocol: header.next_header,
            ttl: header.hop_limit,
            length,
        })
    }

    #[inline(always)]
    fn quoted<P: Packet>(packet: &P, offset: usize) -> Option<(Network<Ip6>, usize)> {
        let header: Ipv6 = packet.load(offset)?;
        if header.version_class_label.get() >> 28 != 6 {
            return None;
        }
        let mut network = Network {
            source: header.source,
            destination: header.destination,
            protocol: header.next_header,
            ttl: header.hop_limit,
            length: Self::HEADER_LEN as u32 + u32::from(header.payload_length.get()),
        };
        let mut transport = Self::HEADER_LEN;
        // Senders cut datagrams that are too long for their own link, and hear of a narrower one by an error
        // about the first fragment, which no router cuts again.
        if header.next_header == IpProtocol::FRAGMENT {
            let fragment: Ipv6Fragment = packet.load(offset + Self::HEADER_LEN)?;
            if fragment.offset.get() & Ipv6Fragment::OFFSET_MASK != 0 {
                return None;
            }
            network.protocol = fragment.next_header;
            transport += Self::FRAGMENT_HEADER_LEN;
        }
        Some((network, transport))
    }

    #[inline(always)]
    fn is_error(kind: u8) -> bool {
        // RFC 4443 2.1, those that are defined: destination unreachable, packet too big, time exceeded,
        // parameter problem.
        matches!(kind, 1..=4)
    }

    #[inline(always)]
    fn parse_fragment<P: Packet>(packet: &P, offset: usize) -> Result<Piece<Ip6>, Reason> {
        let header: Ipv6 = packet.load(offset).ok_or(Reason::Malformed)?;
        let fragment: Ipv6Fragment = packet
            .load(offset + Self::HEADER_LEN)
            .ok_or(Reason::Malformed)?;
        let payload = u32::from(header.payload_length.get());
        let length = Self::HEADER_LEN as u32 + payload;
        if header.next_header != IpProtocol::FRAGMENT
            || payload < Self::FRAGMENT_HEADER_LEN as u32
            || offset as u32 + length > packet.size()
        {
            return Err(Reason::Malformed);
        }
        let flags = fragment.offset.get();
        Piece {
            network: Network {
                source: header.source,
                destination: header.destination,
                protocol: fragment.next_header,
                ttl: header.hop_limit,
                length,
            },
            id: fragment.id.get(),
            offset: u32::from(flags & Ipv6Fragment::OFFSET_MASK),
            payload: payload - Self::FRAGMENT_HEADER_LEN as u32,
            is_last: flags & Ipv6Fragment::MORE_FRAGMENTS == 0,
            interface: 0,
        }
        .checked()
    }

    #[inline(always)]
    fn replace_in_header(network: &Network<Ip6>, old: Ip6, new: Ip6) -> ChecksumDelta {
        let hops = |limit: u8| Be16::new(limit.into());
        Self::replace(old, new).replace16(hops(network.ttl), hops(network.ttl.wrapping_sub(1)))
    }

    #[inline(always)]
    fn rewrite<P: Packet>(
        packet: &mut P,
        offset: usize,
        end: End,
        address: Ip6,
        hops: u8,
    ) -> Result<(), WriteFault> {
        let at = offset + offset_of!(Ipv6, hop_limit);
        let hop_limit: u8 = packet.load(at).ok_or(WriteFault)?;
        packet.store(at, hop_limit.wrapping_sub(hops))?;
        let at = match end {
            End::Source => offset_of!(Ipv6, source),
            End::Destination => offset_of!(Ipv6, destination),
        };
        packet.store(offset + at, address)
    }

    #[inline(always)]
    fn replace(old: Ip6, new: Ip6) -> ChecksumDelta {
        let (old, new) = (old.raw(), new.raw());
        let word = |delta: ChecksumDelta, index: usize| {
            delta.replace32(Be32::from_raw(old[index]), Be32::from_raw(new[index]))
        };
        word(word(word(word(ChecksumDelta::NONE, 0), 1), 2), 3)
    }

    #[inline(always)]
    fn from_words(words: &[u32; 4]) -> Ip6 {
        Ip6::from_raw(*words)
    }

    #[inline(always)]
    fn is_martian(source: Ip6) -> bool {
        const LINK_LOCAL: u32 = 0xfe80_0000;
        let [first, second, ..] = source.raw();
        let prefix = source.prefix().get();
        // RFC 4291 2.5 to 2.7: multicast; ::/64, where the unspecified address, loopback and embedded IPv4
        // addresses are; link-local addresses, which are not forwarded, and which Docker's rules except.
        prefix >> 24 == 0xff || (first | second) == 0 || prefix & 0xffc0_0000 == LINK_LOCAL
    }
}
