//! The kernel's routing table, by IP version.

use aya_ebpf::bindings::{bpf_fib_lookup as FibLookup, bpf_redir_neigh as Neighbour};
use dataplane_common::{
    family::{Family, V4, V6},
    headers::{Be32, Ip6},
};

/// How the helpers take and give addresses of an IP version.
pub trait Routing: Family {
    /// `AF_INET` or `AF_INET6` in include/linux/socket.h.
    const AF: u8;

    /// Asks for the way from `source` to `destination`.
    fn ask(query: &mut FibLookup, source: Self::Address, destination: Self::Address);

    /// The neighbour that an answer names; the answer is of this family.
    fn next_hop(answer: &FibLookup) -> Self::Address;

    /// Names a neighbour.
    fn set_neighbour(neighbour: &mut Neighbour, address: Self::Address);
}

impl Routing for V4 {
    const AF: u8 = 2;

    #[inline(always)]
    fn ask(query: &mut FibLookup, source: Be32, destination: Be32) {
        query.__bindgen_anon_3.ipv4_src = source.raw();
        query.__bindgen_anon_4.ipv4_dst = destination.raw();
    }

    #[inline(always)]
    fn next_hop(answer: &FibLookup) -> Be32 {
        // SAFETY: integers, valid whatever they hold.
        Be32::from_raw(unsafe { answer.__bindgen_anon_4.ipv4_dst })
    }

    #[inline(always)]
    fn set_neighbour(neighbour: &mut Neighbour, address: Be32) {
        neighbour.__bindgen_anon_1.ipv4_nh = address.raw();
    }
}

impl Routing for V6 {
    const AF: u8 = 10;

    #[inline(always)]
    fn ask(query: &mut FibLookup, source: Ip6, destination: Ip6) {
        query.__bindgen_anon_3.ipv6_src = source.raw();
        query.__bindgen_anon_4.ipv6_dst = destination.raw();
    }

    #[inline(always)]
    fn next_hop(answer: &FibLookup) -> Ip6 {
        // SAFETY: as for IPv4.
        Ip6::from_raw(unsafe { answer.__bindgen_anon_4.ipv6_dst })
    }

    #[inline(always)]
    fn set_neighbour(neighbour: &mut Neighbour, address: Ip6) {
        neighbour.__bindgen_anon_1.ipv6_nh = address.raw();
    }
}
