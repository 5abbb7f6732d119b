//! docs/docker-versions.md, from what the tests said.

use anyhow::Result;

use super::Record;
use crate::page::{self, Column};

/// What differs between the daemons, which the tests expect so.
const DIFFERENCES: &str = "\
## What differs

- **Rules.** 20.10 and 26.1 have theirs in the chains DOCKER, DOCKER-ISOLATION-STAGE-1 and -2 of iptables; 28.5 in
  DOCKER-FORWARD, DOCKER-CT and DOCKER-BRIDGE as well. podman 5.4 has a table of nftables, `netavark`. Fixtures of all are
  in `dataplane-user/src/firewall/fixtures`.
- **Direct access.** From 28 on the raw table drops what comes from outside for a container's own address; before, ports of
  it that are published can be reached so. `semantics_table` demands the same outcome with portway as without.
- **Without userland-proxy** nobody listens on a published port, the rules that translate it are for the container's own
  bridge as well, and what comes from the host itself is masqueraded. portway takes what comes from outside either way.
- **Isolation.** Docker's bridges do not reach each other. podman's do.
- **Admission.** With Docker's rules alone the table of published ports decides (`direct`). With podman's the kernel does
  (`netfilter`): a container on two networks has a default route by each, and answers by another one than the one that
  its ports are published on. Those connections stay with the kernel. Do not use `--admission direct` with podman.
- **Events.** podman looks for its events in a file, every 250 ms, so ports follow later than Docker's, which have 100 ms.
  Where the kernel admits flows, conntrack leads a client that goes on sending to the address that a container had, and so
  to whoever has it next, with portway as without.
";

/// Writes the page.
///
/// # Errors
/// The file system's.
pub fn write(records: &[Record]) -> Result<()> {
    page::write("docker-versions.md", &text(records)?)
}

fn text(records: &[Record]) -> Result<String> {
    let columns: Vec<Column<'_>> = records
        .iter()
        .map(|of| (of.column.title(&of.version), &of.outcomes))
        .collect();
    let table = page::table(&columns)?;
    let remarks: String = columns.iter().map(page::remarks).collect();
    Ok(format!(
        "# Docker's versions\n\n\
         Written by `cargo xtask test --matrix --docs`: the tests that need Docker, with the daemons, clients, iptables and nft\n\
         of Debian 12, 13 and unstable, each in a file system of its own, and with podman's service that speaks Docker's API.\n\
         `cargo xtask test --matrix` runs them; \"skipped\" is what a daemon does not have.\n\n\
         {table}\n{remarks}\n{DIFFERENCES}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::engine::Engine;

    #[test]
    fn the_page_has_what_was_found() {
        let column = Engine::Podman5.columns().next().expect("a column");
        let said = "matrix: version 5.4.2\nmatrix: begin firewall\nSKIPPED later: dockerd: the engine is podman\n\
                    test result: ok. 1 passed; 0 failed; 1 ignored;\nmatrix: end firewall 0\n";
        let mut record = Record::new(column);
        record.read(said);
        let page = text(&[record]).expect("a page");
        for part in [
            "| what | podman 5.4.2 |",
            "| 1 passed, 1 skipped |",
            "- podman 5.4.2: `firewall` skips later: dockerd: the engine is podman",
        ] {
            assert!(page.contains(part), "{part}\n{page}");
        }
    }
}
