//! Docker's iptables rules, as `iptables-save` prints them.

/// The shapes of Docker's rules: table, chain, rule. Gathered from Docker 20.10, 26.1 and 28.5 at
/// work and from moby's own records of 28.0 to 29 (`integration/network/bridge/iptablesdoc` and
/// `libnetwork/drivers/bridge/internal/iptabler/testdata`). Rules of the filter table that only accept
/// are harmless anyway and not listed.
///
/// `BR` is one of Docker's bridges, `INT` one of an internal network, `IP` an address or subnet, `N` a
/// port, `P` a protocol.
pub(super) const DOCKERS: &[(&str, &str, &str)] = &[
    ("raw", "PREROUTING", "-d IP ! -i BR -j DROP"),
    // 28.0 and 28.1: port by port.
    (
        "raw",
        "PREROUTING",
        "-d IP ! -i BR -p P -m P --dport N -j DROP",
    ),
    (
        "raw",
        "PREROUTING",
        "-d IP ! -i lo -p P -m P --dport N -j DROP",
    ),
    // WSL2 with mirrored networking.
    (
        "raw",
        "PREROUTING",
        "-d IP -i loopback0 -p P -m P --dport N -j ACCEPT",
    ),
    (
        "mangle",
        "POSTROUTING",
        "-p sctp -m sctp --sport N -j CHECKSUM --checksum-fill",
    ),
    (
        "nat",
        "PREROUTING",
        "-m addrtype --dst-type LOCAL -j DOCKER",
    ),
    (
        "nat",
        "PREROUTING",
        "-m addrtype --dst-type LOCAL -j DOCKER-INGRESS",
    ),
    ("nat", "DOCKER", "-i BR -j RETURN"),
    ("nat", "DOCKER", "-d IP -i loopback0 -j RETURN"),
    (
        "nat",
        "DOCKER",
        "! -i BR -p P -m P --dport N -j DNAT --to-destination TO",
    ),
    (
        "nat",
        "DOCKER",
        "-d IP ! -i BR -p P -m P --dport N -j DNAT --to-destination TO",
    ),
    // Without docker-proxy, for hairpin NAT.
    (
        "nat",
        "DOCKER",
        "-p P -m P --dport N -j DNAT --to-destination TO",
    ),
    (
        "nat",
        "DOCKER",
        "-d IP -p P -m P --dport N -j DNAT --to-destination TO",
    ),
    (
        "nat",
        "DOCKER",
        "! -s fe80::/10 ! -i BR -p P -m P --dport N -j DNAT --to-destination TO",
    ),
    (
        "nat",
        "DOCKER",
        "! -s fe80::/10 -d IP ! -i BR -p P -m P --dport N -j DNAT --to-destination TO",
    ),
    (
        "nat",
        "DOCKER",
        "! -s fe80::/10 -p P -m P --dport N -j DNAT --to-destination TO",
    ),
    (
        "nat",
        "DOCKER",
        "! -s fe80::/10 -d IP -p P -m P --dport N -j DNAT --to-destination TO",
    ),
    ("nat", "DOCKER-INGRESS", "-j RETURN"),
    (
        "nat",
        "DOCKER-INGRESS",
        "-p P -m P --dport N -j DNAT --to-destination TO",
    ),
    ("nat", "POSTROUTING", "-s IP ! -o BR -j MASQUERADE"),
    ("nat", "POSTROUTING", "-s IP ! -o BR -j SNAT --to-source IP"),
    (
        "nat",
        "POSTROUTING",
        "-o BR -m addrtype --src-type LOCAL -j MASQUERADE",
    ),
    (
        "nat",
        "POSTROUTING",
        "-o BR -m addrtype --src-type LOCAL -j SNAT --to-source IP",
    ),
    (
        "nat",
        "POSTROUTING",
        "-s IP -d IP -p P -m P --dport N -j MASQUERADE",
    ),
    ("filter", "FORWARD", "-j DOCKER-USER"),
    ("filter", "FORWARD", "-j DOCKER-FORWARD"),
    ("filter", "FORWARD", "-j DOCKER-INGRESS"),
    ("filter", "FORWARD", "-j DOCKER-ISOLATION-STAGE-1"),
    ("filter", "FORWARD", "-o BR -j DOCKER"),
    ("filter", "FORWARD", "-i BR -o BR -j DROP"),
    // 28.0.0 only; its rules match on an ipset of the bridges.
    (
        "filter",
        "FORWARD",
        "-m set --match-set docker-ext-bridges-v4 dst -j DOCKER",
    ),
    (
        "filter",
        "FORWARD",
        "-m set --match-set docker-ext-bridges-v6 dst -j DOCKER",
    ),
    (
        "filter",
        "DOCKER-FORWARD",
        "-m set --match-set docker-ext-bridges-v4 dst -j DOCKER",
    ),
    (
        "filter",
        "DOCKER-FORWARD",
        "-m set --match-set docker-ext-bridges-v6 dst -j DOCKER",
    ),
    // Since 28.0.1.
    ("filter", "DOCKER-FORWARD", "-j DOCKER-CT"),
    ("filter", "DOCKER-FORWARD", "-j DOCKER-INGRESS"),
    ("filter", "DOCKER-FORWARD", "-j DOCKER-ISOLATION-STAGE-1"),
    ("filter", "DOCKER-FORWARD", "-j DOCKER-INTERNAL"),
    ("filter", "DOCKER-FORWARD", "-j DOCKER-BRIDGE"),
    ("filter", "DOCKER-FORWARD", "-i BR -o BR -j DROP"),
    ("filter", "DOCKER-BRIDGE", "-o BR -j DOCKER"),
    ("filter", "DOCKER", "! -i BR -o BR -j DROP"),
    (
        "filter",
        "DOCKER-ISOLATION-STAGE-1",
        "-i BR ! -o BR -j DOCKER-ISOLATION-STAGE-2",
    ),
    (
        "filter",
        "DOCKER-ISOLATION-STAGE-1",
        "! -s IP -o INT -j DROP",
    ),
    (
        "filter",
        "DOCKER-ISOLATION-STAGE-1",
        "! -d IP -i INT -j DROP",
    ),
    (
        "filter",
        "DOCKER-ISOLATION-STAGE-1",
        "! -s IP ! -i INT -o INT -j DROP",
    ),
    (
        "filter",
        "DOCKER-ISOLATION-STAGE-1",
        "! -d IP -i INT ! -o INT -j DROP",
    ),
    ("filter", "DOCKER-ISOLATION-STAGE-1", "-o BR -j RETURN"),
    ("filter", "DOCKER-ISOLATION-STAGE-1", "-j RETURN"),
    ("filter", "DOCKER-ISOLATION-STAGE-2", "-o BR -j DROP"),
    ("filter", "DOCKER-ISOLATION-STAGE-2", "-j RETURN"),
    ("filter", "DOCKER-INGRESS", "-j RETURN"),
    ("filter", "DOCKER-USER", "-j RETURN"),
    // 29, in place of the isolation stages.
    ("filter", "DOCKER-INTERNAL", "! -s IP -o INT -j DROP"),
    ("filter", "DOCKER-INTERNAL", "! -d IP -i INT -j DROP"),
    (
        "filter",
        "DOCKER-INTERNAL",
        "! -s IP ! -i INT -o INT -j DROP",
    ),
    (
        "filter",
        "DOCKER-INTERNAL",
        "! -d IP -i INT ! -o INT -j DROP",
    ),
];
