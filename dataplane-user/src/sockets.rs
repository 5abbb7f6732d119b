//! Which of the host's ports its own sockets have taken.

use std::{collections::HashSet, fs, net::SocketAddr, os::fd::AsRawFd as _};

use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt,
    },
};

use crate::publication::Protocol;

/// The sockets of one protocol, at some moment.
#[derive(Debug)]
pub struct Sockets {
    protocol: Protocol,
    /// The ports that may have one, where the kernel tells.
    ports: Option<HashSet<u16>>,
}

impl Sockets {
    /// Those of `protocol` in the network namespace of this thread.
    pub fn of(protocol: Protocol) -> Self {
        let ports = match protocol {
            // Only UDP's are listed as soon as they are bound.
            Protocol::Udp => ["/proc/thread-self/net/udp", "/proc/thread-self/net/udp6"]
                .into_iter()
                .map(|list| fs::read_to_string(list).ok())
                .try_fold(HashSet::new(), |mut all, list| {
                    all.extend(ports(&list?)?);
                    Some(all)
                }),
            Protocol::Tcp | Protocol::Sctp => None,
        };
        Self { protocol, ports }
    }

    /// Whether a socket of the host keeps another one from being bound to `address`. One of IPv6 is of IPv6
    /// alone: an IPv4 socket on the same port is no obstacle, as it is none to docker-proxy.
    pub fn have_taken(&self, address: SocketAddr) -> bool {
        let may_be = self
            .ports
            .as_ref()
            .is_none_or(|ports| ports.contains(&address.port()));
        // Any other error, such as an address that is not there yet, is no sign of a taken port.
        may_be && try_bind(address, self.protocol) == Err(Errno::EADDRINUSE)
    }
}

/// The local ports of a list of sockets (proc_pid_net(5)); none if it is not such a list.
fn ports(list: &str) -> Option<Vec<u16>> {
    list.lines()
        .skip(1)
        .map(|line| {
            let (_, port) = line.split_whitespace().nth(1)?.rsplit_once(':')?;
            u16::from_str_radix(port, 16).ok()
        })
        .collect()
}

/// Binds a socket to `address` for a moment.
fn try_bind(address: SocketAddr, protocol: Protocol) -> nix::Result<()> {
    let kind = match protocol {
        Protocol::Tcp => SockType::Stream,
        Protocol::Udp => SockType::Datagram,
        Protocol::Sctp => return Ok(()),
    };
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?;
    if family == AddressFamily::Inet6 {
        setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    }
    if kind == SockType::Stream {
        // Connections that have been closed lately do not count.
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    }
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn a_list_is_read_by_its_second_column() {
        let list = "   sl  local_address rem_address   st tx_queue rx_queue\n\
            \x20 33: 0100007F:0035 00000000:0000 07 00000000:00000000\n\
            \x20 34: 00000000000000000000000000000000:FFFF 00000000000000000000000000000000:0000 07\n";
        assert_eq!(ports(list), Some(vec![53, 65535]));
        assert_eq!(ports(""), Some(vec![]));
        assert_eq!(ports("header\n  33: garbage"), None);
    }

    #[test]
    fn a_socket_of_any_address_takes_its_port() {
        for (bound, asked) in [
            ("127.0.0.1:0", "0.0.0.0"),
            ("[::]:0", "127.0.0.1"),
            ("[::1]:0", "::1"),
        ] {
            let Ok(socket) = UdpSocket::bind(bound) else {
                continue;
            };
            let port = socket.local_addr().expect("an address").port();
            let address = SocketAddr::new(asked.parse().expect("an address"), port);
            assert!(Sockets::of(Protocol::Udp).have_taken(address), "{bound}");
            drop(socket);
            assert!(!Sockets::of(Protocol::Udp).have_taken(address), "{bound}");
        }
    }
}
