//! Published ports and the backends they lead to.

use crate::headers::{Be16, IpProtocol, Mac};

/// What a published port leads to, packed into one word so that the programs always see a whole one:
/// from the low end 32 bits of backend number, 16 of the container's port, 16 of flags.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
pub struct PortSlot(u64);

impl PortSlot {
    /// Nothing is published here.
    pub const EMPTY: Self = Self(0);

    const BOUND: u64 = 1 << 48;

    /// Leads to `port` of the backend with this number, which is not zero.
    pub const fn new(backend: u32, port: Be16) -> Self {
        Self(backend as u64 | (port.raw() as u64) << 32)
    }

    /// The same, with a word on whether some address of the host has this port published for itself.
    pub const fn with_bound(self, bound: bool) -> Self {
        Self(if bound {
            self.0 | Self::BOUND
        } else {
            self.0 & !Self::BOUND
        })
    }

    /// The backend's number; zero where the port is not published on all addresses.
    #[inline(always)]
    pub const fn backend(self) -> u32 {
        self.0 as u32
    }

    /// The container's port.
    #[inline(always)]
    pub const fn port(self) -> Be16 {
        Be16::from_raw((self.0 >> 32) as u16)
    }

    /// Whether the table of publications on single addresses has to be asked.
    #[inline(always)]
    pub const fn has_bound(self) -> bool {
        self.0 & Self::BOUND != 0
    }
}

/// Number of [`PortSlot`]s: every port of TCP and of UDP.
pub const PORT_SLOTS: u32 = 2 << 16;

/// The index of a port's slot. Any protocol but TCP counts as UDP.
#[inline(always)]
pub const fn port_slot(protocol: IpProtocol, port: Be16) -> u32 {
    let base = if protocol.0 == IpProtocol::TCP.0 {
        0
    } else {
        1 << 16
    };
    base | port.get() as u32
}

/// What has ever been noted of conversations at a port of the host, so that tables need not be asked where
/// there is nothing to be found, as at most ports.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct PortNotes {
    /// Not zero if somebody else's conversation from there has ever been noted.
    pub has_foreign: u32,
    /// Not zero if a client there has ever been given another port.
    pub has_remapped: u32,
}

impl PortNotes {
    /// Whatever there may be: written as one, so that what a program notes meanwhile is not lost.
    pub const ALL: Self = Self {
        has_foreign: 1,
        has_remapped: 1,
    };
}

/// A port of one address of the host: the key of publications that are not for all addresses.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(C)]
pub struct BoundPort<A> {
    /// The host's address.
    pub address: A,
    /// The host's port.
    pub port: Be16,
    /// TCP or UDP.
    pub protocol: IpProtocol,
    /// Zero.
    pub padding: u8,
}

/// Where a container is, and how to hand it a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Backend {
    /// Never the same for two backends of an instance, and zero for one that is gone: a flow holds the
    /// generation it was made for and ends when the two differ.
    pub generation: u32,
    /// The container's interface as the host sees it: the host's end of a veth pair.
    pub ifindex: u32,
    /// The interface by which the host routes to the container: the bridge, or the veth itself.
    pub route_ifindex: u32,
    /// The container's MTU, in bytes.
    pub mtu: u32,
    /// The container's address in network byte order; IPv4 in the first word.
    pub address: [u32; 4],
    /// The container's MAC.
    pub mac: Mac,
    /// The MAC the container sees as sender: that of `route_ifindex`.
    pub source_mac: Mac,
    /// Zero.
    pub reserved: u32,
}

/// What went through a published port or a flow. A packet that stands for several segments counts once,
/// as it does in iptables' counters.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Traffic {
    /// Packets client -> container.
    pub packets_in: u64,
    /// Bytes client -> container, from the IP header on.
    pub bytes_in: u64,
    /// Packets container -> client.
    pub packets_out: u64,
    /// Bytes container -> client, from the IP header on.
    pub bytes_out: u64,
}

impl Traffic {
    /// Counts a packet to the container.
    #[inline(always)]
    pub fn count_in(&mut self, bytes: u32) {
        self.packets_in += 1;
        self.bytes_in += u64::from(bytes);
    }

    /// Counts a packet from the container.
    #[inline(always)]
    pub fn count_out(&mut self, bytes: u32) {
        self.packets_out += 1;
        self.bytes_out += u64::from(bytes);
    }
}

const _: () = assert!(size_of::<PortNotes>() == 8);
const _: () = assert!(size_of::<Backend>() == 48);
const _: () = assert!(size_of::<BoundPort<crate::headers::Be32>>() == 8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_keeps_its_parts_apart() {
        let slot = PortSlot::new(u32::MAX, Be16::new(0xfffe)).with_bound(true);
        assert_eq!(slot.backend(), u32::MAX);
        assert_eq!(slot.port(), Be16::new(0xfffe));
        assert!(slot.has_bound());
        assert_eq!(
            slot.with_bound(false),
            PortSlot::new(u32::MAX, Be16::new(0xfffe))
        );
        assert_eq!(PortSlot::EMPTY.with_bound(true).backend(), 0);
    }

    #[test]
    fn every_port_has_a_slot_of_its_own() {
        assert_eq!(port_slot(IpProtocol::TCP, Be16::new(65535)), 65535);
        assert_eq!(port_slot(IpProtocol::UDP, Be16::new(0)), 65536);
        assert_eq!(port_slot(IpProtocol::UDP, Be16::new(65535)), PORT_SLOTS - 1);
    }
}
