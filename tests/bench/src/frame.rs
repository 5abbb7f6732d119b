//! The frames that are sent.

use std::net::Ipv4Addr;

use bytemuck::bytes_of;
use dataplane_common::{
    checksum::internet_checksum,
    headers::{Be16, Be32, EtherType, Ethernet, IpProtocol, Ipv4, Mac, Ports, Udp},
};
use portway_bench_ebpf::{CLIENT_PORTS, CLIENTS, Headers};

/// The first client's address, in the network for benchmarks (RFC 2544); the others follow.
pub const FIRST_CLIENT: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);

/// The first source port of each client.
pub const FIRST_CLIENT_PORT: u16 = 1024;

/// The first published port.
pub const FIRST_PORT: u16 = 500;

/// The container's port that [`FIRST_PORT`] leads to; the others follow.
pub const FIRST_CONTAINER_PORT: u16 = 501;

/// What a frame of flow 0 is made of.
#[derive(Debug, Clone, Copy)]
pub struct Frame {
    /// Its headers.
    pub headers: Headers,
    /// Its length in bytes, without the check sequence.
    pub length: usize,
}

impl Frame {
    /// From `source` to `destination` on the link, and from the first client to the host's first published
    /// port.
    pub fn new(source: Mac, destination: Mac, host: Ipv4Addr, length: usize) -> Self {
        let ip_length = length - size_of::<Ethernet>();
        let udp_length = ip_length - size_of::<Ipv4>();
        let mut headers = Headers {
            ethernet: Ethernet {
                destination,
                source,
                ether_type: EtherType::IPV4,
            },
            ipv4: Ipv4 {
                version_ihl: Ipv4::PLAIN,
                tos: 0,
                total_length: Be16::new(ip_length as u16),
                id: Be16::new(0),
                // Don't fragment.
                fragment: Be16::new(0x4000),
                ttl: 64,
                protocol: IpProtocol::UDP,
                checksum: Be16::new(0),
                source: Be32::new(FIRST_CLIENT.to_bits()),
                destination: Be32::new(host.to_bits()),
            },
            udp: Udp {
                ports: Ports {
                    source: Be16::new(FIRST_CLIENT_PORT),
                    destination: Be16::new(FIRST_PORT),
                },
                length: Be16::new(udp_length as u16),
                checksum: Be16::new(0),
            },
        };
        fill_in_checksums(&mut headers, &payload(length));
        Self { headers, length }
    }

    /// All its bytes.
    pub fn bytes(&self) -> Vec<u8> {
        [bytes_of(&self.headers), &payload(self.length)].concat()
    }
}

/// What is behind the headers of a frame of this length. No two words in a row are alike.
pub fn payload(length: usize) -> Vec<u8> {
    (0..length - size_of::<Headers>())
        .map(|at| at as u8)
        .collect()
}

/// The checksums of a packet, computed from scratch.
pub fn fill_in_checksums(headers: &mut Headers, payload: &[u8]) {
    headers.ipv4.checksum = Be16::new(0);
    headers.udp.checksum = Be16::new(0);
    let Headers { ipv4, udp, .. } = *headers;
    // RFC 768: the pseudo-header of addresses, protocol and length.
    let checksum = internet_checksum(&[
        bytes_of(&[ipv4.source, ipv4.destination]),
        &[0, ipv4.protocol.0],
        bytes_of(&udp.length),
        bytes_of(&udp),
        payload,
    ]);
    headers.ipv4.checksum = internet_checksum(&[bytes_of(&ipv4)]);
    headers.udp.checksum = match checksum.get() {
        // Zero would say that there is none.
        0 => Be16::new(0xffff),
        _ => checksum,
    };
}

/// The flow of a client's packet, by its source; none if it is nobody's.
pub fn flow_of(source: Be32, port: Be16) -> Option<u32> {
    let client = source.get().checked_sub(FIRST_CLIENT.to_bits())?;
    let port = u32::from(port.get().checked_sub(FIRST_CLIENT_PORT)?);
    (client < CLIENTS && port < CLIENT_PORTS).then(|| port * CLIENTS + client)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);

    #[test]
    fn a_flow_is_known_by_its_source_and_its_checksums_are_right() {
        for length in [60, 64, 512, 1400] {
            let frame = Frame::new([2; 6], [4; 6], HOST, length);
            assert_eq!(frame.bytes().len(), length);
            for flow in [0, 1, 63, 65_535, 65_536, 1 << 20, 4_000_000_000] {
                let headers = frame.headers.for_flow(flow, 65_000);
                let mut afresh = headers;
                fill_in_checksums(&mut afresh, &payload(length));
                assert_eq!(bytes_of(&headers), bytes_of(&afresh), "flow {flow}");
                let source = headers.udp.ports.source;
                assert_eq!(flow_of(headers.ipv4.source, source), Some(flow));
            }
        }
    }

    #[test]
    fn others_have_no_flow() {
        let port = Be16::new(FIRST_CLIENT_PORT);
        assert_eq!(flow_of(Be32::new(HOST.to_bits()), port), None);
        let client = Be32::new(FIRST_CLIENT.to_bits());
        assert_eq!(flow_of(client, Be16::new(1023)), None);
    }
}
