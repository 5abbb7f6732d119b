//! `cargo xtask bench`: measuring portway.

use anyhow::Result;

use crate::{compile, plan::Goal, run, setup};

/// Sets up, builds, and becomes the bench.
///
/// # Errors
/// If that does not come about; otherwise it does not return.
pub fn bench(no_install: bool, arguments: &[String]) -> Result<()> {
    setup::ensure(Goal::Lab, no_install)?;
    compile::portway_and_bench()?;
    let mut bench = run::as_root_with_environment(&compile::release_binary("portway-bench")?);
    bench.env("PORTWAY_BIN", compile::release_binary("portway")?);
    run::become_it(bench, arguments)
}
