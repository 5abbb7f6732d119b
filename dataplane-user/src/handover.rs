//! Telling conntrack of flows that it is to take over: their packets will take the slow path.
//!
//! A flow that was begun without the kernel's knowledge would be a stranger to it. Its replies would leave
//! from the wrong port, and what its client sends would be picked up in mid-conversation at best. With an
//! entry of its own it goes on as if netfilter had translated it from the start.

use std::{hash::Hash, net::SocketAddr};

use aya::Pod;
use dataplane_common::{
    bucket::Slot,
    flow::{Flow, FlowKey, OuterTuple},
    headers::Be16,
    published::BoundPort,
    state::State,
};

use crate::{
    address::Address,
    conntrack::{Conntrack, Entry, Outcome},
    dataplane::{Dataplane, FamilyMaps},
    flows,
    liveness::Liveness,
};

/// What has become of live flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HandedOver {
    /// Conntrack knows them now.
    pub told: usize,
    /// It knew them.
    pub known: usize,
    /// It would not take them.
    pub refused: usize,
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

/// Tells conntrack of live flows that both ends have been heard of. Where there is no conntrack there is
/// nobody to tell.
///
/// # Errors
///
/// The flows cannot be read, or conntrack cannot be reached.
pub fn hand_over(dataplane: &Dataplane, tell: Tell) -> anyhow::Result<HandedOver> {
    let Some(mut conntrack) = Conntrack::open()? else {
        return Ok(HandedOver::default());
    };
    let mut entries = live_entries(dataplane, &dataplane.v4, tell)?;
    entries.extend(live_entries(dataplane, &dataplane.v6, tell)?);
    let mut outcome = HandedOver::default();
    if tell == Tell::OfNoneThatItForgot {
        outcome.known = entries.len();
        conntrack.refresh(entries)?;
        return Ok(outcome);
    }
    let mut known = Vec::new();
    conntrack.insert(entries, |entry, result| match result {
        Outcome::Done => outcome.told += 1,
        Outcome::Unchanged => known.push(*entry),
        Outcome::Refused(errno) => {
            tracing::debug!("conntrack does not take {entry:?}: {errno}");
            outcome.refused += 1;
        }
    })?;
    outcome.known = known.len();
    // It has not seen all of their packets.
    conntrack.refresh(known)?;
    Ok(outcome)
}

fn live_entries<A>(
    dataplane: &Dataplane,
    maps: &FamilyMaps<A>,
    tell: Tell,
) -> anyhow::Result<Vec<Entry>>
where
    A: Address,
    BoundPort<A>: Pod,
    Slot<A>: Pod,
    FlowKey<A>: Pod + Eq + Hash,
    Flow<A>: Pod,
    OuterTuple<A>: Pod,
{
    let timeouts = dataplane.read_settings()?.timeouts;
    let mut liveness = Liveness::of(&dataplane.backends, timeouts)?;
    let mut entries = Vec::new();
    flows::visit(maps, |key, flow| {
        let state = flow.state();
        let is_two_sided = matches!(
            state,
            State::Established
                | State::FinWait
                | State::CloseWait
                | State::LastAck
                | State::Answered
                | State::Stream
        );
        // A flow that the kernel has never let through is none, whatever its client has sent.
        let is_meant = match tell {
            Tell::OfAllBegunHere => flow.is_begun_here(),
            Tell::OfNoneThatItForgot => flow.admitted_in_at != 0,
        };
        if is_two_sided && is_meant && !liveness.is_over(flow)? {
            entries.push(entry(key, flow, timeouts.of(state)));
        }
        Ok(())
    })?;
    Ok(entries)
}

fn entry<A: Address>(key: &FlowKey<A>, flow: &Flow<A>, timeout: u32) -> Entry {
    let at = |address: A, port: Be16| SocketAddr::new(address.to_ip(), port.get());
    Entry::established(
        key.protocol,
        at(key.client, flow.client_port),
        at(flow.host_address, flow.host_port),
        at(key.container, key.container_port),
        at(key.client, key.client_port),
        timeout,
    )
}
