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
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use clap::Args;

use self::{
    engine::{Column, Engine},
    system::System,
};
use crate::{
    compile, named,
    outcome::{self, Outcomes},
    plan::Goal,
    setup, test,
};

/// The files of tests/tests that run unless others are named.
pub const FILES: [&str; 5] = [
    "scenarios",
    "docker_publications",
    "docker_comes_and_goes",
    "firewall",
    "semantics_table",
];

/// How many times longer than elsewhere everything may take (`wait::here` of portway-tests).
const SLOWNESS: &str = "4";

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
        let engines = named::or_all(&self.engine).into_iter();
        engines.flat_map(Engine::columns).collect()
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
    let files = named::files_or(&FILES, files);
    let mut records = Vec::new();
    for column in columns {
        let system = System::make(column.engine.suite(), &folder)?;
        let mut record = Record::new(column);
        for file in &files {
            record.read(&run(column, &system, file, &folder)?);
        }
        record.outcomes.is_complete = true;
        records.push(record);
    }
    println!();
    for record in &records {
        println!("{}", summary(record));
    }
    let are_good = records.iter().all(|it| it.outcomes.are_good());
    Ok(outcome::exit_code(are_good))
}

/// Runs a file of tests, keeps what it says, and returns it.
fn run(column: Column, system: &System, file: &str, folder: &Path) -> Result<String> {
    let version = system.version_of(column.engine.package())?;
    println!("xtask: {file} with {} {version}", column.name());
    let mut cargo = test::cargo_test(&["--package", "portway-tests", "--test", file])?;
    // There a test that cannot be had would fail; here it is one that the daemon has no part in.
    cargo.env_remove("CI").envs(column.environment());
    cargo.env("PORTWAY_SYSTEM", system.folder());
    // It is not about time: a busy machine gets more of it.
    cargo.env("PORTWAY_SLOWNESS", SLOWNESS);
    let mut said = format!("matrix: version {version}\nmatrix: begin {file}\n");
    let status = test::stream(&mut cargo, |line| said.push_str(line))?;
    let status = status.code().unwrap_or(-1);
    said.push_str(&format!("matrix: end {file} {status}\n"));
    let path = said_by(column, file, folder);
    fs::create_dir_all(path.parent().unwrap_or(folder))
        .and_then(|()| fs::write(&path, &said))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(said)
}

/// Where what a file of tests has said last is kept.
fn said_by(column: Column, file: &str, folder: &Path) -> PathBuf {
    let output = folder.join("output").join(column.name());
    output.join(format!("{file}.txt"))
}

/// What a column's tests have said last.
fn record_of(column: Column, folder: &Path) -> Result<Record> {
    let mut record = Record::new(column);
    for file in FILES {
        record.read(&outcome::last_said(&said_by(column, file, folder))?);
    }
    record.outcomes.is_complete = true;
    Ok(record)
}

impl Record {
    fn new(column: Column) -> Self {
        Self {
            column,
            version: String::new(),
            outcomes: Outcomes::default(),
        }
    }

    /// Takes in what a file of tests has said.
    fn read(&mut self, said: &str) {
        for line in said.lines() {
            let mark = line.strip_prefix("matrix: ");
            let words: Option<Vec<_>> = mark.map(|mark| mark.split_whitespace().collect());
            match words.as_deref() {
                Some(["version", version]) => self.version = (*version).to_owned(),
                Some(words) => self.outcomes.mark(words),
                None => self.outcomes.read(line),
            }
        }
    }
}

/// A line for the end, and more where something is wrong.
fn summary(record: &Record) -> String {
    let Record {
        column,
        version,
        outcomes,
    } = record;
    let verdict = outcome::verdict(outcomes.are_good());
    let name = column.name();
    let mut lines = vec![format!(
        "{name:<24} {version:<10} {verdict}: {}",
        outcomes.sum()
    )];
    lines.extend(outcomes.failures());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

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
                    test result: FAILED. 1 passed; 1 failed; 0 ignored;\nmatrix: end firewall 101\n";
        let mut record = Record::new(Engine::Docker26.columns().next().expect("a column"));
        record.read(said);
        let summary = summary(&record);
        assert!(summary.contains("26.1.5"), "{summary}");
        assert!(
            summary.contains("NOT GOOD: 1 passed, 1 failed, 0 skipped"),
            "{summary}"
        );
        assert!(summary.contains("failed: firewall/later"), "{summary}");
    }
}
