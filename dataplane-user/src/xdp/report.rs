//! What is attached to external interfaces, and whether XDP is, for people and programs to read.

use std::collections::BTreeMap;

use aya::programs::loaded_programs;
use dataplane_common::settings::Settings;
use rustix::thread::CapabilitySet;
use serde::Serialize;

use super::{
    choice::{Declined, Mode},
    external::declined,
    pass,
};
use crate::{
    dataplane::Dataplane,
    hooks::{self, Kind, Role},
    privileges, rows,
};

/// An external interface.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Its name.
    pub interface: String,
    /// The kinds of its hooks, in the order in which packets from outside meet them.
    pub hooks: Vec<String>,
    /// What there is to say of XDP.
    pub xdp: Xdp,
    /// Why it has no XDP program.
    #[serde(skip)]
    pub declined: Option<Declined>,
}

/// Whether XDP is taken.
#[derive(Debug, Serialize)]
pub struct Xdp {
    /// `native`, `generic` or `off`.
    pub mode: &'static str,
    /// What is translated there.
    pub protocols: Vec<&'static str>,
    /// Why so.
    pub why: String,
}

/// All external interfaces that are there, by index.
pub fn report(dataplane: &Dataplane) -> anyhow::Result<Vec<Report>> {
    let mode = Mode::from_number(dataplane.read_record()?.mode);
    let declined = declined(dataplane)?;
    let mut kinds = BTreeMap::<u32, Vec<Kind>>::new();
    for attached in hooks::external(dataplane)? {
        kinds
            .entry(attached.ifindex)
            .or_default()
            .push(attached.kind);
    }
    for attached in hooks::attached(dataplane)? {
        if attached.role == Role::Xdp
            && let Some(kinds) = kinds.get_mut(&attached.ifindex)
        {
            kinds.insert(0, attached.kind);
        }
    }
    let reports = kinds.into_iter().filter_map(|(ifindex, kinds)| {
        let interface = hooks::interface_name(ifindex).ok()?;
        let declined = declined.get(&ifindex).copied();
        Some((interface, kinds, declined))
    });
    reports
        .map(|(interface, kinds, declined)| {
            let xdp = match kinds[0] {
                Kind::Xdp => taken(dataplane, "native", mode)?,
                Kind::XdpGeneric => taken(dataplane, "generic", mode)?,
                Kind::Tcx | Kind::Clsact => Xdp {
                    mode: "off",
                    protocols: Vec::new(),
                    why: declined.map_or_else(|| "not decided yet".into(), why_not),
                },
            };
            Ok(Report {
                interface,
                hooks: kinds.iter().map(Kind::to_string).collect(),
                xdp,
                declined,
            })
        })
        .collect()
}

fn taken(dataplane: &Dataplane, flavor: &'static str, mode: Mode) -> anyhow::Result<Xdp> {
    let protocols = dataplane.read_settings()?.xdp;
    let all = [(Settings::XDP_TCP, "tcp"), (Settings::XDP_UDP, "udp")];
    let mut why: String = match mode {
        Mode::Auto => "it costs nothing here; TCP is left to TC, behind GRO".into(),
        Mode::Xdp => "asked for with --mode xdp".into(),
        Mode::XdpGeneric => "asked for with --mode xdp-generic".into(),
        // Until the next pass.
        Mode::Tc => "about to go".into(),
    };
    let mut out_of_reach = 0;
    for row in rows::read(dataplane)?.iter().filter(|row| row.is_live()) {
        out_of_reach += usize::from(dataplane.device(row.number)?.is_none());
    }
    if out_of_reach > 0 {
        why.push_str(&format!(
            "; of {out_of_reach} ports the container cannot be reached from there"
        ));
    }
    let passing = pass::attached(dataplane)?.len();
    if passing > 0 {
        why.push_str(&format!(
            "; containers that take frames by a program, without GRO: {passing}"
        ));
    }
    Ok(Xdp {
        mode: flavor,
        protocols: all
            .into_iter()
            .filter(|(bit, _)| protocols & bit != 0)
            .map(|(_, word)| word)
            .collect(),
        why,
    })
}

/// Why not, with the name of a program that is in the way.
fn why_not(declined: Declined) -> String {
    let mut why = declined.to_string();
    if let Declined::Foreign(id) = declined
        && let Some(name) = program_name(id)
    {
        why.push_str(&format!(", {name}"));
    }
    why
}

/// Only CAP_SYS_ADMIN may go through all programs.
fn program_name(id: u32) -> Option<String> {
    let program = privileges::raised(CapabilitySet::SYS_ADMIN, || {
        loaded_programs()
            .flatten()
            .find(|program| program.id() == id)
    });
    Some(program.ok()??.name_as_str()?.to_owned())
}
