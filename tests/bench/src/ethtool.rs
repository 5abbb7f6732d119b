//! A network interface's offloads (`SIOCETHTOOL`).

use std::os::fd::AsRawFd as _;

use anyhow::{Context, Result, ensure};
use nix::{
    errno::Errno,
    libc,
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};
use portway_tests::netns::Netns;

/// `ETHTOOL_SGRO` in include/uapi/linux/ethtool.h.
const SET_GRO: u32 = 0x2c;

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// Turns generic receive offload on. A veth interface then receives through NAPI, which it has to if
/// frames are redirected to its peer: else they are dropped.
///
/// # Errors
/// There is no such interface, or it has no such offload.
pub fn turn_gro_on(netns: &Netns, interface: &str) -> Result<()> {
    netns
        .run(|| {
            let socket = socket(
                AddressFamily::Inet,
                SockType::Datagram,
                SockFlag::SOCK_CLOEXEC,
                None,
            )?;
            let mut value = Value {
                command: SET_GRO,
                data: 1,
            };
            let mut request = libc::ifreq {
                ifr_name: [0; libc::IFNAMSIZ],
                ifr_ifru: libc::__c_anonymous_ifr_ifru {
                    ifru_data: (&raw mut value).cast(),
                },
            };
            ensure!(interface.len() < libc::IFNAMSIZ, "too long a name");
            for (at, byte) in request.ifr_name.iter_mut().zip(interface.bytes()) {
                *at = byte as libc::c_char;
            }
            // SAFETY: the request has a name that ends with a zero, and points to a value that outlives the
            // call and is as long as this command takes it for.
            let result =
                unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
            Errno::result(result)?;
            Ok(())
        })
        .with_context(|| format!("cannot turn GRO on for {interface}"))
}
