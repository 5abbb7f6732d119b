//! Pages of docs/ that are made of what tests said.

use std::fs;

use anyhow::{Context as _, Result};

use crate::{
    compile,
    outcome::{FileOutcome, Outcomes, subject},
};

/// What tests came to somewhere, and what that is called: a column of a table.
pub type Column<'a> = (String, &'a Outcomes);

/// Writes a page, and says so.
///
/// # Errors
/// The file system's.
pub fn write(name: &str, text: &str) -> Result<()> {
    let path = compile::workspace().join("docs").join(name);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    println!("xtask: {} written", path.display());
    Ok(())
}

/// The head of a Markdown table. `rule` is what is below each title: `---`, or `---:` over numbers.
pub fn head(what: &str, titles: impl Iterator<Item = String>, rule: &str) -> String {
    let titles: Vec<_> = titles.collect();
    let rules = row("---", titles.iter().map(|_| rule.to_owned()));
    row(what, titles.into_iter()) + &rules
}

/// A row of a Markdown table.
pub fn row(head: &str, cells: impl Iterator<Item = String>) -> String {
    let cells: Vec<_> = cells.collect();
    format!("| {head} | {} |\n", cells.join(" | "))
}

/// The Markdown table of outcomes, with a row for each file of tests that has come to its end somewhere.
///
/// # Errors
/// A file is not there any more.
pub fn table(columns: &[Column<'_>]) -> Result<String> {
    let mut files: Vec<&str> = Vec::new();
    for outcome in columns.iter().flat_map(|(_, of)| &of.files) {
        if outcome.has_ended && !files.contains(&&*outcome.file) {
            files.push(&outcome.file);
        }
    }
    let mut table = head(
        "what",
        columns.iter().map(|(title, _)| title.clone()),
        "---",
    );
    for file in files {
        let cells = columns.iter().map(|(_, of)| {
            let outcome = of.files.iter().find(|outcome| outcome.file == file);
            outcome.map_or_else(|| "not run".to_owned(), FileOutcome::words)
        });
        table.push_str(&row(&format!("`{file}`: {}", subject(file)?), cells));
    }
    Ok(table)
}

/// Items of a Markdown list: the tests of a column that failed, and those that were skipped.
pub fn remarks((title, outcomes): &Column<'_>) -> String {
    let mut items = String::new();
    for FileOutcome { file, tally, .. } in &outcomes.files {
        for failure in &tally.failures {
            items.push_str(&format!("- {title}: `{file}` fails in {failure}\n"));
        }
        for reason in &tally.reasons {
            items.push_str(&format!("- {title}: `{file}` skips {reason}\n"));
        }
    }
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(lines: &[&str]) -> Outcomes {
        let mut outcomes = Outcomes::default();
        outcomes.mark(&["begin", "hooks"]);
        lines.iter().for_each(|line| outcomes.read(line));
        outcomes.mark(&["end", "hooks", "0"]);
        outcomes
    }

    #[test]
    fn a_row_tells_of_each_column() {
        let whole = outcomes(&["test result: ok. 5 passed; 0 failed; 1 ignored;"]);
        let none = Outcomes::default();
        let table = table(&[("6.1".into(), &whole), ("6.2".into(), &none)]).expect("a table");
        let head = "| what | 6.1 | 6.2 |\n| --- | --- | --- |\n| `hooks`: ";
        assert!(table.starts_with(head), "{table}");
        let tail = "goes without a trace. | 5 passed, 1 skipped | not run |\n";
        assert!(table.ends_with(tail), "{table}");
    }

    #[test]
    fn remarks_name_what_failed_and_what_was_skipped() {
        let outcomes = outcomes(&["test clsact ... FAILED", "SKIPPED tcx: TCX: 6.1 has none"]);
        let expected =
            "- 6.1: `hooks` fails in clsact\n- 6.1: `hooks` skips tcx: TCX: 6.1 has none\n";
        assert_eq!(remarks(&("6.1".into(), &outcomes)), expected);
    }
}
