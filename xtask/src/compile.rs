//! Calling cargo, and where it leaves what it built.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::machine;

/// The repository's top.
pub fn workspace() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own)
}

/// Cargo, to work on the whole repository wherever the user stands in it.
pub fn cargo() -> Command {
    let mut cargo = Command::new(machine::cargo());
    cargo.current_dir(workspace());
    cargo
}

/// Builds the release binary `portway`.
///
/// # Errors
/// If it does not compile.
pub fn portway() -> Result<()> {
    release(&["--bin", "portway"])
}

/// Builds `portway`, and what the lab is made of: `portway-lab` and its helper.
///
/// # Errors
/// If they do not compile.
pub fn portway_and_lab() -> Result<()> {
    release(&[
        "--bin",
        "portway",
        "--bin",
        "portway-lab",
        "--bin",
        "portway-lab-guest",
    ])
}

/// Builds `portway`, and what measures it: `portway-bench` and the lab's helper.
///
/// # Errors
/// If they do not compile.
pub fn portway_and_bench() -> Result<()> {
    release(&[
        "--bin",
        "portway",
        "--bin",
        "portway-bench",
        "--bin",
        "portway-lab-guest",
    ])
}

/// The packages are always the same: others would have cargo give their dependencies other features,
/// and compile portway once more for `test` after `run`.
fn release(binaries: &[&str]) -> Result<()> {
    let status = cargo()
        .args(["build", "--release"])
        .args([
            "--package",
            "dataplane-user",
            "--package",
            "portway-tests",
            "--package",
            "portway-bench",
        ])
        .args(binaries)
        .status()
        .context("cargo does not start")?;
    if !status.success() {
        bail!("portway did not compile; cargo's messages above say where");
    }
    Ok(())
}

/// A binary that `cargo build --release` made.
///
/// # Errors
/// If this program was moved out of the target directory.
pub fn release_binary(name: &str) -> Result<PathBuf> {
    let binary = target_folder()?.join("release").join(name);
    if !binary.is_file() {
        bail!(
            "{} is not there: start this program with `cargo xtask`",
            binary.display()
        );
    }
    Ok(binary)
}

/// Cargo's target directory. This program is in it, whatever the user has configured.
///
/// # Errors
/// If it was moved out of it.
pub fn target_folder() -> Result<PathBuf> {
    let own = env::current_exe().context("this program cannot find its own file")?;
    own.parent()
        .and_then(Path::parent)
        .map(Path::to_owned)
        .context("this program was moved out of cargo's target directory")
}
