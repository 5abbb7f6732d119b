//! What tests need of an IP version beyond what the core does: addresses to play with, headers to send.

use bytemuck::bytes_of;

use crate::{
    checksum::internet_checksum,
    family::{Family, Network, V4, V6},
    headers::{Be16, Be32, Ip6, IpProtocol, Ipv4, Ipv6},
};

/// An IP version with an inhabited world.
pub trait Sample: Family {
    /// A client, somewhere outside.
    const CLIENT: Self::Address;
    /// The host.
    const HOST: Self::Address;
    /// Another address of it.
    const SECOND_HOST: Self::Address;
    /// A container.
    const CONTAINER: Self::Address;
    /// Another one, on the same bridge.
    const NEIGHBOUR: Self::Address;
    /// The router between client and host.
    const GATEWAY: Self::Address;
    /// Nobody the host knows a way to.
    const UNROUTABLE: Self::Address;
    /// Sources that no packet can have which is to be forwarded.
    const MARTIANS: &'static [Self::Address];
    /// Destinations that are not the host's, but of all, of some, of itself, of others.
    const NOT_OURS: &'static [Self::Address];

    /// An address as [`Backend::address`](crate::published::Backend::address) stores it.
    fn to_words(address: Self::Address) -> [u32; 4];

    /// A header without options, with its checksum where it has one.
    fn header(network: Network<Self::Address>) -> Vec<u8>;

    /// What a transport checksum covers besides the `length` bytes of the segment.
    fn pseudo_header(network: &Network<Self::Address>, length: u32) -> Vec<u8>;

    /// A header as that above, of a fragment at `offset` (in units of 8 bytes) of a packet whose further
    /// fragments follow or not.
    fn fragment_header(
        network: Network<Self::Address>,
        id: u32,
        offset: u16,
        more: bool,
    ) -> Vec<u8>;
}

/// An IPv4 address.
pub const fn ip4(a: u8, b: u8, c: u8, d: u8) -> Be32 {
    Be32::new(u32::from_be_bytes([a, b, c, d]))
}

/// An IPv6 address.
pub const fn ip6(groups: [u16; 8]) -> Ip6 {
    let mut bytes = [0; 16];
    let mut index = 0;
    while index < 8 {
        let [high, low] = groups[index].to_be_bytes();
        bytes[index * 2] = high;
        bytes[index * 2 + 1] = low;
        index += 1;
    }
    Ip6::new(bytes)
}

impl Sample for V4 {
    const CLIENT: Be32 = ip4(203, 0, 113, 7);
    const HOST: Be32 = ip4(198, 51, 100, 1);
    const SECOND_HOST: Be32 = ip4(198, 51, 100, 2);
    const CONTAINER: Be32 = ip4(172, 17, 0, 2);
    const NEIGHBOUR: Be32 = ip4(172, 17, 0, 9);
    const GATEWAY: Be32 = ip4(198, 51, 100, 254);
    const UNROUTABLE: Be32 = ip4(192, 0, 2, 1);
    const MARTIANS: &'static [Be32] = &[
        ip4(0, 0, 0, 1),
        ip4(127, 0, 0, 1),
        ip4(224, 0, 0, 1),
        ip4(240, 0, 0, 1),
        ip4(255, 255, 255, 255),
    ];
    const NOT_OURS: &'static [Be32] = &[
        ip4(255, 255, 255, 255),
        ip4(224, 0, 0, 1),
        ip4(127, 0, 0, 1),
        ip4(192, 0, 2, 9),
        Self::CONTAINER,
    ];

    fn to_words(address: Be32) -> [u32; 4] {
        [address.raw(), 0, 0, 0]
    }

    fn header(network: Network<Be32>) -> Vec<u8> {
        header4(network, Be16::new(7), Be16::new(0x4000))
    }

    fn pseudo_header(network: &Network<Be32>, length: u32) -> Vec<u8> {
        [
            bytes_of(&network.source),
            bytes_of(&network.destination),
            &[0, network.protocol.0],
            &(length as u16).to_be_bytes(),
        ]
        .concat()
    }

    fn fragment_header(network: Network<Be32>, id: u32, offset: u16, more: bool) -> Vec<u8> {
        let id = Be16::new(id as u16);
        header4(network, id, Be16::new(u16::from(more) << 13 | offset))
    }
}

/// An IPv4 header whose flags and fragment offset are `fragment`.
fn header4(network: Network<Be32>, id: Be16, fragment: Be16) -> Vec<u8> {
    let mut header = Ipv4 {
        version_ihl: Ipv4::PLAIN,
        tos: 0,
        total_length: Be16::new(network.length as u16),
        id,
        fragment,
        ttl: network.ttl,
        protocol: network.protocol,
        checksum: Be16::new(0),
        source: network.source,
        destination: network.destination,
    };
    header.checksum = internet_checksum(&[bytes_of(&header)]);
    bytes_of(&header).to_vec()
}

impl Sample for V6 {
    const CLIENT: Ip6 = ip6([0x2001, 0xdb8, 7, 0, 0, 0, 0, 7]);
    const HOST: Ip6 = ip6([0x2001, 0xdb8, 1, 0, 0, 0, 0, 1]);
    const SECOND_HOST: Ip6 = ip6([0x2001, 0xdb8, 1, 0, 0, 0, 0, 2]);
    const CONTAINER: Ip6 = ip6([0xfd00, 0xd0c, 0, 0, 0, 0, 0, 2]);
    const NEIGHBOUR: Ip6 = ip6([0xfd00, 0xd0c, 0, 0, 0, 0, 0, 9]);
    const GATEWAY: Ip6 = ip6([0xfe80, 0, 0, 0, 0, 0, 0, 0xfe]);
    const UNROUTABLE: Ip6 = ip6([0x2001, 0xdb8, 2, 0, 0, 0, 0, 1]);
    const MARTIANS: &'static [Ip6] = &[
        ip6([0; 8]),
        ip6([0, 0, 0, 0, 0, 0, 0, 1]),
        // IPv4-mapped.
        ip6([0, 0, 0, 0, 0, 0xffff, 0xcb00, 0x7107]),
        ip6([0xfe80, 0, 0, 0, 0, 0, 0, 7]),
        ip6([0xfebf, 0xffff, 0, 0, 0, 0, 0, 7]),
        ip6([0xff02, 0, 0, 0, 0, 0, 0, 1]),
        ip6([0xff0e, 0, 0, 0, 0, 0, 0, 7]),
    ];
    const NOT_OURS: &'static [Ip6] = &[
        ip6([0xff02, 0, 0, 0, 0, 0, 0, 1]),
        ip6([0, 0, 0, 0, 0, 0, 0, 1]),
        ip6([0xfe80, 0, 0, 0, 0, 0, 0, 1]),
        ip6([0x2001, 0xdb8, 1, 0, 0, 0, 0, 9]),
        Self::CONTAINER,
    ];

    fn to_words(address: Ip6) -> [u32; 4] {
        address.raw()
    }

    fn header(network: Network<Ip6>) -> Vec<u8> {
        let header = Ipv6 {
            version_class_label: Be32::new(6 << 28),
            payload_length: Be16::new((network.length as usize - Self::HEADER_LEN) as u16),
            next_header: network.protocol,
            hop_limit: network.ttl,
            source: network.source,
            destination: network.destination,
        };
        bytes_of(&header).to_vec()
    }

    fn pseudo_header(network: &Network<Ip6>, length: u32) -> Vec<u8> {
        [
            bytes_of(&network.source),
            bytes_of(&network.destination),
            &length.to_be_bytes(),
            &[0, 0, 0, network.protocol.0],
        ]
        .concat()
    }

    fn fragment_header(network: Network<Ip6>, id: u32, offset: u16, more: bool) -> Vec<u8> {
        let protocol = network.protocol.0;
        let mut header = Self::header(Network {
            protocol: IpProtocol::FRAGMENT,
            length: network.length + 8,
            ..network
        });
        let [high, low] = (offset << 3 | u16::from(more)).to_be_bytes();
        header.extend([protocol, 0, high, low]);
        header.extend(id.to_be_bytes());
        header
    }
}
