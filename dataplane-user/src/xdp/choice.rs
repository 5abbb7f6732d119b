//! Whether an external interface gets the XDP program, and why. Pure.

use std::fmt;

use dataplane_common::settings::Settings;
use nix::errno::Errno;

use crate::netlink::{
    netdev::XdpFeatures,
    network::{Device, Framing},
};

/// Which hooks the user wants packets from outside to be taken at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u32)]
pub enum Mode {
    /// Native XDP for UDP where the driver has it and it costs nothing, TC for all else.
    #[default]
    Auto = 0,
    /// Native XDP for UDP and TCP, TC for what it passes on.
    Xdp = 1,
    /// Generic XDP, after the driver, whichever that is: for trying things out.
    XdpGeneric = 2,
    /// TC alone.
    Tc = 3,
}

impl Mode {
    /// From its number in the record; anything unknown is [`Mode::Auto`].
    pub fn from_number(number: u32) -> Self {
        [Self::Xdp, Self::XdpGeneric, Self::Tc]
            .into_iter()
            .find(|mode| *mode as u32 == number)
            .unwrap_or_default()
    }

    /// What is translated in XDP where that is attached, as [`Settings::xdp`] has it. TC sees TCP's segments
    /// put together by GRO, many at a time, where XDP would take them one by one; datagrams come one by one
    /// in any case.
    pub fn protocols(self) -> u32 {
        match self {
            Self::Auto => Settings::XDP_UDP,
            Self::Xdp | Self::XdpGeneric => Settings::XDP_UDP | Settings::XDP_TCP,
            Self::Tc => 0,
        }
    }
}

/// By what containers take frames from XDP: a veth pair drops what is redirected into it unless the container's end
/// runs NAPI, which it does for either of these (`veth_xdp_xmit`, drivers/net/veth.c).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u32)]
pub enum Intake {
    /// GRO, which makes nothing slower.
    #[default]
    Gro = 0,
    /// A program that passes every frame on, without GRO: least time for each datagram that no socket reads. The
    /// peer loses segmentation offload, so that TCP which comes by the kernel's own path is a burden.
    Pass = 1,
}

impl Intake {
    /// From its number in the record; anything unknown is [`Intake::Gro`].
    pub fn from_number(number: u32) -> Self {
        if number == Self::Pass as u32 {
            Self::Pass
        } else {
            Self::Gro
        }
    }
}

/// How the XDP program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavor {
    /// In the driver.
    Native,
    /// After the driver, where TC is not far.
    Generic,
}

/// What there is to know of an external interface.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    /// What its packets begin with.
    pub framing: Framing,
    /// What brings its packets.
    pub device: Device,
    /// Whether the device itself puts segments together.
    pub has_hardware_gro: bool,
    /// What it can do in XDP, if the kernel tells (from Linux 6.3 on).
    pub features: Option<XdpFeatures>,
    /// Whether other interfaces are its ports.
    pub has_ports: bool,
    /// Whether other interfaces are VLANs of it.
    pub has_vlans: bool,
    /// Somebody else's XDP program on it, by id.
    pub foreign: Option<u32>,
    /// Another interface with the same slot in the programs' table.
    pub slot_owner: Option<u32>,
    /// With what the driver has refused the program before.
    pub refused: Option<Errno>,
}

/// Why an interface has no XDP program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Declined {
    /// The user does not want it.
    NotWanted,
    /// The program expects frames.
    Bare,
    /// Somebody else's program is there, with this id.
    Foreign(u32),
    /// Its frames come in by other interfaces, and a program here would be run as if it were at those
    /// (`bond_xdp_set`, drivers/net/bonding/bond_main.c).
    Ports,
    /// A NIC may take VLAN tags off before XDP, where nothing else tells whose a frame is.
    Vlans,
    /// Its peer would lose segmentation offload (`veth_xdp_set`, drivers/net/veth.c), and whoever sends
    /// there leaves checksums unfinished, so that XDP has to pass most of it on.
    Veth,
    /// It would lose its receive offloads (`virtnet_xdp_set`, drivers/net/virtio_net.c).
    Virtio,
    /// It would no longer put segments together itself (`bnxt_set_rx_skb_mode`,
    /// drivers/net/ethernet/broadcom/bnxt/bnxt.c, for one), and TCP would pay for UDP.
    HardwareGro,
    /// Its driver has no XDP.
    NotNative,
    /// Its driver has XDP but drops what is to be redirected (ixgbevf's, nfp's).
    NoRedirect,
    /// The kernel does not say whether its driver is one of those.
    Unknown,
    /// This interface has its slot in the programs' table.
    SlotTaken(u32),
    /// The kernel refuses, as it does where an interface's MTU is too large for a frame in one piece.
    Refused(Errno),
}

impl Declined {
    /// Its number in the hooks map, and what else there is to it.
    pub fn encode(self) -> (u32, u32) {
        match self {
            Self::NotWanted => (1, 0),
            Self::Bare => (2, 0),
            Self::Foreign(program) => (3, program),
            Self::Ports => (4, 0),
            Self::Veth => (5, 0),
            Self::Virtio => (6, 0),
            Self::NotNative => (7, 0),
            Self::NoRedirect => (8, 0),
            Self::Unknown => (9, 0),
            Self::SlotTaken(ifindex) => (10, ifindex),
            Self::Refused(errno) => (11, errno as u32),
            Self::HardwareGro => (12, 0),
            Self::Vlans => (13, 0),
        }
    }

    /// The reverse of [`Self::encode`].
    pub fn decode(number: u32, detail: u32) -> Option<Self> {
        Some(match number {
            1 => Self::NotWanted,
            2 => Self::Bare,
            3 => Self::Foreign(detail),
            4 => Self::Ports,
            13 => Self::Vlans,
            5 => Self::Veth,
            6 => Self::Virtio,
            7 => Self::NotNative,
            8 => Self::NoRedirect,
            9 => Self::Unknown,
            10 => Self::SlotTaken(detail),
            11 => Self::Refused(Errno::from_raw(detail as i32)),
            12 => Self::HardwareGro,
            _ => return None,
        })
    }

    /// Whether native XDP is not to be had there, whatever else changes.
    pub fn is_for_want_of_a_driver(self) -> bool {
        matches!(self, Self::NotNative | Self::NoRedirect)
    }
}

impl fmt::Display for Declined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotWanted => f.write_str("asked for with --mode tc"),
            Self::Bare => f.write_str("its packets have no Ethernet header"),
            Self::Foreign(program) => {
                write!(f, "somebody else's XDP program is there, id {program}")
            }
            Self::Ports => f.write_str("its frames come in by other interfaces"),
            Self::Vlans => f.write_str("it carries VLANs, whose tags XDP may not see"),
            Self::Veth => f.write_str("a veth's peer would lose segmentation offload"),
            Self::Virtio => f.write_str("a virtio device would lose its receive offloads"),
            Self::HardwareGro => f.write_str("it would lose its receive offload"),
            Self::NotNative => f.write_str("its driver has no native XDP"),
            Self::NoRedirect => f.write_str("its driver cannot redirect in XDP"),
            Self::Unknown => f.write_str("only Linux 6.3 and later tell what its driver can do"),
            Self::SlotTaken(ifindex) => {
                write!(f, "interface {ifindex} has its place in a table of 64")
            }
            Self::Refused(errno) => {
                write!(f, "its driver refuses: {}; load tries again", errno.desc())
            }
        }
    }
}

/// Decides.
///
/// # Errors
///
/// There is to be no XDP program, for this reason.
pub fn choose(mode: Mode, facts: &Facts) -> Result<Flavor, Declined> {
    if mode == Mode::Tc {
        return Err(Declined::NotWanted);
    }
    if facts.framing == Framing::Bare {
        return Err(Declined::Bare);
    }
    if let Some(program) = facts.foreign {
        return Err(Declined::Foreign(program));
    }
    if let Some(ifindex) = facts.slot_owner {
        return Err(Declined::SlotTaken(ifindex));
    }
    if mode != Mode::XdpGeneric {
        can_natively(facts)?;
    }
    if mode == Mode::Auto {
        pays(facts)?;
    }
    match facts.refused {
        Some(errno) => Err(Declined::Refused(errno)),
        None if mode == Mode::XdpGeneric => Ok(Flavor::Generic),
        None => Ok(Flavor::Native),
    }
}

/// Whether the driver does what the program needs, as far as that is known.
fn can_natively(facts: &Facts) -> Result<(), Declined> {
    if facts.has_ports {
        return Err(Declined::Ports);
    }
    if facts.has_vlans {
        return Err(Declined::Vlans);
    }
    match facts.features {
        Some(features) if !features.has(XdpFeatures::BASIC) => Err(Declined::NotNative),
        Some(features) if !features.has(XdpFeatures::REDIRECT) => Err(Declined::NoRedirect),
        _ => Ok(()),
    }
}

/// Whether it costs nothing to have it there.
fn pays(facts: &Facts) -> Result<(), Declined> {
    match facts.device {
        Device::Veth => Err(Declined::Veth),
        Device::Virtio => Err(Declined::Virtio),
        Device::Other if facts.has_hardware_gro => Err(Declined::HardwareGro),
        // A driver that cannot redirect would lose packets.
        Device::Other if facts.features.is_none() => Err(Declined::Unknown),
        Device::Other => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABLE: XdpFeatures = XdpFeatures::BASIC.and(XdpFeatures::REDIRECT);

    /// A NIC with all there is.
    const NIC: Facts = Facts {
        framing: Framing::Ethernet,
        device: Device::Other,
        has_hardware_gro: false,
        features: Some(ABLE),
        has_ports: false,
        has_vlans: false,
        foreign: None,
        slot_owner: None,
        refused: None,
    };

    const MODES: [Mode; 4] = [Mode::Auto, Mode::Xdp, Mode::XdpGeneric, Mode::Tc];

    /// What becomes of an interface, by mode in the order of [`MODES`].
    fn choices(facts: Facts) -> [Result<Flavor, Declined>; 4] {
        MODES.map(|mode| choose(mode, &facts))
    }

    #[test]
    fn auto_takes_native_xdp_where_it_costs_nothing_and_never_generic() {
        use Flavor::{Generic, Native};
        const TC: Result<Flavor, Declined> = Err(Declined::NotWanted);
        let everywhere = |why| [Err(why), Err(why), Err(why), TC];
        let but_asked_for = |why| [Err(why), Ok(Native), Ok(Generic), TC];
        let but_generic = |why| [Err(why), Err(why), Ok(Generic), TC];
        for (facts, expected) in [
            (NIC, [Ok(Native), Ok(Native), Ok(Generic), TC]),
            (
                Facts {
                    device: Device::Veth,
                    ..NIC
                },
                but_asked_for(Declined::Veth),
            ),
            (
                Facts {
                    device: Device::Virtio,
                    ..NIC
                },
                but_asked_for(Declined::Virtio),
            ),
            (
                Facts {
                    has_hardware_gro: true,
                    ..NIC
                },
                but_asked_for(Declined::HardwareGro),
            ),
            (
                Facts {
                    features: None,
                    ..NIC
                },
                but_asked_for(Declined::Unknown),
            ),
            (
                Facts {
                    features: Some(XdpFeatures::default()),
                    ..NIC
                },
                but_generic(Declined::NotNative),
            ),
            (
                Facts {
                    features: Some(XdpFeatures::BASIC),
                    ..NIC
                },
                but_generic(Declined::NoRedirect),
            ),
            (
                Facts {
                    has_ports: true,
                    ..NIC
                },
                but_generic(Declined::Ports),
            ),
            (
                Facts {
                    has_vlans: true,
                    ..NIC
                },
                but_generic(Declined::Vlans),
            ),
            (
                Facts {
                    framing: Framing::Bare,
                    ..NIC
                },
                everywhere(Declined::Bare),
            ),
            (
                Facts {
                    foreign: Some(12),
                    ..NIC
                },
                everywhere(Declined::Foreign(12)),
            ),
            (
                Facts {
                    slot_owner: Some(7),
                    ..NIC
                },
                everywhere(Declined::SlotTaken(7)),
            ),
            (
                Facts {
                    refused: Some(Errno::ERANGE),
                    ..NIC
                },
                everywhere(Declined::Refused(Errno::ERANGE)),
            ),
        ] {
            assert_eq!(choices(facts), expected, "{facts:?}");
        }
    }

    #[test]
    fn only_who_asks_for_it_has_tcp_taken_from_gro() {
        let tcp = MODES.map(|mode| mode.protocols() & Settings::XDP_TCP != 0);
        assert_eq!(tcp, [false, true, true, false]);
        let udp = MODES.map(|mode| mode.protocols() & Settings::XDP_UDP != 0);
        assert_eq!(udp, [true, true, true, false]);
    }

    #[test]
    fn reasons_are_found_again_by_their_numbers() {
        for number in 1..=13 {
            let declined = Declined::decode(number, 22).expect("a reason");
            let (encoded, detail) = declined.encode();
            assert_eq!(encoded, number);
            assert!(detail == 22 || detail == 0, "{declined:?}");
            assert_eq!(Declined::decode(encoded, detail), Some(declined));
        }
        assert_eq!(Declined::decode(14, 0), None);
    }
}
