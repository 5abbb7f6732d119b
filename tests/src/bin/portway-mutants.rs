//! Shows that the differential test can fail: makes one mistake after the other in a copy of portway's
//! sources, compiles it, and plays the test against it.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use portway_tests::differential::{
    mutation::ALL,
    run::{FLOWS_VARIABLE, KINDS_VARIABLE},
};

/// Puts mistakes into a copy of portway, one at a time, and expects the differential test to find each.
///
/// Needs what the test itself needs. Nothing in the workspace is changed.
#[derive(Debug, Parser)]
#[command(name = "portway-mutants")]
struct Args {
    /// Only mistakes with this in their name.
    #[arg(default_value = "")]
    name: String,

    /// Flows after which a mistake counts as missed.
    #[arg(long, default_value_t = 20_000)]
    flows: u64,

    /// Where the copy and what is compiled of it are kept, for the next time.
    #[arg(long, default_value = "target/mutants")]
    folder: PathBuf,
}

/// The test that has to fail.
const TEST: &str = "the_same_is_received_where_portway_admits_flows";

/// What is not copied: what is compiled, and history.
const LEFT_OUT: [&str; 2] = ["target", ".git"];

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("portway-mutants: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every mistake was found.
fn run(args: &Args) -> Result<bool> {
    let original = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("no workspace")?;
    let folder = original.join(&args.folder);
    let copy = folder.join("workspace");
    copy_tree(original, &copy)?;
    let chosen = ALL
        .iter()
        .filter(|mutation| mutation.name.contains(&args.name));
    let mut missed = 0;
    for mutation in chosen {
        mutation.make(&copy)?;
        let found = build(&copy, &folder).and_then(|program| play(original, &program, args.flows));
        mutation.unmake(original, &copy)?;
        match found.with_context(|| mutation.name)? {
            Some(packets) => println!("caught within {packets:>6} packets: {}", mutation.name),
            None => {
                missed += 1;
                println!("MISSED in {} flows: {}", args.flows, mutation.name);
            }
        }
    }
    Ok(missed == 0)
}

/// Compiles portway in the copy and returns the binary. What cannot be compiled is no mistake worth testing.
fn build(copy: &Path, folder: &Path) -> Result<PathBuf> {
    let target = folder.join("target");
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--package", "dataplane-user"])
        .args(["--bin", "portway"])
        .env("CARGO_TARGET_DIR", &target)
        .current_dir(copy)
        .status()
        .context("cargo does not start")?;
    ensure!(built.success(), "does not compile");
    Ok(target.join("debug/portway"))
}

/// Plays the differential test against `program`; after how many packets it found a difference.
fn play(workspace: &Path, program: &Path, flows: u64) -> Result<Option<u64>> {
    let output = Command::new(env!("CARGO"))
        .args(["test", "--quiet", "--package", "portway-tests"])
        .args(["--test", "differential", TEST])
        .env("PORTWAY_BIN", program)
        .env(FLOWS_VARIABLE, flows.to_string())
        .env(KINDS_VARIABLE, "1")
        .env_remove("RUST_BACKTRACE")
        .current_dir(workspace)
        .output()
        .context("cargo does not start")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let packets = said.lines().find_map(|line| {
        let number = line.strip_prefix("difference within ")?;
        number.split(' ').next()?.parse().ok()
    });
    ensure!(
        packets.is_some() || output.status.success(),
        "the test failed without a difference:\n{said}"
    );
    Ok(packets)
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if LEFT_OUT.iter().any(|left_out| *left_out == name) {
            continue;
        }
        let target = to.join(&name);
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else if fs::read(entry.path())? != fs::read(&target).unwrap_or_default() {
            // What is the same is left alone, with its time, and not compiled again.
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}
