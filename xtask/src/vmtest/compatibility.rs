//! docs/compatibility.md, from what the virtual machines said.

use std::{collections::BTreeSet, fmt::Write as _, fs};

use anyhow::{Context as _, Result};

use super::{
    suite,
    transcript::{FileOutcome, Transcript},
};
use crate::compile;

/// The verifier's limit (`BPF_COMPLEXITY_LIMIT_INSNS`, include/linux/bpf.h).
const LIMIT: u32 = 1_000_000;

/// What differs between kernels and no test says: a need, and the release that met it.
const DIFFERENCES: [(&str, &str); 2] = [
    (
        "TCX: programs come and go without a qdisc",
        "6.6; before, clsact",
    ),
    (
        "Drivers tell whether they can redirect, which `--mode auto` wants to know before it takes XDP",
        "6.3; before, `--mode xdp` takes it",
    ),
];

/// Writes the page.
///
/// # Errors
/// The file system's.
pub fn write(transcripts: &[Transcript]) -> Result<()> {
    let path = compile::workspace().join("docs/compatibility.md");
    fs::write(&path, page(transcripts)?)
        .with_context(|| format!("cannot write {}", path.display()))?;
    println!("xtask: {} written", path.display());
    Ok(())
}

fn page(transcripts: &[Transcript]) -> Result<String> {
    let mut page = String::from(
        "# Kernels\n\n\
         portway runs on Linux 6.1 and later. Written by `cargo xtask vmtest --docs`: Debian's kernels as packaged, in\n\
         virtual machines, with the tests of the dataplane; \"skipped\" is what the kernel does not have.\n\n\
         ## Tests\n\n",
    );
    row(
        &mut page,
        "what",
        transcripts.iter().map(|of| of.release.clone()),
    );
    row(
        &mut page,
        "---",
        transcripts.iter().map(|_| "---".to_owned()),
    );
    for file in files(transcripts) {
        let subject = format!("`{file}`: {}", suite::subject(&file)?);
        let outcomes = transcripts.iter().map(|transcript| {
            let outcome = transcript.files.iter().find(|outcome| outcome.file == file);
            outcome.map_or_else(|| "not run".to_owned(), words)
        });
        row(&mut page, &subject, outcomes);
    }
    remarks(&mut page, transcripts)?;
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
    row(
        &mut page,
        "program",
        transcripts.iter().map(|of| of.release.clone()),
    );
    row(
        &mut page,
        "---",
        transcripts.iter().map(|_| "---:".to_owned()),
    );
    let programs: BTreeSet<_> = transcripts
        .iter()
        .flat_map(|of| of.verified.keys())
        .collect();
    for program in programs {
        let counts = transcripts.iter().map(|transcript| {
            let count = transcript.verified.get(program);
            count.map_or_else(String::new, u32::to_string)
        });
        row(&mut page, &format!("`{program}`"), counts);
    }
    Ok(page)
}

fn row(page: &mut String, head: &str, cells: impl Iterator<Item = String>) {
    page.push_str(&format!("| {head} |"));
    for cell in cells {
        page.push_str(&format!(" {cell} |"));
    }
    page.push('\n');
}

/// Those that came to their end on some kernel, in the order of the first machine that ran them.
fn files(transcripts: &[Transcript]) -> Vec<String> {
    let mut files: Vec<String> = Vec::new();
    for outcome in transcripts.iter().flat_map(|of| &of.files) {
        if outcome.has_ended && !files.contains(&outcome.file) {
            files.push(outcome.file.clone());
        }
    }
    files
}

fn words(outcome: &FileOutcome) -> String {
    if !outcome.has_ended {
        return "not finished".to_owned();
    }
    let tally = &outcome.tally;
    let mut words = format!("{} passed", tally.passed);
    for (count, what) in [(tally.failed, "failed"), (tally.skipped, "skipped")] {
        if count > 0 {
            words.push_str(&format!(", {count} {what}"));
        }
    }
    if !outcome.is_good && tally.failed == 0 {
        words.push_str(", broke off");
    }
    words
}

/// Which tests were skipped or failed, on which kernel, and what the kernel complained of.
fn remarks(page: &mut String, transcripts: &[Transcript]) -> Result<()> {
    page.push('\n');
    for transcript in transcripts {
        let release = &transcript.release;
        for outcome in &transcript.files {
            let file = &outcome.file;
            for reason in &outcome.tally.reasons {
                writeln!(page, "- {release}: `{file}` skips {reason}")?;
            }
            for failure in &outcome.tally.failures {
                writeln!(page, "- {release}: `{file}` fails in {failure}")?;
            }
        }
        for complaint in &transcript.complaints {
            writeln!(page, "- {release} complains: `{complaint}`")?;
        }
    }
    Ok(())
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
        let page = page(&[transcript]).expect("a page");
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
