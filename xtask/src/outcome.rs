//! What came of files of tests, read off one output of them all: a line `NAME: begin FILE` before each, a line
//! `NAME: end FILE STATUS` after it, and `NAME: done` at the end.

use std::{fs, path::Path, process::ExitCode};

use anyhow::{Context as _, Result};

use crate::{compile, tally::Tally};

/// What a file of tests came to.
#[derive(Debug)]
pub struct FileOutcome {
    /// The file of tests/tests.
    pub file: String,
    /// The sum of its tests.
    pub tally: Tally,
    /// Whether it came to its end.
    pub has_ended: bool,
    /// Whether that was with status 0.
    pub is_good: bool,
}

/// What several came to.
#[derive(Debug, Default)]
pub struct Outcomes {
    /// In the order that they ran in.
    pub files: Vec<FileOutcome>,
    /// Whether all had their turn.
    pub is_complete: bool,
}

impl Outcomes {
    /// Takes in the words of a mark.
    pub fn mark(&mut self, words: &[&str]) {
        match words {
            ["begin", file] => self.files.push(FileOutcome {
                file: (*file).to_owned(),
                tally: Tally::default(),
                has_ended: false,
                is_good: false,
            }),
            ["end", _, status] => {
                if let Some(file) = self.files.last_mut() {
                    file.has_ended = true;
                    file.is_good = *status == "0" && file.tally.failed == 0;
                }
            }
            ["done"] => self.is_complete = true,
            _ => {}
        }
    }

    /// Takes in a line of a test.
    pub fn read(&mut self, line: &str) {
        if let Some(file) = self.files.last_mut() {
            file.tally.read(line);
        }
    }

    /// Whether there is nothing to look after.
    pub fn are_good(&self) -> bool {
        self.is_complete && self.files.iter().all(|file| file.is_good)
    }

    /// The sum of all, without names.
    pub fn sum(&self) -> Tally {
        let sum = |count: fn(&Tally) -> u64| self.files.iter().map(|file| count(&file.tally)).sum();
        Tally {
            passed: sum(|tally| tally.passed),
            failed: sum(|tally| tally.failed),
            skipped: sum(|tally| tally.skipped),
            ..Tally::default()
        }
    }

    /// A line for each test that failed and each file that broke off.
    pub fn failures(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for FileOutcome {
            file,
            tally,
            is_good,
            ..
        } in &self.files
        {
            let failed = tally.failures.iter();
            lines.extend(failed.map(|test| format!("  failed: {file}/{test}")));
            if !is_good && tally.failures.is_empty() {
                lines.push(format!("  broke off: {file}"));
            }
        }
        lines
    }
}

impl FileOutcome {
    /// As a cell of a table.
    pub fn words(&self) -> String {
        if !self.has_ended {
            return "not finished".to_owned();
        }
        let tally = &self.tally;
        let mut words = format!("{} passed", tally.passed);
        for (count, what) in [(tally.failed, "failed"), (tally.skipped, "skipped")] {
            if count > 0 {
                words.push_str(&format!(", {count} {what}"));
            }
        }
        if !self.is_good && tally.failed == 0 {
            words.push_str(", broke off");
        }
        words
    }
}

/// What was said last, as it is kept in a file.
///
/// # Errors
/// There is no such file.
pub fn last_said(path: &Path) -> Result<String> {
    let said =
        fs::read(path).with_context(|| format!("{}: there was no run yet", path.display()))?;
    Ok(String::from_utf8_lossy(&said).into_owned())
}

/// What tests came to, in a word.
pub fn verdict(is_good: bool) -> &'static str {
    if is_good { "good" } else { "NOT GOOD" }
}

/// The same as an exit status.
pub fn exit_code(is_good: bool) -> ExitCode {
    if is_good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// What a file of tests is about: the first lines of its source.
///
/// # Errors
/// There is no such file.
pub fn subject(file: &str) -> Result<String> {
    let folder = compile::workspace().join("tests/tests");
    let source = [
        folder.join(format!("{file}.rs")),
        folder.join(file).join("main.rs"),
    ]
    .iter()
    .find_map(|path| fs::read_to_string(path).ok())
    .with_context(|| format!("there is no test file {file}"))?;
    let subject = source
        .lines()
        .map_while(|line| line.strip_prefix("//!"))
        .take_while(|line| !line.trim().is_empty())
        .collect::<String>();
    Ok(subject.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(output: &str) -> Outcomes {
        let mut outcomes = Outcomes::default();
        for line in output.lines() {
            match line.strip_prefix("x: ") {
                Some(mark) => outcomes.mark(&mark.split(' ').collect::<Vec<_>>()),
                None => outcomes.read(line),
            }
        }
        outcomes
    }

    #[test]
    fn outcomes_go_to_their_files() {
        let outcomes = outcomes(
            "x: begin scenarios\ntest compose ... FAILED\n\
             test result: FAILED. 6 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out\n\
             x: end scenarios 101\nx: begin firewall\n\
             test result: ok. 1 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out\n\
             x: end firewall 0\nx: begin hooks\nx: end hooks 139\nx: done\n",
        );
        assert!(outcomes.is_complete && !outcomes.are_good());
        assert_eq!(outcomes.sum().to_string(), "7 passed, 1 failed, 1 skipped");
        assert_eq!(
            outcomes.failures(),
            ["  failed: scenarios/compose", "  broke off: hooks"]
        );
        let words: Vec<_> = outcomes.files.iter().map(FileOutcome::words).collect();
        let expected = [
            "6 passed, 1 failed",
            "1 passed, 1 skipped",
            "0 passed, broke off",
        ];
        assert_eq!(words, expected);
    }

    #[test]
    fn there_is_no_subject_without_a_file() {
        assert!(subject("nothing").is_err());
    }
}
