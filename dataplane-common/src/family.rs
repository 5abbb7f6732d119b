//! What differs between IP versions, as a compile-time parameter: one core serves both without a second
//! copy and without a branch in the hot path.

mod v4;
mod v6;

use bytemuck::Pod;

pub use v4::V4;
pub use v6::V6;

use crate::{
    checksum::ChecksumDelta,
    fragment::Piece,
    headers::{EtherType, IpProtocol},
    packet::{Packet, WriteFault},
    reason::Reason,
};

/// An IP header's content that matters to a translation.
#[derive(Clone, Copy, Debug)]
pub struct Network<A> {
    /// Source address.
    pub source: A,
    /// Destination address.
    pub destination: A,
    /// What the packet carries.
    pub protocol: IpProtocol,
    /// Time to live or hop limit.
    pub ttl: u8,
    /// Header and payload, in bytes.
    pub length: u32,
}

impl<A: Copy> Network<A> {
    /// The address at one end.
    #[inline(always)]
    pub fn address(&self, end: End) -> A {
        match end {
            End::Source => self.source,
            End::Destination => self.destination,
        }
    }
}

/// Which end of a packet is rewritten.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// Source address and port: a reply.
    Source,
    /// Destination address and port: a packet from outside.
    Destination,
}

impl End {
    /// The end that this one is in a packet of the other direction.
    #[inline(always)]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Source => Self::Destination,
            Self::Destination => Self::Source,
        }
    }
}

/// An IP version.
pub trait Family: Copy {
    /// An address, in network byte order.
    type Address: Pod + Eq + core::hash::Hash + core::fmt::Debug;

    /// Length of a header without options or extensions, in bytes.
    const HEADER_LEN: usize;

    /// Length of what a fragment has behind that header, in bytes: IPv6's fragment header.
    const FRAGMENT_HEADER_LEN: usize;

    /// How Ethernet calls it.
    const ETHER_TYPE: EtherType;

    /// Its protocol of errors.
    const ICMP: IpProtocol;

    /// Whether its header has a checksum of its own, which balances an address's change in a checksum over
    /// the whole packet.
    const HAS_HEADER_CHECKSUM: bool;

    /// Reads the header at `offset`. Anything but a whole packet with a plain header is refused.
    fn parse<P: Packet>(packet: &P, offset: usize) -> Result<Network<Self::Address>, Reason>;

    /// Reads the headers of a fragment at `offset`. Anything but a plain IP header, and in IPv6 the fragment
    /// header directly behind it, is refused.
    fn parse_fragment<P: Packet>(packet: &P, offset: usize)
    -> Result<Piece<Self::Address>, Reason>;

    /// Reads the header at `offset` of a packet that an ICMP error quotes, whose rest may be missing. Says
    /// also how far behind it the transport header begins, in a first fragment too. None for what cannot be
    /// the beginning of an accelerated packet.
    fn quoted<P: Packet>(packet: &P, offset: usize) -> Option<(Network<Self::Address>, usize)>;

    /// Whether an ICMP message of this type is an error about a packet that it quotes. Redirects are not:
    /// they are for the link they came by.
    fn is_error(kind: u8) -> bool;

    /// Puts `address` at one `end` of the header at `offset` and takes `hops` off its life. The caller has
    /// seen that more are left.
    fn rewrite<P: Packet>(
        packet: &mut P,
        offset: usize,
        end: End,
        address: Self::Address,
        hops: u8,
    ) -> Result<(), WriteFault>;

    /// What the sum over all bytes of a packet goes through when `old` becomes `new` in its header and it loses
    /// a hop, where no transport checksum in the packet makes up for it.
    fn replace_in_fragment(
        network: &Network<Self::Address>,
        old: Self::Address,
        new: Self::Address,
    ) -> ChecksumDelta;

    /// What the pseudo-header's checksum goes through when `old` becomes `new`.
    fn replace(old: Self::Address, new: Self::Address) -> ChecksumDelta;

    /// An address as [`Backend::address`](crate::published::Backend::address) stores it.
    fn from_words(words: &[u32; 4]) -> Self::Address;

    /// Whether no packet from outside that is to be forwarded can rightly have this source ("martian",
    /// RFC 1812 5.3.7). The host's own and the containers' addresses are found by routing, not here.
    fn is_martian(source: Self::Address) -> bool;
}
