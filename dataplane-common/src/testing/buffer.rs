//! A packet in a byte buffer, and a builder of packets.

use bytemuck::{Pod, bytes_of};

use crate::{
    family::{Family as _, V4},
    headers::{Be16, Be32, EtherType, Ethernet, IpProtocol, Ipv4, Ports, Tcp, TcpFlags, Udp},
    packet::{L4Change, Packet, WriteFault},
    parse::l4,
};

/// Where the IP header begins: behind an Ethernet header.
pub const L3: usize = size_of::<Ethernet>();

/// Where TCP's or UDP's header begins in an IPv4 packet.
pub const L4: usize = l4::<V4, Buffer>();

/// A packet whose bytes lie in a buffer, with its checksums complete.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Buffer {
    pub bytes: Vec<u8>,
    pub segment_size: u32,
    pub is_to_host: bool,
    pub vlan_id: u16,
}

impl Packet for Buffer {
    const L3: usize = L3;

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
        self.vlan_id
    }

    fn clear_priority_tag(&mut self) -> Result<(), WriteFault> {
        Ok(())
    }

    fn put_ethernet(&mut self, header: Ethernet) -> Result<(), WriteFault> {
        self.store(0, header)
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

    fn update_l4_checksum(
        &mut self,
        offset: usize,
        protocol: IpProtocol,
        change: L4Change,
    ) -> Result<(), WriteFault> {
        let checksum: Be16 = self.load(offset).ok_or(WriteFault)?;
        let delta = change.pseudo_header.and(change.header);
        let checksum = if protocol == IpProtocol::UDP {
            delta.apply_udp(checksum)
        } else {
            delta.apply(checksum)
        };
        self.store(offset, checksum)
    }
}

/// What a packet is to be like; the rest is as an ordinary host would send it.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    pub protocol: IpProtocol,
    pub source: (Be32, u16),
    pub destination: (Be32, u16),
    pub flags: u8,
    pub ttl: u8,
    pub payload: usize,
}

impl Spec {
    /// The packet, with right lengths and checksums.
    pub fn build(self) -> Buffer {
        let payload: Vec<u8> = (0..self.payload).map(|index| index as u8).collect();
        let ports = Ports {
            source: Be16::new(self.source.1),
            destination: Be16::new(self.destination.1),
        };
        let mut segment = if self.protocol == IpProtocol::TCP {
            bytes_of(&Tcp {
                ports,
                sequence: Be32::new(1),
                acknowledgement: Be32::new(2),
                data_offset: 5 << 4,
                flags: TcpFlags(self.flags),
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
        };
        segment.extend(payload);
        let header = Ipv4 {
            version_ihl: Ipv4::PLAIN,
            tos: 0,
            total_length: Be16::new((V4::HEADER_LEN + segment.len()) as u16),
            id: Be16::new(7),
            fragment: Be16::new(0x4000),
            ttl: self.ttl,
            protocol: self.protocol,
            checksum: Be16::new(0),
            source: self.source.0,
            destination: self.destination.0,
        };
        let ethernet = Ethernet {
            destination: [2, 0, 0, 0, 0, 1],
            source: [2, 0, 0, 0, 0, 9],
            ether_type: EtherType::IPV4,
        };
        let mut packet = Buffer {
            bytes: [bytes_of(&ethernet), bytes_of(&header), &segment].concat(),
            segment_size: 0,
            is_to_host: true,
            vlan_id: 0,
        };
        packet.complete_checksums();
        packet
    }
}

impl Buffer {
    /// Computes both checksums from scratch (RFC 1071).
    pub fn complete_checksums(&mut self) {
        let at = L3 + core::mem::offset_of!(Ipv4, checksum);
        self.bytes[at..at + 2].fill(0);
        let sum = checksum(&[&self.bytes[L3..L4]]);
        self.bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());

        let header: Ipv4 = self.load(L3).expect("an IP header");
        let is_udp = header.protocol == IpProtocol::UDP;
        let at = L4
            + if is_udp {
                core::mem::offset_of!(Udp, checksum)
            } else {
                core::mem::offset_of!(Tcp, checksum)
            };
        let end = L3 + usize::from(header.total_length.get());
        self.bytes[at..at + 2].fill(0);
        let segment = &self.bytes[L4..end];
        let pseudo = [
            bytes_of(&header.source),
            bytes_of(&header.destination),
            &[0, header.protocol.0],
            &(segment.len() as u16).to_be_bytes(),
        ]
        .concat();
        let sum = match checksum(&[&pseudo, segment]) {
            0 if is_udp => 0xffff,
            sum => sum,
        };
        self.bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
}

fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum: u32 = parts
        .concat()
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)))
        .sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
