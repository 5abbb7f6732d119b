//! Which of a container's networks Docker publishes its ports on.
//!
//! libnetwork programs port mappings on the endpoint that gives the container its default route
//! (`getGatewayEndpoint` in libnetwork's `default_gateway.go`), and on no other. So the container's
//! own routing table is the answer, whatever rule the daemon's version chose it by; the rule
//! (`by_rule`) is for when the table cannot be read.
//!
//! podman's netavark makes a default route and port mappings for each network, one after the other. All routes have
//! the same metric, and the kernel lists what was added last first; of the mappings, in a chain, the first counts. So
//! of several such routes it is the last listed.

use std::{
    cmp::Reverse,
    fs, io,
    net::{Ipv4Addr, Ipv6Addr},
};

/// `RTF_GATEWAY` of the kernel's `include/uapi/linux/route.h`.
const RTF_GATEWAY: u32 = 0x2;

/// The gateways of a network namespace's default routes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DefaultRoutes {
    /// Of the IPv4 default route with the lowest metric; of several the one that was there first.
    pub v4: Option<Ipv4Addr>,
    /// Of the IPv6 default route with the lowest metric.
    pub v6: Option<Ipv6Addr>,
}

impl DefaultRoutes {
    /// Reads the routing tables of the network namespace that process `pid` is in. `/proc/PID/net`
    /// shows them without entering it.
    ///
    /// # Errors
    /// The process is gone, or lives in a PID namespace that this one cannot see.
    pub fn of_process(pid: u32) -> io::Result<Self> {
        let v4 = fs::read_to_string(format!("/proc/{pid}/net/route"))?;
        // There is no such file where the kernel runs with ipv6.disable=1.
        let v6 = fs::read_to_string(format!("/proc/{pid}/net/ipv6_route")).unwrap_or_default();
        Ok(Self {
            v4: parse_v4(&v4),
            v6: parse_v6(&v6),
        })
    }
}

/// `/proc/net/route` (`fib_route_seq_show` in the kernel's `net/ipv4/fib_trie.c`): interface,
/// destination, gateway, flags, reference count, use, metric, mask, ...; addresses are
/// network-order words printed as host-order numbers.
fn parse_v4(table: &str) -> Option<Ipv4Addr> {
    let gateway = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, destination, gateway, flags, _, _, metric, mask, ..] = fields[..] else {
            return None;
        };
        let is_default = u32::from_str_radix(destination, 16).ok()? == 0
            && u32::from_str_radix(mask, 16).ok()? == 0
            && u32::from_str_radix(flags, 16).ok()? & RTF_GATEWAY != 0;
        let gateway = Ipv4Addr::from(u32::from_str_radix(gateway, 16).ok()?.to_ne_bytes());
        is_default.then_some((metric.parse::<u32>().ok()?, gateway))
    };
    table
        .lines()
        // From the end, because of several it is the first that min_by_key takes. The head has no numbers.
        .rev()
        .filter_map(gateway)
        .min_by_key(|(metric, _)| *metric)
        .map(|(_, ip)| ip)
}

/// `/proc/net/ipv6_route` (`ipv6_route_native_seq_show` in the kernel's `net/ipv6/ip6_fib.c`):
/// destination, its prefix length, source, its prefix length, next hop, metric, reference count,
/// use, flags, interface; all numbers hexadecimal, addresses in network order.
fn parse_v6(table: &str) -> Option<Ipv6Addr> {
    let gateway = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [destination, length, _, _, next_hop, metric, _, _, flags, _] = fields[..] else {
            return None;
        };
        let is_default = u128::from_str_radix(destination, 16).ok()? == 0
            && u8::from_str_radix(length, 16).ok()? == 0
            && u32::from_str_radix(flags, 16).ok()? & RTF_GATEWAY != 0;
        let next_hop = Ipv6Addr::from(u128::from_str_radix(next_hop, 16).ok()?);
        is_default.then_some((u32::from_str_radix(metric, 16).ok()?, next_hop))
    };
    table
        .lines()
        .filter_map(gateway)
        .min_by_key(|(metric, _)| *metric)
        .map(|(_, ip)| ip)
}

/// A container's foot in a network that could publish its ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate<A> {
    /// The network's name.
    pub network: String,
    /// The container's address there.
    pub address: A,
    /// The network's gateway.
    pub gateway: Option<A>,
    /// Docker 28's `gw-priority`.
    pub priority: i64,
    /// Whether the container has an IPv4 and an IPv6 gateway there.
    pub dual_stack: bool,
}

/// The candidate whose gateway is the default route's, else the one that the rule names.
pub fn choose<A: PartialEq>(
    candidates: &[Candidate<A>],
    default_route: Option<A>,
) -> Option<&Candidate<A>> {
    let by_route = default_route.and_then(|route| {
        candidates
            .iter()
            .find(|it| it.gateway.as_ref() == Some(&route))
    });
    by_route.or_else(|| by_rule(candidates))
}

/// `Endpoint.Less` of libnetwork's `sandbox.go` as of Docker 28: highest priority, then dual-stack
/// before single-stack, then by name. Older versions know only the name.
fn by_rule<A>(candidates: &[Candidate<A>]) -> Option<&Candidate<A>> {
    candidates
        .iter()
        .min_by_key(|it| (Reverse(it.priority), !it.dual_stack, it.network.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Docker 28.5: a container on an IPv4 and a dual-stack network.
    const ROUTE: &str = "\
Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
eth1	00000000	010015AC	0003	0	0	0	00000000	0	0	0
eth0	000013AC	00000000	0001	0	0	0	0000FFFF	0	0	0
eth1	000015AC	00000000	0001	0	0	0	0000FFFF	0	0	0
";
    const IPV6_ROUTE: &str = "\
fda0ba0f05be00000000000000000000 40 00000000000000000000000000000000 00 \
00000000000000000000000000000000 00000100 00000003 00000000 00000001     eth1
00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
fda0ba0f05be00000000000000000001 00000400 00000001 00000000 00000003     eth1
00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo
";

    fn candidate(network: &str, last: u8, priority: i64, dual_stack: bool) -> Candidate<Ipv4Addr> {
        Candidate {
            network: network.to_owned(),
            address: Ipv4Addr::new(172, last, 0, 2),
            gateway: Some(Ipv4Addr::new(172, last, 0, 1)),
            priority,
            dual_stack,
        }
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn the_default_routes_gateways_are_read() {
        assert_eq!(parse_v4(ROUTE), Some(Ipv4Addr::new(172, 21, 0, 1)));
        assert_eq!(parse_v6(IPV6_ROUTE), "fda0:ba0f:5be::1".parse().ok());
    }

    #[test]
    fn no_default_route_and_no_sense_give_none() {
        let without_default = ROUTE.replace("00000000	010015AC", "000011AC	010015AC");
        for table in ["", "\n\n", "a b c\nd e f g h i j k l\n", &without_default] {
            assert_eq!(parse_v4(table), None);
            assert_eq!(parse_v6(table), None);
        }
    }

    #[test]
    fn this_very_process_has_a_readable_routing_table() {
        DefaultRoutes::of_process(std::process::id()).expect("our own routes");
    }

    #[test]
    fn of_podmans_default_routes_the_first_made_counts() {
        let two = "\
Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
eth1	00000000	0100590A	0003	0	0	100	00000000	0	0	0
eth0	00000000	0101590A	0003	0	0	100	00000000	0	0	0
eth1	0000590A	00000000	0001	0	0	0	00FFFFFF	0	0	0
eth0	0001590A	00000000	0001	0	0	0	00FFFFFF	0	0	0
";
        assert_eq!(parse_v4(two), Some(Ipv4Addr::new(10, 89, 1, 1)));
    }

    #[test]
    fn the_default_route_beats_the_rule() {
        let both = [candidate("a", 18, 0, false), candidate("b", 19, 0, false)];
        let chosen = choose(&both, Some(Ipv4Addr::new(172, 19, 0, 1)));
        assert_eq!(chosen.map(|it| it.network.as_str()), Some("b"));
        // A VPN's or macvlan's gateway is none of ours.
        let chosen = choose(&both, Some(Ipv4Addr::new(10, 8, 0, 1)));
        assert_eq!(chosen.map(|it| it.network.as_str()), Some("a"));
    }

    #[test]
    fn the_rule_is_priority_then_dual_stack_then_name() {
        let table: [(&[Candidate<Ipv4Addr>], Option<&str>); 5] = [
            (&[], None),
            (
                &[candidate("b", 1, 0, false), candidate("a", 2, 0, false)],
                Some("a"),
            ),
            (
                &[candidate("a", 1, 0, false), candidate("b", 2, 0, true)],
                Some("b"),
            ),
            (
                &[candidate("a", 1, 0, true), candidate("b", 2, 5, false)],
                Some("b"),
            ),
            (
                &[candidate("a", 1, -1, true), candidate("b", 2, 0, false)],
                Some("b"),
            ),
        ];
        for (candidates, network) in table {
            assert_eq!(
                choose(candidates, None).map(|it| it.network.as_str()),
                network
            );
        }
    }
}
