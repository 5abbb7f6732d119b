//! The sender. It is run on a frame again and again (`BPF_PROG_TEST_RUN` with live frames), and each
//! time sends the frame anew. Frames come back with what their receiver has written, so all headers are
//! written each time.

use aya_ebpf::{
    Global,
    bindings::xdp_action,
    macros::{map, xdp},
    maps::PerCpuArray,
    programs::XdpContext,
};
use dataplane_common::headers::{Be16, Be32, EtherType, Ethernet, IpProtocol, Ipv4, Ports, Udp};
use portway_bench_ebpf::{Headers, flow};

use crate::{out, packet::Within};

/// Headers of flow 0.
#[unsafe(no_mangle)]
static HEADERS: Global<Headers> = Global::new(Headers {
    ethernet: Ethernet {
        destination: [0; 6],
        source: [0; 6],
        ether_type: EtherType::IPV4,
    },
    ipv4: Ipv4 {
        version_ihl: 0,
        tos: 0,
        total_length: Be16::new(0),
        id: Be16::new(0),
        fragment: Be16::new(0),
        ttl: 0,
        protocol: IpProtocol::UDP,
        checksum: Be16::new(0),
        source: Be32::new(0),
        destination: Be32::new(0),
    },
    udp: Udp {
        ports: Ports {
            source: Be16::new(0),
            destination: Be16::new(0),
        },
        length: Be16::new(0),
        checksum: Be16::new(0),
    },
});

/// Two to the power of this many flows take turns.
#[unsafe(no_mangle)]
static FLOW_BITS: Global<u32> = Global::new(0);

/// How many ports are published.
#[unsafe(no_mangle)]
static PORTS: Global<u16> = Global::new(1);

/// The running number of the next frame.
#[map]
static NEXT: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Sends one frame.
#[xdp]
pub fn send(context: XdpContext) -> u32 {
    let (Some(within), Some(next)) = (Within::xdp(&context), NEXT.get_ptr_mut(0)) else {
        return xdp_action::XDP_ABORTED;
    };
    // SAFETY: the entry is this CPU's own, and nothing else on it sends meanwhile.
    let number = unsafe {
        let number = *next;
        *next = number + 1;
        number
    };
    let flow = flow(number, FLOW_BITS.load());
    within.set(HEADERS.load().for_flow(flow, PORTS.load()));
    out::redirect() as u32
}
