//! Who admits flows, and why.

use dataplane_common::settings::Admission;
use serde::Deserialize;

use crate::{
    dataplane::Dataplane,
    firewall::{self, Verdict},
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

/// Decides, if asked to by looking at the firewall's rules in force.
pub fn decide(request: Request) -> Decision {
    let asked_for = |admission| Decision {
        admission,
        why: format!("asked for with --admission {}", word(admission)),
    };
    match request {
        Request::Direct => asked_for(Admission::Direct),
        Request::Netfilter => asked_for(Admission::Netfilter),
        Request::Auto => by_rules(&firewall::inspect(firewall::Family::V4)),
    }
}

/// Decides by what the firewall's rules in force are.
pub fn by_rules(verdict: &Verdict) -> Decision {
    Decision {
        admission: if verdict.allows_direct() {
            Admission::Direct
        } else {
            Admission::Netfilter
        },
        why: verdict.to_string(),
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
    let settings = dataplane.read_settings()?;
    let record = dataplane.read_record()?;
    let why = encode_text(&decision.why);
    let changed = settings.admission != decision.admission as u32 || record.admission_why != why;
    if changed || record.admission_request != request as u32 {
        dataplane.update_settings(|settings| settings.admission = decision.admission as u32)?;
        dataplane.update_record(|record| {
            record.admission_why = why;
            record.admission_request = request as u32;
        })?;
    }
    Ok(changed)
}
