//! What has become of all datagrams, in numbers.

use std::{collections::BTreeMap, fmt};

/// Sums of all datagrams and answers.
#[derive(Debug, Default, Clone)]
pub struct Sums {
    /// Sent by clients.
    pub sent: u64,
    /// Of these, delivered to a container.
    pub delivered: u64,
    /// Dropped, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Neither, so far.
    pub open: u64,
    /// Answers that containers have sent.
    pub answers: u64,
    /// Of these, those that have come to their client.
    pub received: u64,
    /// Dropped, by reason.
    pub answers_dropped: BTreeMap<String, u64>,
    /// Neither, so far.
    pub answers_open: u64,
}

impl fmt::Display for Sums {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dropped = |reasons: &BTreeMap<String, u64>| -> String {
            let reasons = reasons
                .iter()
                .map(|(reason, count)| format!(" {reason} {count}"));
            reasons.collect()
        };
        write!(
            f,
            "{} sent = {} delivered + dropped:{} + {} open; {} answers = {} received + dropped:{} + {} open",
            self.sent,
            self.delivered,
            dropped(&self.dropped),
            self.open,
            self.answers,
            self.received,
            dropped(&self.answers_dropped),
            self.answers_open
        )
    }
}
