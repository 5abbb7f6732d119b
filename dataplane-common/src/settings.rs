//! What the controller tells the programs, in one entry of one array.

use crate::{
    headers::{IpProtocol, Mac},
    layout::MAX_XDP_INTERFACES,
    state::Timeouts,
};

/// How flows are admitted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Admission {
    /// No flow is accelerated; every packet takes the slow path.
    Off = 0,
    /// The published-port table alone decides.
    Direct = 1,
    /// The kernel decides, and is asked again and again: see [`lease`](crate::lease).
    Netfilter = 2,
}

impl Admission {
    /// From its number in [`Settings::admission`]; anything unknown is [`Admission::Off`].
    #[inline(always)]
    pub const fn from_number(number: u32) -> Self {
        match number {
            1 => Self::Direct,
            2 => Self::Netfilter,
            _ => Self::Off,
        }
    }
}

/// The one entry of the settings map.
#[derive(Clone, Copy, PartialEq, Eq, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Settings {
    /// An [`Admission`] as its number.
    pub admission: u32,
    /// Counts changes of the host's addresses and routes. A flow that was routed in another epoch
    /// looks its route up again.
    pub epoch: u32,
    /// When admission last changed, in milliseconds of the monotonic clock.
    pub admission_since: u32,
    /// When admission or the firewall's rules last changed, by the same clock: what the kernel let through
    /// before does not count any more.
    pub rules_since: u32,
    /// 1 if conntrack tolerates TCP segments outside the window it knows, as it must where it does not see
    /// them all (`nf_conntrack_tcp_be_liberal`). Else TCP is not accelerated by leases.
    pub tcp_liberal: u32,
    /// Which protocols are translated in XDP where its program is attached: [`XDP_UDP`](Self::XDP_UDP) and
    /// [`XDP_TCP`](Self::XDP_TCP).
    pub xdp: u32,
    /// Time-outs of flows.
    pub timeouts: Timeouts,
}

impl Settings {
    /// In [`xdp`](Self::xdp): UDP.
    pub const XDP_UDP: u32 = 1;

    /// In [`xdp`](Self::xdp): TCP.
    pub const XDP_TCP: u32 = 2;

    /// Whether the published-port map alone admits flows.
    #[inline(always)]
    pub fn is_direct(&self) -> bool {
        self.admission == Admission::Direct as u32
    }

    /// Whether XDP is to translate a protocol. Any but TCP counts as UDP.
    #[inline(always)]
    pub fn is_for_xdp(&self, protocol: IpProtocol) -> bool {
        let bit = if protocol == IpProtocol::TCP {
            Self::XDP_TCP
        } else {
            Self::XDP_UDP
        };
        self.xdp & bit != 0
    }
}

/// An external interface whose frames are translated in XDP. The program there has to know the interface's
/// own MAC, since no packet type tells it yet which frames are for the host.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct XdpInterface {
    /// Its index; zero for an empty slot.
    pub ifindex: u32,
    /// Its MAC.
    pub mac: Mac,
    /// Zero.
    pub reserved: u16,
}

/// The slot of an interface. Where two have the same one, only one of them can have its frames translated
/// in XDP.
#[inline(always)]
pub const fn xdp_slot(ifindex: u32) -> u32 {
    ifindex % MAX_XDP_INTERFACES
}

const _: () = assert!(size_of::<Settings>() == 88);
const _: () = assert!(size_of::<XdpInterface>() == 12);
