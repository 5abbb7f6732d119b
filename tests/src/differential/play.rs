//! Plays stories to both twins, step by step, and notes what every party receives.

use std::{
    os::fd::AsFd,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{
    batch::{Batch, Outcome, Playing, party},
    party::PARTIES,
    render::Scene,
    seen::Read,
    story::{Protocol, Story},
    tap::{Buffer, Tap},
};

/// The twins: without portway and with it.
pub const TWINS: usize = 2;

/// How many stories are played side by side: no more than there are on-link clients.
pub const BATCH: usize = 200;

/// How many steps are sent before arrivals are looked at. The kernel handles a packet that a veth pair
/// passes on while it is sent, and keeps a thousand that it cannot handle at once.
const CHUNK: usize = 32;

/// For how long nothing may arrive before the next round, if the same has arrived in both twins.
const QUIET: Duration = Duration::from_millis(2);

/// The same if not, and at a story's end.
const SILENCE: Duration = Duration::from_millis(60);

/// Plays stories.
#[derive(Debug)]
pub struct Player<'a> {
    twins: [&'a [Tap; PARTIES]; TWINS],
    buffer: Buffer,
    /// The next story's number.
    next: u32,
    /// Packets sent to each twin so far.
    pub packets: u64,
    /// Frames that have arrived, of both twins.
    pub arrivals: u64,
}

impl<'a> Player<'a> {
    /// Plays to the twins with these raw sockets.
    pub fn new(twins: [&'a [Tap; PARTIES]; TWINS]) -> Self {
        Self {
            twins,
            buffer: Buffer::default(),
            next: 1,
            packets: 0,
            arrivals: 0,
        }
    }

    /// Plays stories side by side: first every first step, then every second one.
    ///
    /// # Errors
    /// A frame cannot be sent, or the kernel had no room for one that arrived.
    pub fn play(&mut self, stories: &[Story]) -> Result<Vec<Outcome>> {
        let mut outcomes = Vec::new();
        for batch in stories.chunks(BATCH) {
            outcomes.extend(self.play_batch(batch)?);
        }
        Ok(outcomes)
    }

    fn play_batch(&mut self, stories: &[Story]) -> Result<Vec<Outcome>> {
        let mut batch = Batch::new(self.next, stories);
        self.next += stories.len() as u32;
        let rounds = stories.iter().map(|story| story.steps.len()).max();
        for round in 0..rounds.unwrap_or_default() {
            batch.arrived = Default::default();
            for index in 0..batch.stories.len() {
                self.step(&mut batch.stories[index], round)?;
                if index % CHUNK == 0 {
                    self.drain(&mut batch)?;
                }
            }
            self.settle(&mut batch, QUIET)?;
        }
        self.settle(&mut batch, SILENCE)?;
        for tap in self.twins.iter().flat_map(|taps| taps.iter()) {
            let lost = tap.lost()?;
            if lost > 0 {
                bail!("{lost} frames have been lost by a raw socket: this machine is too busy");
            }
        }
        let stories = batch.stories.into_iter();
        Ok(stories.map(|playing| playing.outcome).collect())
    }

    fn step(&mut self, playing: &mut Playing<'_>, number: usize) -> Result<()> {
        let Some(step) = playing.story.steps.get(number) else {
            return Ok(());
        };
        let line = &playing.story.lines[step.line];
        let segment = match line.protocol {
            Protocol::Tcp => playing.connections[step.line].play(line, step),
            Protocol::Udp => None,
        };
        for (twin, taps) in self.twins.iter().enumerate() {
            let known = &playing.lines[twin][step.line];
            let tap = &taps[party(line, step.from)];
            let scene = Scene {
                cast: playing.cast,
                line,
                step,
                number,
                segment: segment.as_ref(),
                view: &known.view,
                last: known.last[step.from as usize].as_deref(),
                own: tap.own,
                gateway: tap.gateway,
            };
            for frame in scene.frames() {
                tap.send(&frame.bytes, frame.offload)?;
                self.packets += u64::from(twin == 0);
            }
        }
        Ok(())
    }

    /// Reads what has arrived; whether there was anything.
    fn drain(&mut self, batch: &mut Batch<'_>) -> Result<bool> {
        let before = self.arrivals;
        for (twin, taps) in self.twins.iter().enumerate() {
            for (party, tap) in taps.iter().enumerate() {
                while let Some(arrival) = tap.receive(&mut self.buffer)? {
                    let whole = batch.reassemblies[twin][party].take(arrival);
                    if let Some(read) = whole.and_then(Read::new) {
                        self.arrivals += u64::from(batch.note(twin, party, tap, &read));
                    }
                }
            }
        }
        Ok(self.arrivals > before)
    }

    /// Waits until nothing arrives any more: for `quiet` if both twins have received as many packets,
    /// longer if they have not.
    fn settle(&mut self, batch: &mut Batch<'_>, quiet: Duration) -> Result<()> {
        let mut last = Instant::now();
        loop {
            if self.drain(batch)? {
                last = Instant::now();
            }
            let [without, with] = &batch.arrived;
            let enough = if without == with { quiet } else { SILENCE };
            let Some(left) = enough.checked_sub(last.elapsed()) else {
                return Ok(());
            };
            let taps = self.twins.iter().flat_map(|taps| taps.iter());
            let mut polled: Vec<_> = taps
                .map(|tap| PollFd::new(tap.as_fd(), PollFlags::POLLIN))
                .collect();
            let left = left.as_millis().max(1) as u16;
            poll(&mut polled, PollTimeout::from(left))?;
        }
    }
}
