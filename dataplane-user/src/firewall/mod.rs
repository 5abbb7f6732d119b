//! Whether the ruleset in force is Docker's own and nothing else: what `--admission auto` asks before
//! it lets the published-port map alone decide.
//!
//! - [`iptables`]: rules as `iptables-save` prints them, of either backend
//! - `shapes`: Docker's iptables rules
//! - [`nft`]: rules as `nft list ruleset` prints them
//! - [`read`]: where the texts come from
//! - [`watch`]: the verdict as it changes
//!
//! What counts is what could deny or change a forwarded packet to a published port, or its reply: the
//! prerouting, forward and postrouting hooks, and ingress and egress, which come after TC. The input
//! and output hooks never see a forwarded packet, so their rules do not count. The check errs on the
//! careful side: a rule is harmless only if it is known to be.
//!
//! Not looked at: legacy ebtables, which no file in /proc gives away and which see a routed packet
//! only where it leaves through a bridge.

pub mod iptables;
pub mod nft;
pub mod read;
mod shapes;
pub mod watch;

use std::fmt;

pub use read::{inspect_all, look_for_nat, look_for_translation};

/// An address family, which is a ruleset of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// nft's name for it.
    pub const fn nft(self) -> &'static str {
        match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        }
    }
}

/// The outcome. As text it is one clause for `portway status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Docker's rules are in force, and no others that count.
    DockerOnly,
    /// No rules that count are in force.
    Clean,
    /// Somebody else's rules are in force; with the first of them.
    Foreign(String),
    /// It could not be found out; with the reason.
    Unverifiable(String),
}

impl Verdict {
    /// Whether the published-port map alone may decide.
    pub const fn allows_direct(&self) -> bool {
        matches!(self, Self::DockerOnly | Self::Clean)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DockerOnly => f.write_str("only Docker's own rules are in force"),
            Self::Clean => f.write_str("no firewall rules are in force"),
            Self::Foreign(why) => f.write_str(why),
            Self::Unverifiable(why) => write!(f, "cannot verify the firewall: {why}"),
        }
    }
}

/// One kind of ruleset, as far as it could be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The kernel has none of this kind.
    Absent,
    /// Its text.
    Text(String),
    /// The kernel has or may have one that could not be read, and why.
    Unreadable(String),
}

/// All the rulesets that a family's packets meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rulesets {
    /// `nft list ruleset`.
    pub nft: Source,
    /// `iptables-nft-save` or `ip6tables-nft-save`.
    pub xtables_nft: Source,
    /// `iptables-legacy-save` or `ip6tables-legacy-save`.
    pub xtables_legacy: Source,
}

/// Judges the rulesets of one family. Pure.
pub fn judge(family: Family, rulesets: &Rulesets) -> Verdict {
    let mut unverifiable = None;
    let mut docker = false;
    // nft knows the tables of iptables-nft as well, though not what all their rules mean.
    let parts = [
        (
            &rulesets.nft,
            nft::check as fn(Family, &str) -> Result<bool, String>,
        ),
        (&rulesets.xtables_nft, |_, text| iptables::check(text)),
        (&rulesets.xtables_legacy, |_, text| iptables::check(text)),
    ];
    for (source, check) in parts {
        match source {
            Source::Absent => {}
            Source::Text(text) => match check(family, text) {
                Ok(has_docker) => docker |= has_docker,
                // What is known to be foreign is the better reason than what is not known.
                Err(why) => return Verdict::Foreign(why),
            },
            Source::Unreadable(why) => {
                unverifiable.get_or_insert_with(|| why.clone());
            }
        }
    }
    match unverifiable {
        Some(why) => Verdict::Unverifiable(why),
        None if docker => Verdict::DockerOnly,
        None => Verdict::Clean,
    }
}

/// Whether Docker translates packets of `family` by rules of its own, if that can be told. Where it has none,
/// all that comes to its ports ends in docker-proxy, and meets the rules for the host's own services. Pure.
pub fn translates(family: Family, rulesets: &Rulesets) -> Option<bool> {
    let nft = match &rulesets.nft {
        Source::Absent => Some(false),
        Source::Text(text) => Some(nft::translates(family, text)),
        Source::Unreadable(_) => None,
    };
    let legacy = match &rulesets.xtables_legacy {
        Source::Absent => Some(false),
        Source::Text(text) => Some(iptables::translates(text)),
        Source::Unreadable(_) => None,
    };
    match (nft, legacy) {
        (Some(true), _) | (_, Some(true)) => Some(true),
        (Some(false), Some(false)) => Some(false),
        _ => None,
    }
}

/// The verdict where packets of both IP versions are to be decided on: IPv4's and IPv6's as one. Pure.
pub fn combine(v4: Verdict, v6: Verdict) -> Verdict {
    match (v4, v6) {
        (v4, _) if !v4.allows_direct() => v4,
        (_, Verdict::Foreign(why)) => Verdict::Foreign(format!("IPv6: {why}")),
        (_, Verdict::Unverifiable(why)) => Verdict::Unverifiable(format!("IPv6: {why}")),
        (Verdict::Clean, Verdict::Clean) => Verdict::Clean,
        _ => Verdict::DockerOnly,
    }
}

#[cfg(test)]
mod tests;
