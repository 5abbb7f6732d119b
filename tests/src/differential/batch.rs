//! Stories while they are played side by side: what arrives is noted for the story that it belongs to.

use std::{collections::HashMap, fmt, net::IpAddr};

use super::{
    address::{Cast, View},
    party::{ALL, End, PARTIES},
    play::TWINS,
    reassembly::Reassembly,
    render::{self, Stamp},
    seen::{Expected, Read, Seen},
    step::Step,
    story::{Client, Line, Story},
    tap::Tap,
    tcp::Connection,
};

/// What every party has received of a story, in each twin.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// By twin and party, in order, but for what docker-proxy has relayed. That comes first: when a process
    /// gets to send is no difference.
    seen: [[Vec<Seen>; PARTIES]; TWINS],
    /// How many of them docker-proxy has relayed.
    relayed: [[usize; PARTIES]; TWINS],
}

impl Outcome {
    fn note(&mut self, twin: usize, party: usize, seen: Seen, is_relayed: bool) {
        let all = &mut self.seen[twin][party];
        if is_relayed {
            let relayed = &mut self.relayed[twin][party];
            all.insert(*relayed, seen);
            *relayed += 1;
        } else {
            all.push(seen);
        }
    }

    /// Whether the twins differ.
    pub fn differs(&self) -> bool {
        self.seen[0] != self.seen[1]
    }

    /// Whether ICMP errors are all in which the twins differ.
    pub fn differs_in_errors_alone(&self) -> bool {
        let others = |seen: &[Vec<Seen>; PARTIES]| {
            seen.each_ref().map(|seen| {
                let others = seen.iter().filter(|seen| !seen.is_error());
                others.cloned().collect::<Vec<_>>()
            })
        };
        others(&self.seen[0]) == others(&self.seen[1])
    }
}

/// A story while it is played.
#[derive(Debug)]
pub struct Playing<'a> {
    /// The story.
    pub story: &'a Story,
    /// Its addresses.
    pub cast: Cast,
    /// Its TCP connections, by conversation.
    pub connections: Vec<Connection>,
    /// What is known of each conversation.
    pub lines: [Vec<Known>; TWINS],
    /// What has been received.
    pub outcome: Outcome,
}

/// What is known of a conversation in a twin.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// What the ends have seen of each other.
    pub view: View,
    /// The last packet that reached the client and the container.
    pub last: [Option<Vec<u8>>; 2],
}

/// The stories of one batch.
#[derive(Debug)]
pub struct Batch<'a> {
    first: u32,
    /// The stories.
    pub stories: Vec<Playing<'a>>,
    by_client: HashMap<IpAddr, usize>,
    /// Fragments on their way, by twin and party.
    pub reassemblies: [[Reassembly; PARTIES]; TWINS],
    /// Arrivals by twin and party, in this round.
    pub arrived: [[u64; PARTIES]; TWINS],
}

impl<'a> Batch<'a> {
    /// Stories that are numbered from `first` on.
    pub fn new(first: u32, stories: &'a [Story]) -> Self {
        let playing = stories.iter().zip(first..).map(|(story, number)| {
            let known = vec![Known::default(); story.lines.len()];
            Playing {
                story,
                cast: Cast::new(number, story),
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
            reassemblies: Default::default(),
            arrived: Default::default(),
        }
    }

    /// Notes an arrival, if it belongs to a story of this batch.
    pub fn note(&mut self, twin: usize, party: usize, tap: &Tap, read: &Read) -> bool {
        let bytes = read.bytes();
        let Some(index) = self.story(read, &bytes) else {
            return false;
        };
        self.arrived[twin][party] += 1;
        let playing = &mut self.stories[index];
        let step = playing.step(read);
        // From docker-proxy's own socket.
        let is_relayed =
            party > 0 && read.quoted.is_none() && ALL[party - 1].is_gateway(read.packet.source);
        let expected = match step {
            _ if is_relayed => vec![Expected {
                address: read.packet.source,
                ports: Vec::new(),
            }],
            Some(step) => playing.expected(read, step),
            None => Vec::new(),
        };
        let seen = read.seen(tap, &expected);
        playing.outcome.note(twin, party, seen, is_relayed);
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
        let stamp = Stamp::from_field(stamp).filter(|stamp| stamp.round == self.cast.round())?;
        self.story.steps.get(stamp.step)
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
            End::Client => read.packet.source != self.cast.container_end(line).ip(),
            End::Container => read.packet.source == self.cast.client(line),
        };
        if is_known {
            *view = Some(sender);
        }
        known.last[receiver as usize] = Some(bytes);
    }
}

/// The party at an end of a conversation.
pub fn party(line: &Line, end: End) -> usize {
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
