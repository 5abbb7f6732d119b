//! Makes a story that shows a difference as small as it can be and still show it.

use anyhow::Result;

use super::{
    batch::Outcome,
    class::Classes,
    party::End,
    play::Player,
    step::{Act, Twist},
    story::{Client, Host, Story},
};

/// How often a story may be made smaller.
const ROUNDS: usize = 60;

/// How often a story is told again to see whether it differs every time.
const TIMES: usize = 3;

/// Plays `story` alone; whether and how it differs.
///
/// # Errors
/// As [`Player::play`].
pub fn again(player: &mut Player<'_>, story: &Story) -> Result<Option<Outcome>> {
    for _ in 0..TIMES {
        let outcomes = player.play(std::slice::from_ref(story))?;
        if let Some(outcome) = outcomes.into_iter().find(Outcome::differs) {
            return Ok(Some(outcome));
        }
    }
    Ok(None)
}

/// The smallest story of these classes found that differs, and how.
///
/// # Errors
/// As [`Player::play`].
pub fn shrink(
    player: &mut Player<'_>,
    classes: &Classes,
    mut story: Story,
    mut outcome: Outcome,
) -> Result<(Story, Outcome)> {
    for _ in 0..ROUNDS {
        let smaller: Vec<_> = smaller(&story)
            .into_iter()
            .filter(|story| story.is_plausible() && classes.have(&story.classes()))
            .collect();
        // All of them at once: each has a client of its own.
        let outcomes = player.play(&smaller)?;
        let found = smaller
            .into_iter()
            .zip(outcomes)
            .find(|(_, outcome)| outcome.differs());
        match found {
            Some((smaller, its)) => (story, outcome) = (smaller, its),
            None => break,
        }
    }
    Ok((story, outcome))
}

/// Stories that are a little smaller, the smallest first.
fn smaller(story: &Story) -> Vec<Story> {
    let mut all = Vec::new();
    let count = story.steps.len();
    let mut width = count.div_ceil(2);
    while width > 0 && count > 1 {
        for start in (0..count).step_by(width) {
            let mut smaller = story.clone();
            smaller.steps.drain(start..count.min(start + width));
            all.push(smaller);
        }
        width /= 2;
    }
    for line in 0..story.lines.len() {
        all.extend(without_line(story, line));
    }
    for number in 0..count {
        let step = &story.steps[number];
        for twist in 0..step.twists.len() {
            let mut smaller = story.clone();
            let twist = smaller.steps[number].twists.remove(twist);
            // Else it would be too long to be sent.
            if matches!(twist, Twist::Segments(_)) {
                smaller.steps[number].act = Act::Data(8);
            }
            all.push(smaller);
        }
        let plain = match step.act {
            Act::Data(length) if length > 8 => Some(Act::Data(8)),
            Act::Datagram(length) if length > 8 => Some(Act::Datagram(8)),
            _ => None,
        };
        let is_cut = step
            .twists
            .iter()
            .any(|twist| matches!(twist, Twist::Segments(_) | Twist::Fragments(..)));
        if let Some(plain) = plain.filter(|_| !is_cut) {
            let mut smaller = story.clone();
            smaller.steps[number].act = plain;
            all.push(smaller);
        }
    }
    if story.client == Client::OnLink {
        all.push(Story {
            client: Client::Routed,
            ..story.clone()
        });
    }
    for number in 0..story.lines.len() {
        let line = story.lines[number];
        let is_plain = matches!(line.host, Host::Primary | Host::Container);
        if line.opener == End::Client && !is_plain {
            let mut smaller = story.clone();
            smaller.lines[number].host = Host::Primary;
            all.push(smaller);
        }
    }
    all
}

/// The story without a conversation in which nothing is sent.
fn without_line(story: &Story, line: usize) -> Option<Story> {
    let is_used = story.steps.iter().any(|step| step.line == line);
    let mut smaller = story.clone();
    (!is_used && story.lines.len() > 1).then(|| {
        smaller.lines.remove(line);
        for step in &mut smaller.steps {
            step.line -= usize::from(step.line > line);
        }
        smaller
    })
}
