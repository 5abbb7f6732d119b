//! Telling conntrack of flows that it is to take over: their packets will take the slow path.
//!
//! A flow that was begun without the kernel's knowledge would be a stranger to it. Its replies would leave
//! from the wrong port, and what its client sends would be picked up in mid-conversation at best. With an
//! entry of its own it goes on as if netfilter had translated it from the start.
//!
//! That goes for flows that have only begun, too: the answer to a question of UDP may take its time.

use std::{collections::HashMap, fmt, net::SocketAddr};

use dataplane_common::{
    flow::{Flow, FlowKey},
    headers::{Be16, IpProtocol},
    state::State,
};
use nix::errno::Errno;

use crate::{
    address::Address,
    conntrack::{Conntrack, Entry, Outcome, Status, TcpState, Tuple},
    dataplane::{Dataplane, FamilyMaps},
    firewall::{Family, look_for_nat},
    flows,
    liveness::Liveness,
};

/// What has become of live flows, as far as both ends have been heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HandedOver {
    /// The kernel knows them, and they go on.
    pub kept: usize,
    /// It would not take them.
    pub refused: usize,
    /// Nobody would translate them: netfilter has no NAT in force for their IP version.
    pub ended: usize,
}

/// As a sentence goes on that says what else has been done; empty where there was no flow.
impl fmt::Display for HandedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flows = |count| if count == 1 { "flow" } else { "flows" };
        if self.kept > 0 {
            let (kept, flows) = (self.kept, flows(self.kept));
            write!(f, "; {kept} live {flows} handed over to netfilter")?;
        }
        if self.refused > 0 {
            let (refused, flows) = (self.refused, flows(self.refused));
            write!(f, "; {refused} live {flows} not taken by conntrack")?;
        }
        if self.ended > 0 {
            let (ended, flows) = (self.ended, flows(self.ended));
            write!(
                f,
                "; {ended} live {flows} ended: there is no NAT to take them over"
            )?;
        }
        Ok(())
    }
}

/// Which flows it is told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tell {
    /// Those that were begun without the kernel's knowledge.
    OfAllBegunHere,
    /// Those that it has let through, and has not seen all packets of. If it does not know one any more,
    /// somebody has made it forget.
    OfNoneThatItForgot,
}

/// Handing over, in one go or several: each tells of what it has not been told yet.
#[derive(Debug, Default)]
pub struct Handover {
    /// Conversations that conntrack was told of, as their clients see them, and what of each.
    told: HashMap<(IpProtocol, Tuple), Status>,
    /// The IP versions that nobody else translates.
    without_nat: Vec<Family>,
    outcome: HandedOver,
}

impl Handover {
    /// For the end of all flows here. Where there is no NAT in force conntrack is told nothing.
    pub fn for_good() -> Self {
        let families = [Family::V4, Family::V6].into_iter();
        Self {
            without_nat: families
                .filter(|family| look_for_nat(*family) == Some(false))
                .collect(),
            ..Self::default()
        }
    }

    /// Tells conntrack of live flows. Where there is no conntrack there is nobody to tell.
    ///
    /// # Errors
    ///
    /// The flows cannot be read, or conntrack cannot be reached.
    pub fn tell(&mut self, dataplane: &Dataplane, tell: Tell) -> anyhow::Result<()> {
        let conntrack = Conntrack::open()?;
        let mut entries = Vec::new();
        for (family, live) in [
            (Family::V4, live_entries(dataplane, &dataplane.v4, tell)?),
            (Family::V6, live_entries(dataplane, &dataplane.v6, tell)?),
        ] {
            let is_news = |entry: &Entry| {
                let conversation = (entry.protocol, entry.original);
                self.told.insert(conversation, entry.status) != Some(entry.status)
            };
            let news: Vec<_> = live.into_iter().filter(is_news).collect();
            if conntrack.is_none() || self.without_nat.contains(&family) {
                self.outcome.ended += news.iter().filter(|entry| is_two_sided(entry)).count();
            } else {
                entries.extend(news);
            }
        }
        let Some(mut conntrack) = conntrack else {
            return Ok(());
        };
        match tell {
            Tell::OfAllBegunHere => {
                // Where the table gets full, a flood's flows are those that find no room.
                entries.sort_by_key(|entry| !is_two_sided(entry));
                self.insert(&mut conntrack, entries)
            }
            Tell::OfNoneThatItForgot => {
                self.outcome.kept += entries.len();
                conntrack.refresh(entries)
            }
        }
    }

    /// What has become of them all.
    pub fn outcome(&self) -> HandedOver {
        self.outcome
    }

    fn insert(&mut self, conntrack: &mut Conntrack, entries: Vec<Entry>) -> anyhow::Result<()> {
        let outcome = &mut self.outcome;
        let (mut known, mut stale) = (Vec::new(), Vec::new());
        conntrack.insert(entries, |entry, result| match result {
            Outcome::Done => outcome.keep(entry),
            Outcome::Unchanged => known.push(*entry),
            // Whoever has only begun may be somebody who claims to be that client.
            Outcome::Elsewhere if is_two_sided(entry) => stale.push(*entry),
            Outcome::Elsewhere => outcome.refuse(entry, Errno::EEXIST),
            Outcome::Refused(errno) => outcome.refuse(entry, errno),
        })?;
        known.iter().for_each(|entry| outcome.keep(entry));
        // It has not seen all of their packets; of what has only begun it may have seen more.
        known.retain(is_two_sided);
        conntrack.refresh(known)?;
        // Earlier conversations of the same client and port, which ended without conntrack's knowledge.
        conntrack.delete(stale.iter().copied(), |_, _| {})?;
        conntrack.insert(stale, |entry, result| match result {
            Outcome::Done | Outcome::Unchanged => outcome.keep(entry),
            Outcome::Elsewhere => outcome.refuse(entry, Errno::EEXIST),
            Outcome::Refused(errno) => outcome.refuse(entry, errno),
        })
    }
}

impl HandedOver {
    fn keep(&mut self, entry: &Entry) {
        self.kept += usize::from(is_two_sided(entry));
    }

    fn refuse(&mut self, entry: &Entry, errno: Errno) {
        tracing::debug!("conntrack does not take {entry:?}: {errno}");
        self.refused += usize::from(is_two_sided(entry));
    }
}

/// Whether both ends of a flow have been heard of.
fn is_two_sided(entry: &Entry) -> bool {
    entry.status.contains(Status::SeenReply | Status::Assured)
}

fn live_entries<A: Address>(
    dataplane: &Dataplane,
    maps: &FamilyMaps<A>,
    tell: Tell,
) -> anyhow::Result<Vec<Entry>> {
    let timeouts = dataplane.read_settings()?.timeouts;
    let mut liveness = Liveness::of(&dataplane.backends, timeouts)?;
    let mut entries = Vec::new();
    flows::visit(maps, dataplane.read_record()?.hash_seed, |key, flow| {
        let Some(entry) = entry(key, flow, timeouts.of(flow.state())) else {
            return Ok(());
        };
        // A flow that the kernel has never let through is none, whatever its client has sent.
        let is_meant = match tell {
            Tell::OfAllBegunHere => flow.is_begun_here(),
            Tell::OfNoneThatItForgot => flow.admitted_in_at != 0 && is_two_sided(&entry),
        };
        if is_meant && !liveness.is_over(flow)? {
            entries.push(entry);
        }
        Ok(())
    })?;
    Ok(entries)
}

/// A flow as conntrack is to know it; none if nothing is to come of it.
fn entry<A: Address>(key: &FlowKey<A>, flow: &Flow<A>, timeout: u32) -> Option<Entry> {
    let at = |address: A, port: Be16| SocketAddr::new(address.to_ip(), port.get());
    let two_sided = Entry::established(
        key.protocol,
        at(key.client, flow.client_port),
        at(flow.host_address, flow.host_port),
        at(key.container, key.container_port),
        at(key.client, key.client_port),
        timeout,
    );
    let opening = |status| Entry {
        status,
        // Which of the SYN and the acknowledgement that are still to come conntrack will see nobody knows. In this
        // state it takes either, in SYN_SENT no acknowledgement.
        tcp_state: two_sided.tcp_state.map(|_| TcpState::SYN_RECV),
        ..two_sided
    };
    match flow.state() {
        State::Established
        | State::FinWait
        | State::CloseWait
        | State::LastAck
        | State::Answered
        | State::Stream => Some(two_sided),
        State::SynRecv => Some(opening(Status::SeenReply)),
        State::SynSent | State::SynSent2 | State::Unanswered => Some(opening(Status::empty())),
        State::PickedUp => Some(Entry {
            status: Status::empty(),
            ..two_sided
        }),
        State::TimeWait | State::Close => None,
    }
}
