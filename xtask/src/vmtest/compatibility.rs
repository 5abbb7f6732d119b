//! docs/compatibility.md, from what the virtual machines said.

use std::{collections::BTreeSet, fmt::Write as _};

use anyhow::Result;

use super::transcript::Transcript;
use crate::page::{self, Column};

/// The verifier's limit (`BPF_COMPLEXITY_LIMIT_INSNS`, include/linux/bpf.h).
const LIMIT: u32 = 1_000_000;

/// What differs between kernels and no test says: a need, and the release that met it.
const DIFFERENCES: [(&str, &str); 3] = [
    (
        "TCX: programs come and go without a qdisc",
        "6.6; before, clsact, at whose coming and going the kernel stops the interface for a moment, and drops what the host sends by it",
    ),
    (
        "Drivers tell whether they can redirect, which `--mode auto` wants to know before it takes XDP",
        "6.3; before, `--mode xdp` takes it",
    ),
    (
        "The kernel tells when a container has lost its GRO, or the program in its place",
        "6.3; before, `run` looks for GRO every ten seconds",
    ),
];

/// Writes the page.
///
/// # Errors
/// The file system's.
pub fn write(transcripts: &[Transcript]) -> Result<()> {
    page::write("compatibility.md", &text(transcripts)?)
}

fn text(transcripts: &[Transcript]) -> Result<String> {
    let mut page = String::from(
        "# Kernels\n\n\
         portway runs on Linux 6.1 and later. Written by `cargo xtask vmtest --docs`: Debian's kernels as packaged, in\n\
         virtual machines, with the tests of the dataplane; \"skipped\" is what the kernel does not have.\n\n\
         ## Tests\n\n",
    );
    let columns: Vec<Column<'_>> = transcripts
        .iter()
        .map(|of| (of.release.clone(), &of.outcomes))
        .collect();
    page.push_str(&page::table(&columns)?);
    page.push('\n');
    for (column, transcript) in columns.iter().zip(transcripts) {
        page.push_str(&page::remarks(column));
        for complaint in &transcript.complaints {
            writeln!(page, "- {} complains: `{complaint}`", transcript.release)?;
        }
    }
    writeln!(page, "\n## What differs\n\n| | since Linux |\n|---|---|")?;
    for (what, since) in DIFFERENCES {
        writeln!(page, "| {what} | {since} |")?;
    }
    writeln!(
        page,
        "\n## Instructions that the verifier goes through\n\n\
         The kernel gives up after {LIMIT}. The programs are the same everywhere; the verifiers differ in how they\n\
         tell that they have been in a state before.\n"
    )?;
    let releases = transcripts.iter().map(|of| of.release.clone());
    page.push_str(&page::head("program", releases, "---:"));
    let programs: BTreeSet<_> = transcripts
        .iter()
        .flat_map(|of| of.verified.keys())
        .collect();
    for program in programs {
        let counts = transcripts.iter().map(|transcript| {
            let count = transcript.verified.get(program);
            count.map_or_else(String::new, u32::to_string)
        });
        page.push_str(&page::row(&format!("`{program}`"), counts));
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vmtest::kernel::Kernel;

    #[test]
    fn the_page_has_what_was_found() {
        let output = "\
vmtest: kernel 6.1.0-56-cloud-amd64
vmtest: begin hooks
verified portway_xdp 44146
SKIPPED tcx: TCX: Linux 6.1 has none
test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out;
vmtest: end hooks 0
vmtest: done
";
        let transcript = Transcript::of(Kernel::V6_1, output, "");
        let page = text(&[transcript]).expect("a page");
        for part in [
            "| what | 6.1.0-56-cloud-amd64 |",
            "goes without a trace. | 5 passed, 1 skipped |",
            "- 6.1.0-56-cloud-amd64: `hooks` skips tcx: TCX: Linux 6.1 has none",
            "| `portway_xdp` | 44146 |",
        ] {
            assert!(page.contains(part), "{part}\n{page}");
        }
    }
}
