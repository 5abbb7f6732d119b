//! What the demo prints and a failed test shows.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal, Write as _},
};

/// Where lines go: to the terminal as they come, or into memory.
#[derive(Debug)]
pub struct Report {
    text: String,
    live: bool,
    colour: bool,
}

/// Columns of the description of a check, before its outcome.
const WIDTH: usize = 50;

impl Report {
    /// Prints each line at once, in colours if standard output is a terminal.
    pub fn live() -> Self {
        Self {
            text: String::new(),
            live: true,
            colour: io::stdout().is_terminal(),
        }
    }

    /// Keeps everything, for [`Report::text`].
    pub fn quiet() -> Self {
        Self {
            text: String::new(),
            live: false,
            colour: false,
        }
    }

    /// Everything so far.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// A scenario begins.
    pub fn title(&mut self, number: u8, title: &str) {
        let title = self.paint("1", &format!("{number}. {title}"));
        self.line(&format!("\n{title}"));
    }

    /// A command is run.
    pub fn command(&mut self, command: &str) {
        let command = self.paint("36", &format!("$ {command}"));
        self.line(&format!("   {command}"));
    }

    /// Something worth knowing.
    pub fn note(&mut self, note: &str) {
        for line in note.lines() {
            self.line(&format!("   {line}"));
        }
    }

    /// Something seen in a pass ("without portway", "with portway").
    pub fn seen(&mut self, pass: &str, what: &str, outcome: &str) {
        let pass = self.paint("2", &format!("{pass:<16}"));
        let outcome = self.paint("32", outcome);
        self.line(&format!("   {pass} {what:<WIDTH$} {outcome}"));
    }

    /// A table or other text that somebody else has laid out.
    pub fn quote(&mut self, text: &str) {
        for line in text.lines() {
            let line = self.paint("2", line);
            self.line(&format!("     {line}"));
        }
    }

    fn line(&mut self, line: &str) {
        // Writing to a String does not fail.
        let _ = writeln!(self.text, "{line}");
        if self.live {
            let mut out = io::stdout();
            // A closed standard output is no reason to leave a lab half torn down.
            let _ = writeln!(out, "{line}").and_then(|()| out.flush());
        }
    }

    fn paint(&self, style: &str, text: &str) -> String {
        if self.colour {
            format!("\x1b[{style}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}
