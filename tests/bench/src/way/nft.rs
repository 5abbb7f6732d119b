//! What Docker's rules do, said with nftables' means: a map and a set, however many ports there are.

use std::{io::Write as _, net::Ipv4Addr};

use anyhow::{Context, Result};
use portway_tests::container::{BRIDGE, GATEWAY};
use tempfile::NamedTempFile;

use crate::{
    bed::Bed,
    frame::{FIRST_CONTAINER_PORT, FIRST_PORT},
    way::Published,
};

/// Loads the rules.
///
/// # Errors
/// `nft` fails.
pub fn open(bed: &Bed, published: Published) -> Result<()> {
    let mut file = NamedTempFile::new().context("no room for a file")?;
    file.write_all(rules(bed.container.address, published).as_bytes())?;
    bed.lab
        .host
        .command("nft")
        .arg("--file")
        .arg(file.path())
        .text()?;
    Ok(())
}

fn rules(
    container: Ipv4Addr,
    Published {
        protocol, ports, ..
    }: Published,
) -> String {
    let [a, b, c, _] = GATEWAY.octets();
    let network = format!("{a}.{b}.{c}.0/24");
    let list = |element: &dyn Fn(u16) -> String| {
        let elements: Vec<_> = (0..ports).map(element).collect();
        elements.join(", ")
    };
    let published = list(&|at| {
        let (outside, inside) = (FIRST_PORT + at, FIRST_CONTAINER_PORT + at);
        format!("{protocol} . {outside} : {container} . {inside}")
    });
    let open = list(&|at| {
        let inside = FIRST_CONTAINER_PORT + at;
        format!("{container} . {protocol} . {inside}")
    });
    format!(
        r#"table ip nat {{
    map published {{
        type inet_proto . inet_service : ipv4_addr . inet_service
        elements = {{ {published} }}
    }}
    chain prerouting {{
        type nat hook prerouting priority dstnat; policy accept;
        fib daddr type local iifname != "{BRIDGE}" dnat ip to meta l4proto . th dport map @published
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr {network} oifname != "{BRIDGE}" masquerade
    }}
}}
table ip filter {{
    set open {{
        type ipv4_addr . inet_proto . inet_service
        elements = {{ {open} }}
    }}
    chain forward {{
        type filter hook forward priority filter; policy drop;
        oifname "{BRIDGE}" ct state established,related accept
        oifname "{BRIDGE}" iifname != "{BRIDGE}" ip daddr . meta l4proto . th dport @open accept
        iifname "{BRIDGE}" accept
    }}
}}
"#
    )
}
