//! Standard output, whoever reads it.

use std::{
    fmt::Display,
    io::{self, Write as _},
};

use anyhow::Context as _;

/// Prints text; a reader that has gone away (`| head`) is no error.
pub fn print(text: &str) -> anyhow::Result<()> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(()),
    }
}

/// Prints a line, from a process that goes on also if nobody can read it.
pub fn say(line: impl Display) {
    // `print` has let a reader go; any other trouble with standard output is no reason to stop either.
    let _ = print(&format!("{line}\n"));
}
