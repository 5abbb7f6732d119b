//! A frame in XDP as the core's packet: nothing but its bytes.

use aya_ebpf::programs::XdpContext;
use bytemuck::Pod;
use dataplane_common::{
    headers::{EtherType, Ethernet, Mac},
    packet::{Packet, WriteFault},
    settings::xdp_slot,
};

use crate::{bytes::Bytes, maps};

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

    /// Its bytes.
    #[inline(always)]
    fn bytes(&self) -> Bytes {
        Bytes::between(self.context.data(), self.context.data_end())
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
        self.bytes().load(offset)
    }

    #[inline(always)]
    fn store<T: Pod>(&mut self, offset: usize, value: T) -> Result<(), WriteFault> {
        self.bytes().store(offset, value)
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
}
