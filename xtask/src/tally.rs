//! The sum of many test programs' summaries, read off their output.

use std::fmt;

/// What came of the tests so far.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Tests that passed.
    pub passed: u64,
    /// Tests and checks that failed.
    pub failed: u64,
    /// Tests and checks that this machine cannot run.
    pub skipped: u64,
    /// Their names and reasons, as the tests gave them.
    pub reasons: Vec<String>,
    /// The names of the tests that failed.
    pub failures: Vec<String>,
}

impl Tally {
    /// A check or test program that could not run.
    pub fn skip(&mut self, name: &str, reason: &str) {
        println!("SKIPPED {name}: {reason}");
        self.skipped += 1;
        self.reasons.push(format!("{name}: {reason}"));
    }

    /// A check that found something, or a test program that broke off before its summary.
    pub fn fail(&mut self, name: &str) {
        self.failed += 1;
        self.failures.push(name.to_owned());
    }

    /// Takes in a line of output.
    pub fn read(&mut self, line: &str) {
        let line = line.trim_end();
        if let Some(summary) = line.strip_prefix("test result: ") {
            self.passed += count(summary, "passed");
            self.failed += count(summary, "failed");
            self.skipped += count(summary, "ignored");
        } else if let Some((_, reason)) = line.split_once("SKIPPED ") {
            // Tests run side by side: it may stand behind another one's name.
            self.reasons.push(reason.to_owned());
        } else if let Some(name) = failed_test(line) {
            self.failures.push(name.to_owned());
        }
    }
}

/// `3` from `ok. 3 passed; 0 failed; ...`
fn count(summary: &str, what: &str) -> u64 {
    summary
        .split([';', '.'])
        .find_map(|part| part.trim().strip_suffix(what)?.trim_end().parse().ok())
        .unwrap_or_default()
}

/// `a::name` from `test a::name ... FAILED`
fn failed_test(line: &str) -> Option<&str> {
    let (name, outcome) = line.strip_prefix("test ")?.split_once(" ... ")?;
    outcome
        .trim_end()
        .ends_with("FAILED")
        .then(|| name.trim_end())
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
running 3 tests
test restart ... ok
test compose ... ignored
test lab::echo ... FAILED
SKIPPED compose: no Docker on this machine
test restart ... SKIPPED unload: not root

test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s

test result: ok. 40 passed; 0 failed; 0 ignored; 0 measured; 2 filtered out; finished in 1.00s
";

    fn read(output: &str) -> Tally {
        let mut tally = Tally::default();
        output.lines().for_each(|line| tally.read(line));
        tally
    }

    #[test]
    fn summaries_add_up() {
        let tally = read(OUTPUT);
        assert_eq!(tally.to_string(), "41 passed, 1 failed, 1 skipped");
        assert_eq!(
            tally.reasons,
            ["compose: no Docker on this machine", "unload: not root"]
        );
        assert_eq!(tally.failures, ["lab::echo"]);
    }

    #[test]
    fn other_lines_count_for_nothing() {
        assert_eq!(
            read("the test result: ok. 5 passed\ntest result: 7\n"),
            Tally::default()
        );
    }
}
