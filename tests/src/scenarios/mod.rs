//! The scenarios: what a user of Docker relies on, played without portway and with it.

use anyhow::{Context, Result};

use crate::{docker::DockerLab, report::Report, stage::Stage};

mod compose;
mod host_and_none;
mod networks;
pub mod published_port;
mod restart;
pub mod taken_port;
mod unload;

/// A scenario that the demo and the tests play.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// Its number, from 1.
    pub number: u8,
    /// What it is called on a command line.
    pub name: &'static str,
    /// What it shows.
    pub title: &'static str,
    play: fn(&mut Stage<'_>) -> Result<()>,
}

/// All of them, by number.
pub const ALL: [Scenario; 7] = [
    published_port::SCENARIO,
    taken_port::SCENARIO,
    networks::SCENARIO,
    host_and_none::SCENARIO,
    compose::SCENARIO,
    restart::SCENARIO,
    unload::SCENARIO,
];

impl Scenario {
    /// Plays it in `lab`, which it leaves without containers.
    ///
    /// # Errors
    /// What was seen is not what must be.
    pub fn play(&self, lab: &DockerLab, report: &mut Report) -> Result<()> {
        report.title(self.number, self.title);
        let result = (self.play)(&mut Stage::new(lab, report));
        result.with_context(|| format!("scenario {} ({})", self.number, self.name))
    }

    /// A test of it: plays it in a lab, and shows the report if it fails.
    ///
    /// # Errors
    /// As [`Scenario::play`].
    pub fn test(&self, lab: &DockerLab) -> Result<()> {
        let mut report = Report::quiet();
        let result = self.play(lab, &mut report);
        result.with_context(|| format!("the report up to the failure:\n{}", report.text()))
    }

    /// The scenario of that name or number.
    pub fn find(name: &str) -> Option<Self> {
        ALL.into_iter()
            .find(|scenario| scenario.name == name || scenario.number.to_string() == name)
    }
}
