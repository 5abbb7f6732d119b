//! `cargo xtask test`: formatting, lints, every test, and their sum.

use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    process::{Command, ExitCode, ExitStatus, Stdio},
};

use anyhow::{Context as _, Result};
use clap::Args;

use crate::{
    compile, machine,
    machine::{CHECKS, DENY},
    matrix, outcome,
    plan::Goal,
    setup,
    tally::Tally,
    toolchain::{find_program, output},
};

/// Which tests, and how.
#[derive(Args, Debug, Default)]
pub struct Selection {
    /// Test only this package (repeatable).
    #[arg(long, short, value_name = "PACKAGE")]
    package: Vec<String>,
    /// Run only this file of integration tests (repeatable).
    #[arg(long, value_name = "FILE")]
    test: Vec<String>,
    /// Run only tests with this in their name.
    name: Option<String>,
    /// Passed on to the test programs.
    #[arg(last = true, value_name = "ARGS")]
    arguments: Vec<String>,
    #[command(flatten)]
    matrix: matrix::Choice,
}

impl Selection {
    /// The same to `cargo test`.
    pub fn cargo_arguments(&self) -> Vec<&str> {
        let mut arguments = Vec::new();
        for package in &self.package {
            arguments.extend(["--package", package]);
        }
        if self.package.is_empty() {
            arguments.push("--workspace");
        }
        for test in &self.test {
            arguments.extend(["--test", test]);
        }
        arguments.extend(self.name.as_deref());
        if !self.arguments.is_empty() {
            arguments.push("--");
            arguments.extend(self.arguments.iter().map(String::as_str));
        }
        arguments
    }
}

/// Sets up, checks, builds, tests; the last line printed is the sum.
///
/// # Errors
/// If set-up fails or cargo does not start.
pub fn test(no_install: bool, selection: &Selection) -> Result<ExitCode> {
    if selection.matrix.matrix {
        return matrix::matrix(no_install, &selection.matrix, &selection.test);
    }
    setup::ensure(Goal::Test, no_install)?;
    let mut tally = Tally::default();
    for check in CHECKS {
        run_check(check, &mut tally)?;
    }
    match compile::portway() {
        Ok(()) => run_tests(selection, &mut tally)?,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            tally.fail("building portway");
        }
    }
    sum_up(&tally);
    Ok(outcome::exit_code(tally.failed == 0))
}

/// Checks that find nothing are no tests and are not counted; others are, lest the sum hide them.
fn run_check(check: &str, tally: &mut Tally) -> Result<()> {
    let arguments: &[&str] = match check {
        "fmt" => &["--all", "--check"],
        // Crates that are not here yet are fetched; --offline, and `cargo fetch` before, does without.
        DENY => &["check", "bans", "licenses", "sources"],
        _ => &["--workspace", "--all-targets", "--", "-D", "warnings"],
    };
    let name = format!("cargo {check}");
    if output(compile::cargo().args([check, "--version"])).is_none() {
        tally.skip(&name, "this toolchain does not have it");
        return Ok(());
    }
    println!("xtask: {name} {}", arguments.join(" "));
    let status = compile::cargo()
        .arg(check)
        .args(arguments)
        .status()
        .with_context(|| format!("{name} does not start"))?;
    if !status.success() {
        tally.fail(&name);
    }
    if check == DENY {
        check_advisories(tally)?;
    }
    Ok(())
}

/// The database of advisories is on GitHub, which not every machine can reach.
fn check_advisories(tally: &mut Tally) -> Result<()> {
    let name = "cargo deny check advisories";
    let deny = |arguments: &[&str]| {
        let mut cargo = compile::cargo();
        cargo.arg(DENY).args(arguments);
        cargo
    };
    if output(&mut deny(&["fetch", "db"])).is_none() {
        tally.skip(name, "the database of advisories cannot be fetched");
        return Ok(());
    }
    println!("xtask: {name}");
    let status = deny(&["check", "advisories"])
        .status()
        .with_context(|| format!("{name} does not start"))?;
    if !status.success() {
        tally.fail(name);
    }
    Ok(())
}

fn run_tests(selection: &Selection, tally: &mut Tally) -> Result<()> {
    let mut cargo = cargo_test(&["--no-fail-fast"])?;
    cargo.args(selection.cargo_arguments());
    let failed_before = tally.failed;
    let status = stream(&mut cargo, |line| tally.read(line))?;
    // A test program that crashes leaves no summary; neither does one that does not compile.
    if !status.success() && tally.failed == failed_before {
        tally.fail("cargo test");
    }
    Ok(())
}

/// `cargo test ARGUMENTS` of what [`compile::portway`] has built, as root.
///
/// # Errors
/// It has not been built.
pub fn cargo_test(arguments: &[&str]) -> Result<Command> {
    let mut cargo = compile::cargo();
    cargo.arg("test").args(arguments);
    cargo.env("PORTWAY_BIN", compile::release_binary("portway")?);
    if !machine::is_root() {
        run_as_root(&mut cargo);
    }
    Ok(cargo)
}

/// Most tests need root. If sudo asks nothing, cargo starts the test programs through it; if not,
/// they say themselves what they have to skip.
fn run_as_root(cargo: &mut Command) {
    let (may, why_not) = if find_program("sudo").is_none() {
        (false, "there is no sudo")
    } else {
        let asks_nothing = output(Command::new("sudo").args(["-n", "true"])).is_some();
        (asks_nothing, "sudo asks for a password")
    };
    let host = output(Command::new("rustc").arg("-vV")).and_then(|about| {
        about
            .lines()
            .find_map(|line| line.strip_prefix("host: ").map(str::to_owned))
    });
    match host.filter(|_| may) {
        Some(host) => {
            let variable = format!(
                "CARGO_TARGET_{}_RUNNER",
                host.to_uppercase().replace(['-', '.'], "_")
            );
            cargo.env(variable, "sudo -n -E");
        }
        None => eprintln!("xtask: not root, and {why_not}: tests that need root are skipped"),
    }
}

/// Passes the output on as it comes, `told` as well, and returns how the command ended. Whole lines only: cargo's own
/// messages go to the same terminal by another way, and must not fall in the middle.
///
/// # Errors
/// It does not start, or standard output is closed.
pub fn stream(command: &mut Command, mut told: impl FnMut(&str)) -> Result<ExitStatus> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .context("cargo test does not start")?;
    let stdout = child.stdout.take().context("cargo test has no output")?;
    let mut stdout = BufReader::new(stdout);
    let mut line = Vec::new();
    while stdout
        .read_until(b'\n', &mut line)
        .context("the output of cargo test cannot be read")?
        > 0
    {
        told(&String::from_utf8_lossy(&line));
        io::stdout()
            .write_all(&line)
            .context("standard output is closed")?;
        line.clear();
    }
    child.wait().context("cargo test cannot be waited for")
}

fn sum_up(tally: &Tally) {
    println!();
    for reason in &tally.reasons {
        println!("skipped: {reason}");
    }
    for failure in &tally.failures {
        println!("failed: {failure}");
    }
    println!("{tally}");
}
