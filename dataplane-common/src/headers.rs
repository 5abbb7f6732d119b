//! Wire formats. Every multi-byte field is a newtype in network byte order, so that a value cannot be
//! used as a number before [`Be16::get`] or [`Be32::get`] has turned it round.

use bytemuck::{Pod, Zeroable};

/// A 16-bit field in network byte order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Pod, Zeroable)]
#[repr(transparent)]
pub struct Be16(u16);

impl Be16 {
    /// From a number in host byte order.
    #[inline(always)]
    pub const fn new(value: u16) -> Self {
        Self(value.to_be())
    }

    /// The number in host byte order.
    #[inline(always)]
    pub const fn get(self) -> u16 {
        u16::from_be(self.0)
    }

    /// The two bytes as they lie in memory, for checksum arithmetic.
    #[inline(always)]
    pub const fn raw(self) -> u16 {
        self.0
    }

    /// From two bytes as they lie in memory.
    #[inline(always)]
    pub const fn from_raw(raw: u16) -> Self {
        Self(raw)
    }
}

/// A 32-bit field in network byte order; an IPv4 address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Pod, Zeroable)]
#[repr(transparent)]
pub struct Be32(u32);

impl Be32 {
    /// From a number in host byte order.
    #[inline(always)]
    pub const fn new(value: u32) -> Self {
        Self(value.to_be())
    }

    /// The number in host byte order.
    #[inline(always)]
    pub const fn get(self) -> u32 {
        u32::from_be(self.0)
    }

    /// The four bytes as they lie in memory.
    #[inline(always)]
    pub const fn raw(self) -> u32 {
        self.0
    }

    /// From four bytes as they lie in memory.
    #[inline(always)]
    pub const fn from_raw(raw: u32) -> Self {
        Self(raw)
    }
}

/// An IPv6 address in network byte order, as four words in the order in which they lie in memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Pod, Zeroable)]
#[repr(transparent)]
pub struct Ip6([u32; 4]);

impl Ip6 {
    /// From the address's bytes.
    pub const fn new(bytes: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bytes;
        Self([
            u32::from_ne_bytes([a, b, c, d]),
            u32::from_ne_bytes([e, f, g, h]),
            u32::from_ne_bytes([i, j, k, l]),
            u32::from_ne_bytes([m, n, o, p]),
        ])
    }

    /// The address's bytes.
    #[inline(always)]
    pub fn bytes(self) -> [u8; 16] {
        bytemuck::cast(self.0)
    }

    /// The four words as they lie in memory.
    #[inline(always)]
    pub const fn raw(self) -> [u32; 4] {
        self.0
    }

    /// From four words as they lie in memory.
    #[inline(always)]
    pub const fn from_raw(raw: [u32; 4]) -> Self {
        Self(raw)
    }

    /// The first 32 bits, which tell most kinds of addresses apart.
    #[inline(always)]
    pub const fn prefix(self) -> Be32 {
        Be32::from_raw(self.0[0])
    }
}

/// An Ethernet (MAC) address.
pub type Mac = [u8; 6];

/// What an Ethernet frame carries (IEEE 802 numbers; not to be mixed up with [`IpProtocol`]).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(transparent)]
pub struct EtherType(Be16);

impl EtherType {
    /// IPv4 (`ETH_P_IP`).
    pub const IPV4: Self = Self(Be16::new(0x0800));
    /// IPv6 (`ETH_P_IPV6`).
    pub const IPV6: Self = Self(Be16::new(0x86dd));
}

/// The VLAN's number in a tag's control information (IEEE 802.1Q); the rest is its priority.
pub const VLAN_ID_MASK: u32 = 0x0fff;

/// What an IP packet carries (IANA protocol numbers).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Pod, Zeroable)]
#[repr(transparent)]
pub struct IpProtocol(pub u8);

impl IpProtocol {
    /// TCP, RFC 9293.
    pub const TCP: Self = Self(6);
    /// UDP, RFC 768.
    pub const UDP: Self = Self(17);
    /// ICMP, RFC 792.
    pub const ICMP: Self = Self(1);
    /// ICMPv6, RFC 4443.
    pub const ICMPV6: Self = Self(58);
    /// IPv6's fragment header, RFC 8200 4.5.
    pub const FRAGMENT: Self = Self(44);
    /// IPv6's extension headers other than the fragment header: hop-by-hop options, routing, destination
    /// options, authentication.
    pub const EXTENSIONS: [Self; 4] = [Self(0), Self(43), Self(60), Self(51)];
}

/// An Ethernet header without tags.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Ethernet {
    /// Where the frame goes.
    pub destination: Mac,
    /// Who sent it.
    pub source: Mac,
    /// What it carries.
    pub ether_type: EtherType,
}

/// An IPv4 header without options (RFC 791).
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Ipv4 {
    /// Version (high nibble) and header length in 32-bit words (low nibble).
    pub version_ihl: u8,
    /// DSCP and ECN.
    pub tos: u8,
    /// Header and payload, in bytes.
    pub total_length: Be16,
    /// Identification.
    pub id: Be16,
    /// Flags (high 3 bits) and fragment offset in 8-byte units.
    pub fragment: Be16,
    /// Time to live, in hops.
    pub ttl: u8,
    /// What it carries.
    pub protocol: IpProtocol,
    /// Header checksum.
    pub checksum: Be16,
    /// Source address.
    pub source: Be32,
    /// Destination address.
    pub destination: Be32,
}

impl Ipv4 {
    /// `version_ihl` of an IPv4 header without options.
    pub const PLAIN: u8 = 0x45;
    /// The more-fragments flag in [`Ipv4::fragment`], in host byte order.
    pub const MORE_FRAGMENTS: u16 = 0x2000;
    /// The fragment offset there.
    pub const OFFSET_MASK: u16 = 0x1fff;
    /// More-fragments flag and fragment offset in [`Ipv4::fragment`], in host byte order.
    pub const FRAGMENT_MASK: u16 = 0x3fff;
}

/// An IPv6 header (RFC 8200).
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Ipv6 {
    /// Version (high 4 bits), traffic class and flow label.
    pub version_class_label: Be32,
    /// What follows the header, in bytes.
    pub payload_length: Be16,
    /// What it carries: a transport protocol or an extension header.
    pub next_header: IpProtocol,
    /// Hop limit.
    pub hop_limit: u8,
    /// Source address.
    pub source: Ip6,
    /// Destination address.
    pub destination: Ip6,
}

/// IPv6's fragment header (RFC 8200 4.5).
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Ipv6Fragment {
    /// What the datagram carries, from here on.
    pub next_header: IpProtocol,
    /// Zero.
    pub reserved: u8,
    /// Fragment offset in 8-byte units (high 13 bits) and flags.
    pub offset: Be16,
    /// Identification.
    pub id: Be32,
}

impl Ipv6Fragment {
    /// The fragment offset in [`Ipv6Fragment::offset`], in host byte order. Left where it is, it is in bytes.
    pub const OFFSET_MASK: u16 = 0xfff8;
    /// The more-fragments flag there.
    pub const MORE_FRAGMENTS: u16 = 1;
}

/// The ports both TCP and UDP begin with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Ports {
    /// Source port.
    pub source: Be16,
    /// Destination port.
    pub destination: Be16,
}

/// A TCP header without options (RFC 9293).
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Tcp {
    /// Source and destination port.
    pub ports: Ports,
    /// Sequence number.
    pub sequence: Be32,
    /// Acknowledgement number.
    pub acknowledgement: Be32,
    /// Header length in 32-bit words, in the high nibble.
    pub data_offset: u8,
    /// Control bits.
    pub flags: TcpFlags,
    /// Receive window.
    pub window: Be16,
    /// Checksum.
    pub checksum: Be16,
    /// Urgent pointer.
    pub urgent: Be16,
}

/// TCP's control bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
#[repr(transparent)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset.
    pub const RST: u8 = 0x04;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// The acknowledgement number counts.
    pub const ACK: u8 = 0x10;
    /// The urgent pointer counts.
    pub const URG: u8 = 0x20;

    /// Whether any bit of `mask` is set.
    #[inline(always)]
    pub const fn any(self, mask: u8) -> bool {
        self.0 & mask != 0
    }

    /// The first packet of a connection: SYN without ACK.
    #[inline(always)]
    pub const fn opens(self) -> bool {
        self.0 & (Self::SYN | Self::ACK) == Self::SYN
    }

    /// Whether conntrack takes the combination for valid; the rest is `INVALID` to it and never
    /// reaches a container (`tcp_valid_flags` in net/netfilter/nf_conntrack_proto_tcp.c, which also
    /// leaves PSH, ECE and CWR out of account).
    #[inline(always)]
    pub const fn valid(self) -> bool {
        const VALID: u64 = {
            const F: u8 = TcpFlags::FIN;
            const S: u8 = TcpFlags::SYN;
            const R: u8 = TcpFlags::RST;
            const A: u8 = TcpFlags::ACK;
            const U: u8 = TcpFlags::URG;
            (1 << S)
                | (1 << (S | U))
                | (1 << (S | A))
                | (1 << R)
                | (1 << (R | A))
                | (1 << (F | A))
                | (1 << (F | A | U))
                | (1 << A)
                | (1 << (A | U))
        };
        let counted = self.0 & (Self::FIN | Self::SYN | Self::RST | Self::ACK | Self::URG);
        (VALID >> counted) & 1 == 1
    }
}

/// A UDP header (RFC 768).
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Udp {
    /// Source and destination port.
    pub ports: Ports,
    /// Header and payload, in bytes.
    pub length: Be16,
    /// Checksum; zero means none was computed (IPv4 only).
    pub checksum: Be16,
}

/// What ICMP and ICMPv6 messages begin with (RFC 792, RFC 4443). Errors quote the packet they are about
/// behind it.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Icmp {
    /// What it tells, by the numbers of its IP version.
    pub kind: u8,
    /// The same in detail.
    pub code: u8,
    /// Checksum; ICMPv6's covers a pseudo-header, too.
    pub checksum: Be16,
    /// Depends on the type: the MTU of the next link, for one.
    pub rest: Be32,
}

const _: () = assert!(size_of::<Ethernet>() == 14);
const _: () = assert!(size_of::<Ipv4>() == 20);
const _: () = assert!(size_of::<Ipv6>() == 40);
const _: () = assert!(size_of::<Ipv6Fragment>() == 8);
const _: () = assert!(size_of::<Tcp>() == 20);
const _: () = assert!(size_of::<Udp>() == 8);
const _: () = assert!(size_of::<Icmp>() == 8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_combinations_of_conntracks_table_are_valid() {
        const IGNORED: u8 = TcpFlags::PSH | 0x40 | 0x80;
        let valid: Vec<u8> = (0..=0xff_u8)
            .filter(|bits| bits & IGNORED == 0 && TcpFlags(*bits).valid())
            .collect();
        // SYN, RST, ACK, FIN+ACK, SYN+ACK, RST+ACK, SYN+URG, ACK+URG, FIN+ACK+URG
        assert_eq!(
            valid,
            [0x02, 0x04, 0x10, 0x11, 0x12, 0x14, 0x22, 0x30, 0x31]
        );
        for bits in 0..=0xff_u8 {
            assert_eq!(
                TcpFlags(bits).valid(),
                TcpFlags(bits & !IGNORED).valid(),
                "{bits:#x}: PSH, ECE and CWR do not count"
            );
        }
    }
}
