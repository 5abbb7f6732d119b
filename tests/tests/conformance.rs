//! docs/conformance.md names tests that exist, and admits what fails.

use std::{fs, path::Path, process::ExitCode};

use anyhow::{Context, Result, ensure};
use libtest_mimic::{Arguments, Trial};

/// The rows of semantics that the page has to have: Docker's table from 1 to 21.
const ROWS: u8 = 21;

fn main() -> ExitCode {
    let trials = vec![
        Trial::test("every_test_that_the_page_names_exists", || {
            Ok(named_tests()?)
        }),
        Trial::test("every_row_says_whether_it_passes", || Ok(rows()?)),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn page() -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/conformance.md");
    fs::read_to_string(&path).with_context(|| format!("no {}", path.display()))
}

/// Tests are named `FILE::TEST`, those in the crates `CRATE::FILE::TEST`.
fn named_tests() -> Result<()> {
    let page = page()?;
    let names: Vec<&str> = page
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|code| code.contains("::"))
        .collect();
    ensure!(names.len() > 40, "{} tests are named, no more", names.len());
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for name in names {
        let (file, patterns) = match *name.split("::").collect::<Vec<_>>() {
            [file, test] => {
                let alone = format!("tests/tests/{file}.rs");
                let in_folder = format!("tests/tests/{file}/main.rs");
                let file = if root.join(&alone).exists() {
                    alone
                } else {
                    in_folder
                };
                (file, [format!("\"{test}\""), String::new()])
            }
            [package, file, test] => (
                format!("{package}/src/{}.rs", file.replace('.', "/")),
                [format!("fn {test}("), format!("fn {test}<")],
            ),
            _ => anyhow::bail!("{name}: neither FILE::TEST nor CRATE::FILE::TEST"),
        };
        let text =
            fs::read_to_string(root.join(&file)).with_context(|| format!("{name}: no {file}"))?;
        let mut patterns = patterns.iter().filter(|pattern| !pattern.is_empty());
        ensure!(
            patterns.any(|pattern| text.contains(pattern)),
            "{name}: no such test in {file}"
        );
    }
    Ok(())
}

fn rows() -> Result<()> {
    let page = page()?;
    let mut numbers = Vec::new();
    for line in page.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let Some((result, first)) = cells.last().zip(cells.first()) else {
            continue;
        };
        if first.starts_with('-') || *result == "result" {
            continue;
        }
        let says = ["passes", "fails:", "differs:"]
            .iter()
            .any(|word| result.starts_with(word));
        ensure!(says, "{line}: does not say whether it passes");
        let is_shown = line.contains("::");
        ensure!(
            is_shown || !result.starts_with("passes"),
            "{line}: no test shows it"
        );
        numbers.extend(first.parse::<u8>());
    }
    let expected: Vec<u8> = (1..=ROWS).collect();
    ensure!(numbers == expected, "rows {numbers:?}");
    Ok(())
}
