//! A conversation as conntrack knows it.

use std::net::SocketAddr;

use dataplane_common::headers::IpProtocol;
pub use netlink_packet_netfilter::conntrack::Status;

/// Who talks to whom, seen from one side. Ports are zero where the protocol has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Where a packet comes from.
    pub source: SocketAddr,
    /// Where it goes.
    pub destination: SocketAddr,
}

impl Tuple {
    /// The tuple of answers, as long as nobody translates.
    pub fn inverted(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
        }
    }
}

/// How far a TCP connection has come, by its number in `enum tcp_conntrack`
/// (include/uapi/linux/netfilter/nf_conntrack_tcp.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpState(pub u8);

impl TcpState {
    /// The other side has answered with SYN and ACK.
    pub const SYN_RECV: Self = Self(2);
    /// Both sides have been heard and none has ended it.
    pub const ESTABLISHED: Self = Self(3);
    /// One side has sent FIN.
    pub const FIN_WAIT: Self = Self(4);
    /// The other side has acknowledged that.
    pub const CLOSE_WAIT: Self = Self(5);
    /// Both have sent FIN.
    pub const LAST_ACK: Self = Self(6);
    /// Both FINs are acknowledged.
    pub const TIME_WAIT: Self = Self(7);
    /// Somebody has sent RST.
    pub const CLOSE: Self = Self(8);
}

/// One entry of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// What it is about.
    pub protocol: IpProtocol,
    /// The first packet's tuple, before any translation.
    pub original: Tuple,
    /// The tuple of answers, before they are translated back. Where it is not `original` inverted, the
    /// conversation is translated.
    pub reply: Tuple,
    /// What has been seen of it, and what has been done to it.
    pub status: Status,
    /// Seconds of silence after which it is forgotten; zero where the kernel does not say.
    pub timeout: u32,
    /// TCP only.
    pub tcp_state: Option<TcpState>,
}

impl Entry {
    /// A conversation that both sides have been heard in, of `client` with `host`, which stands for
    /// `container`; the container sees the client as `seen`.
    pub fn established(
        protocol: IpProtocol,
        client: SocketAddr,
        host: SocketAddr,
        container: SocketAddr,
        seen: SocketAddr,
        timeout: u32,
    ) -> Self {
        Self {
            protocol,
            original: Tuple {
                source: client,
                destination: host,
            },
            reply: Tuple {
                source: container,
                destination: seen,
            },
            status: Status::SeenReply | Status::Assured,
            timeout,
            tcp_state: (protocol == IpProtocol::TCP).then_some(TcpState::ESTABLISHED),
        }
    }
}
