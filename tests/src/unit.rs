//! The systemd unit that portway comes with.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use rustix::thread::CapabilitySet;

/// The unit's name.
pub const NAME: &str = "portway.service";

/// Where it expects the program.
pub const PROGRAM: &str = "/usr/local/bin/portway";

/// The capabilities that it leaves the service.
///
/// # Errors
/// There is one that nobody knows.
pub fn capabilities() -> Result<CapabilitySet> {
    let text = text()?;
    let names = text
        .lines()
        .find_map(|line| line.strip_prefix("CapabilityBoundingSet="))
        .context("the unit bounds no capabilities")?;
    names
        .split_whitespace()
        .map(|name| {
            name.strip_prefix("CAP_")
                .and_then(CapabilitySet::from_name)
                .with_context(|| format!("no capability: {name}"))
        })
        .collect()
}

/// Its text.
///
/// # Errors
/// It cannot be read.
pub fn text() -> Result<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../packaging")
        .join(NAME);
    fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))
}
