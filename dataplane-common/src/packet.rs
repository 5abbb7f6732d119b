//! How the core reaches a packet, whatever holds it: an skb, an XDP buffer, plain bytes in a test.

use bytemuck::Pod;

use crate::{checksum::ChecksumDelta, headers::IpProtocol};

/// A write did not go through. The packet may be half rewritten by then and must not travel on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteFault;

/// A packet from its first byte: the Ethernet header.
///
/// Offsets are in bytes from there. Implementations own all bounds checks and all `unsafe`.
pub trait Packet {
    /// Bytes in the packet, those of all segments where it stands for several.
    fn size(&self) -> u32;

    /// Payload bytes of each transport segment where the packet stands for several (GSO, GRO); zero
    /// where it is just one.
    fn segment_size(&self) -> u32;

    /// Whether the frame was addressed to the interface's own MAC (`PACKET_HOST`).
    fn is_to_host(&self) -> bool;

    /// Whether it came with a VLAN tag, in the frame or beside it.
    fn has_vlan_tag(&self) -> bool;

    /// A copy of the `T` at `offset`, if it lies inside the packet.
    fn load<T: Pod>(&self, offset: usize) -> Option<T>;

    /// Puts `value` at `offset`.
    fn store<T: Pod>(&mut self, offset: usize, value: T) -> Result<(), WriteFault>;

    /// Brings a TCP or UDP checksum at `offset` up to date, also where the sender has left it
    /// unfinished (`CHECKSUM_PARTIAL`): then it covers the pseudo-header alone.
    fn update_l4_checksum(
        &mut self,
        offset: usize,
        protocol: IpProtocol,
        change: L4Change,
    ) -> Result<(), WriteFault>;
}

/// What a transport checksum has to follow.
#[derive(Clone, Copy, Debug)]
pub struct L4Change {
    /// Changed addresses, part of the pseudo-header.
    pub pseudo_header: ChecksumDelta,
    /// Changed bytes of the transport header.
    pub header: ChecksumDelta,
}
