//! Plays stories to both twins, step by step, and notes what every party receives.

use std::{
    collections::HashMap,
    fmt,
    net::IpAddr,
    os::fd::AsFd,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{
    address::{self, Cast, View},
    party::{ALL, End, PARTIES},
    render::{self, Scene, Stamp},
    seen::{Expected, Read, Seen},
    story::{Client, Line, Protocol, Step, Story},
    tap::{Buffer, Tap},
    tcp::Connection,
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

/// What every party has received of a story, in each twin.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    seen: [[Vec<Seen>; PARTIES]; TWINS],
}

impl Outcome {
    /// Whether the twins differ.
    pub fn differs(&self) -> bool {
        self.seen[0] != self.seen[1]
    }
}

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

/// A story while it is played.
#[derive(Debug)]
struct Playing<'a> {
    story: &'a Story,
    cast: Cast,
    connections: Vec<Connection>,
    lines: [Vec<Known>; TWINS],
    outcome: Outcome,
}

/// What is known of a conversation in a twin.
#[derive(Debug, Clone, Default)]
struct Known {
    view: View,
    /// The last packet that reached the client and the container.
    last: [Option<Vec<u8>>; 2],
}

/// The stories of one batch.
#[derive(Debug)]
struct Batch<'a> {
    first: u32,
    stories: Vec<Playing<'a>>,
    by_client: HashMap<IpAddr, usize>,
    /// Arrivals by twin and party, in this round.
    arrived: [[u64; PARTIES]; TWINS],
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
                    if let Some(read) = Read::new(arrival) {
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

impl<'a> Batch<'a> {
    fn new(first: u32, stories: &'a [Story]) -> Self {
        let playing = stories.iter().zip(first..).map(|(story, number)| {
            let known = vec![Known::default(); story.lines.len()];
            Playing {
                story,
                cast: Cast::new(number, story.client),
                connections: vec![Connection::default(); story.lines.len()],
                lines: [known.clone(), known],
                outcome: Outcome::default(),
            }
        });
        let stories: Vec<_> = playing.collect();
        let clients = stories.iter().enumerate().filter_map(|(index, playing)| {
            let is_real = !matches!(playing.story.client, Client::Impostor(_));
            let line = playing.story.lines.first().filter(|_| is_real)?;
            Some((playing.cast.client(line), index))
        });
        Self {
            first,
            by_client: clients.collect(),
            stories,
            arrived: Default::default(),
        }
    }

    /// Notes an arrival, if it belongs to a story of this batch.
    fn note(&mut self, twin: usize, party: usize, tap: &Tap, read: &Read) -> bool {
        let bytes = read.bytes();
        let Some(index) = self.story(read, &bytes) else {
            return false;
        };
        self.arrived[twin][party] += 1;
        let playing = &mut self.stories[index];
        let step = playing.step(read);
        let expected = match step {
            // docker-proxy's own socket.
            _ if party > 0
                && read.quoted.is_none()
                && read.packet.source == IpAddr::from(ALL[party - 1].gateway) =>
            {
                vec![Expected {
                    address: read.packet.source,
                    ports: Vec::new(),
                }]
            }
            Some(step) => playing.expected(read, step),
            None => Vec::new(),
        };
        let seen = read.seen(tap, &expected);
        playing.outcome.seen[twin][party].push(seen);
        if let Some(step) = step
            && read.quoted.is_none()
            && read.packet.has_ports()
        {
            playing.learn(twin, party, step, read, bytes);
        }
        true
    }

    /// The story that a packet belongs to: by its client's address, or by its payload.
    fn story(&self, read: &Read, bytes: &[u8]) -> Option<usize> {
        let quoted = read.quoted.as_ref().map(|(packet, _)| packet);
        let known = [Some(&read.packet), quoted].into_iter().flatten();
        let mut addresses = known.flat_map(|packet| [packet.source, packet.destination]);
        let by_address = addresses.find_map(|address| self.by_client.get(&address).copied());
        by_address.or_else(|| {
            let (packet, start) = match &read.quoted {
                Some((packet, start)) => (packet, *start),
                None => (&read.packet, 0),
            };
            let bytes = bytes.get(start..)?;
            let number = render::story_of(bytes.get(packet.payload(bytes)?..)?)?;
            let index = number.checked_sub(self.first)? as usize;
            (index < self.stories.len()).then_some(index)
        })
    }
}

impl<'a> Playing<'a> {
    /// The step that a packet belongs to, or the packet that it quotes.
    fn step(&self, read: &Read) -> Option<&'a Step> {
        let stamp = match &read.quoted {
            Some((packet, _)) => packet.stamp,
            None => read.packet.stamp,
        };
        let Stamp { step, .. } = Stamp::from_field(stamp)?;
        self.story.steps.get(step)
    }

    /// The ports that both ends have, as far as netfilter keeps them.
    fn expected(&self, read: &Read, step: &Step) -> Vec<Expected> {
        let line = &self.story.lines[step.line];
        let client = self.cast.client(line);
        let packet = read
            .quoted
            .as_ref()
            .map_or(&read.packet, |(quoted, _)| quoted);
        let other = match packet.source == client {
            true => packet.destination,
            false => packet.source,
        };
        vec![
            Expected {
                address: client,
                ports: vec![self.cast.client_port(line)],
            },
            Expected {
                address: other,
                ports: vec![line.host_port, line.port],
            },
        ]
    }

    /// Takes note of how an end of the conversation sees the other.
    fn learn(&mut self, twin: usize, party: usize, step: &Step, read: &Read, bytes: Vec<u8>) {
        let line = &self.story.lines[step.line];
        let known = &mut self.lines[twin][step.line];
        let at = read.packet.header_len;
        let port = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let sender = (read.packet.source, port).into();
        let (receiver, view) = match step.from {
            End::Client => (End::Container, &mut known.view.client),
            End::Container => (End::Client, &mut known.view.container),
        };
        if party != self::party(line, receiver) {
            return;
        }
        // docker-proxy's sockets are none of the client's, and no client knows a container's address.
        let is_known = match receiver {
            End::Client => read.packet.source != address::container_end(line).ip(),
            End::Container => read.packet.source == self.cast.client(line),
        };
        if is_known {
            *view = Some(sender);
        }
        known.last[receiver as usize] = Some(bytes);
    }
}

/// The party at an end of a conversation.
fn party(line: &Line, end: End) -> usize {
    match end {
        End::Client => 0,
        End::Container => 1 + line.container,
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = ["the client"]
            .into_iter()
            .chain(ALL.iter().map(|party| party.name));
        for (party, name) in names.enumerate() {
            let [without, with] = [0, 1].map(|twin| &self.seen[twin][party]);
            if without == with {
                continue;
            }
            for (who, seen) in [("without portway", without), ("with portway", with)] {
                writeln!(f, "{who} {name} gets {} packets", seen.len())?;
                for seen in seen {
                    writeln!(f, "    {seen}")?;
                }
            }
        }
        Ok(())
    }
}
