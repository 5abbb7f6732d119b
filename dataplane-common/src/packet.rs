//! How the core reaches a packet, whatever holds it: an skb, an XDP buffer, plain bytes in a test.

use bytemuck::Pod;

use crate::{
    checksum::ChecksumDelta,
    headers::{Be16, Ethernet, IpProtocol},
};

/// A write did not go through. The packet may be half rewritten by then and must not travel on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteFault;

/// A packet from its first byte: the Ethernet header, or the IP header on links that have no other.
///
/// Offsets are in bytes from there. Implementations own all bounds checks and all `unsafe`.
pub trait Packet {
    /// Where the IP header begins.
    const L3: usize;

    /// Bytes in the packet, those of all segments where it stands for several.
    fn size(&self) -> u32;

    /// Payload bytes of each transport segment where the packet stands for several (GSO, GRO); zero
    /// where it is just one.
    fn segment_size(&self) -> u32;

    /// Whether the frame was addressed to the interface's own MAC (`PACKET_HOST`).
    fn is_to_host(&self) -> bool;

    /// The number of the VLAN that the frame's tag names. Zero for a frame without a tag, and for one
    /// whose tag tells nothing but its priority.
    fn vlan_id(&self) -> u16;

    /// A copy of the `T` at `offset`, if it lies inside the packet.
    fn load<T: Pod>(&self, offset: usize) -> Option<T>;

    /// Puts `value` at `offset`.
    fn store<T: Pod>(&mut self, offset: usize, value: T) -> Result<(), WriteFault>;

    /// Takes a priority tag off, as the kernel does before it routes a packet.
    fn clear_priority_tag(&mut self) -> Result<(), WriteFault>;

    /// Makes this the frame's Ethernet header, be it instead of another or where there was none.
    fn put_ethernet(&mut self, header: Ethernet) -> Result<(), WriteFault>;

    /// Takes the change of bytes that no checksum in the packet follows into the sum that a NIC may have
    /// computed over all of it (`CHECKSUM_COMPLETE`).
    fn follow_sum(&mut self, _change: ChecksumDelta) {}

    /// Brings a TCP or UDP checksum at `offset` up to date, also where the sender has left it
    /// unfinished (`CHECKSUM_PARTIAL`), if that can be told: then it covers the pseudo-header alone.
    #[inline(always)]
    fn update_l4_checksum(
        &mut self,
        offset: usize,
        protocol: IpProtocol,
        change: L4Change,
    ) -> Result<(), WriteFault>
    where
        Self: Sized,
    {
        update_finished_checksum(self, offset, protocol, change)
    }
}

/// Brings a finished TCP or UDP checksum at `offset` up to date.
#[inline(always)]
pub fn update_finished_checksum<P: Packet>(
    packet: &mut P,
    offset: usize,
    protocol: IpProtocol,
    change: L4Change,
) -> Result<(), WriteFault> {
    let checksum: Be16 = packet.load(offset).ok_or(WriteFault)?;
    let change = change.pseudo_header.and(change.header);
    let checksum = if protocol == IpProtocol::UDP {
        change.apply_udp(checksum)
    } else {
        change.apply(checksum)
    };
    packet.store(offset, checksum)
}

/// What a transport checksum has to follow.
#[derive(Clone, Copy, Debug)]
pub struct L4Change {
    /// Changed addresses, part of the pseudo-header.
    pub pseudo_header: ChecksumDelta,
    /// Changed bytes of the transport header.
    pub header: ChecksumDelta,
    /// Changed bytes of the IP header that its own checksum, if it has one, does not make up for.
    pub ip_header: ChecksumDelta,
}
