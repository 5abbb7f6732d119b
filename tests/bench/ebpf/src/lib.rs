//! What the bench's eBPF programs and the bench itself have to agree on: the frames, the flows they belong
//! to, and what the programs tell.
#![no_std]

use bytemuck::{Pod, Zeroable};
use dataplane_common::{
    checksum::ChecksumDelta,
    headers::{Be16, Be32, Ethernet, Ipv4, Udp},
};

/// The shortest frame, in bytes and without its check sequence (IEEE 802.3).
pub const SHORTEST: usize = 60;

/// How many of the first frames that an endpoint receives it keeps.
pub const SAMPLES: u32 = 1024;

/// How many clients there are; their addresses follow each other. Flows beyond that differ in their source
/// port, of which each client has [`CLIENT_PORTS`].
pub const CLIENTS: u32 = 1 << 16;

/// How many source ports a client has.
pub const CLIENT_PORTS: u32 = 64_000;

/// Spreads flows over the published ports, so that any number of successive flows meets low and high ones
/// alike: 2^32 divided by the golden ratio, made odd (Knuth, The Art of Computer Programming, 6.4).
const SPREAD: u32 = 0x9e37_79b1;

/// The flow of the frame with this running number, of 2 to the power of `bits` flows that take turns. Each
/// turn has an order of its own: were it always the same, tables whose entries lie in memory in the order
/// in which they were made would be read from one end to the other, which no traffic does.
#[inline(always)]
pub fn flow(number: u64, bits: u32) -> u32 {
    let turn = (number >> bits) as u32;
    let stride = turn.wrapping_mul(SPREAD) << 1 | 1;
    let mask = (1_u64 << bits) - 1;
    (number as u32).wrapping_mul(stride) & mask as u32
}

/// The headers of a frame. Two-byte aligned, as everything behind an Ethernet header is.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, packed(2))]
pub struct Headers {
    /// Ethernet.
    pub ethernet: Ethernet,
    /// IPv4.
    pub ipv4: Ipv4,
    /// UDP.
    pub udp: Udp,
}

const _: () = assert!(size_of::<Headers>() == 42);

impl Headers {
    /// Makes the headers of flow 0 those of flow `flow`, to one of as many published `ports`.
    #[inline(always)]
    pub fn for_flow(mut self, flow: u32, ports: u16) -> Self {
        let source = Be32::new(self.ipv4.source.get() + flow % CLIENTS);
        let address = ChecksumDelta::NONE.replace32(self.ipv4.source, source);
        let from = Be16::new(self.udp.ports.source.get() + (flow / CLIENTS % CLIENT_PORTS) as u16);
        let port = ((flow.wrapping_mul(SPREAD) >> 16) * u32::from(ports)) >> 16;
        let to = Be16::new(self.udp.ports.destination.get() + port as u16);
        let transport = address
            .replace16(self.udp.ports.source, from)
            .replace16(self.udp.ports.destination, to);
        self.ipv4.checksum = address.apply(self.ipv4.checksum);
        self.ipv4.source = source;
        self.udp.checksum = transport.apply_udp(self.udp.checksum);
        self.udp.ports.source = from;
        self.udp.ports.destination = to;
        self
    }

    /// Makes a packet its answer. Both checksums hold for it as well: they are sums.
    #[inline(always)]
    pub fn answer(mut self) -> Self {
        let Self {
            ethernet,
            ipv4,
            udp,
        } = self;
        self.ethernet.source = ethernet.destination;
        self.ethernet.destination = ethernet.source;
        self.ipv4.source = ipv4.destination;
        self.ipv4.destination = ipv4.source;
        self.udp.ports.source = udp.ports.destination;
        self.udp.ports.destination = udp.ports.source;
        self
    }
}

/// A frame that an endpoint has received.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Sample {
    /// Its length, in bytes.
    pub length: u32,
    /// Its beginning.
    pub bytes: [u8; SHORTEST],
}

/// The programs, by the names of their functions.
pub mod programs {
    /// XDP: sends one frame.
    pub const SEND: &str = "send";
    /// TC ingress of an end: counts frames and drops them.
    pub const SINK: &str = "sink";
    /// TC ingress of an end: counts frames and sends each back.
    pub const ECHO: &str = "echo";
    /// XDP at the external interface: redirects to the container.
    pub const LIMIT: &str = "limit";
    /// TC ingress of the host's end of the container's veth pair: redirects to the client.
    pub const LIMIT_REPLY: &str = "limit_reply";
}

/// The constants that are set when the programs are loaded.
pub mod globals {
    /// [`super::Headers`] of flow 0.
    pub const HEADERS: &str = "HEADERS";
    /// Two to the power of this many flows take turns (`u32`).
    pub const FLOW_BITS: &str = "FLOW_BITS";
    /// How many ports are published (`u16`).
    pub const PORTS: &str = "PORTS";
    /// The index of the interface that frames leave by (`u32`).
    pub const OUT: &str = "OUT";
    /// The container's MAC address.
    pub const CONTAINER_MAC: &str = "CONTAINER_MAC";
}

/// The maps.
pub mod maps {
    /// The running number of the next frame, by CPU.
    pub const NEXT: &str = "NEXT";
    /// How many frames have arrived, by CPU.
    pub const ARRIVED: &str = "ARRIVED";
    /// The first of them, as [`super::Sample`].
    pub const FIRST: &str = "FIRST";
    /// Where the limit redirects to.
    pub const TO_CONTAINER: &str = "TO_CONTAINER";
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::{collections::HashSet, vec::Vec};

    use dataplane_common::headers::{EtherType, IpProtocol, Ports};

    use super::*;

    fn first() -> Headers {
        Headers {
            ethernet: Ethernet {
                destination: [2; 6],
                source: [4; 6],
                ether_type: EtherType::IPV4,
            },
            ipv4: Ipv4 {
                version_ihl: Ipv4::PLAIN,
                tos: 0,
                total_length: Be16::new(46),
                id: Be16::new(0),
                fragment: Be16::new(0),
                ttl: 64,
                protocol: IpProtocol::UDP,
                checksum: Be16::new(0x1234),
                source: Be32::new(0xc612_0000),
                destination: Be32::new(0x0a63_0001),
            },
            udp: Udp {
                ports: Ports {
                    source: Be16::new(1024),
                    destination: Be16::new(9000),
                },
                length: Be16::new(26),
                checksum: Be16::new(0x5678),
            },
        }
    }

    #[test]
    fn flow_zero_is_as_given() {
        assert_eq!(
            bytemuck::bytes_of(&first().for_flow(0, 1000)),
            bytemuck::bytes_of(&first())
        );
    }

    #[test]
    fn flows_differ_in_address_and_then_in_port() {
        let mut seen = HashSet::new();
        for flow in (0..1 << 12).chain(CLIENTS..CLIENTS + 64) {
            let headers = first().for_flow(flow, 1);
            let (address, ports) = (headers.ipv4.source, headers.udp.ports);
            assert!(seen.insert((address, ports.source)), "flow {flow}");
            assert_eq!(ports.destination.get(), 9000);
        }
        let last = first().for_flow(CLIENTS * CLIENT_PORTS - 1, 1);
        assert_eq!({ last.udp.ports.source }.get(), 1024 + 63_999);
    }

    #[test]
    fn each_turn_has_every_flow_once_in_another_order() {
        let turn =
            |turn: u64| -> Vec<u32> { (64 * turn..64 * turn + 64).map(|n| flow(n, 6)).collect() };
        let all: HashSet<u32> = (0..64).collect();
        for number in 0..8 {
            assert_eq!(HashSet::from_iter(turn(number)), all);
            assert_ne!(turn(number), turn(number + 1));
        }
    }

    #[test]
    fn where_flows_take_no_turns_each_frame_has_another_one() {
        for number in [0, 1, 0xffff_ffff] {
            assert_eq!(flow(number, 32), number as u32);
        }
    }

    #[test]
    fn any_stretch_of_flows_is_spread_over_the_published_ports() {
        let port = |flow| { first().for_flow(flow, 50_000).udp.ports.destination }.get();
        for begin in [0, 1 << 20, 3 << 30] {
            let mut tenths = [0; 10];
            for flow in begin..begin + 1000 {
                tenths[usize::from(port(flow) - 9000) / 5000] += 1;
            }
            assert!(
                tenths.iter().all(|count| (90..=110).contains(count)),
                "{tenths:?}"
            );
        }
    }

    #[test]
    fn the_answers_answer_is_the_packet() {
        let headers = first().for_flow(12_345, 10);
        assert_ne!(
            bytemuck::bytes_of(&headers.answer()),
            bytemuck::bytes_of(&headers)
        );
        assert_eq!(
            bytemuck::bytes_of(&headers.answer().answer()),
            bytemuck::bytes_of(&headers)
        );
    }
}
