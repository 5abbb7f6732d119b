//! What is attached where: roles of interfaces, kinds of hooks, and the notes of both.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
};

use anyhow::Context as _;
use aya::programs::TcAttachType;
use dataplane_common::{
    layout::programs,
    registry::{Hook, HookKey},
};
use nix::net::if_::{if_indextoname, if_nametoindex};

use crate::{
    dataplane::{Dataplane, entries},
    netlink::network::Framing,
};

/// Which program an interface needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Role {
    /// Clients come in here.
    External = 1,
    /// The host's end of a container's veth pair.
    Container = 2,
    /// Where packets to clients leave: the other side of [`Role::External`].
    Egress = 3,
    /// [`Role::External`] where frames have no Ethernet header.
    ExternalL3 = 4,
    /// [`Role::Egress`] where frames have no Ethernet header.
    EgressL3 = 5,
    /// Where packets to a container leave the host, if the kernel is to admit them: the other side of
    /// [`Role::Container`].
    Admit = 6,
    /// [`Role::External`] in XDP, in front of it.
    Xdp = 7,
}

impl Role {
    /// All of them, in the order in which they are to be detached: nothing may come in any more when the
    /// programs that translate replies go.
    pub const ALL: [Self; 7] = [
        Self::Xdp,
        Self::External,
        Self::ExternalL3,
        Self::Admit,
        Self::Egress,
        Self::EgressL3,
        Self::Container,
    ];

    /// The roles of the host's end of a container's veth pair. Packets that nobody asks about pass
    /// [`Role::Admit`] at once; it has to be there before the kernel is to admit flows.
    pub const CONTAINER: [Self; 2] = [Self::Container, Self::Admit];

    /// The roles of an external interface, in the order in which they are to be attached: the notes of
    /// what is others' come before the first packet that they matter to.
    pub const fn external(framing: Framing) -> [Self; 2] {
        match framing {
            Framing::Ethernet => [Self::Egress, Self::External],
            Framing::Bare => [Self::EgressL3, Self::ExternalL3],
        }
    }

    fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|role| *role as u32 == number)
    }

    /// Which side of the interface its program is on; of TC, unless it is in XDP, which comes before TC's
    /// ingress.
    pub fn direction(self) -> TcAttachType {
        match self {
            Self::External | Self::ExternalL3 | Self::Container | Self::Xdp => {
                TcAttachType::Ingress
            }
            Self::Egress | Self::EgressL3 | Self::Admit => TcAttachType::Egress,
        }
    }

    /// Its program's name.
    pub fn program(self) -> &'static str {
        match self {
            Self::External => programs::FORWARD,
            Self::ExternalL3 => programs::FORWARD_L3,
            Self::Container => programs::REPLY,
            Self::Egress => programs::EGRESS,
            Self::EgressL3 => programs::EGRESS_L3,
            Self::Admit => programs::ADMIT,
            Self::Xdp => programs::XDP,
        }
    }
}

/// A way of attaching a program to an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// A TCX link, from Linux 6.6 on.
    Tcx = 1,
    /// A filter at the clsact qdisc.
    Clsact = 2,
    /// An XDP link, the program in the driver.
    Xdp = 3,
    /// An XDP link, the program after the driver.
    XdpGeneric = 4,
}

impl Kind {
    fn from_number(number: u32) -> Option<Self> {
        [Self::Tcx, Self::Clsact, Self::Xdp, Self::XdpGeneric]
            .into_iter()
            .find(|kind| *kind as u32 == number)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
            Self::Xdp => "xdp",
            Self::XdpGeneric => "xdp-generic",
        })
    }
}

/// Which kind of hook to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u32)]
pub enum Preference {
    /// TCX where the kernel has it, clsact else.
    #[default]
    Auto = 0,
    /// TCX or nothing.
    Tcx = 1,
    /// Clsact, also where there is TCX.
    Clsact = 2,
}

impl Preference {
    /// From its number in the record; anything unknown is [`Preference::Auto`].
    pub fn from_number(number: u32) -> Self {
        [Self::Tcx, Self::Clsact]
            .into_iter()
            .find(|preference| *preference as u32 == number)
            .unwrap_or_default()
    }
}

/// A program on an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attached {
    /// The interface.
    pub ifindex: u32,
    /// The program.
    pub role: Role,
    /// How.
    pub kind: Kind,
    /// What is needed to find it again.
    pub note: Hook,
}

impl Attached {
    /// The name of its link's pin.
    pub fn link_name(&self) -> String {
        link_name(self.ifindex, self.role)
    }
}

/// The name of the pin of a role's link at an interface.
pub fn link_name(ifindex: u32, role: Role) -> String {
    format!("{}-{ifindex}", role.program())
}

/// The programs that are wanted, by role and interface.
pub type Keep = BTreeSet<(Role, u32)>;

/// What is attached, according to the hooks map.
pub fn attached(dataplane: &Dataplane) -> anyhow::Result<Vec<Attached>> {
    Ok(entries(&dataplane.hooks)?
        .into_iter()
        .filter_map(|(key, note)| {
            Some(Attached {
                ifindex: key.ifindex,
                role: Role::from_number(key.role)?,
                kind: Kind::from_number(note.kind)?,
                note,
            })
        })
        .collect())
}

/// What else the hooks map notes of interfaces, with numbers that are no [`Role`]'s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Note {
    /// Why an external interface has no XDP program, as [`Declined`] has it.
    ///
    /// [`Declined`]: crate::xdp::choice::Declined
    XdpDeclined = 64,
    /// The container behind this interface has had its GRO turned on.
    Gro = 65,
    /// The container behind this interface has been given the program that passes all, in place of GRO.
    Pass = 66,
}

/// All notes of one kind by interface; some of these may be gone.
pub fn notes(dataplane: &Dataplane, note: Note) -> anyhow::Result<HashMap<u32, Hook>> {
    let notes = entries(&dataplane.hooks)?.into_iter();
    Ok(notes
        .filter(|(key, _)| key.role == note as u32)
        .map(|(key, hook)| (key.ifindex, hook))
        .collect())
}

/// Writes a note.
pub fn write_note(
    dataplane: &mut Dataplane,
    ifindex: u32,
    note: Note,
    hook: Hook,
) -> anyhow::Result<()> {
    let role = note as u32;
    dataplane
        .hooks
        .insert(HookKey { ifindex, role }, hook, 0)
        .context("cannot take a note")
}

/// Removes a note.
pub fn remove_note(dataplane: &mut Dataplane, ifindex: u32, note: Note) -> anyhow::Result<()> {
    let role = note as u32;
    dataplane
        .hooks
        .remove(&HookKey { ifindex, role })
        .context("cannot remove a note")
}

/// The interfaces that clients come in by, according to the hooks map; some may be gone.
pub fn external(dataplane: &Dataplane) -> anyhow::Result<Vec<Attached>> {
    let mut external = attached(dataplane)?;
    external.retain(|attached| matches!(attached.role, Role::External | Role::ExternalL3));
    Ok(external)
}

/// The index of the interface with this name.
pub fn interface_index(name: &str) -> anyhow::Result<u32> {
    if_nametoindex(name).with_context(|| format!("there is no interface {name}"))
}

/// The name of the interface with this index.
///
/// # Errors
///
/// There is none.
pub fn interface_name(ifindex: u32) -> anyhow::Result<String> {
    // nix (0.31) takes what libc returns where there is none, a null pointer, for an empty name.
    let name = if_indextoname(ifindex).ok().filter(|name| !name.is_empty());
    let name = name.with_context(|| format!("interface {ifindex} is gone"))?;
    Ok(name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_that_is_not_there_has_no_name() {
        assert_eq!(interface_name(1).expect("loopback"), "lo");
        let error = interface_name(i32::MAX as u32).expect_err("no such interface");
        assert_eq!(error.to_string(), "interface 2147483647 is gone");
    }
}
