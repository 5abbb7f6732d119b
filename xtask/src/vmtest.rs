//! `cargo xtask vmtest`: the dataplane's tests on other kernels, in virtual machines.
//!
//! | file | its job |
//! |---|---|
//! | [`kernel`] | which kernels |
//! | [`archive`] | packages out of Debian's archive, without installing them |
//! | [`suite`] | which tests, built for the machines |
//! | [`initramfs`] | what a machine starts from |
//! | [`machine`] | unpacked kernels, and qemu |
//! | [`transcript`] | what a machine said |
//! | [`compatibility`] | docs/compatibility.md |
//!
//! All of it is kept in target/vmtest: nothing is installed on this machine.

mod archive;
mod compatibility;
mod initramfs;
mod kernel;
mod machine;
mod suite;
mod transcript;

use std::{
    env::consts::ARCH,
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use self::{
    archive::{Archive, Suite},
    kernel::Kernel,
    machine::Qemu,
    suite::Built,
    transcript::Transcript,
};
use crate::{compile, named, outcome, plan::Goal, setup};

/// How many times slower than a CPU its emulation may be, on a machine that has other things to do.
const SLOWNESS: u32 = 60;

/// What to run where.
#[derive(Args, Debug, Default)]
pub struct Selection {
    /// Run the tests on this kernel (repeatable); on all of them if none is named.
    #[arg(long, value_name = "KERNEL")]
    kernel: Vec<Kernel>,
    /// Run only this file of integration tests (repeatable).
    #[arg(long, value_name = "FILE")]
    test: Vec<String>,
    /// Print the kernels and tests there are, and stop.
    #[arg(long)]
    list: bool,
    /// Run nothing: make docs/compatibility.md of what each kernel's last run has said.
    #[arg(long, conflicts_with_all = ["kernel", "test"])]
    docs: bool,
}

impl Selection {
    fn kernels(&self) -> Vec<Kernel> {
        named::or_all(&self.kernel)
    }

    fn files(&self) -> Vec<String> {
        named::files_or(&suite::FILES, &self.test)
    }
}

/// Sets up, builds, runs every kernel and prints a line for each.
///
/// # Errors
/// Something cannot be fetched, built or started. Tests that fail are no error but a status.
pub fn vmtest(no_install: bool, selection: &Selection) -> Result<ExitCode> {
    let (kernels, files) = (selection.kernels(), selection.files());
    if selection.list {
        return list(&kernels, &files);
    }
    if ARCH != "x86_64" {
        bail!("the virtual machines are x86-64's, and take tests that are built here: on {ARCH}");
    }
    let folder = compile::target_folder()?.join("vmtest");
    if selection.docs {
        let transcripts: Result<Vec<_>> = kernels
            .into_iter()
            .map(|kernel| transcript_of(kernel, &folder))
            .collect();
        compatibility::write(&transcripts?)?;
        return Ok(ExitCode::SUCCESS);
    }
    setup::ensure(Goal::Lab, no_install)?;
    let bookworm = Archive::open(&folder, Suite::Bookworm)?;
    let qemu = Qemu::fetch(&bookworm, &folder)?;
    let built = Built::new(&files)?;
    let slowness = if qemu.is_accelerated() { 1 } else { SLOWNESS };
    let system = initramfs::pack_system(&folder, &built, &suite::script(&files, slowness))?;
    let mut transcripts = Vec::new();
    for kernel in kernels {
        let unpacked = match kernel.suite() {
            Suite::Bookworm => machine::fetch_kernel(kernel, &bookworm, &folder)?,
            suite => machine::fetch_kernel(kernel, &Archive::open(&folder, suite)?, &folder)?,
        };
        transcripts.push(test_on(kernel, &unpacked, &system, &qemu, &folder)?);
    }
    println!();
    for transcript in &transcripts {
        println!("{}", summary(transcript));
    }
    let are_good = transcripts.iter().all(Transcript::is_good);
    Ok(outcome::exit_code(are_good))
}

fn list(kernels: &[Kernel], files: &[String]) -> Result<ExitCode> {
    for kernel in kernels {
        println!("{:<15} {}", kernel.name(), kernel.package());
    }
    for file in files {
        println!("{file:<15} {}", outcome::subject(file)?);
    }
    Ok(ExitCode::SUCCESS)
}

fn test_on(
    kernel: Kernel,
    unpacked: &Path,
    system: &Path,
    qemu: &Qemu,
    folder: &Path,
) -> Result<Transcript> {
    let modules = initramfs::pack_modules(folder, unpacked)?;
    let initrd = initramfs::concatenate(&[system, &modules], folder.join("initrd"))?;
    let (output, console) = said_by(kernel, folder);
    let mut said =
        File::create(&output).with_context(|| format!("cannot write {}", output.display()))?;
    let begin = Instant::now();
    println!("xtask: starting Linux {}", kernel.name());
    qemu.run(unpacked, &initrd, &console, |line| {
        println!(
            "{:>6} {:>4} s  {line}",
            kernel.name(),
            begin.elapsed().as_secs()
        );
        // That the disk is full shows when it is read.
        let _ = writeln!(said, "{line}");
    })?;
    transcript_of(kernel, folder)
}

/// Where a machine's tests and its console are kept.
fn said_by(kernel: Kernel, folder: &Path) -> (PathBuf, PathBuf) {
    let file = |what| folder.join(format!("{}.{what}", kernel.name()));
    (file("output"), file("console"))
}

/// What a kernel's last run has said.
fn transcript_of(kernel: Kernel, folder: &Path) -> Result<Transcript> {
    let (output, console) = said_by(kernel, folder);
    let (output, console) = (outcome::last_said(&output)?, outcome::last_said(&console)?);
    Ok(Transcript::of(kernel, &output, &console))
}

/// A line for the end, and more where something is wrong.
fn summary(transcript: &Transcript) -> String {
    let mut lines = vec![format!(
        "{:<7} {:<28} {}: {}",
        transcript.kernel.name(),
        transcript.release,
        outcome::verdict(transcript.is_good()),
        transcript.outcomes.sum(),
    )];
    lines.extend(transcript.outcomes.failures());
    lines.extend(
        transcript
            .complaints
            .iter()
            .map(|line| format!("  console: {line}")),
    );
    if !transcript.outcomes.is_complete {
        lines.push("  the machine ended before its tests: see its console in target/vmtest".into());
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn all_kernels_and_tests_unless_some_are_named() {
        let all = Selection::default();
        assert_eq!(all.kernels(), Kernel::value_variants());
        assert_eq!(all.files(), suite::FILES);
        let some = Selection {
            kernel: vec![Kernel::Newest, Kernel::V6_1, Kernel::Newest],
            test: vec!["trace".into()],
            ..Selection::default()
        };
        assert_eq!(some.kernels(), [Kernel::V6_1, Kernel::Newest]);
        assert_eq!(some.files(), ["trace"]);
    }

    #[test]
    fn a_summary_names_what_failed() {
        let output = "\
vmtest: kernel 6.1.0
vmtest: begin hooks
test clsact ... FAILED
test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out;
vmtest: end hooks 101
vmtest: done
";
        let transcript = Transcript::of(Kernel::V6_1, output, "");
        let summary = summary(&transcript);
        assert!(
            summary.contains("NOT GOOD: 1 passed, 1 failed"),
            "{summary}"
        );
        assert!(summary.contains("failed: hooks/clsact"), "{summary}");
    }
}
