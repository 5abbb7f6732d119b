//! A frame in XDP as the core's packet: nothing but its bytes.

use aya_ebpf::programs::XdpContext;
use bytemuck::Pod;
use dataplane_common::{
    headers::{EtherType, Ethernet, IpProtocol, Mac},
    packet::{L4Change, Packet, WriteFault, update_finished_checksum},
    settings::xdp_slot,
};

use crate::maps;

/// A frame on an interface with Ethernet headers. It lies in one piece: the program does not say that it
/// could take others.
pub struct Frame {
    context: XdpContext,
}

impl Frame {
    /// Takes the program's context.
    #[inline(always)]
    pub fn new(context: XdpContext) -> Self {
        Self { context }
    }

    /// The program's context.
    #[inline(always)]
    pub fn context(&self) -> &XdpContext {
        &self.context
    }

    /// What it carries, be it a VLAN tag.
    #[inline(always)]
    pub fn ether_type(&self) -> Option<EtherType> {
        let ethernet: Ethernet = self.load(0)?;
        Some(ethernet.ether_type)
    }

    /// The interface it came in on.
    #[inline(always)]
    pub fn interface(&self) -> u32 {
        self.context.ingress_ifindex() as u32
    }

    /// Where `T` lies at `offset`, if it is inside the frame.
    #[inline(always)]
    fn at<T>(&self, offset: usize) -> Option<*mut T> {
        let start = self.context.data() + offset;
        (start + size_of::<T>() <= self.context.data_end()).then_some(start as *mut T)
    }
}

impl Packet for Frame {
    const L3: usize = size_of::<Ethernet>();

    #[inline(always)]
    fn size(&self) -> u32 {
        (self.context.data_end() - self.context.data()) as u32
    }

    #[inline(always)]
    fn segment_size(&self) -> u32 {
        0
    }

    #[inline(always)]
    fn is_to_host(&self) -> bool {
        let interface = self.interface();
        let own = maps::XDP_INTERFACES.get(xdp_slot(interface));
        let destination: Option<Mac> = self.load(0);
        own.is_some_and(|own| own.ifindex == interface && destination == Some(own.mac))
    }

    #[inline(always)]
    fn vlan_id(&self) -> u16 {
        // A tagged frame has another EtherType here. A tag that the NIC has taken off cannot be seen: an
        // interface that carries VLANs gets no program.
        0
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
    fn clear_priority_tag(&mut self) -> Result<(), WriteFault> {
        // A tagged frame is passed.
        Ok(())
    }

    #[inline(always)]
    fn put_ethernet(&mut self, header: Ethernet) -> Result<(), WriteFault> {
        self.store(0, [header.destination, header.source])
    }

    #[inline(always)]
    fn update_l4_checksum(
        &mut self,
        offset: usize,
        protocol: IpProtocol,
        change: L4Change,
    ) -> Result<(), WriteFault> {
        update_finished_checksum(self, offset, protocol, change)
    }
}
