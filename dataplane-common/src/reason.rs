//! Why a packet was left to the slow path, and what else is counted.

/// Declares [`Counter`]: each variant's place is its index in the counters map, its word is what users
/// read and scripts match on.
macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $variant:ident = $word:literal,)+) => {
        /// What the programs count, per CPU.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        #[repr(u32)]
        pub enum Counter {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Counter {
            /// All of them, in the order of their indexes.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The word by which `portway status` calls it.
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }

            /// What it counts, in a sentence.
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($($doc),+).trim_ascii(),)+
                }
            }
        }
    };
}

counters! {
    /// Packets from outside rewritten and handed to a container.
    Forwarded = "forwarded",
    /// Those of the forwarded packets that XDP has rewritten and handed over.
    ForwardedByXdp = "forwarded_xdp",
    /// Packets of containers rewritten and sent to their client.
    Replied = "replied",
    /// ICMP errors from outside rewritten and handed to the container whose packet they quote.
    IcmpForwarded = "icmp_forwarded",
    /// ICMP errors from behind a container rewritten and sent to the client whose packet they quote.
    IcmpReplied = "icmp_replied",
    /// Left alone: neither IPv4 nor IPv6 (ARP and the like).
    NotIp = "not_ip",
    /// Left alone: the frame was addressed to another MAC, to many or to all.
    NotToHost = "not_to_host",
    /// Left alone: the frame belongs to a VLAN, whose interface is another.
    Vlan = "vlan",
    /// Left alone: a header is cut short or contradicts itself.
    Malformed = "malformed",
    /// Left alone: the IP header has options, or extension headers.
    IpOptions = "ip_options",
    /// Left alone: a fragment.
    Fragment = "fragment",
    /// Left alone: ICMP that is no error about an accelerated flow.
    Icmp = "icmp",
    /// Left alone: neither TCP nor UDP nor ICMP.
    Protocol = "protocol",
    /// Left alone: TCP flags that conntrack calls invalid.
    TcpFlags = "tcp_flags",
    /// Left alone: a TCP segment that does not belong into its connection's state.
    TcpState = "tcp_state",
    /// Left alone: nothing is published on that port.
    NotPublished = "not_published",
    /// Left alone: the destination is none of the host's own addresses.
    NotLocal = "not_local",
    /// Left alone: no source address of a real client.
    Martian = "martian",
    /// Left alone: admission is off, the host's firewall decides.
    Admission = "admission",
    /// Left alone: the host's firewall has its say on the flow, for the first time or again.
    Lease = "lease",
    /// Left alone: in mid-connection, and no flow is known.
    NoFlow = "no_flow",
    /// Left alone: an answer to somebody else's flow, not a packet to the published port.
    Foreign = "foreign",
    /// Left alone: its reply could not be told from another flow's, and no port was free to tell them.
    ReplyCollision = "reply_collision",
    /// Left alone: time to live is used up, the kernel answers.
    Ttl = "ttl",
    /// Left alone: larger than the next link's MTU, the kernel answers or fragments.
    Mtu = "mtu",
    /// Left alone: the container's interface is not there any more.
    BackendGone = "backend_gone",
    /// Left alone: there is no usable route to the client.
    NoRoute = "no_route",
    /// Left alone: replies would leave by another interface.
    ReversePath = "reverse_path",
    /// Left alone: the flow table took no more.
    TableFull = "table_full",
    /// Left alone: from a container, but no reply of a flow.
    NotAReply = "not_a_reply",
    /// Left alone: a reply from another interface than its container's.
    WrongInterface = "wrong_interface",
    /// Dropped: a write failed half-way, as the kernel drops when out of memory.
    WriteFault = "write_fault",
}

/// Why a packet goes on unchanged: always one of the counters that say "left alone".
pub type Reason = Counter;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_distinct_and_indexes_follow_the_order() {
        for (index, counter) in Counter::ALL.iter().enumerate() {
            assert_eq!(*counter as usize, index);
            assert!(!counter.meaning().is_empty());
            assert_eq!(
                Counter::ALL
                    .iter()
                    .filter(|other| other.word() == counter.word())
                    .count(),
                1,
                "{}",
                counter.word()
            );
        }
    }
}
