//! `cargo xtask soak`: everything that can happen, at random and under traffic, for as long as is wanted.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args;

use crate::{compile, outcome, plan::Goal, setup, test};

/// How long, and in which order.
#[derive(Args, Debug)]
pub struct Length {
    /// For how long everything happens.
    #[arg(long, value_name = "N", default_value_t = 30.0)]
    minutes: f64,
    /// The order in which it happens: that of a run which printed this; another one each time if not given.
    #[arg(long)]
    seed: Option<u64>,
}

/// Sets up, builds, and runs the test that tells how it goes.
///
/// # Errors
/// If set-up fails, something does not compile or cargo does not start.
pub fn soak(no_install: bool, length: &Length) -> Result<ExitCode> {
    setup::ensure(Goal::Lab, no_install)?;
    compile::portway()?;
    let mut cargo = test::cargo_test(&["--package", "portway-tests", "--test", "soak"])?;
    cargo
        .env("PORTWAY_SOAK_MINUTES", length.minutes.to_string())
        // Nobody has asked for it to be skipped.
        .env("CI", "true");
    if let Some(seed) = length.seed {
        cargo.env("PORTWAY_SEED", seed.to_string());
    }
    let status = cargo.status().context("cargo test does not start")?;
    Ok(outcome::exit_code(status.success()))
}
