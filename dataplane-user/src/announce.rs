//! What `run` prints of what happens.

use std::{fmt, time::SystemTime};

use crate::{
    output::say,
    reconcile::Event,
    rows::{Row, State},
};

/// Prints events. What waits for its container is kept back for a while: most are there a moment later.
#[derive(Default)]
pub struct Announcer {
    untold: Vec<Event>,
}

impl Announcer {
    /// Prints what happened, `since` Docker's event if that is what it came of.
    pub fn tell(&mut self, events: Vec<Event>, since: Option<SystemTime>) {
        for event in events {
            let identity = event.publication().identity();
            self.untold
                .retain(|untold| untold.publication().identity() != identity);
            match event {
                Event::Held(_, State::Pending(_)) => self.untold.push(event),
                event => say(Line {
                    event,
                    event_time: since,
                }),
            }
        }
    }

    /// Prints what has been kept back and is still so.
    pub fn tell_pending(&mut self, rows: &[Row]) {
        for event in self.untold.drain(..) {
            let is_so = rows
                .iter()
                .any(|row| event == Event::Held(row.publication.clone(), row.state));
            if is_so {
                say(Line {
                    event,
                    event_time: None,
                });
            }
        }
    }

    /// Whether something is kept back.
    pub fn has_untold(&self) -> bool {
        !self.untold.is_empty()
    }
}

/// A line about an event.
struct Line {
    event: Event,
    event_time: Option<SystemTime>,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let publication = self.event.publication();
        let sign = match self.event {
            Event::Activated(_) => '+',
            Event::Moved(_) => '~',
            Event::Held(..) => '.',
            Event::Withdrawn(_) => '-',
        };
        write!(f, "{sign} {publication}")?;
        if !publication.name.is_empty() {
            write!(f, " ({})", publication.name)?;
        }
        match &self.event {
            Event::Activated(_) => f.write_str(" active")?,
            Event::Moved(_) => f.write_str(" follows its container to a new place")?,
            Event::Held(_, state) => write!(f, " {}: {}", state.word(), state.reason())?,
            Event::Withdrawn(_) => f.write_str(" gone")?,
        }
        if let Some(elapsed) = self.event_time.and_then(|time| time.elapsed().ok()) {
            write!(f, ", {} ms after Docker's event", elapsed.as_millis())?;
        }
        Ok(())
    }
}
