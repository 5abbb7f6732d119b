//! Who admits flows, and why.

use dataplane_common::settings::Admission;
use nix::time::{ClockId, clock_gettime};
use serde::Deserialize;

use crate::{
    conntrack::sysctls,
    dataplane::Dataplane,
    firewall::{self, Verdict},
    handover::{HandedOver, Handover, Tell},
    publication::Source,
    rows::Row,
    text::encode_text,
};

/// What the user asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u32)]
pub enum Request {
    /// `direct` where the firewall's rules are Docker's own and nothing else, `netfilter` else.
    #[default]
    Auto = 0,
    /// The kernel's own firewall: it sees the first packets of a flow, and one every few seconds.
    Netfilter = 1,
    /// The table of published ports alone, whatever rules the firewall has.
    Direct = 2,
}

impl Request {
    /// From its number in the record; anything unknown is the cautious one.
    fn from_number(number: u32) -> Self {
        [Self::Netfilter, Self::Direct]
            .into_iter()
            .find(|request| *request as u32 == number)
            .unwrap_or_default()
    }
}

/// How flows are to be admitted, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// How.
    pub admission: Admission,
    /// Why, in a clause.
    pub why: String,
}

impl Decision {
    /// The word by which `portway status` calls it.
    pub fn word(&self) -> &'static str {
        word(self.admission)
    }
}

/// The word by which `portway status` calls a way of admitting flows.
pub fn word(admission: Admission) -> &'static str {
    match admission {
        Admission::Off => "off",
        Admission::Direct => "direct",
        Admission::Netfilter => "netfilter",
    }
}

/// Decides, if asked to by looking at the firewall's rules in force. `rows` are what is published.
pub fn decide(request: Request, rows: &[Row]) -> Decision {
    match request {
        Request::Auto => by_rules(request, &firewall::inspect_all(), rows),
        asked_for => by_rules(asked_for, &Verdict::Clean, rows),
    }
}

/// The same, with the rules looked at already.
pub fn by_rules(request: Request, verdict: &Verdict, rows: &[Row]) -> Decision {
    let asked_for = |admission| Decision {
        admission,
        why: format!("asked for with --admission {}", word(admission)),
    };
    let publishes_docker = || {
        rows.iter()
            .any(|row| row.publication.source == Source::Docker)
    };
    match request {
        Request::Direct => asked_for(Admission::Direct),
        Request::Netfilter => asked_for(Admission::Netfilter),
        // Its ports end at a process of the host, and the rules for those are to be kept.
        Request::Auto if *verdict == Verdict::Clean && publishes_docker() => Decision {
            admission: Admission::Netfilter,
            why: "Docker has no rules (iptables is off); docker-proxy serves its ports".into(),
        },
        Request::Auto => Decision {
            admission: if verdict.allows_direct() {
                Admission::Direct
            } else {
                Admission::Netfilter
            },
            why: verdict.to_string(),
        },
    }
}

/// What was asked for when this instance was loaded.
pub fn requested(dataplane: &Dataplane) -> anyhow::Result<Request> {
    let record = dataplane.read_record()?;
    Ok(Request::from_number(record.admission_request))
}

/// Puts a decision into force. Returns whether it is another than the last.
pub fn enforce(
    dataplane: &mut Dataplane,
    request: Request,
    decision: &Decision,
) -> anyhow::Result<bool> {
    let before = Admission::from_number(dataplane.read_settings()?.admission);
    let record = dataplane.read_record()?;
    let why = encode_text(&decision.why);
    let changed = before != decision.admission || record.admission_why != why;
    if changed || record.admission_request != request as u32 {
        dataplane.update_record(|record| {
            record.admission_why = why;
            record.admission_request = request as u32;
        })?;
    }
    let is_liberal = match decision.admission {
        Admission::Netfilter => make_liberal(dataplane),
        Admission::Direct | Admission::Off => false,
    };
    if before != decision.admission {
        let mut handover = Handover::default();
        change(dataplane, before, decision.admission, &mut handover)?;
    }
    dataplane.update_settings(|settings| {
        settings.tcp_liberal = is_liberal.into();
        settings.timeouts = sysctls::timeouts();
    })?;
    Ok(changed)
}

/// Changes the way of admitting flows. Conntrack is told of those that it does not know: before, so that it
/// does when their packets come, and after, of those that have begun meanwhile.
fn change(
    dataplane: &mut Dataplane,
    before: Admission,
    after: Admission,
    handover: &mut Handover,
) -> anyhow::Result<()> {
    let ends_direct = before == Admission::Direct;
    if ends_direct {
        tell_conntrack(handover, dataplane, Tell::OfAllBegunHere);
    }
    let now = monotonic_millis()?;
    dataplane.update_settings(|settings| {
        settings.admission = after as u32;
        settings.admission_since = now;
        settings.rules_since = now;
    })?;
    if ends_direct {
        tell_conntrack(handover, dataplane, Tell::OfAllBegunHere);
    }
    Ok(())
}

/// Ends all leases: the rules by which they were given are not those in force any more.
pub fn end_leases(dataplane: &mut Dataplane) -> anyhow::Result<()> {
    let now = monotonic_millis()?;
    dataplane.update_settings(|settings| settings.rules_since = now)
}

/// Admits no more flows; conntrack takes over those that live, and what has become of them is returned. Programs
/// are to go after that.
pub fn end(dataplane: &mut Dataplane) -> anyhow::Result<HandedOver> {
    let before = Admission::from_number(dataplane.read_settings()?.admission);
    let mut handover = Handover::for_good();
    if before == Admission::Netfilter {
        tell_conntrack(&mut handover, dataplane, Tell::OfNoneThatItForgot);
    }
    change(dataplane, before, Admission::Off, &mut handover)?;
    Ok(handover.outcome())
}

/// Makes conntrack as strict as it was. All that it has not seen is forgiven to connections that it was told
/// of; no other may be accelerated any more.
pub fn restore_strictness(dataplane: &mut Dataplane) -> anyhow::Result<()> {
    if dataplane.read_record()?.made_liberal == 1 {
        sysctls::set_tcp_be_liberal(false)?;
        dataplane.update_record(|record| record.made_liberal = 0)?;
    }
    Ok(())
}

/// What conntrack does not take, or not know, it picks up itself from what clients send.
fn tell_conntrack(handover: &mut Handover, dataplane: &Dataplane, tell: Tell) {
    match handover.tell(dataplane, tell) {
        Ok(()) => tracing::debug!("handed over to conntrack: {:?}", handover.outcome()),
        Err(error) => tracing::warn!("cannot hand flows over to conntrack: {error:#}"),
    }
}

/// Makes conntrack tolerate TCP segments outside the window it knows: it does not see all that could open
/// one. Returns whether it does; without conntrack there is nobody to be strict.
fn make_liberal(dataplane: &mut Dataplane) -> bool {
    let mut make = || -> anyhow::Result<()> {
        if sysctls::tcp_be_liberal()? == Some(false) {
            // The note first: it is better to be made strict once more than to be left liberal.
            dataplane.update_record(|record| record.made_liberal = 1)?;
            sysctls::set_tcp_be_liberal(true)?;
        }
        Ok(())
    };
    match make() {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!("TCP is not accelerated: {error:#}");
            false
        }
    }
}

/// The clock by which the programs tell how old a lease is, in milliseconds.
fn monotonic_millis() -> anyhow::Result<u32> {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    // The programs let it wrap as well.
    Ok((time.tv_sec() as u64 * 1000 + time.tv_nsec() as u64 / 1_000_000) as u32)
}

#[cfg(test)]
mod tests {
    use dataplane_common::published::Backend;

    use super::*;
    use crate::{publication::Publication, rows::State, spec::Spec};

    fn row(source: Source) -> Row {
        Row {
            number: 1,
            publication: Publication {
                source,
                ..Spec::parse("9000:10.0.0.2:80").expect("a SPEC")
            },
            state: State::Active,
            backend: Backend::default(),
        }
    }

    #[test]
    fn the_table_alone_decides_only_where_nobody_else_has_a_say() {
        let foreign = Verdict::Foreign("somebody's rule".into());
        let unknown = Verdict::Unverifiable("no nft".into());
        let [docker, fixed] = [Source::Docker, Source::Static].map(row);
        for (verdict, rows, admission) in [
            (&Verdict::Clean, vec![], Admission::Direct),
            (&Verdict::Clean, vec![fixed.clone()], Admission::Direct),
            // docker-proxy serves it, behind the rules for the host's own sockets.
            (&Verdict::Clean, vec![docker.clone()], Admission::Netfilter),
            (&Verdict::DockerOnly, vec![docker], Admission::Direct),
            (&foreign, vec![fixed.clone()], Admission::Netfilter),
            (&unknown, vec![fixed], Admission::Netfilter),
        ] {
            let decision = by_rules(Request::Auto, verdict, &rows);
            assert_eq!(decision.admission, admission, "{verdict:?}, {rows:?}");
            assert!(!decision.why.is_empty());
        }
    }
}
