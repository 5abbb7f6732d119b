//! An skb as the core's packet.
//!
//! Pointers into the packet are made anew for each access, since helpers invalidate them. Writes go
//! straight into the packet: the verifier sees them and has the kernel give a cloned skb a head of its
//! own before the program starts (`bpf_unclone_prologue`). Only a transport checksum that nobody has verified
//! goes through a helper, which knows whether it is unfinished.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        __sk_buff, BPF_CSUM_LEVEL_QUERY, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR,
        BPF_F_RECOMPUTE_CSUM,
    },
    helpers::{
        bpf_csum_level, bpf_csum_update, bpf_skb_change_head, bpf_skb_change_tail,
        bpf_skb_load_bytes, bpf_skb_store_bytes, bpf_skb_vlan_pop,
    },
    programs::TcContext,
};
use bytemuck::Pod;
use dataplane_common::{
    checksum::ChecksumDelta,
    fragment::{HELD_BYTES, Held},
    headers::{EtherType, Ethernet, IpProtocol, Ipv4, VLAN_ID_MASK},
    packet::{L4Change, Packet, WriteFault, update_finished_checksum},
};

use crate::bytes::Bytes;

/// Where the IP header begins on links whose frames have an Ethernet header.
pub const ETHERNET: usize = size_of::<Ethernet>();

/// Where it begins on links that carry bare IP packets (`dev_is_mac_header_xmit` in
/// include/linux/if_arp.h).
pub const BARE: usize = 0;

/// `PACKET_HOST` in include/uapi/linux/if_packet.h.
const PACKET_HOST: u32 = 0;

/// Our mark in `skb->tc_index`, which travels with a packet from hook to hook. Nothing else reads or writes
/// the field but GRED queues, clsact filters that end with a class and, before Linux 6.3, dsmark and
/// tcindex; a mark that is lost leaves its packet to the slow path. "pw" in ASCII, and a number.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Mark {
    /// It is a reply that has been translated.
    Translated = 0x7077,
    /// It is to go to a container if the kernel lets it, for a lease.
    AsksForward = 0x7078,
    /// It is to go to a client if the kernel lets it, for a lease.
    AsksReply = 0x7079,
}

impl Mark {
    /// Takes off what a packet has come in with: whoever sent it, on this machine, may have marked it.
    #[inline(always)]
    pub fn clear(context: &TcContext) {
        // SAFETY: see `raw`; this field may be written.
        unsafe {
            if (*raw(context)).tc_index != 0 {
                (*raw(context)).tc_index = 0;
            }
        }
    }

    /// Marks a packet for a later hook.
    #[inline(always)]
    pub fn put_on(self, context: &TcContext) {
        // SAFETY: see `raw`; this field may be written.
        unsafe { (*raw(context)).tc_index = self as u32 };
    }

    /// Whether a packet has this mark from an earlier hook.
    #[inline(always)]
    pub fn is_on(self, context: &TcContext) -> bool {
        // SAFETY: see `raw`.
        unsafe { (*raw(context)).tc_index == self as u32 }
    }
}

/// What a frame carries, any VLAN tag aside.
#[inline(always)]
pub fn ether_type(context: &TcContext) -> EtherType {
    // SAFETY: see `raw`.
    bytemuck::cast(unsafe { (*raw(context)).protocol } as u16)
}

/// The interface whose hook this is.
#[inline(always)]
pub fn interface(context: &TcContext) -> u32 {
    // SAFETY: see `raw`.
    unsafe { (*raw(context)).ifindex }
}

/// The kernel's view of an skb. Reading its fields is safe: the verifier turns each into a load from the
/// skb itself.
#[inline(always)]
fn raw(context: &TcContext) -> *mut __sk_buff {
    context.as_ptr().cast()
}

/// An skb at a TC hook of a link whose frames have the IP header at `L3`, seen from their beginning.
pub struct Skb<const L3: usize> {
    context: TcContext,
}

impl<const L3: usize> Skb<L3> {
    /// Takes the program's context.
    #[inline(always)]
    pub fn new(context: TcContext) -> Self {
        Self { context }
    }

    /// Makes this many bytes from the IP header on lie in linear memory, or the whole packet if it is
    /// shorter. If that fails the headers are found to be cut short, and the packet passes.
    #[inline(always)]
    pub fn pull(&self, length: usize) {
        let linear = self.context.data_end() - self.context.data();
        if linear < L3 + length {
            let wanted = self.context.len().min((L3 + length) as u32);
            if (linear as u32) < wanted {
                let _ = self.context.pull_data(wanted);
            }
        }
    }

    /// The program's context.
    #[inline(always)]
    pub fn context(&self) -> &TcContext {
        &self.context
    }

    /// Whether the transport checksum is finished and has been found right already (`CHECKSUM_UNNECESSARY`), by the
    /// NIC or by GRO: then nothing else follows the packet's bytes, and no helper is needed to change them.
    #[inline(always)]
    fn is_checksum_verified(&self) -> bool {
        // SAFETY: the context is this program's.
        let level =
            unsafe { bpf_csum_level(self.context.as_ptr().cast(), BPF_CSUM_LEVEL_QUERY.into()) };
        level >= 0
    }

    /// How many bytes to copy of a frame of `length` bytes, which has at least an IP header; `None` if a copy
    /// has no room for them. The maximum is for the verifier, which wants at least one byte: what a comparison
    /// with zero says of a number it takes note of only since Linux 6.8.
    #[inline(always)]
    fn bytes_to_copy(length: u32) -> Option<u32> {
        let length = length.max((L3 + size_of::<Ipv4>()) as u32);
        (length < HELD_BYTES as u32).then_some(length)
    }

    /// Copies the frame into `held`. Returns false, and leaves nothing there, if it does not fit.
    #[inline(always)]
    pub fn copy_to(&self, held: &mut Held) -> bool {
        let Some(length) = Self::bytes_to_copy(self.context.len()) else {
            return false;
        };
        held.length = length;
        // SAFETY: `held` has room for this many bytes.
        let result = unsafe {
            bpf_skb_load_bytes(
                self.context.as_ptr().cast(),
                0,
                held.bytes.as_mut_ptr().cast(),
                length,
            )
        };
        result == 0
    }

    /// Makes this frame a copied one, in length and bytes.
    #[inline(always)]
    pub fn become_copy(&mut self, held: &Held) -> Result<(), WriteFault> {
        let length = Self::bytes_to_copy(held.length).ok_or(WriteFault)?;
        let context = self.context.as_ptr().cast();
        // SAFETY: the context is this program's.
        if unsafe { bpf_skb_change_tail(context, length, 0) } != 0 {
            return Err(WriteFault);
        }
        // SAFETY: `held` has this many bytes.
        let result = unsafe {
            bpf_skb_store_bytes(
                context,
                0,
                held.bytes.as_ptr().cast(),
                length,
                u64::from(BPF_F_RECOMPUTE_CSUM),
            )
        };
        if result == 0 { Ok(()) } else { Err(WriteFault) }
    }

    /// The bytes of its linear part, made anew for each access.
    #[inline(always)]
    fn bytes(&self) -> Bytes {
        Bytes::between(self.context.data(), self.context.data_end())
    }
}

impl<const L3_OFFSET: usize> Packet for Skb<L3_OFFSET> {
    const L3: usize = L3_OFFSET;

    #[inline(always)]
    fn size(&self) -> u32 {
        self.context.len()
    }

    #[inline(always)]
    fn segment_size(&self) -> u32 {
        // SAFETY: see `raw`.
        unsafe { (*raw(&self.context)).gso_size }
    }

    #[inline(always)]
    fn is_to_host(&self) -> bool {
        // SAFETY: see `raw`.
        unsafe { (*raw(&self.context)).pkt_type == PACKET_HOST }
    }

    #[inline(always)]
    fn vlan_id(&self) -> u16 {
        // The kernel has moved the outer tag from the frame into the skb. An inner one is what the frame
        // carries: no IP packet.
        // SAFETY: see `raw`.
        unsafe { ((*raw(&self.context)).vlan_tci & VLAN_ID_MASK) as u16 }
    }

    #[inline(always)]
    fn clear_priority_tag(&mut self) -> Result<(), WriteFault> {
        // SAFETY: see `raw`.
        if unsafe { (*raw(&self.context)).vlan_present } == 0 {
            return Ok(());
        }
        // SAFETY: the context is this program's.
        match unsafe { bpf_skb_vlan_pop(self.context.as_ptr().cast()) } {
            0 => Ok(()),
            _ => Err(WriteFault),
        }
    }

    #[inline(always)]
    fn put_ethernet(&mut self, header: Ethernet) -> Result<(), WriteFault> {
        if L3_OFFSET == ETHERNET {
            return self.store(0, [header.destination, header.source]);
        }
        // SAFETY: the context is this program's.
        let result =
            unsafe { bpf_skb_change_head(self.context.as_ptr().cast(), ETHERNET as u32, 0) };
        if result != 0 {
            return Err(WriteFault);
        }
        self.store(0, header)
    }

    #[inline(always)]
    fn load<T: Pod>(&self, offset: usize) -> Option<T> {
        self.bytes().load(offset)
    }

    #[inline(always)]
    fn store<T: Pod>(&mut self, offset: usize, value: T) -> Result<(), WriteFault> {
        self.bytes().store(offset, value)
    }

    #[inline(always)]
    fn follow_sum(&mut self, change: ChecksumDelta) {
        let change = change.wsum();
        if change != 0 {
            // SAFETY: the context is this program's. Where there is no such sum this does nothing.
            unsafe { bpf_csum_update(self.context.as_ptr().cast(), change) };
        }
    }

    #[inline(always)]
    fn update_l4_checksum(
        &mut self,
        offset: usize,
        protocol: IpProtocol,
        change: L4Change,
    ) -> Result<(), WriteFault> {
        if self.is_checksum_verified() {
            return update_finished_checksum(self, offset, protocol, change);
        }
        // Size zero in the low bits: the difference is given, not old and new.
        let zero_is_none = if protocol == IpProtocol::UDP {
            u64::from(BPF_F_MARK_MANGLED_0)
        } else {
            0
        };
        let context = TcContext::new(self.context.as_ptr().cast());
        let replace = |wsum: u32, flags: u64| {
            context
                .l4_csum_replace(offset, 0, u64::from(wsum), flags | zero_is_none)
                .map_err(|_| WriteFault)
        };
        replace(change.pseudo_header.wsum(), u64::from(BPF_F_PSEUDO_HDR))?;
        // The helper also takes the difference off the sum that a NIC has computed over the whole packet
        // (CHECKSUM_COMPLETE), because it counts on an IP header whose own checksum makes up for it. IPv6's
        // does not; the helper has a flag for that only since Linux 6.16 (`BPF_F_IPV6`).
        self.follow_sum(change.ip_header);
        replace(change.header.wsum(), 0)
    }
}
