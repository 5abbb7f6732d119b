//! `cargo xtask test --matrix`: the tests that need Docker with several versions of it, and with podman.
//!
//! | file | its job |
//! |---|---|
//! | [`engine`] | which daemons, and how they are configured |
//! | [`system`] | the Debians that they run in |
//! | [`page`] | docs/docker-versions.md |
//!
//! All of it is kept in target/matrix. The kernel is this machine's; daemon, client, iptables and nft are those of a
//! Debian in a folder, which the lab's hosts have for their file system (tests/src/system.rs).

mod engine;
mod page;
mod system;

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum as _};

use self::{
    engine::{Column, Engine},
    system::System,
};
use crate::{compile, outcome::Outcomes, plan::Goal, setup, test};

/// The files of tests/tests that run unless others are named.
pub const FILES: [&str; 5] = [
    "scenarios",
    "docker_publications",
    "docker_comes_and_goes",
    "firewall",
    "semantics_table",
];

/// What to run with which daemons.
#[derive(Args, Debug, Default)]
pub struct Choice {
    /// Run the tests that need Docker with several versions of it and with podman; takes Debian, and 3 GB of disk.
    #[arg(long, conflicts_with_all = ["package", "name", "arguments"])]
    pub matrix: bool,
    /// With --matrix: only this daemon (repeatable).
    #[arg(long, value_name = "ENGINE", requires = "matrix")]
    engine: Vec<Engine>,
    /// With --matrix: run nothing, make docs/docker-versions.md of what the last runs have said.
    #[arg(long, requires = "matrix", conflicts_with_all = ["engine", "test"])]
    docs: bool,
}

impl Choice {
    fn columns(&self) -> Vec<Column> {
        let mut engines = match &self.engine[..] {
            [] => Engine::value_variants().to_vec(),
            named => named.to_vec(),
        };
        engines.sort_unstable();
        engines.dedup();
        engines.into_iter().flat_map(Engine::columns).collect()
    }
}

/// What a column's tests have said.
#[derive(Debug)]
struct Record {
    column: Column,
    /// The daemon's version.
    version: String,
    outcomes: Outcomes,
}

/// Sets up, runs the tests with each daemon, and prints a line for each. `files` are those named, if any.
///
/// # Errors
/// Something cannot be fetched, built or started. Tests that fail are no error but a status.
pub fn matrix(no_install: bool, choice: &Choice, files: &[String]) -> Result<ExitCode> {
    let folder = compile::target_folder()?.join("matrix");
    let columns = choice.columns();
    if choice.docs {
        let records: Result<Vec<_>> = columns.iter().map(|it| record_of(*it, &folder)).collect();
        page::write(&records?)?;
        return Ok(ExitCode::SUCCESS);
    }
    setup::ensure(Goal::Lab, no_install)?;
    system::ensure_debootstrap(no_install)?;
    compile::portway()?;
    let files = match files {
        [] => FILES.map(str::to_owned).to_vec(),
        named => named.to_vec(),
    };
    let mut records = Vec::new();
    for column in columns {
        let system = System::make(column.engine.suite(), &folder)?;
        run(column, &system, &files, &folder)?;
        records.push(record_of(column, &folder)?);
    }
    println!();
    for record in &records {
        println!("{}", summary(record));
    }
    Ok(if records.iter().all(|it| it.outcomes.are_good()) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Runs the files one after the other, and keeps what they say.
fn run(column: Column, system: &System, files: &[String], folder: &Path) -> Result<()> {
    let path = said_by(column, folder);
    let mut said =
        File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let version = system.version_of(column.engine.package())?;
    writeln!(said, "matrix: version {version}")?;
    for file in files {
        println!("xtask: {file} with {} {version}", column.name());
        writeln!(said, "matrix: begin {file}")?;
        let mut cargo = test::cargo_test(&["--package", "portway-tests", "--test", file])?;
        // There a test that cannot be had would fail; here it is one that the daemon has no part in.
        cargo.env_remove("CI").envs(column.environment());
        cargo.env("PORTWAY_SYSTEM", system.folder());
        let mut written = Ok(());
        let status = test::stream(&mut cargo, |line| {
            if written.is_ok() {
                written = said.write_all(line.as_bytes());
            }
        })?;
        written.with_context(|| format!("cannot write {}", path.display()))?;
        writeln!(said, "matrix: end {file} {}", status.code().unwrap_or(-1))?;
    }
    writeln!(said, "matrix: done")?;
    Ok(())
}

/// Where what a column's tests have said is kept.
fn said_by(column: Column, folder: &Path) -> PathBuf {
    folder.join(format!("{}.output", column.name()))
}

fn record_of(column: Column, folder: &Path) -> Result<Record> {
    let path = said_by(column, folder);
    let said =
        fs::read(&path).with_context(|| format!("{}: there was no run yet", path.display()))?;
    Ok(Record::of(column, &String::from_utf8_lossy(&said)))
}

impl Record {
    fn of(column: Column, said: &str) -> Self {
        let mut record = Self {
            column,
            version: String::new(),
            outcomes: Outcomes::default(),
        };
        for line in said.lines() {
            let mark = line.strip_prefix("matrix: ");
            let words: Option<Vec<_>> = mark.map(|mark| mark.split_whitespace().collect());
            match words.as_deref() {
                Some(["version", version]) => record.version = (*version).to_owned(),
                Some(words) => record.outcomes.mark(words),
                None => record.outcomes.read(line),
            }
        }
        record
    }
}

/// A line for the end, and more where something is wrong.
fn summary(record: &Record) -> String {
    let Record {
        column,
        version,
        outcomes,
    } = record;
    let good = if outcomes.are_good() {
        "good"
    } else {
        "NOT GOOD"
    };
    let name = column.name();
    let mut lines = vec![format!(
        "{name:<24} {version:<10} {good}: {}",
        outcomes.sum()
    )];
    lines.extend(outcomes.failures());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_daemons_unless_some_are_named() {
        let all = Choice::default().columns();
        let engines = Engine::value_variants().iter().copied();
        assert_eq!(all, engines.flat_map(Engine::columns).collect::<Vec<_>>());
        let one = Choice {
            engine: vec![Engine::Docker26, Engine::Docker26],
            ..Choice::default()
        };
        assert_eq!(
            one.columns(),
            Engine::Docker26.columns().collect::<Vec<_>>()
        );
    }

    #[test]
    fn what_was_said_is_understood() {
        let said = "matrix: version 26.1.5\nmatrix: begin firewall\ntest later ... FAILED\n\
                    test result: FAILED. 1 passed; 1 failed; 0 ignored;\nmatrix: end firewall 101\n\
                    matrix: done\n";
        let column = Engine::Docker26.columns().next().expect("a column");
        let summary = summary(&Record::of(column, said));
        assert!(summary.contains("26.1.5"), "{summary}");
        assert!(
            summary.contains("NOT GOOD: 1 passed, 1 failed, 0 skipped"),
            "{summary}"
        );
        assert!(summary.contains("failed: firewall/later"), "{summary}");
    }
}
