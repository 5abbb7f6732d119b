//! Where the results go: files in `target/bench`.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::model::Report;

/// Writes all files of a report and returns their paths.
///
/// # Errors
/// They cannot be written.
pub fn write(report: &Report) -> Result<Vec<PathBuf>> {
    let folder = folder()?;
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let json = folder.join("bench.json");
    let text = serde_json::to_string_pretty(report).context("a report that is no JSON")?;
    fs::write(&json, text).with_context(|| format!("cannot write {}", json.display()))?;
    Ok(vec![json])
}

/// `target/bench`, beside the folder that this program was built into.
fn folder() -> Result<PathBuf> {
    let own = env::current_exe().context("this program cannot find its own file")?;
    let target = own.parent().and_then(Path::parent);
    Ok(target
        .context("this program was moved out of cargo's target directory")?
        .join("bench"))
}
