//! What devices can do in XDP, as the kernel tells over the generic netlink family `netdev` from Linux 6.3
//! on (include/uapi/linux/netdev.h).

use std::collections::HashMap;

use anyhow::Context as _;
use netlink_packet_core::NLM_F_DUMP;
use netlink_sys::{AsyncSocket as _, AsyncSocketExt as _, TokioSocket, protocols::NETLINK_GENERIC};

use super::generic::{Family, number};

const NETDEV_FAMILY_NAME: &str = "netdev";
const NETDEV_MCGRP_MGMT: &str = "mgmt";
const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;

/// What a device can do in XDP (`enum netdev_xdp_act`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct XdpFeatures(u64);

impl XdpFeatures {
    /// `NETDEV_XDP_ACT_BASIC`: to run a program in its driver.
    pub const BASIC: Self = Self(1);

    /// `NETDEV_XDP_ACT_REDIRECT`: to send a frame out by another device.
    pub const REDIRECT: Self = Self(2);

    /// `NETDEV_XDP_ACT_NDO_XMIT`: to be that other device. The host's end of a veth pair can while its peer
    /// has GRO on, or a program of its own (`veth_set_xdp_features`, drivers/net/veth.c).
    pub const TARGET: Self = Self(4);

    /// What either can do.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether it can do all of `wanted`.
    pub fn has(self, wanted: Self) -> bool {
        self.0 & wanted.0 == wanted.0
    }
}

/// The features of all devices of this network namespace by index. None where the kernel does not tell.
///
/// # Errors
///
/// It does, and refuses.
pub fn xdp_features() -> anyhow::Result<Option<HashMap<u32, XdpFeatures>>> {
    let Some(mut netdev) = Family::open(NETDEV_FAMILY_NAME)? else {
        return Ok(None);
    };
    let mut features = HashMap::new();
    let asked = netdev.ask(NETDEV_CMD_DEV_GET, NLM_F_DUMP, Vec::new(), |device| {
        let ifindex = number(device, NETDEV_A_DEV_IFINDEX);
        let known = number(device, NETDEV_A_DEV_XDP_FEATURES);
        if let (Some(ifindex), Some(known)) = (ifindex, known) {
            let known = XdpFeatures(u64::from_ne_bytes(known));
            features.insert(u32::from_ne_bytes(ifindex), known);
        }
    });
    asked.context("cannot ask what devices can do in XDP")?;
    Ok(Some(features))
}

/// The kernel's notifications of what devices can do from now on.
pub struct Watch {
    socket: TokioSocket,
}

impl Watch {
    /// Subscribes. None where the kernel does not tell.
    pub fn start() -> anyhow::Result<Option<Self>> {
        let family = Family::open(NETDEV_FAMILY_NAME)?;
        let Some(group) = family.and_then(|family| family.group(NETDEV_MCGRP_MGMT)) else {
            return Ok(None);
        };
        let mut socket = TokioSocket::new(NETLINK_GENERIC)?;
        // Without an address of its own it would count as the kernel's, and not be told.
        socket
            .socket_mut()
            .bind_auto()
            .and_then(|_| socket.socket_mut().add_membership(group))
            .context("cannot subscribe to what devices can do")?;
        Ok(Some(Self { socket }))
    }

    /// Waits for the next change, whatever it is.
    pub async fn next(&mut self) {
        // An error is that of too many changes at once.
        let _ = self.socket.recv_from_full().await;
    }
}
