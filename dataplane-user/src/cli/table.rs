//! Tables for people, JSON for programs.

use anyhow::Context as _;
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

use crate::output::print;

/// Prints a value as JSON.
pub fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    let mut text = serde_json::to_string_pretty(value).context("cannot write JSON")?;
    text.push('\n');
    print(&text)
}

/// Prints rows under headings, without frames, as `docker ps` does. Columns whose heading is in `right`
/// hold numbers.
pub fn print_table(
    headings: &[&str],
    right: &[&str],
    rows: impl IntoIterator<Item = Vec<String>>,
) -> anyhow::Result<()> {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(
            headings
                .iter()
                .map(|heading| cell(heading, right.contains(heading))),
        );
    for row in rows {
        let cells = row
            .iter()
            .zip(headings)
            .map(|(text, heading)| cell(text, right.contains(heading)));
        table.add_row(cells);
    }
    let mut text: String = table
        .lines()
        .map(|line| line.trim_end().to_owned() + "\n")
        .collect();
    // The preset pads every column on the left.
    if text
        .lines()
        .all(|line| line.is_empty() || line.starts_with(' '))
    {
        text = text
            .lines()
            .map(|line| line.get(1..).unwrap_or("").to_owned() + "\n")
            .collect();
    }
    print(&text)
}

/// Seconds as a person says them: `42s`, `3m10s`, `5h02m`, `2d03h`.
pub fn seconds(seconds: u32) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m{:02}s", seconds % 60),
        3600..86_400 => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

fn cell(text: &str, right: bool) -> Cell {
    let alignment = if right {
        CellAlignment::Right
    } else {
        CellAlignment::Left
    };
    Cell::new(text).set_alignment(alignment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_read_well() {
        for (number, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m00s"),
            (3599, "59m59s"),
            (3600, "1h00m"),
            (90_000, "1d01h"),
        ] {
            assert_eq!(seconds(number), text);
        }
    }
}
