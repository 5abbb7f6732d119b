//! A packet in a byte buffer, and a builder of packets.

use std::mem::offset_of;

use bytemuck::{Pod, bytes_of};

use super::sample::Sample;
use crate::{
    checksum::internet_checksum,
    family::{Family, Network},
    headers::{
        Be16, Be32, EtherType, Ethernet, IpProtocol, Ports, Tcp, TcpFlags, Udp, VLAN_ID_MASK,
    },
    packet::{Packet, WriteFault},
    parse::l4,
};

/// Where the IP header begins behind an Ethernet header.
pub const ETHERNET: usize = size_of::<Ethernet>();

/// Where it begins on links that carry bare IP packets.
pub const BARE: usize = 0;

/// The MAC of the host's external interface, as of its bridge.
pub const HOST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// The MAC that packets come from.
pub const SENDER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

/// The number that either end of a TCP connection sends and expects next, unless a test has it otherwise. Others
/// are on both sides of the wrap.
pub const NUMBER: u32 = u32::MAX - 100;

/// A packet whose bytes lie in a buffer, from the IP header on at `L3`, with its checksums complete.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Buffer<const L3: usize = ETHERNET> {
    /// All of it.
    pub bytes: Vec<u8>,
    /// Payload bytes of each segment, or zero.
    pub segment_size: u32,
    /// Whether it was addressed to the interface's own MAC.
    pub is_to_host: bool,
    /// The control information of its VLAN tag: priority and number (IEEE 802.1Q).
    pub tag: Option<u16>,
}

impl<const L3_OFFSET: usize> Packet for Buffer<L3_OFFSET> {
    const L3: usize = L3_OFFSET;

    fn size(&self) -> u32 {
        self.bytes.len() as u32
    }

    fn segment_size(&self) -> u32 {
        self.segment_size
    }

    fn is_to_host(&self) -> bool {
        self.is_to_host
    }

    fn vlan_id(&self) -> u16 {
        self.tag.unwrap_or(0) & VLAN_ID_MASK as u16
    }

    fn load<T: Pod>(&self, offset: usize) -> Option<T> {
        let bytes = self.bytes.get(offset..offset + size_of::<T>())?;
        Some(bytemuck::pod_read_unaligned(bytes))
    }

    fn store<T: Pod>(&mut self, offset: usize, value: T) -> Result<(), WriteFault> {
        self.bytes
            .get_mut(offset..offset + size_of::<T>())
            .ok_or(WriteFault)?
            .copy_from_slice(bytes_of(&value));
        Ok(())
    }

    fn clear_priority_tag(&mut self) -> Result<(), WriteFault> {
        self.tag = None;
        Ok(())
    }

    fn put_ethernet(&mut self, header: Ethernet) -> Result<(), WriteFault> {
        self.bytes
            .splice(..L3_OFFSET, bytes_of(&header).iter().copied());
        Ok(())
    }
}

impl<const L3: usize> Buffer<L3> {
    /// A packet of these bytes and nothing else to say of it.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self {
            bytes,
            segment_size: 0,
            is_to_host: true,
            tag: None,
        }
    }

    /// The transport header's source and destination port. The packet is as long as that.
    pub fn ports<F: Family>(&self) -> (u16, u16) {
        let ports: Ports = self.load(l4::<F, Self>()).expect("ports");
        (ports.source.get(), ports.destination.get())
    }

    /// Whether each checksum that the packet has is right, computed from scratch (RFC 1071). The packet is
    /// one that [`parse`](crate::parse::parse) takes.
    pub fn has_valid_checksums<F: Sample>(&self) -> bool {
        let network = F::parse(self, L3).expect("a plain header");
        let header = &self.bytes[L3..l4::<F, Self>()];
        if F::HAS_HEADER_CHECKSUM && internet_checksum(&[header]) != Be16::new(0) {
            return false;
        }
        let segment = self.segment::<F>(&network);
        if network.protocol == IpProtocol::UDP && segment[6..8] == [0, 0] {
            return F::HAS_HEADER_CHECKSUM;
        }
        let pseudo = F::pseudo_header(&network, segment.len() as u32);
        internet_checksum(&[&pseudo, segment]) == Be16::new(0)
    }

    /// Completes the checksum of a segment that has none yet.
    fn complete_checksum<F: Sample>(&mut self, network: &Network<F::Address>) {
        let is_udp = network.protocol == IpProtocol::UDP;
        let at = l4::<F, Self>()
            + if is_udp {
                offset_of!(Udp, checksum)
            } else {
                offset_of!(Tcp, checksum)
            };
        self.store(at, Be16::new(0)).expect("room");
        let segment = self.segment::<F>(network);
        let pseudo = F::pseudo_header(network, segment.len() as u32);
        let sum = match internet_checksum(&[&pseudo, segment]) {
            zero if is_udp && zero == Be16::new(0) => Be16::new(0xffff),
            sum => sum,
        };
        self.store(at, sum).expect("room");
    }

    /// Transport header and payload: what the IP header says, and of UDP what its own says.
    fn segment<F: Family>(&self, network: &Network<F::Address>) -> &[u8] {
        let start = l4::<F, Self>();
        let length = if network.protocol == IpProtocol::UDP {
            let udp: Udp = self.load(start).expect("a UDP header");
            usize::from(udp.length.get())
        } else {
            network.length as usize - F::HEADER_LEN
        };
        &self.bytes[start..start + length]
    }
}

/// What a packet is to be like; the rest is as an ordinary host would send it.
#[derive(Clone, Copy, Debug)]
pub struct Spec<F: Family> {
    /// TCP or UDP.
    pub protocol: IpProtocol,
    /// Where it comes from.
    pub source: (F::Address, u16),
    /// Where it goes.
    pub destination: (F::Address, u16),
    /// TCP's control bits.
    pub flags: u8,
    /// TCP's sequence number. A SYN ends there, so that what comes next may have the same.
    pub sequence: u32,
    /// TCP's acknowledgement number.
    pub acknowledgement: u32,
    /// Time to live or hop limit.
    pub ttl: u8,
    /// Bytes of payload.
    pub payload: usize,
}

impl<F: Sample> Spec<F> {
    /// The same in TCP, with these control bits.
    #[must_use]
    pub fn tcp(self, flags: u8) -> Self {
        Self {
            protocol: IpProtocol::TCP,
            flags,
            ..self
        }
    }

    /// The packet in an Ethernet frame, with right lengths and checksums.
    pub fn build(self) -> Buffer {
        self.build_behind(bytes_of(&Ethernet {
            destination: HOST_MAC,
            source: SENDER_MAC,
            ether_type: F::ETHER_TYPE,
        }))
    }

    /// The packet alone.
    pub fn build_bare(self) -> Buffer<BARE> {
        self.build_behind(&[])
    }

    /// What its IP header says.
    pub fn network(&self) -> Network<F::Address> {
        let header = if self.protocol == IpProtocol::TCP {
            size_of::<Tcp>()
        } else {
            size_of::<Udp>()
        };
        Network {
            source: self.source.0,
            destination: self.destination.0,
            protocol: self.protocol,
            ttl: self.ttl,
            length: (F::HEADER_LEN + header + self.payload) as u32,
        }
    }

    fn build_behind<const L3: usize>(self, link: &[u8]) -> Buffer<L3> {
        let network = self.network();
        let mut bytes = link.to_vec();
        bytes.extend(F::header(network));
        bytes.extend(self.transport_header());
        bytes.extend((0..self.payload).map(|index| index as u8));
        let mut packet = Buffer::new(bytes);
        packet.complete_checksum::<F>(&network);
        packet
    }

    fn transport_header(&self) -> Vec<u8> {
        let ports = Ports {
            source: Be16::new(self.source.1),
            destination: Be16::new(self.destination.1),
        };
        if self.protocol == IpProtocol::TCP {
            let flags = TcpFlags(self.flags);
            let before = if flags.any(TcpFlags::SYN) {
                1 + self.payload as u32
            } else {
                0
            };
            bytes_of(&Tcp {
                ports,
                sequence: Be32::new(self.sequence.wrapping_sub(before)),
                acknowledgement: Be32::new(self.acknowledgement),
                data_offset: 5 << 4,
                flags,
                window: Be16::new(1000),
                checksum: Be16::new(0),
                urgent: Be16::new(0),
            })
            .to_vec()
        } else {
            bytes_of(&Udp {
                ports,
                length: Be16::new((size_of::<Udp>() + self.payload) as u16),
                checksum: Be16::new(0),
            })
            .to_vec()
        }
    }
}

/// What an Ethernet frame carries.
pub fn ether_type(packet: &Buffer) -> Option<EtherType> {
    packet.load(offset_of!(Ethernet, ether_type))
}
