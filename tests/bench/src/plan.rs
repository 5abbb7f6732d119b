//! What a scenario is before it is run: who takes part, what is measured, and how one sample comes about.

use std::fmt::Display;

use anyhow::Result;

use crate::model::{Better, Skipped};

/// How thorough a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effort {
    /// For CI: a minute in all.
    pub quick: bool,
    /// How many samples each contender gives.
    pub rounds: usize,
}

/// A scenario that can be run.
pub struct Plan {
    /// Names it on the command line.
    pub id: &'static str,
    /// What it is about, in a line.
    pub title: &'static str,
    /// Whether a quick run has it.
    pub quick: bool,
    /// What each sample consists of. Each becomes a scenario of the report.
    pub measures: Vec<Measure>,
    /// Sets it up.
    pub prepare: Box<dyn Fn(Effort) -> Result<Stage>>,
}

/// A quantity.
#[derive(Debug, Clone, Copy)]
pub struct Measure {
    /// Tells it from its plan's others: appended to the plan's id. Empty where there is only one.
    pub suffix: &'static str,
    /// Names it to readers.
    pub title: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// Which way it improves.
    pub better: Better,
}

impl Measure {
    /// What it goes by in a report, if it is of the plan of that id.
    pub fn id(&self, plan: &str) -> String {
        format!("{plan}{}", self.suffix)
    }
}

/// A plan that is set up: dropped, it leaves nothing behind.
pub struct Stage {
    /// How it is measured, in a sentence or two.
    pub note: String,
    /// Who takes part.
    pub contenders: Vec<Box<dyn Contender>>,
    /// Who does not.
    pub skipped: Vec<Skipped>,
}

impl Stage {
    /// With nobody in it yet.
    pub fn new(note: impl Into<String>) -> Self {
        Self {
            note: note.into(),
            contenders: Vec::new(),
            skipped: Vec::new(),
        }
    }

    /// Has somebody take part.
    pub fn add(&mut self, contender: impl Contender + 'static) {
        self.contenders.push(Box::new(contender));
    }

    /// Has somebody not take part.
    pub fn skip(&mut self, contender: &str, why: impl Display) {
        self.skipped.push(Skipped::new(contender, why));
    }
}

/// Somebody whose speed is measured.
pub trait Contender {
    /// Its name, the same in all scenarios.
    fn name(&self) -> &str;

    /// Takes one sample: a value for each of the plan's measures, in their order.
    ///
    /// # Errors
    /// The sample would mean nothing. The whole run ends.
    fn sample(&mut self) -> Result<Vec<f64>>;

    /// What a reader of its samples has to know, once all are taken.
    fn note(&self) -> String {
        String::new()
    }
}
