//! The names of those who are compared, the same in every scenario.

/// A bare XDP redirect into the container, by GRO there: what nobody who rewrites packets can reach by GRO.
pub const LIMIT: &str = "limit";

/// Docker's own rules in legacy iptables.
pub const IPTABLES: &str = "iptables";

/// The same in nftables, with a map instead of a rule for each port.
pub const NFT: &str = "nft";

/// docker-proxy, Docker's relay in user space.
pub const DOCKER_PROXY: &str = "docker-proxy";

/// portway at the TC hooks.
pub const PORTWAY_TC: &str = "portway-tc";

/// portway at the XDP hook.
pub const PORTWAY_XDP: &str = "portway-xdp";

/// The same where a program takes GRO's place in containers.
pub const PORTWAY_PASS: &str = "portway-pass";

/// portway as it is without options, whatever hooks that means.
pub const PORTWAY_AUTO: &str = "portway-auto";
