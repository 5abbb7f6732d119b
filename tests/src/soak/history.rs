//! What has been done to the host, and when, which tells what may become of a datagram or a connection.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use super::{
    lanes::{Holder, Lane},
    times::Times,
};

/// How many of the last events are told with a failure.
const LAST_EVENTS: usize = 20;

/// The time before and after a datagram of which the events are told with it.
const AROUND: Duration = Duration::from_secs(5);

/// Whom something is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Party {
    /// All clients of a holder's ports.
    Of(Holder),
    /// A client, whatever it asks for.
    Client(IpAddr),
}

/// All of it. Times are since the start of the run.
pub struct History {
    start: Instant,
    events: Vec<(Duration, String)>,
    /// Who each container is.
    servers: HashMap<u32, Holder>,
    /// When each container has had the ports that are published by hand.
    by_hand: HashMap<u32, Times>,
    /// When the kernel has admitted flows.
    kernel: Times,
    /// When the ports that are published by hand were taken back.
    taken_back: Times,
    disturbed: HashMap<Party, Times>,
    denied: HashMap<Party, Times>,
}

impl History {
    /// Of a run that starts now, when none of these has a container.
    pub fn new(holders: impl IntoIterator<Item = Holder>) -> Self {
        let mut history = Self {
            start: Instant::now(),
            events: Vec::new(),
            servers: HashMap::new(),
            by_hand: HashMap::new(),
            kernel: Times::default(),
            taken_back: Times::default(),
            disturbed: HashMap::new(),
            denied: HashMap::new(),
        };
        for holder in holders {
            history.disturb(Party::Of(holder));
        }
        history
    }

    /// Time since the start.
    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Takes note of an event.
    pub fn note(&mut self, event: String) {
        self.events.push((self.now(), event));
    }

    /// How many there were.
    pub fn events(&self) -> usize {
        self.events.len()
    }

    /// Somebody begins to work on these, whose datagrams and connections may be lost meanwhile.
    pub fn disturb(&mut self, party: Party) {
        let now = self.now();
        self.disturbed.entry(party).or_default().begin(now);
    }

    /// It is done.
    pub fn calm(&mut self, party: Party) {
        let now = self.now();
        self.disturbed.entry(party).or_default().end(now);
    }

    /// From now on nothing of these may come through.
    pub fn deny(&mut self, party: Party) {
        let now = self.now();
        self.denied.entry(party).or_default().begin(now);
    }

    /// Now it may again.
    pub fn allow(&mut self, party: Party) {
        let now = self.now();
        self.denied.entry(party).or_default().end(now);
    }

    /// From now on rules are in force by which flows go to the kernel, with entries of conntrack for them.
    pub fn begin_kernel(&mut self) {
        let now = self.now();
        self.kernel.begin(now);
    }

    /// They are gone.
    pub fn end_kernel(&mut self) {
        let now = self.now();
        self.kernel.end(now);
    }

    /// A container is to come.
    pub fn add_server(&mut self, server: u32, holder: Holder) {
        self.servers.insert(server, holder);
    }

    /// Who a container is.
    pub fn holder(&self, server: u32) -> Option<Holder> {
        self.servers.get(&server).copied()
    }

    /// A container is to have the ports that are published by hand.
    pub fn begin_by_hand(&mut self, server: u32) {
        let now = self.now();
        self.by_hand.entry(server).or_default().begin(now);
    }

    /// They begin to be taken from it.
    pub fn take_back(&mut self) {
        let now = self.now();
        self.taken_back.begin(now);
    }

    /// It has them no more.
    pub fn end_by_hand(&mut self) {
        let now = self.now();
        self.taken_back.end(now);
        for times in self.by_hand.values_mut() {
            times.end(now);
        }
    }

    /// The last events, and those around a datagram that was sent then.
    pub fn last_events(&self, sent: Option<Duration>) -> String {
        let last = self.events.len().saturating_sub(LAST_EVENTS);
        let is_near =
            |at: Duration| sent.is_some_and(|sent| at + AROUND >= sent && at <= sent + AROUND);
        let events = self.events.iter().enumerate();
        let events = events.filter(|(number, (at, _))| *number >= last || is_near(*at));
        let lines = events.map(|(_, (at, event))| format!("{:.3} s: {event}\n", at.as_secs_f64()));
        lines.collect()
    }

    /// Whether a container may have what has come by now; its flow began and it was sent then.
    pub fn may_have(
        &self,
        lane: Lane,
        server: u32,
        [begun, sent]: [Duration; 2],
        now: Duration,
    ) -> bool {
        if lane.holder != Holder::ByHand {
            return self.servers.get(&server) == Some(&lane.holder);
        }
        // Flows that the kernel has been given go on after `unpublish`: they are its own.
        let since = if self.kernel.overlap(begun, now) {
            begun
        } else {
            sent
        };
        let own = self.by_hand.get(&server);
        own.is_some_and(|times| times.overlap(since, now))
    }

    /// Whether a port has gone to somebody else, or to nobody, since then.
    pub fn has_changed(&self, lane: Lane, client: IpAddr, since: Duration) -> bool {
        match lane.holder {
            Holder::ByHand => self.taken_back.overlap(since, self.now()),
            _ => self.is_disturbed(lane, client, since, self.now()),
        }
    }

    /// Whether nothing that this client asks of that port then may come through.
    pub fn is_denied(&self, lane: Lane, client: IpAddr, at: Duration) -> bool {
        overlap(&self.denied, lane, client, at, at)
    }

    /// Whether somebody has worked on what lies between the two at any time from then until then.
    pub fn is_disturbed(
        &self,
        lane: Lane,
        client: IpAddr,
        from: Duration,
        until: Duration,
    ) -> bool {
        overlap(&self.disturbed, lane, client, from, until)
    }
}

/// Whether any time of those who have to do with a client of a port was between the two.
fn overlap(
    times: &HashMap<Party, Times>,
    lane: Lane,
    client: IpAddr,
    from: Duration,
    until: Duration,
) -> bool {
    [Party::Of(lane.holder), Party::Client(client)]
        .iter()
        .filter_map(|party| times.get(party))
        .any(|times| times.overlap(from, until))
}
