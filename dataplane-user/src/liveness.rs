//! Whether a packet could still join a flow, or whether it is over.

use aya::maps::{Array, MapData, MapError};
use dataplane_common::{flow::Flow, published::Backend, state::Timeouts};
use nix::time::{ClockId, clock_gettime};

/// The clock that the programs stamp flows with, in seconds.
pub fn monotonic_seconds() -> anyhow::Result<u32> {
    Ok(clock_gettime(ClockId::CLOCK_MONOTONIC)?.tv_sec() as u32)
}

/// What it takes to tell, as of one moment.
pub struct Liveness<'a> {
    backends: &'a Array<MapData, Backend>,
    timeouts: Timeouts,
    /// Generations by backend number, as far as somebody has asked.
    generations: Vec<Option<u32>>,
    now: u32,
}

impl<'a> Liveness<'a> {
    /// As of now, with these time-outs.
    pub fn of(backends: &'a Array<MapData, Backend>, timeouts: Timeouts) -> anyhow::Result<Self> {
        Ok(Self {
            backends,
            timeouts,
            generations: vec![None; backends.len() as usize],
            now: monotonic_seconds()?,
        })
    }

    /// The moment, in seconds of the monotonic clock.
    pub fn now(&self) -> u32 {
        self.now
    }

    /// Whether `flow` is over. Each backend is looked at once: where one has changed after that, its
    /// younger flows count as over, too.
    pub fn is_over<A>(&mut self, flow: &Flow<A>) -> Result<bool, MapError> {
        let (timeouts, now) = (self.timeouts, self.now);
        is_over(flow, &timeouts, now, || self.known_generation(flow.backend))
    }

    /// The same with another look at the backend, if it comes to that: true means that no packet can join
    /// the flow any more.
    pub fn is_surely_over<A>(&self, flow: &Flow<A>) -> Result<bool, MapError> {
        is_over(flow, &self.timeouts, self.now, || {
            self.generation(flow.backend)
        })
    }

    /// A backend's generation when it was first asked for.
    fn known_generation(&mut self, backend: u32) -> Result<u32, MapError> {
        let index = backend as usize;
        if let Some(Some(generation)) = self.generations.get(index) {
            return Ok(*generation);
        }
        let generation = self.generation(backend)?;
        if let Some(known) = self.generations.get_mut(index) {
            *known = Some(generation);
        }
        Ok(generation)
    }

    /// A backend's generation at this moment; zero, which no flow has, if there is no such backend.
    fn generation(&self, backend: u32) -> Result<u32, MapError> {
        if backend >= self.backends.len() {
            return Ok(0);
        }
        Ok(self.backends.get(&backend, 0)?.generation)
    }
}

/// Whether a flow has been silent for too long at `now`, in seconds, or its backend has another
/// `generation`, which is only asked for if it matters.
fn is_over<A, E>(
    flow: &Flow<A>,
    timeouts: &Timeouts,
    now: u32,
    generation: impl FnOnce() -> Result<u32, E>,
) -> Result<bool, E> {
    Ok(flow.is_expired(timeouts, now) || flow.generation != generation()?)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use dataplane_common::{headers::Be32, state::State};

    use super::*;

    #[test]
    fn a_flow_ends_with_its_time_or_its_backend() {
        let flow = Flow::<Be32> {
            generation: 7,
            state: State::Stream as u8,
            last_seen: 1000,
            ..bytemuck::Zeroable::zeroed()
        };
        for (now, generation, over) in [
            (1000, 7, false),
            (9999, 7, true), // silent
            (1000, 8, true), // its container has been started anew
            (1000, 0, true), // its container has gone
        ] {
            let verdict = is_over(&flow, &Timeouts::DEFAULT, now, || {
                Ok::<_, Infallible>(generation)
            });
            assert_eq!(verdict, Ok(over), "{now}, {generation}");
        }
    }
}
