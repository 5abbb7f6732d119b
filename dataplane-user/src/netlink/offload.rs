//! Interfaces' offloads for receiving, over the generic netlink family `ethtool`
//! (include/uapi/linux/ethtool_netlink.h), in the calling thread's network namespace.

use std::collections::HashSet;

use anyhow::{Context as _, ensure};
use netlink_packet_core::DefaultNla;

use super::generic::{Family, all, inside, nested, text, value};
use crate::text::decode_text;

const ETHTOOL_GENL_NAME: &str = "ethtool";
const ETHTOOL_MSG_FEATURES_GET: u8 = 11;
const ETHTOOL_MSG_FEATURES_SET: u8 = 12;
const ETHTOOL_A_FEATURES_HEADER: u16 = 1;
const ETHTOOL_A_FEATURES_WANTED: u16 = 3;
const ETHTOOL_A_FEATURES_ACTIVE: u16 = 4;
const ETHTOOL_A_HEADER_DEV_INDEX: u16 = 1;
const ETHTOOL_A_BITSET_BITS: u16 = 3;
const ETHTOOL_A_BITSET_BITS_BIT: u16 = 1;
const ETHTOOL_A_BITSET_BIT_NAME: u16 = 2;
const ETHTOOL_A_BITSET_BIT_VALUE: u16 = 3;

/// The kernel's words for offloads (net/ethtool/common.c): segments put together by the kernel, by the
/// device as the kernel would, and by the device in its own way.
const GRO: &str = "rx-gro";
const GRO_IN_HARDWARE: &str = "rx-gro-hw";
const LRO: &str = "rx-lro";

/// Whether the kernel puts segments together that come in by an interface.
pub fn gro(ifindex: u32) -> anyhow::Result<bool> {
    Ok(features(ifindex, &[ETHTOOL_A_FEATURES_ACTIVE])?.contains(GRO))
}

/// Whether an interface itself puts segments together, or would but for an XDP program on it.
pub fn is_in_hardware(ifindex: u32) -> anyhow::Result<bool> {
    let which = [ETHTOOL_A_FEATURES_ACTIVE, ETHTOOL_A_FEATURES_WANTED];
    let features = features(ifindex, &which)?;
    Ok([GRO_IN_HARDWARE, LRO]
        .iter()
        .any(|name| features.contains(*name)))
}

/// Has the kernel put segments together that come in by an interface, or not.
pub fn set_gro(ifindex: u32, is_on: bool) -> anyhow::Result<()> {
    let mut bit = vec![text(ETHTOOL_A_BITSET_BIT_NAME, GRO)];
    if is_on {
        bit.push(DefaultNla::new(ETHTOOL_A_BITSET_BIT_VALUE, Vec::new()));
    }
    let bits = nested(
        ETHTOOL_A_BITSET_BITS,
        &[nested(ETHTOOL_A_BITSET_BITS_BIT, &bit)],
    );
    let wanted = nested(ETHTOOL_A_FEATURES_WANTED, &[bits]);
    let word = if is_on { "on" } else { "off" };
    ethtool()?
        .ask(
            ETHTOOL_MSG_FEATURES_SET,
            0,
            vec![header(ifindex), wanted],
            |_| {},
        )
        .with_context(|| format!("cannot turn GRO {word}"))?;
    ensure!(gro(ifindex)? == is_on, "GRO cannot be turned {word}");
    Ok(())
}

/// The names of offloads in any of these sets.
fn features(ifindex: u32, sets: &[u16]) -> anyhow::Result<HashSet<String>> {
    let mut features = HashSet::new();
    let request = vec![header(ifindex)];
    ethtool()?
        .ask(ETHTOOL_MSG_FEATURES_GET, 0, request, |answer| {
            let sets = sets.iter().flat_map(|set| all(answer, *set));
            let bits: Vec<_> = sets.flat_map(inside).collect();
            for bits in all(&bits, ETHTOOL_A_BITSET_BITS) {
                let names = inside(bits).into_iter().flat_map(|bit| {
                    let bit = inside(&bit);
                    all(&bit, ETHTOOL_A_BITSET_BIT_NAME)
                        .map(|name| decode_text(&value(name)))
                        .collect::<Vec<_>>()
                });
                features.extend(names);
            }
        })
        .context("cannot ask for an interface's offloads")?;
    Ok(features)
}

fn ethtool() -> anyhow::Result<Family> {
    Family::open(ETHTOOL_GENL_NAME)?.context("the kernel has no ethtool over netlink")
}

fn header(ifindex: u32) -> DefaultNla {
    let device = DefaultNla::new(ETHTOOL_A_HEADER_DEV_INDEX, ifindex.to_ne_bytes().to_vec());
    nested(ETHTOOL_A_FEATURES_HEADER, &[device])
}
