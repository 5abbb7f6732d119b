//! When something went on.

use std::time::Duration;

/// A time from, and a time until, if it has come, both since the start of the run.
#[derive(Debug)]
struct Span {
    from: Duration,
    until: Option<Duration>,
}

/// Times of something, in order, of which the last one may go on.
#[derive(Debug, Default)]
pub struct Times(Vec<Span>);

impl Times {
    /// It begins, if it does not go on already.
    pub fn begin(&mut self, now: Duration) {
        if self.0.last().is_none_or(|last| last.until.is_some()) {
            self.0.push(Span {
                from: now,
                until: None,
            });
        }
    }

    /// It ends, if it goes on.
    pub fn end(&mut self, now: Duration) {
        if let Some(last) = self.0.last_mut() {
            last.until.get_or_insert(now);
        }
    }

    /// Whether any of it was between the two.
    pub fn overlap(&self, from: Duration, until: Duration) -> bool {
        self.0
            .iter()
            .rev()
            .any(|span| span.from <= until && span.until.is_none_or(|own| own >= from))
    }
}
