//! Docker's rules, as Docker 20.10 to 27 write them for a container on the default bridge: per port, one
//! rule that translates, one that masquerades what the container sends to itself, one that accepts.

use std::{fmt::Write as _, io::Write as _, net::Ipv4Addr};

use anyhow::{Context, Result};
use portway_tests::{
    container::{BRIDGE, GATEWAY},
    process::Cmd,
};
use tempfile::NamedTempFile;

use crate::{
    bed::Bed,
    frame::{FIRST_CONTAINER_PORT, FIRST_PORT},
    way::Published,
};

/// The legacy iptables, where there is one: what most comparisons mean by the name.
const LEGACY: &str = "iptables-legacy-restore";

/// Whichever there is.
const RESTORE: &str = "iptables-restore";

/// Loads the rules.
///
/// # Errors
/// `iptables-restore` fails.
pub fn open(bed: &Bed, published: Published) -> Result<()> {
    let mut file = NamedTempFile::new().context("no room for a file")?;
    file.write_all(rules(bed.container.address, published).as_bytes())?;
    restore(bed).arg(file.path()).text()?;
    Ok(())
}

/// What the host's iptables calls itself: `iptables v1.8.9 (legacy)`.
///
/// # Errors
/// There is none.
pub fn version(bed: &Bed) -> Result<String> {
    let said = restore(bed).arg("--version").text()?;
    Ok(said.replace("-legacy-restore", "").replace("-restore", ""))
}

fn restore(bed: &Bed) -> Cmd {
    let host = &bed.lab.host;
    let legacy = host.command(LEGACY).arg("--version").text().is_ok();
    host.command(if legacy { LEGACY } else { RESTORE })
}

fn rules(
    container: Ipv4Addr,
    Published {
        protocol, ports, ..
    }: Published,
) -> String {
    let matches = format!("-p {protocol} -m {protocol}");
    let [a, b, c, _] = GATEWAY.octets();
    let network = format!("{a}.{b}.{c}.0/24");
    let pairs = || (0..ports).map(|at| (FIRST_PORT + at, FIRST_CONTAINER_PORT + at));
    let mut rules = format!(
        "*nat\n\
         :PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n\
         :DOCKER - [0:0]\n\
         -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n\
         -A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER\n\
         -A POSTROUTING -s {network} ! -o {BRIDGE} -j MASQUERADE\n"
    );
    // Writing to a string does not fail.
    for (_, inside) in pairs() {
        let _ = writeln!(
            rules,
            "-A POSTROUTING -s {container}/32 -d {container}/32 {matches} --dport {inside} -j MASQUERADE"
        );
    }
    let _ = writeln!(rules, "-A DOCKER -i {BRIDGE} -j RETURN");
    for (outside, inside) in pairs() {
        let _ = writeln!(
            rules,
            "-A DOCKER ! -i {BRIDGE} {matches} --dport {outside} -j DNAT --to-destination {container}:{inside}"
        );
    }
    let _ = write!(
        rules,
        "COMMIT\n\
         *filter\n\
         :INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n\
         :DOCKER - [0:0]\n:DOCKER-ISOLATION-STAGE-1 - [0:0]\n:DOCKER-ISOLATION-STAGE-2 - [0:0]\n\
         :DOCKER-USER - [0:0]\n\
         -A FORWARD -j DOCKER-USER\n\
         -A FORWARD -j DOCKER-ISOLATION-STAGE-1\n\
         -A FORWARD -o {BRIDGE} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
         -A FORWARD -o {BRIDGE} -j DOCKER\n\
         -A FORWARD -i {BRIDGE} ! -o {BRIDGE} -j ACCEPT\n\
         -A FORWARD -i {BRIDGE} -o {BRIDGE} -j ACCEPT\n"
    );
    for (_, inside) in pairs() {
        let _ = writeln!(
            rules,
            "-A DOCKER -d {container}/32 ! -i {BRIDGE} -o {BRIDGE} {matches} --dport {inside} -j ACCEPT"
        );
    }
    let _ = write!(
        rules,
        "-A DOCKER-ISOLATION-STAGE-1 -i {BRIDGE} ! -o {BRIDGE} -j DOCKER-ISOLATION-STAGE-2\n\
         -A DOCKER-ISOLATION-STAGE-1 -j RETURN\n\
         -A DOCKER-ISOLATION-STAGE-2 -o {BRIDGE} -j DROP\n\
         -A DOCKER-ISOLATION-STAGE-2 -j RETURN\n\
         -A DOCKER-USER -j RETURN\n\
         COMMIT\n"
    );
    rules
}
