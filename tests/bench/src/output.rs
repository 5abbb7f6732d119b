//! Where the results go: files in `target/bench`, and in `docs` if they are to be shown.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use crate::{
    model::Report,
    report::{charts, page},
};

/// A run's samples, in either place.
const SAMPLES: &str = "bench.json";

/// The page in docs.
const DOCS_PAGE: &str = "benchmarks.md";

/// The folder of its charts, beside it.
const DOCS_FOLDER: &str = "benchmarks/";

/// Writes all files of a report to `target/bench` and returns their paths.
///
/// # Errors
/// They cannot be written.
pub fn write(report: &Report) -> Result<Vec<PathBuf>> {
    write_files(&folder()?, files(report, "bench.md", "")?)
}

/// Writes the page in docs from a run's samples and returns the paths: from those in the file `samples`, or
/// from those that the last run has left in `target/bench`.
///
/// # Errors
/// There are none, they are of a quick run, or the files cannot be written.
pub fn write_docs(samples: Option<&Path>) -> Result<Vec<PathBuf>> {
    let path = match samples {
        Some(path) => path.to_owned(),
        None => folder()?.join(SAMPLES),
    };
    let report = read(&path)?;
    ensure!(
        !report.quick,
        "{}: figures of a quick run are no results",
        path.display()
    );
    write_files(&docs(), files(&report, DOCS_PAGE, DOCS_FOLDER)?)
}

/// Names and texts: the page, and in `folder`, which is empty or ends in a slash, the samples and charts.
fn files(report: &Report, page: &str, folder: &str) -> Result<Vec<(String, String)>> {
    let json = serde_json::to_string_pretty(report).context("a report that is no JSON")?;
    let pictures = charts::pictures(report)?;
    let mut files = vec![
        (page.to_owned(), page::page(report, &pictures, folder)),
        (format!("{folder}{SAMPLES}"), json + "\n"),
    ];
    let pictures = pictures.into_iter();
    files.extend(pictures.map(|picture| (format!("{folder}{}", picture.file), picture.svg)));
    Ok(files)
}

fn write_files(folder: &Path, files: Vec<(String, String)>) -> Result<Vec<PathBuf>> {
    let written = files.into_iter().map(|(name, text)| {
        let path = folder.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)
                .with_context(|| format!("cannot create {}", parent.display()))?;
        }
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    });
    written.collect()
}

fn read(path: &Path) -> Result<Report> {
    let text =
        fs::read_to_string(path).with_context(|| format!("no samples in {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is no report", path.display()))
}

/// `target/bench`, beside the folder that this program was built into.
fn folder() -> Result<PathBuf> {
    let own = env::current_exe().context("this program cannot find its own file")?;
    let target = own.parent().and_then(Path::parent);
    Ok(target
        .context("this program was moved out of cargo's target directory")?
        .join("bench"))
}

/// `docs` of the workspace that this program was built from.
fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixed;

    #[test]
    fn a_report_comes_back_from_its_json() -> Result<()> {
        let report = fixed::report();
        let files = files(&report, "", "")?;
        let json = files.iter().find(|(name, _)| name == SAMPLES);
        let (_, json) = json.context("no samples")?;
        assert_eq!(serde_json::from_str::<Report>(json)?, report);
        Ok(())
    }

    /// Nobody has edited the page, and what makes it has not changed since.
    #[test]
    fn docs_show_the_run_whose_samples_they_have() -> Result<()> {
        let samples = docs().join(DOCS_FOLDER).join(SAMPLES);
        if !samples.exists() {
            return Ok(());
        }
        let report = read(&samples)?;
        assert!(!report.quick, "of a quick run");
        for (name, text) in files(&report, DOCS_PAGE, DOCS_FOLDER)? {
            let path = docs().join(name);
            ensure!(
                fs::read_to_string(&path)? == text,
                "{} is not what cargo xtask bench --docs docs/{DOCS_FOLDER}{SAMPLES} writes",
                path.display()
            );
        }
        Ok(())
    }
}
