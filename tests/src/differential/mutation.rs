//! Mistakes put into a copy of portway's sources, one at a time, each of which the differential test must
//! find. `portway-mutants` does it.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};

/// A mistake: a piece of source text and what is written in its place.
#[derive(Debug, Clone, Copy)]
pub struct Mutation {
    /// What is wrong then.
    pub name: &'static str,
    /// The file, from the workspace's top.
    file: &'static str,
    right: &'static str,
    wrong: &'static str,
}

const fn mutation(
    name: &'static str,
    file: &'static str,
    right: &'static str,
    wrong: &'static str,
) -> Mutation {
    Mutation {
        name,
        file,
        right,
        wrong,
    }
}

const FORWARD: &str = "dataplane-common/src/forward.rs";
const JOIN: &str = "dataplane-common/src/join.rs";
const REPLY: &str = "dataplane-common/src/reply.rs";
const REWRITE: &str = "dataplane-common/src/rewrite.rs";
const FAMILY: &str = "dataplane-common/src/family/v4.rs";
const HEADERS: &str = "dataplane-common/src/headers.rs";
const SKB: &str = "dataplane-ebpf/src/skb.rs";

/// All of them.
pub const ALL: &[Mutation] = &[
    mutation(
        "the transport checksum leaves out the destination port",
        REWRITE,
        "\n                .replace16(parsed.ports.destination, ports.destination)",
        "",
    ),
    mutation(
        "the transport checksum leaves out the address",
        REWRITE,
        "pseudo_header: F::replace(old_address, address)",
        "pseudo_header: F::replace(address, address)",
    ),
    mutation(
        "an unfinished checksum is taken for a finished one",
        SKB,
        "u64::from(BPF_F_PSEUDO_HDR)",
        "u64::from(BPF_F_PSEUDO_HDR) & 0",
    ),
    mutation(
        "a datagram without a checksum is given one",
        SKB,
        "u64::from(BPF_F_MARK_MANGLED_0)",
        "u64::from(BPF_F_MARK_MANGLED_0) & 0",
    ),
    mutation(
        "the time to live stays",
        FAMILY,
        "header.ttl.wrapping_sub(hops)",
        "header.ttl",
    ),
    mutation(
        "a used-up time to live goes on",
        FORWARD,
        "network.ttl <= 1",
        "network.ttl < 1",
    ),
    mutation(
        "the container's port is the host's",
        FORWARD,
        "destination: slot.port(),",
        "destination: parsed.ports.destination,",
    ),
    mutation(
        "a reply keeps the container's port",
        REPLY,
        "source: flow.host_port,",
        "source: parsed.ports.source,",
    ),
    mutation(
        "a port of one address is published on all",
        "dataplane-user/src/ports.rs",
        "old.with_bound(true)",
        "slot.with_bound(true)",
    ),
    mutation(
        "any destination will do",
        JOIN,
        "!tables.is_local(&network.destination)",
        "false && !tables.is_local(&network.destination)",
    ),
    mutation(
        "any station's frames will do",
        FORWARD,
        "!packet.is_to_host()",
        "false && !packet.is_to_host()",
    ),
    mutation(
        "a container's frames to another station are replies",
        REPLY,
        "ethernet.destination != backend.source_mac",
        "false && ethernet.destination != backend.source_mac",
    ),
    mutation(
        "a connection begins with any segment",
        JOIN,
        "self.parsed.is_tcp() && !begins",
        "false && self.parsed.is_tcp() && !begins",
    ),
    mutation(
        "any control bits are valid",
        HEADERS,
        "(VALID >> counted) & 1 == 1",
        "(VALID >> counted) & 1 <= 1",
    ),
    mutation(
        "a packet may be larger than the container's MTU",
        FORWARD,
        "!parsed.fits(backend.mtu)",
        "false && !parsed.fits(backend.mtu)",
    ),
    mutation(
        "replies that look alike belong together",
        JOIN,
        "!self.belongs_to(flow)",
        "false && !self.belongs_to(flow)",
    ),
    mutation(
        "answers to the container's own questions are new flows",
        JOIN,
        "> FOREIGN_LIFETIME as i32",
        "> -(FOREIGN_LIFETIME as i32)",
    ),
    mutation(
        "the frame goes to the gateway, not to the container",
        REWRITE,
        "destination: forward.mac,",
        "destination: forward.source_mac,",
    ),
    mutation(
        "fragments that come before the first one are lost",
        "dataplane-common/src/fragment.rs",
        "datagram.held = before.held;",
        "datagram.held = 0;",
    ),
];

impl Mutation {
    /// Makes the mistake in the copy of the workspace at `copy`.
    ///
    /// # Errors
    /// The text to be changed is not there, or more than once: the sources have changed.
    pub fn make(&self, copy: &Path) -> Result<()> {
        let path = copy.join(self.file);
        let text = fs::read_to_string(&path).with_context(|| format!("no {}", self.file))?;
        let times = text.matches(self.right).count();
        ensure!(
            times == 1,
            "{}: {times} times in {}: {:?}",
            self.name,
            self.file,
            self.right
        );
        fs::write(&path, text.replace(self.right, self.wrong))?;
        Ok(())
    }

    /// Takes it back, from the workspace at `original`.
    ///
    /// # Errors
    /// The file cannot be copied.
    pub fn unmake(&self, original: &Path, copy: &Path) -> Result<()> {
        fs::copy(original.join(self.file), copy.join(self.file))?;
        Ok(())
    }
}
