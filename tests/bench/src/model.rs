//! What a run of the bench has found: plain data, as `target/bench/bench.json` has it.

use std::fmt::Display;

use serde::{Deserialize, Serialize};

/// One run of the bench.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What it ran on: virtual or not, cores, memory.
    pub machine: String,
    /// The kernel's release and version.
    pub kernel: String,
    /// The CPU's model name.
    pub cpu: String,
    /// When it began, in UTC (RFC 3339).
    pub date: String,
    /// The command line that started it.
    pub command: String,
    /// Whether it was a quick one, whose figures are a smoke test's and no more.
    pub quick: bool,
    /// How many times each contender was measured in each scenario.
    pub rounds: usize,
    /// What was measured.
    pub scenarios: Vec<Scenario>,
}

impl Report {
    /// The scenario of that id.
    pub fn scenario(&self, id: &str) -> Option<&Scenario> {
        self.scenarios.iter().find(|scenario| scenario.id == id)
    }
}

/// One quantity, measured for several contenders.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scenario {
    /// Names it on the command line and in file names.
    pub id: String,
    /// Names it to readers.
    pub title: String,
    /// The unit of the samples.
    pub unit: String,
    /// Which samples are the good ones.
    pub better: Better,
    /// How it was measured, in a sentence or two.
    pub note: String,
    /// The samples, by contender.
    pub series: Vec<Series>,
    /// The contenders that did not take part.
    pub skipped: Vec<Skipped>,
}

impl Scenario {
    /// The series of a contender.
    pub fn of(&self, contender: &str) -> Option<&Series> {
        self.series
            .iter()
            .find(|series| series.contender == contender)
    }
}

/// Which way a quantity improves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// More is better: a rate.
    Higher,
    /// Less is better: a duration.
    Lower,
}

/// A contender's samples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// Who was measured.
    pub contender: String,
    /// One sample a round: those of one index were taken one after the other.
    pub samples: Vec<f64>,
    /// What a reader of the samples has to know, loss for one; mostly nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// A contender that could not be measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Who.
    pub contender: String,
    /// What was missing.
    pub why: String,
}

impl Skipped {
    /// If it is because a command has failed, what that said in the end is enough.
    pub fn new(contender: &str, why: impl Display) -> Self {
        let why = format!("{why:#}");
        Self {
            contender: contender.to_owned(),
            why: why.lines().last().unwrap_or_default().to_owned(),
        }
    }
}
