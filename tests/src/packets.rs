//! Packets made by hand, sent as they are, and seen as they arrive.

use std::{
    io::{self, Read},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use bytemuck::bytes_of;
use dataplane_common::{
    checksum::internet_checksum,
    family::{Family, V4, V6},
    headers::{
        Be16, Be32, EtherType, Icmp, Ip6, IpProtocol, Ipv4, Ipv6, Ports, Tcp, TcpFlags, Udp,
    },
};
use nix::libc;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::netns::Netns;

/// `IPPROTO_RAW`: the IP header is the sender's.
const RAW: i32 = 255;

/// ICMPv6 types below this one are errors (RFC 4443 2.1); the rest includes neighbour discovery.
const ICMPV6_INFORMATIONAL: u8 = 128;

/// An IP packet.
pub fn ip(
    source: IpAddr,
    destination: IpAddr,
    protocol: IpProtocol,
    ttl: u8,
    payload: &[u8],
) -> Vec<u8> {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut header = Ipv4 {
                version_ihl: Ipv4::PLAIN,
                tos: 0,
                total_length: Be16::new((V4::HEADER_LEN + payload.len()) as u16),
                id: Be16::new(0x1234),
                fragment: Be16::new(0x4000),
                ttl,
                protocol,
                checksum: Be16::new(0),
                source: Be32::new(source.into()),
                destination: Be32::new(destination.into()),
            };
            header.checksum = internet_checksum(&[bytes_of(&header)]);
            [bytes_of(&header), payload].concat()
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let header = Ipv6 {
                version_class_label: Be32::new(6 << 28),
                payload_length: Be16::new(payload.len() as u16),
                next_header: protocol,
                hop_limit: ttl,
                source: Ip6::new(source.octets()),
                destination: Ip6::new(destination.octets()),
            };
            [bytes_of(&header), payload].concat()
        }
        _ => panic!("{source} and {destination} are of two families"),
    }
}

/// A UDP datagram or TCP segment as an IP packet, with its checksum.
pub fn segment(
    protocol: IpProtocol,
    source: SocketAddr,
    destination: SocketAddr,
    payload: &[u8],
) -> Vec<u8> {
    if protocol == IpProtocol::TCP {
        let header = tcp_header(source, destination, TcpFlags::ACK, [1, 2]);
        return transport(protocol, source, destination, &header, 16, payload);
    }
    let header = Udp {
        ports: ports(source, destination),
        length: Be16::new((size_of::<Udp>() + payload.len()) as u16),
        checksum: Be16::new(0),
    };
    transport(protocol, source, destination, bytes_of(&header), 6, payload)
}

/// A TCP segment without payload as an IP packet, with these control bits, sequence number and
/// acknowledgement number.
pub fn control(
    source: SocketAddr,
    destination: SocketAddr,
    flags: u8,
    numbers: [u32; 2],
) -> Vec<u8> {
    let header = tcp_header(source, destination, flags, numbers);
    transport(IpProtocol::TCP, source, destination, &header, 16, &[])
}

fn tcp_header(
    source: SocketAddr,
    destination: SocketAddr,
    flags: u8,
    [sequence, acknowledgement]: [u32; 2],
) -> Vec<u8> {
    bytes_of(&Tcp {
        ports: ports(source, destination),
        sequence: Be32::new(sequence),
        acknowledgement: Be32::new(acknowledgement),
        data_offset: 5 << 4,
        flags: TcpFlags(flags),
        window: Be16::new(1000),
        checksum: Be16::new(0),
        urgent: Be16::new(0),
    })
    .to_vec()
}

fn ports(source: SocketAddr, destination: SocketAddr) -> Ports {
    Ports {
        source: Be16::new(source.port()),
        destination: Be16::new(destination.port()),
    }
}

/// Header and payload as an IP packet, with the checksum put into the header.
fn transport(
    protocol: IpProtocol,
    source: SocketAddr,
    destination: SocketAddr,
    header: &[u8],
    checksum_at: usize,
    payload: &[u8],
) -> Vec<u8> {
    let mut bytes = [header, payload].concat();
    let sum = pseudo_checksum(source.ip(), destination.ip(), protocol, &bytes);
    bytes[checksum_at..checksum_at + 2].copy_from_slice(&sum.to_be_bytes());
    ip(source.ip(), destination.ip(), protocol, 61, &bytes)
}

/// An ICMP or ICMPv6 error that quotes a packet.
pub fn icmp_error(
    source: IpAddr,
    destination: IpAddr,
    ttl: u8,
    (kind, code): (u8, u8),
    quoted: &[u8],
) -> Vec<u8> {
    let header = Icmp {
        kind,
        code,
        checksum: Be16::new(0),
        rest: Be32::new(1400),
    };
    let mut message = [bytes_of(&header), quoted].concat();
    let (protocol, sum) = match source {
        IpAddr::V4(_) => (V4::ICMP, internet_checksum(&[&message]).get()),
        IpAddr::V6(_) => {
            let sum = pseudo_checksum(source, destination, V6::ICMP, &message);
            (V6::ICMP, sum)
        }
    };
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    ip(source, destination, protocol, ttl, &message)
}

/// Sends an IP packet from a namespace as it is.
///
/// # Errors
/// There is no route.
pub fn send(from: &Netns, packet: &[u8]) -> Result<()> {
    from.run(|| {
        let (domain, target): (_, IpAddr) = if is_ipv4(packet) {
            (Domain::IPV4, <[u8; 4]>::try_from(&packet[16..20])?.into())
        } else {
            (Domain::IPV6, <[u8; 16]>::try_from(&packet[24..40])?.into())
        };
        let socket = Socket::new(domain, Type::from(libc::SOCK_RAW), Some(RAW.into()))?;
        socket
            .send_to(packet, &SocketAddr::from((target, 0)).into())
            .with_context(|| format!("cannot send to {target}"))?;
        Ok(())
    })
}

/// Sends whole frames by an interface, and hears nothing.
#[derive(Debug)]
pub struct Link {
    socket: Socket,
}

impl Link {
    /// The interface of this name.
    ///
    /// # Errors
    /// There is none, or not root.
    pub fn new(netns: &Netns, interface: &str) -> Result<Self> {
        let address = link_address(netns.index(interface)?, 0)?;
        let socket = netns.run(|| {
            let packets = Domain::from(libc::AF_PACKET);
            Ok(Socket::new(packets, Type::RAW, Some(Protocol::from(0)))?)
        })?;
        socket.bind(&address).context("cannot open a raw socket")?;
        Ok(Self { socket })
    }

    /// Sends a frame. Returns whether there was room for it.
    pub fn send(&self, frame: &[u8]) -> bool {
        self.socket.send(frame).is_ok()
    }
}

/// The address of an interface, for frames of the EtherType `protocol` in network order.
pub(crate) fn link_address(ifindex: u32, protocol: u16) -> io::Result<SockAddr> {
    // SAFETY: an address of an interface is no longer than the storage; all its bytes may be zero.
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, length| {
            let address = storage.cast::<libc::sockaddr_ll>();
            (*address).sll_family = libc::AF_PACKET as u16;
            (*address).sll_protocol = protocol;
            (*address).sll_ifindex = ifindex.cast_signed();
            *length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })
    }?;
    Ok(address)
}

/// The ICMP errors that come into a namespace from now on.
#[derive(Debug)]
pub struct Errors {
    socket: Socket,
}

impl Errors {
    /// Those of the IP version of `address`.
    ///
    /// # Errors
    /// Not root.
    pub fn of(netns: &Netns, address: IpAddr, patience: Duration) -> Result<Self> {
        let ether_type = match address {
            IpAddr::V4(_) => EtherType::IPV4,
            IpAddr::V6(_) => EtherType::IPV6,
        };
        let protocol: u16 = bytemuck::cast(ether_type);
        netns.run(|| {
            let socket = Socket::new(
                Domain::from(libc::AF_PACKET),
                Type::DGRAM,
                Some(Protocol::from(i32::from(protocol))),
            )?;
            socket.set_read_timeout(Some(patience))?;
            Ok(Self { socket })
        })
    }

    /// The next one, from its IP header on.
    ///
    /// # Errors
    /// None comes in time.
    pub fn next(&self) -> Result<Vec<u8>> {
        let mut buffer = [0; 2048];
        loop {
            let length = match (&self.socket).read(&mut buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => bail!("no ICMP error"),
                Err(error) => return Err(error.into()),
            };
            let packet = &buffer[..length];
            let is_error = if is_ipv4(packet) {
                packet[9] == V4::ICMP.0
            } else {
                packet[6] == V6::ICMP.0 && packet[V6::HEADER_LEN] < ICMPV6_INFORMATIONAL
            };
            if is_error {
                return Ok(packet.to_vec());
            }
        }
    }
}

fn is_ipv4(packet: &[u8]) -> bool {
    packet[0] >> 4 == 4
}

/// The checksum of a message with a pseudo-header before it.
fn pseudo_checksum(
    source: IpAddr,
    destination: IpAddr,
    protocol: IpProtocol,
    message: &[u8],
) -> u16 {
    let mut bytes = Vec::new();
    for address in [source, destination] {
        match address {
            IpAddr::V4(address) => bytes.extend(address.octets()),
            IpAddr::V6(address) => bytes.extend(address.octets()),
        }
    }
    bytes.extend([0, protocol.0]);
    bytes.extend((message.len() as u16).to_be_bytes());
    bytes.extend(message);
    internet_checksum(&[&bytes]).get()
}
