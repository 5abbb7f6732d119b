//! Attaching the programs to interfaces, and detaching them.
//!
//! A TCX link is pinned, so it outlives the command that made it and goes when its pin goes. A clsact
//! filter stays by itself; what is needed to find it again is noted in the hooks map.

use std::{collections::BTreeSet, fmt, io, path::PathBuf};

use anyhow::{Context as _, anyhow};
use aya::programs::{
    ProgramError, SchedClassifier, TcAttachType,
    links::{FdLink, LinkOrder, PinnedLink},
    tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle, qdisc_add_clsact},
};
use dataplane_common::{
    layout::programs,
    registry::{Hook, HookKey},
};
use nix::net::if_::{if_indextoname, if_nametoindex};

use crate::{
    dataplane::{Dataplane, entries},
    instance::Instance,
    netlink::Netlink,
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
}

impl Role {
    /// All of them, in the order in which they are to be detached: nothing may come in any more when the
    /// programs that translate replies go.
    pub const ALL: [Self; 3] = [Self::External, Self::Egress, Self::Container];

    fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|role| *role as u32 == number)
    }

    fn direction(self) -> TcAttachType {
        match self {
            Self::External | Self::Container => TcAttachType::Ingress,
            Self::Egress => TcAttachType::Egress,
        }
    }

    fn program(self) -> &'static str {
        match self {
            Self::External => programs::FORWARD,
            Self::Container => programs::REPLY,
            Self::Egress => programs::EGRESS,
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
}

impl Kind {
    fn from_number(number: u32) -> Option<Self> {
        [Self::Tcx, Self::Clsact]
            .into_iter()
            .find(|kind| *kind as u32 == number)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
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
    note: Hook,
}

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

/// Attaches `role`'s program to an interface, unless it is there already.
///
/// # Errors
///
/// No such interface, or the kernel refuses.
pub async fn attach(
    instance: &Instance,
    dataplane: &mut Dataplane,
    netlink: &Netlink,
    ifindex: u32,
    role: Role,
    preference: Preference,
) -> anyhow::Result<()> {
    let name = interface_name(ifindex)?;
    if let Some(there) = attached(dataplane)?
        .into_iter()
        .find(|there| there.ifindex == ifindex && there.role == role)
    {
        if is_alive(instance, &there, &name)? {
            return Ok(());
        }
        // An interface that was away, in another namespace say, comes back without its programs.
        detach(instance, dataplane, netlink, &there).await?;
    }
    let note = match preference {
        Preference::Clsact => attach_clsact(instance, netlink, ifindex, &name, role).await,
        Preference::Tcx => attach_tcx(instance, ifindex, &name, role),
        Preference::Auto => match attach_tcx(instance, ifindex, &name, role) {
            Err(error) if is_unsupported(&error) => {
                attach_clsact(instance, netlink, ifindex, &name, role).await
            }
            result => result,
        },
    }
    .with_context(|| format!("cannot attach {} to {name}", role.program()))?;
    dataplane
        .hooks
        .insert(key(ifindex, role), note, 0)
        .with_context(|| format!("cannot note what is attached to {name}"))
}

/// Takes a program off its interface, along with a clsact qdisc that came with it. An interface that is
/// gone has taken everything with it.
pub async fn detach(
    instance: &Instance,
    dataplane: &mut Dataplane,
    netlink: &Netlink,
    attached: &Attached,
) -> anyhow::Result<()> {
    match attached.kind {
        Kind::Tcx => {
            match std::fs::remove_file(link_pin(instance, attached.ifindex, attached.role)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).context("cannot remove the pin of a link");
                }
                _ => {}
            }
        }
        Kind::Clsact => {
            if let Ok(name) = interface_name(attached.ifindex) {
                detach_clsact(&name, attached)?;
                if attached.note.owns_qdisc == 1 {
                    netlink.remove_unused_clsact(attached.ifindex).await?;
                }
            }
        }
    }
    dataplane
        .hooks
        .remove(&key(attached.ifindex, attached.role))
        .context("cannot take a note off the hooks map")
}

/// Takes the programs of one role off all interfaces but these.
pub async fn detach_others(
    instance: &Instance,
    dataplane: &mut Dataplane,
    netlink: &Netlink,
    role: Role,
    keep: &BTreeSet<u32>,
) -> anyhow::Result<()> {
    for attached in attached(dataplane)? {
        if attached.role == role && !keep.contains(&attached.ifindex) {
            detach(instance, dataplane, netlink, &attached).await?;
        }
    }
    Ok(())
}

fn attach_tcx(instance: &Instance, ifindex: u32, name: &str, role: Role) -> anyhow::Result<Hook> {
    let mut program = SchedClassifier::from_pin(instance.program(role.program()))?;
    let id = program.attach_with_options(
        name,
        role.direction(),
        TcAttachOptions::TcxOrder(LinkOrder::default()),
    )?;
    let link: FdLink = program.take_link(id)?.try_into()?;
    let pin = link_pin(instance, ifindex, role);
    // Left over from an interface that is gone, or from a command that was killed right here.
    if let Ok(stale) = PinnedLink::from_pin(&pin) {
        stale.unpin()?;
    }
    link.pin(pin)?;
    Ok(note(Kind::Tcx))
}

async fn attach_clsact(
    instance: &Instance,
    netlink: &Netlink,
    ifindex: u32,
    name: &str,
    role: Role,
) -> anyhow::Result<Hook> {
    let mut program = SchedClassifier::from_pin(instance.program(role.program()))?;
    let had_qdisc = netlink.has_clsact(ifindex).await?;
    if !had_qdisc {
        qdisc_add_clsact(name)?;
    }
    let id = program.attach_with_options(
        name,
        role.direction(),
        TcAttachOptions::Netlink(NlOptions::default()),
    )?;
    let link = program.take_link(id)?;
    let note = Hook {
        handle: link.handle()?.into(),
        priority: link.priority()?,
        owns_qdisc: u16::from(!had_qdisc),
        ..note(Kind::Clsact)
    };
    // Dropping the link would detach the filter, which is to outlive this process.
    std::mem::forget(link);
    Ok(note)
}

fn detach_clsact(name: &str, attached: &Attached) -> anyhow::Result<()> {
    let link = SchedClassifierLink::attached(
        name,
        attached.role.direction(),
        attached.note.priority,
        TcHandle::from(attached.note.handle),
        None,
    )?;
    match aya::programs::Link::detach(link) {
        // Somebody else has removed the filter or its qdisc.
        Err(ProgramError::NetlinkError(error)) if matches!(error.raw_os_error(), Some(code) if code == nix::libc::ENOENT || code == nix::libc::EINVAL) => {
            Ok(())
        }
        result => result.with_context(|| format!("cannot detach the filter from {name}")),
    }
}

/// Whether a noted program is really there: an interface that went to another namespace and back has
/// kept its index and lost its programs.
fn is_alive(instance: &Instance, attached: &Attached, name: &str) -> anyhow::Result<bool> {
    if attached.kind == Kind::Clsact {
        return Ok(true);
    }
    let program = SchedClassifier::from_pin(instance.program(attached.role.program()))?;
    let id = program.info()?.id();
    let (_, programs) = SchedClassifier::query_tcx(name, attached.role.direction())?;
    Ok(programs.iter().any(|program| program.id() == id))
}

/// Whether the kernel does not know TCX links: `EINVAL` for the attach type (before 6.6).
fn is_unsupported(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref::<ProgramError>(),
        Some(ProgramError::SyscallError(error))
            if error.io_error.raw_os_error() == Some(nix::libc::EINVAL)
    )
}

/// The index of the interface with this name.
pub fn interface_index(name: &str) -> anyhow::Result<u32> {
    if_nametoindex(name).with_context(|| format!("there is no interface {name}"))
}

/// The name of the interface with this index.
pub fn interface_name(ifindex: u32) -> anyhow::Result<String> {
    let name = if_indextoname(ifindex).map_err(|_| anyhow!("interface {ifindex} is gone"))?;
    Ok(name.to_string_lossy().into_owned())
}

fn link_pin(instance: &Instance, ifindex: u32, role: Role) -> PathBuf {
    instance
        .links()
        .join(format!("{}-{ifindex}", role.program()))
}

fn key(ifindex: u32, role: Role) -> HookKey {
    HookKey {
        ifindex,
        role: role as u32,
    }
}

fn note(kind: Kind) -> Hook {
    Hook {
        kind: kind as u32,
        handle: 0,
        priority: 0,
        owns_qdisc: 0,
    }
}
