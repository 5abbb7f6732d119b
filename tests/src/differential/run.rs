//! A run of the differential test: random stories until there were enough, and the sum.

use std::{
    collections::BTreeMap,
    env, fmt,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use fastrand::Rng;

use super::{
    address,
    batch::Outcome,
    class::{Admission, Class, Classes},
    generate,
    play::{BATCH, Player},
    shrink::{again, shrink},
    story::{Story, Version},
};
use crate::setting::{self, setting};

/// How many flows are played, [`FLOWS`] if it is not set.
pub const FLOWS_VARIABLE: &str = "PORTWAY_DIFFERENTIAL_FLOWS";
/// Where randomness begins, the time if it is not set.
pub const SEED_VARIABLE: &str = "PORTWAY_DIFFERENTIAL_SEED";
/// A story in JSON, as a failure prints it, to be played alone.
pub const STORY_VARIABLE: &str = "PORTWAY_DIFFERENTIAL_STORY";

/// Flows of a usual run.
const FLOWS: u64 = 12_000;
/// Packets to each twin that a flow has on average, at least.
const PACKETS_PER_FLOW: u64 = 10;
/// Flows after which twins give way to new ones, so that no table of theirs runs full, and no two stories'
/// packets have the same addresses and identification.
pub const FLOWS_OF_TWINS: u64 = 50_000;

// A story has a flow or more; the last batch of them may go beyond.
const _: () = assert!(FLOWS_OF_TWINS + (BATCH as u64) < (address::ON_LINK.1 as u64) << u8::BITS);
/// After so many kinds of differences a run ends, [`KINDS`] if it is not set.
pub const KINDS_VARIABLE: &str = "PORTWAY_DIFFERENTIAL_KINDS";

const KINDS: u64 = 12;
/// After so many differences.
const DIFFERENCES: u64 = 60;

/// How a run is played.
#[derive(Debug)]
pub struct Run {
    flows: u64,
    seed: u64,
    kinds: u64,
    story: Option<Story>,
    classes: Classes,
}

/// What came of a run.
#[derive(Debug)]
struct Sum {
    flows: u64,
    packets: u64,
    arrivals: u64,
    /// The first of each kind, and how many there were.
    differences: BTreeMap<String, (String, u64)>,
    /// Stories in which the twins differed in ICMP errors alone, and no more when played alone. The kernel
    /// sends none while the buffer of its own socket for them is full (`icmp_push_reply` in
    /// net/ipv4/icmp.c), as in a flood on a busy machine.
    unsent: u64,
    seed: u64,
    took: Duration,
    classes: Classes,
}

impl Run {
    /// As the environment has it.
    ///
    /// # Errors
    /// A variable makes no sense.
    pub fn chosen(admission: Admission) -> Result<Self> {
        let story = env::var(STORY_VARIABLE).ok();
        let story = story.map(|story| serde_json::from_str(&story));
        Ok(Self {
            flows: setting(FLOWS_VARIABLE)?.unwrap_or(FLOWS),
            seed: setting::seed(SEED_VARIABLE)?,
            kinds: setting(KINDS_VARIABLE)?.unwrap_or(KINDS),
            story: story
                .transpose()
                .with_context(|| format!("{STORY_VARIABLE} is no story"))?,
            classes: Classes::chosen(admission)?,
        })
    }

    /// With all classes of traffic, and so many flows.
    ///
    /// # Errors
    /// As [`Run::chosen`].
    pub fn of_everything(flows: u64) -> Result<Self> {
        Ok(Self {
            flows,
            classes: Classes::determined(),
            ..Self::chosen(Admission::Netfilter)?
        })
    }

    /// The IP versions of its stories.
    pub fn versions(&self) -> &[Version] {
        match self.classes.has(Class::Ipv6) {
            true => &[Version::V4, Version::V6],
            false => &[Version::V4],
        }
    }

    /// Where its randomness begins.
    pub fn random(&self) -> Rng {
        Rng::with_seed(self.seed)
    }

    /// A run that has not begun.
    pub fn begin(&self) -> Progress<'_> {
        println!("differential: seed {}, {}", self.seed, self.classes);
        Progress {
            run: self,
            random: self.random(),
            sum: Sum {
                flows: 0,
                packets: 0,
                arrivals: 0,
                differences: BTreeMap::new(),
                unsent: 0,
                seed: self.seed,
                took: Duration::ZERO,
                classes: self.classes.clone(),
            },
        }
    }
}

/// A run on its way.
#[derive(Debug)]
pub struct Progress<'a> {
    run: &'a Run,
    random: Rng,
    sum: Sum,
}

impl Progress<'_> {
    /// Plays on, until the run is over or the twins have seen so many flows that new ones should go on.
    /// Returns whether it is over.
    ///
    /// # Errors
    /// As [`Player::play`]. A difference is no error here.
    pub fn play(&mut self, player: &mut Player<'_>) -> Result<bool> {
        let begin = Instant::now();
        let Self { run, random, sum } = self;
        let (before, end) = (sum.packets, sum.flows + FLOWS_OF_TWINS);
        let mut is_over = false;
        while !is_over && sum.flows < end {
            let stories: Vec<_> = match &run.story {
                Some(story) => vec![story.clone()],
                None => std::iter::repeat_with(|| generate::story(random, &run.classes))
                    .take(BATCH)
                    .collect(),
            };
            let outcomes = player.play(&stories)?;
            let lines = stories.iter().map(|story| story.lines.len() as u64);
            sum.flows += lines.sum::<u64>();
            for (story, outcome) in stories.iter().zip(outcomes) {
                if outcome.differs() && !sum.is_enough(run.kinds) {
                    let at = before + player.packets;
                    let again = again(player, story)?;
                    if again.is_none() && outcome.differs_in_errors_alone() {
                        sum.unsent += 1;
                        continue;
                    }
                    let (kind, report) = explain(player, &run.classes, story, &outcome, again)?;
                    let known = sum.differences.entry(kind).or_insert_with(|| {
                        println!("difference within {at} packets\n{report}");
                        (report, 0)
                    });
                    known.1 += 1;
                }
            }
            sum.packets = before + player.packets;
            is_over = run.story.is_some()
                || sum.is_enough(run.kinds)
                || sum.flows >= run.flows && sum.packets >= run.flows * PACKETS_PER_FLOW;
        }
        sum.arrivals += player.arrivals;
        sum.took += begin.elapsed();
        Ok(is_over)
    }

    /// Says what came of it, and fails if there was a difference.
    ///
    /// # Errors
    /// There was.
    pub fn verdict(&self) -> Result<()> {
        println!("{}", self.sum);
        self.sum.verdict()
    }
}

impl Sum {
    /// How many differences there were.
    fn count(&self) -> u64 {
        self.differences.values().map(|(_, times)| times).sum()
    }

    /// Whether more differences would tell no more.
    fn is_enough(&self, kinds: u64) -> bool {
        self.differences.len() as u64 >= kinds || self.count() >= DIFFERENCES
    }

    fn verdict(&self) -> Result<()> {
        if self.differences.is_empty() {
            return Ok(());
        }
        let texts: Vec<_> = self
            .differences
            .values()
            .map(|(text, times)| format!("{times} of this kind:\n{text}"))
            .collect();
        bail!("{self}\n{}", texts.join("\n"))
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            flows,
            packets,
            arrivals,
            seed,
            took,
            classes,
            ..
        } = self;
        write!(
            f,
            "differential: {flows} flows, {packets} packets to each twin, {arrivals} received by both, \
             {} differences, {} ICMP errors unsent by a busy kernel, seed {seed}, {:.0} s, {classes}",
            self.count(),
            self.unsent,
            took.as_secs_f64()
        )
    }
}

/// Makes the story small, if it differs `again` when it is played alone, and says of what kind it is and what differs.
fn explain(
    player: &mut Player<'_>,
    classes: &Classes,
    story: &Story,
    outcome: &Outcome,
    again: Option<Outcome>,
) -> Result<(String, String)> {
    let (story, outcome, note) = match again {
        Some(outcome) => {
            let (story, outcome) = shrink(player, classes, story.clone(), outcome)?;
            (story, outcome, "")
        }
        None => {
            let note = "not seen again when played alone\n";
            (story.clone(), outcome.clone(), note)
        }
    };
    let replay = serde_json::to_string(&story)?;
    let report = format!("{note}{story}{outcome}{STORY_VARIABLE}='{replay}'");
    let mut kind = format!("{note}{story}");
    kind.retain(|letter| !letter.is_ascii_digit());
    Ok((kind, report))
}
