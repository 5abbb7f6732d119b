//! Bytes to a small description of the packet, read once, or the reason it is left alone.

use core::mem::offset_of;

use crate::{
    family::{Family, Network},
    headers::{Be16, Be32, IpProtocol, Ports, Tcp, TcpFlags, Udp},
    packet::Packet,
    reason::Reason,
    sequence::Segment,
};

/// A TCP segment or UDP datagram that may be translated.
#[derive(Clone, Copy, Debug)]
pub struct Parsed<F: Family> {
    /// What the IP header says.
    pub network: Network<F::Address>,
    /// Source and destination port.
    pub ports: Ports,
    /// TCP's control bits; none for UDP.
    pub flags: TcpFlags,
    /// Length of all headers from the IP header on, in bytes.
    headers_len: u8,
    /// Bytes of payload in each segment, or zero.
    segment_size: u16,
    /// TCP's sequence number; zero for UDP, as the next.
    sequence: Be32,
    /// TCP's acknowledgement number.
    acknowledgement: Be32,
}

impl<F: Family> Parsed<F> {
    /// Whether this is TCP; else it is UDP.
    #[inline(always)]
    pub fn is_tcp(&self) -> bool {
        self.network.protocol == IpProtocol::TCP
    }

    /// Where the checksum lies in the transport header.
    #[inline(always)]
    pub fn checksum_offset(&self) -> usize {
        if self.is_tcp() {
            offset_of!(Tcp, checksum)
        } else {
            offset_of!(Udp, checksum)
        }
    }

    /// Whether its checksum is the one that a sender on this machine leaves for a NIC to finish
    /// (`CHECKSUM_PARTIAL`): that of the pseudo-header alone. One in 65,536 others looks like it. For those
    /// who see a packet without what the kernel knows of it. `l4` is where its transport header begins.
    #[inline(always)]
    pub fn is_checksum_unfinished<P: Packet>(&self, packet: &P, l4: usize) -> bool {
        let network = &self.network;
        let nowhere = F::from_words(&[0; 4]);
        let length = (network.length - F::HEADER_LEN as u32) as u16;
        let pseudo_header = F::replace(nowhere, network.source)
            .and(F::replace(nowhere, network.destination))
            .replace16(Be16::new(0), Be16::new(network.protocol.0.into()))
            .replace16(Be16::new(0), Be16::new(length));
        let checksum = packet.load::<Be16>(l4 + self.checksum_offset());
        checksum == Some(pseudo_header.folded())
    }

    /// Whether it goes through a link with this MTU: the packet, or each segment it stands for.
    #[inline(always)]
    pub fn fits(&self, mtu: u32) -> bool {
        let length = if self.segment_size == 0 {
            self.network.length
        } else {
            u32::from(self.headers_len) + u32::from(self.segment_size)
        };
        length <= mtu
    }

    /// Where in its connection it is. Of several segments in one packet (GSO, GRO) all together.
    #[inline(always)]
    pub fn segment(&self) -> Segment {
        Segment {
            flags: self.flags,
            sequence: self.sequence.get(),
            acknowledgement: self.acknowledgement.get(),
            payload: self.network.length - u32::from(self.headers_len),
        }
    }
}

/// Where the transport header begins: a constant, so that the verifier knows it after every call.
#[inline(always)]
pub const fn l4<F: Family, P: Packet>() -> usize {
    P::L3 + F::HEADER_LEN
}

/// Reads the headers of a packet of family `F`; the caller has looked at its EtherType.
#[inline(always)]
pub fn parse<F: Family, P: Packet>(packet: &P) -> Result<Parsed<F>, Reason> {
    if packet.vlan_id() != 0 {
        return Err(Reason::Vlan);
    }
    let network = F::parse(packet, P::L3)?;
    transport(packet, network, l4::<F, P>(), false)
}

/// Reads the transport header at `l4`. `is_cut` says whether the packet has only the beginning of what the
/// header announces, being a datagram's first fragment.
#[inline(always)]
pub(crate) fn transport<F: Family, P: Packet>(
    packet: &P,
    network: Network<F::Address>,
    l4: usize,
    is_cut: bool,
) -> Result<Parsed<F>, Reason> {
    let l4_len = network.length - (l4 - P::L3) as u32;
    let (ports, flags, header_len, sequence, acknowledgement) = match network.protocol {
        IpProtocol::TCP => {
            let tcp: Tcp = packet.load(l4).ok_or(Reason::Malformed)?;
            let header_len = u32::from(tcp.data_offset >> 4) * 4;
            if header_len < size_of::<Tcp>() as u32 || header_len > l4_len {
                return Err(Reason::Malformed);
            }
            if !tcp.flags.valid() {
                return Err(Reason::TcpFlags);
            }
            (
                tcp.ports,
                tcp.flags,
                header_len,
                tcp.sequence,
                tcp.acknowledgement,
            )
        }
        IpProtocol::UDP => {
            let udp: Udp = packet.load(l4).ok_or(Reason::Malformed)?;
            let length = u32::from(udp.length.get());
            if length < size_of::<Udp>() as u32 || (length > l4_len && !is_cut) {
                return Err(Reason::Malformed);
            }
            let (header_len, none) = (size_of::<Udp>() as u32, Be32::new(0));
            (udp.ports, TcpFlags(0), header_len, none, none)
        }
        protocol if protocol == F::ICMP => return Err(Reason::Icmp),
        _ => return Err(Reason::Protocol),
    };
    // Port zero is reserved (RFC 6335), nobody publishes it, and no reply could come back to it.
    if ports.source == Be16::new(0) {
        return Err(Reason::Malformed);
    }
    Ok(Parsed {
        network,
        ports,
        flags,
        headers_len: ((l4 - P::L3) as u32 + header_len) as u8,
        segment_size: packet.segment_size() as u16,
        sequence,
        acknowledgement,
    })
}
