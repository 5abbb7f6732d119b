//! What has become of every datagram, and whether it may: each is delivered exactly once to whoever had the port, or
//! dropped by the kernel for a reason that it names, and likewise its answer.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Result, ensure};
use portway_tests_ebpf::Stamp;

use super::{
    history::History,
    lanes::{Holder, Lane, lanes},
    sums::Sums,
};

/// From the begin of a disturbance until this long after its end somebody's datagrams need not come.
const SETTLED: Duration = Duration::from_secs(1);

/// And those that were under way for so long when it began.
const UNDER_WAY: Duration = Duration::from_millis(500);

/// What has not come after this long does not come, unless somebody holds it.
const LATE: Duration = Duration::from_secs(10);

/// How many failures are told.
const TOLD: usize = 10;

/// A client's port that asks for a published one.
#[derive(Debug)]
struct Flow {
    lane: usize,
    client: SocketAddr,
    target: SocketAddr,
    begun: Duration,
    asks: Vec<Ask>,
    /// Those before this one are as they should be.
    judged: usize,
}

/// A datagram, and its answer.
#[derive(Debug, Default, Clone, Copy)]
struct Ask {
    sent: Duration,
    /// How often it has come.
    came: u8,
    /// Why it has not: its place in the ledger's reasons, from 1.
    lost: u16,
    is_answered: bool,
    /// How often its answer has come.
    answers: u8,
    /// Why that has not.
    answer_lost: u16,
}

/// What has become of TCP connections.
#[derive(Debug, Default, Clone, Copy)]
pub struct Connections {
    /// Those that were made, said something and ended in order.
    pub whole: u64,
    /// Those that were not, while somebody worked on their port.
    pub excused: u64,
    /// What has been said and echoed over those that last.
    pub echoes: u64,
    /// The longest time that one of those took.
    pub longest: Duration,
}

/// All that is known of the run.
pub struct Ledger {
    run: u64,
    lanes: Vec<Lane>,
    flows: Vec<Flow>,
    reasons: Vec<String>,
    /// What has been done to the host.
    pub history: History,
    /// Of connections.
    pub connections: Connections,
    /// Drops that could not be told.
    pub untold: u64,
    /// Answers from elsewhere that were under way when their port went to somebody else.
    pub astray: u64,
    failures: Vec<String>,
    /// When the first datagram was sent that something is wrong with.
    offence: Option<Duration>,
}

impl Ledger {
    /// An empty one, of a run with this number.
    pub fn new(run: u64) -> Self {
        let lanes = lanes();
        Self {
            run,
            history: History::new(lanes.iter().map(|lane| lane.holder)),
            lanes,
            flows: Vec::new(),
            reasons: Vec::new(),
            connections: Connections::default(),
            untold: 0,
            astray: 0,
            failures: Vec::new(),
            offence: None,
        }
    }

    /// Time since the start.
    pub fn now(&self) -> Duration {
        self.history.now()
    }

    /// Takes note of something that may not be.
    pub fn fail(&mut self, failure: String) {
        let seconds = self.now().as_secs_f64();
        if self.failures.len() < TOLD {
            self.failures.push(format!("at {seconds:.3} s: {failure}"));
        }
    }

    /// Demands that nothing has been that may not be.
    ///
    /// # Errors
    /// There is something.
    pub fn ensure_no_failure(&self) -> Result<()> {
        ensure!(self.failures.is_empty(), "{}", self.failures.join("\n"));
        Ok(())
    }

    /// The last events, and those around the first datagram that something is wrong with.
    pub fn last_events(&self) -> String {
        self.history.last_events(self.offence)
    }

    /// The published port of this number.
    pub fn lane(&self, lane: usize) -> Lane {
        self.lanes[lane]
    }

    /// A client's port begins to ask for a published one. Returns its number.
    pub fn begin_flow(&mut self, lane: usize, client: SocketAddr, target: SocketAddr) -> u32 {
        let begun = self.now();
        self.flows.push(Flow {
            lane,
            client,
            target,
            begun,
            asks: Vec::new(),
            judged: 0,
        });
        self.flows.len() as u32 - 1
    }

    /// Its next datagram, which is as good as sent.
    pub fn ask(&mut self, flow: u32) -> Stamp {
        let sent = self.now();
        let asks = &mut self.flows[flow as usize].asks;
        let sequence = asks.len() as u32;
        asks.push(Ask {
            sent,
            ..Ask::default()
        });
        self.stamp(flow, sequence)
    }

    /// A datagram or an answer is gone, for this reason.
    pub fn lost(&mut self, stamp: Stamp, reason: &str) {
        let known = self.reasons.iter().position(|known| known == reason);
        let place = known.unwrap_or_else(|| {
            self.reasons.push(reason.to_owned());
            self.reasons.len() - 1
        });
        if let Some(ask) = self.find(stamp) {
            let lost = if stamp.server == Stamp::ASKS {
                &mut ask.lost
            } else {
                &mut ask.answer_lost
            };
            *lost = place as u16 + 1;
        }
    }

    /// A datagram has come to a port of a container.
    pub fn came(&mut self, stamp: Stamp, server: u32, port: u16) {
        let now = self.now();
        let Some(ask) = self.find(stamp) else {
            self.fail(format!("container {server} has got {stamp:?}, of nobody"));
            return;
        };
        ask.came = ask.came.saturating_add(1);
        let (sent, times) = (ask.sent, ask.came);
        let flow = &self.flows[stamp.flow as usize];
        let (lane, client, begun) = (self.lanes[flow.lane], flow.client.ip(), flow.begun);
        if times > 1 {
            self.offend(stamp, &format!("has come {times} times"));
        }
        if lane.port != port || !self.history.may_have(lane, server, [begun, sent], now) {
            let own = self.history.holder(server);
            let what = format!("has come to port {port} of container {server} ({own:?})");
            self.offend(stamp, &what);
        }
        if self.history.is_denied(lane, client, sent) {
            let what = format!("has come to container {server}, and is denied");
            self.offend(stamp, &what);
        }
    }

    /// A container has sent its answer.
    pub fn answered(&mut self, stamp: Stamp) {
        if let Some(ask) = self.find(stamp) {
            ask.is_answered = true;
        }
    }

    /// An answer has come to a client, from there.
    pub fn received(&mut self, stamp: Stamp, from: SocketAddr) {
        let Some(ask) = self.find(stamp) else {
            self.fail(format!(
                "a client has got {stamp:?}, of nobody, from {from}"
            ));
            return;
        };
        ask.answers = ask.answers.saturating_add(1);
        let times = ask.answers;
        let target = self.flows[stamp.flow as usize].target;
        if times > 1 {
            self.offend(stamp, &format!("has been answered {times} times"));
        }
        if from != target {
            if self.has_changed(stamp) {
                self.astray += 1;
            } else {
                self.offend(stamp, &format!("has been answered from {from}"));
            }
        }
    }

    /// A container has greeted a connection, which began then.
    pub fn greeted(&mut self, lane: usize, begun: Duration, server: u32, port: u32) {
        let (lane, now) = (self.lanes[lane], self.now());
        if u32::from(lane.port) != port || !self.history.may_have(lane, server, [begun; 2], now) {
            self.fail(format!(
                "a connection to {} has come to port {port} of container {server}",
                lane.host_port
            ));
        }
    }

    /// What was said over a connection that lasts has come back, after so long.
    pub fn echoed(&mut self, took: Duration) {
        self.connections.echoes += 1;
        self.connections.longest = self.connections.longest.max(took);
    }

    /// A connection that began then has come to nothing: may it?
    pub fn broken(&mut self, lane: usize, client: IpAddr, begun: Duration, what: &str) {
        let (lane, now) = (self.lanes[lane], self.now());
        if self
            .history
            .is_disturbed(lane, client, begun.saturating_sub(SETTLED), now)
        {
            self.connections.excused += 1;
        } else {
            let seconds = begun.as_secs_f64();
            self.fail(format!(
                "a connection of {client} to {}/tcp, begun at {seconds:.3} s: {what}",
                lane.host_port
            ));
        }
    }

    /// Looks at what should have come by now.
    pub fn judge(&mut self) {
        let now = self.now();
        let mut failures = Vec::new();
        for (number, flow) in (0..).zip(&self.flows) {
            for (sequence, ask) in (0..).zip(&flow.asks).skip(flow.judged) {
                if ask.sent + LATE > now {
                    break;
                }
                let has_all_come = ask.came > 0 && ask.answers > 0;
                if !has_all_come && self.is_owed(flow, ask) {
                    failures.push(self.stamp(number, sequence));
                }
            }
        }
        for flow in &mut self.flows {
            let late = flow.asks[flow.judged..].iter();
            flow.judged += late.take_while(|ask| ask.sent + LATE <= now).count();
        }
        for stamp in failures {
            self.offend(
                stamp,
                "and its answer should have come: nobody has worked on that port",
            );
        }
    }

    /// Whether the end of each datagram and answer is known.
    pub fn is_complete(&self) -> bool {
        let sums = self.sums();
        sums.open + sums.answers_open == 0
    }

    /// Demands that nothing is open any more, but for drops that could not be told.
    pub fn close(&mut self) {
        let sums = self.sums();
        if sums.open + sums.answers_open <= self.untold {
            return;
        }
        let mut open = Vec::new();
        for (number, flow) in (0..).zip(&self.flows) {
            let asks = (0..).zip(&flow.asks);
            let mut own = asks.filter(|(_, ask)| ask.is_open() || ask.is_answer_open());
            if let Some((first, _)) = own.next() {
                open.push((self.stamp(number, first), own.count()));
            }
        }
        for (first, others) in open {
            let what = format!("is gone without a trace, and {others} others of its flow");
            self.offend(first, &what);
        }
    }

    /// All of it in numbers.
    pub fn sums(&self) -> Sums {
        let mut sums = Sums::default();
        for ask in self.flows.iter().flat_map(|flow| &flow.asks) {
            sums.sent += 1;
            if ask.came > 0 {
                sums.delivered += 1;
            } else {
                match self.reason(ask.lost) {
                    Some(reason) => *sums.dropped.entry(reason.to_owned()).or_default() += 1,
                    None => sums.open += 1,
                }
            }
            if ask.is_answered || ask.answers > 0 {
                sums.answers += 1;
                if ask.answers > 0 {
                    sums.received += 1;
                } else {
                    let dropped = &mut sums.answers_dropped;
                    match self.reason(ask.answer_lost) {
                        Some(reason) => *dropped.entry(reason.to_owned()).or_default() += 1,
                        None => sums.answers_open += 1,
                    }
                }
            }
        }
        sums
    }

    /// Whether a datagram's port has gone to somebody else, or to nobody, since it was sent. Its answer, if it was under
    /// way then, leaves as the container's own datagram, with what the host's masquerading makes of its source.
    fn has_changed(&self, stamp: Stamp) -> bool {
        let flow = &self.flows[stamp.flow as usize];
        let sent = flow.asks[stamp.sequence as usize].sent;
        let lane = self.lanes[flow.lane];
        self.history.has_changed(lane, flow.client.ip(), sent)
    }

    fn stamp(&self, flow: u32, sequence: u32) -> Stamp {
        Stamp {
            run: self.run,
            flow,
            sequence,
            server: Stamp::ASKS,
            padding: 0,
        }
    }

    fn reason(&self, place: u16) -> Option<&str> {
        let place = usize::from(place).checked_sub(1)?;
        self.reasons.get(place).map(String::as_str)
    }

    fn find(&mut self, stamp: Stamp) -> Option<&mut Ask> {
        let flow = self.flows.get_mut(stamp.flow as usize)?;
        flow.asks.get_mut(stamp.sequence as usize)
    }

    /// Whether nothing excuses a loss.
    fn is_owed(&self, flow: &Flow, ask: &Ask) -> bool {
        let lane = self.lanes[flow.lane];
        let is_disturbed = |since: Duration, until: Duration| {
            let from = since.saturating_sub(SETTLED);
            self.history
                .is_disturbed(lane, flow.client.ip(), from, until + UNDER_WAY)
        };
        // What a client asked when there was nobody, or no rule, leads its flow astray for as long as it goes on:
        // conntrack remembers. And so it is when there was another container.
        let has_begun_well = !is_disturbed(flow.begun, flow.begun);
        let since = match lane.holder {
            Holder::Steady(_) => ask.sent,
            _ => flow.begun,
        };
        has_begun_well && !is_disturbed(since, ask.sent)
    }

    /// Tells all about a datagram that something is wrong with.
    fn offend(&mut self, stamp: Stamp, what: &str) {
        let sent = self.flows[stamp.flow as usize].asks[stamp.sequence as usize].sent;
        self.offence.get_or_insert(sent);
        self.fail(format!("{} {what}", self.describe(stamp)));
    }

    fn describe(&self, stamp: Stamp) -> String {
        let flow = &self.flows[stamp.flow as usize];
        let ask = &flow.asks[stamp.sequence as usize];
        format!(
            "datagram {} of {} -> {} ({:?}; flow begun at {:.3} s, sent at {:.3} s, came {} times, lost for {}; \
             answered: {}, came {} times, lost for {})",
            stamp.sequence,
            flow.client,
            flow.target,
            self.lanes[flow.lane].holder,
            flow.begun.as_secs_f64(),
            ask.sent.as_secs_f64(),
            ask.came,
            self.reason(ask.lost).unwrap_or("nothing"),
            ask.is_answered,
            ask.answers,
            self.reason(ask.answer_lost).unwrap_or("nothing"),
        )
    }
}

impl Ask {
    fn is_open(&self) -> bool {
        self.came == 0 && self.lost == 0
    }

    fn is_answer_open(&self) -> bool {
        self.is_answered && self.answers == 0 && self.answer_lost == 0
    }
}

#[cfg(test)]
mod tests {
    use super::{super::history::Party, *};

    const CLIENT: ([u8; 4], u16) = ([10, 99, 0, 2], 10_000);
    const CONTAINER: u32 = 1;

    /// A datagram to a container that is there, of which nothing is known yet, and the port that it is for.
    fn one() -> (Ledger, Stamp, u16) {
        let mut ledger = Ledger::new(1);
        ledger.history.add_server(CONTAINER, Holder::Steady(0));
        ledger.history.calm(Party::Of(Holder::Steady(0)));
        let lane = ledger
            .lanes
            .iter()
            .position(|lane| lane.holder == Holder::Steady(0));
        let lane = lane.unwrap_or_default();
        let target = ledger.lane(lane).target(0);
        let flow = ledger.begin_flow(lane, CLIENT.into(), target);
        let stamp = ledger.ask(flow);
        let port = ledger.lane(lane).port;
        (ledger, stamp, port)
    }

    #[test]
    fn what_comes_and_is_answered_from_where_it_went_is_in_order() -> Result<()> {
        let (mut ledger, stamp, port) = one();
        ledger.came(stamp, CONTAINER, port);
        ledger.answered(stamp);
        let answer = Stamp {
            server: CONTAINER,
            ..stamp
        };
        assert!(!ledger.is_complete());
        ledger.received(answer, ledger.flows[0].target);
        ledger.close();
        assert!(ledger.is_complete());
        ledger.ensure_no_failure()?;
        ledger.received(answer, CLIENT.into());
        assert!(ledger.ensure_no_failure().is_err(), "from elsewhere, again");
        Ok(())
    }

    #[test]
    fn what_is_dropped_needs_a_reason() -> Result<()> {
        let (mut ledger, stamp, _) = one();
        ledger.lost(stamp, "NO_SOCKET");
        ledger.close();
        ledger.ensure_no_failure()?;
        assert_eq!(ledger.sums().dropped["NO_SOCKET"], 1);
        let (mut ledger, ..) = one();
        ledger.close();
        assert!(ledger.ensure_no_failure().is_err());
        Ok(())
    }

    #[test]
    fn nobody_gets_what_is_anothers_or_twice_or_denied() {
        let fails = |deed: fn(&mut Ledger, Stamp, u16)| {
            let (mut ledger, stamp, port) = one();
            deed(&mut ledger, stamp, port);
            ledger.ensure_no_failure().is_err()
        };
        assert!(!fails(
            |ledger, stamp, port| ledger.came(stamp, CONTAINER, port)
        ));
        assert!(fails(|ledger, stamp, port| ledger.came(
            stamp,
            CONTAINER,
            port + 1
        )));
        assert!(fails(|ledger, stamp, port| {
            ledger.history.add_server(CONTAINER + 1, Holder::Slot(0));
            ledger.came(stamp, CONTAINER + 1, port);
        }));
        assert!(fails(|ledger, stamp, port| {
            ledger.came(stamp, CONTAINER, port);
            ledger.came(stamp, CONTAINER, port);
        }));
        assert!(fails(|ledger, stamp, port| {
            ledger.history.deny(Party::Of(Holder::Steady(0)));
            let denied = ledger.ask(stamp.flow);
            ledger.came(denied, CONTAINER, port);
        }));
    }
}
