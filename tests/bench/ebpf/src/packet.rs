//! The headers of a packet that lies in memory.

use aya_ebpf::programs::{TcContext, XdpContext};
use dataplane_common::headers::{EtherType, IpProtocol};
use portway_bench_ebpf::Headers;

/// Headers within a packet, for as long as its program runs and calls no helper that moves the packet.
pub struct Within(*mut Headers);

impl Within {
    /// Of a packet that an XDP program has.
    #[inline(always)]
    pub fn xdp(context: &XdpContext) -> Option<Self> {
        Self::between(context.data(), context.data_end())
    }

    /// Of a packet that a TC program has.
    #[inline(always)]
    pub fn tc(context: &TcContext) -> Option<Self> {
        Self::between(context.data(), context.data_end())
    }

    #[inline(always)]
    fn between(data: usize, end: usize) -> Option<Self> {
        (data + size_of::<Headers>() <= end).then_some(Self(data as *mut Headers))
    }

    /// The headers.
    #[inline(always)]
    pub fn get(&self) -> Headers {
        // SAFETY: `between` has found them to lie within the packet. Frames begin two bytes off a multiple
        // of four or on one, so they are aligned.
        unsafe { self.0.read() }
    }

    /// Replaces them.
    #[inline(always)]
    pub fn set(&self, headers: Headers) {
        // SAFETY: as for `get`.
        unsafe { self.0.write(headers) };
    }

    /// Whether the packet is one of the bench's: the lab's own traffic is not counted and not held up.
    #[inline(always)]
    pub fn is_ours(&self) -> bool {
        let headers = self.get();
        headers.ethernet.ether_type == EtherType::IPV4 && headers.ipv4.protocol == IpProtocol::UDP
    }
}
