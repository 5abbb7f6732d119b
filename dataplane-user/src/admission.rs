//! Who admits flows, and why.

use anyhow::{Context as _, bail};
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
    /// `direct` where the firewall's rules are Docker's own and nothing else; no acceleration else.
    #[default]
    Auto = 0,
    /// The kernel's own firewall: not supported yet.
    Netfilter = 1,
    /// The table of published ports alone, whatever rules the firewall has.
    Direct = 2,
}

impl Request {
    /// From its number in the record; anything unknown is the cautious one.
    fn from_number(number: u32) -> Self {
        if number == Self::Direct as u32 {
            Self::Direct
        } else {
            Self::Auto
        }
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
    }
}

/// Decides, if asked to by looking at the firewall's rules in force.
///
/// # Errors
///
/// Netfilter admission, which is not there yet.
pub fn decide(request: Request) -> anyhow::Result<Decision> {
    match request {
        Request::Direct => Ok(Decision {
            admission: Admission::Direct,
            why: "asked for with --admission direct".into(),
        }),
        Request::Auto => {
            let verdict = firewall::inspect(firewall::Family::V4);
            Ok(by_rules(&verdict))
        }
        Request::Netfilter => bail!(
            "admission by netfilter is not supported yet: use --admission auto, or direct if no rule \
             of your firewall concerns published ports"
        ),
    }
}

/// Decides by what the firewall's rules in force are.
pub fn by_rules(verdict: &Verdict) -> Decision {
    Decision {
        admission: if verdict.allows_direct() {
            Admission::Direct
        } else {
            Admission::Off
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
    let mut settings = dataplane.settings.get(&0, 0)?;
    let record = dataplane.read_record()?;
    let why = encode_text(&decision.why);
    let changed = settings.admission != decision.admission as u32 || record.admission_why != why;
    if changed || record.admission_request != request as u32 {
        settings.admission = decision.admission as u32;
        dataplane
            .settings
            .set(0, settings, 0)
            .context("cannot write the settings")?;
        dataplane.update_record(|record| {
            record.admission_why = why;
            record.admission_request = request as u32;
        })?;
    }
    Ok(changed)
}
