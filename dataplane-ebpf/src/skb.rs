//! An skb as the core's packet.
//!
//! Pointers into the packet are made anew for each access, since helpers invalidate them. Writes go
//! straight into the packet: the verifier sees them and has the kernel give a cloned skb a head of its
//! own before the program starts (`bpf_unclone_prologue`). Only the transport checksum goes through a
//! helper, which knows whether the skb's is unfinished.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{__sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR},
    programs::TcContext,
};
use bytemuck::Pod;
use dataplane_common::{
    headers::{EtherType, IpProtocol},
    packet::{L4Change, Packet, WriteFault},
    parse::L3,
};

/// The headers of the longest packet that is translated: Ethernet, IP, TCP without options.
const HEADERS: u32 = L3 as u32 + 20 + 20;

/// `PACKET_HOST` in include/uapi/linux/if_packet.h.
const PACKET_HOST: u32 = 0;

/// Our mark in `skb->tc_index`, which travels with a packet from hook to hook. Nothing else reads or writes
/// the field but GRED queues and, before Linux 6.3, dsmark and tcindex: "pw" in ASCII.
const OURS: u32 = 0x7077;

/// An skb at a TC hook, seen from its Ethernet header.
pub struct Skb {
    context: TcContext,
}

impl Skb {
    /// Takes the program's context and makes the headers lie in linear memory.
    #[inline(always)]
    pub fn new(context: TcContext) -> Self {
        let linear = context.data_end() - context.data();
        if linear < HEADERS as usize {
            let wanted = context.len().min(HEADERS);
            if (linear as u32) < wanted {
                // If it fails the headers are found to be cut short, and the packet passes.
                let _ = context.pull_data(wanted);
            }
        }
        Self { context }
    }

    /// The program's context.
    #[inline(always)]
    pub fn context(&self) -> &TcContext {
        &self.context
    }

    /// The interface it came in on.
    #[inline(always)]
    pub fn ingress(&self) -> u32 {
        // SAFETY: see `field`.
        unsafe { (*self.raw()).ifindex }
    }

    /// Tells [`Self::is_ours`] at a later hook that this packet has been translated.
    #[inline(always)]
    pub fn set_ours(&mut self) {
        // SAFETY: see `raw`; this field may be written.
        unsafe { (*self.raw().cast_mut()).tc_index = OURS };
    }

    /// Whether the packet has been translated on its way here.
    #[inline(always)]
    pub fn is_ours(&self) -> bool {
        // SAFETY: see `raw`.
        unsafe { (*self.raw()).tc_index == OURS }
    }

    /// What the frame carries, any VLAN tag aside.
    #[inline(always)]
    pub fn ether_type(&self) -> EtherType {
        // SAFETY: see `raw`.
        bytemuck::cast(unsafe { (*self.raw()).protocol } as u16)
    }

    /// The kernel's view of the skb. Reading its fields is safe: the verifier turns each into a load
    /// from the skb itself.
    #[inline(always)]
    fn raw(&self) -> *const __sk_buff {
        self.context.as_ptr().cast()
    }

    /// Where `T` lies at `offset`, if it is inside the packet's linear part.
    #[inline(always)]
    fn at<T>(&self, offset: usize) -> Option<*mut T> {
        let start = self.context.data() + offset;
        (start + size_of::<T>() <= self.context.data_end()).then_some(start as *mut T)
    }
}

impl Packet for Skb {
    #[inline(always)]
    fn size(&self) -> u32 {
        self.context.len()
    }

    #[inline(always)]
    fn segment_size(&self) -> u32 {
        // SAFETY: see `raw`.
        unsafe { (*self.raw()).gso_size }
    }

    #[inline(always)]
    fn is_to_host(&self) -> bool {
        // SAFETY: see `raw`.
        unsafe { (*self.raw()).pkt_type == PACKET_HOST }
    }

    #[inline(always)]
    fn has_vlan_tag(&self) -> bool {
        // SAFETY: see `raw`.
        unsafe { (*self.raw()).vlan_present != 0 }
    }

    #[inline(always)]
    fn load<T: Pod>(&self, offset: usize) -> Option<T> {
        // SAFETY: `at` has checked the bounds; `T` is valid for any bytes. eBPF loads need no alignment
        // where the kernel has efficient unaligned access, and the verifier refuses them elsewhere.
        self.at(offset).map(|pointer| unsafe { *pointer })
    }

    #[inline(always)]
    fn store<T: Pod>(&mut self, offset: usize, value: T) -> Result<(), WriteFault> {
        let pointer = self.at(offset).ok_or(WriteFault)?;
        // SAFETY: `at` has checked the bounds; for alignment see `load`.
        unsafe { *pointer = value };
        Ok(())
    }

    #[inline(always)]
    fn update_l4_checksum(
        &mut self,
        offset: usize,
        protocol: IpProtocol,
        change: L4Change,
    ) -> Result<(), WriteFault> {
        // Size zero in the low bits: the difference is given, not old and new.
        let zero_is_none = if protocol == IpProtocol::UDP {
            u64::from(BPF_F_MARK_MANGLED_0)
        } else {
            0
        };
        let replace = |wsum: u32, flags: u64| {
            self.context
                .l4_csum_replace(offset, 0, u64::from(wsum), flags | zero_is_none)
                .map_err(|_| WriteFault)
        };
        replace(change.pseudo_header.wsum(), u64::from(BPF_F_PSEUDO_HDR))?;
        replace(change.header.wsum(), 0)
    }
}
