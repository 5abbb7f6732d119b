//! Attaching programs and detaching them; the attaching to XDP is in [`crate::xdp::link`].
//!
//! A TCX or XDP link is pinned, so it outlives the command that made it and goes when its pin goes. A clsact
//! filter stays by itself; what is needed to find it again is noted in the hooks map.

use std::{io, path::PathBuf};

use anyhow::Context as _;
use aya::programs::{
    ProgramError, ProgramInfo, SchedClassifier, TcAttachType,
    links::{FdLink, LinkOrder, PinnedLink},
    tc::{
        NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle, qdisc_add_clsact,
        qdisc_detach_program,
    },
};
use dataplane_common::registry::{Hook, HookKey};
use nix::net::if_::if_nameindex;

use crate::{
    dataplane::Dataplane,
    hooks::{Attached, Keep, Kind, Preference, Role, attached, interface_name, link_name},
    instance::Instance,
    netlink::Netlink,
    pinned, tcx,
};

/// Changes what is attached.
pub struct Hooks<'a> {
    /// The instance whose programs they are.
    pub instance: &'a Instance,
    /// Its maps, where notes are kept.
    pub dataplane: &'a mut Dataplane,
    /// The kernel's network configuration.
    pub netlink: &'a Netlink,
}

impl Hooks<'_> {
    /// Attaches `role`'s program to an interface, unless it is there already: `attached` is what is
    /// noted.
    ///
    /// # Errors
    ///
    /// No such interface, or the kernel refuses.
    pub async fn attach(
        &mut self,
        attached: &[Attached],
        ifindex: u32,
        role: Role,
        preference: Preference,
    ) -> anyhow::Result<()> {
        let name = interface_name(ifindex)?;
        let noted = attached
            .iter()
            .find(|there| there.ifindex == ifindex && there.role == role);
        if let Some(there) = noted {
            if self.is_alive(there).await? {
                return Ok(());
            }
            // An interface that was in another namespace meanwhile has kept its index and lost its
            // programs; and anybody may remove a clsact qdisc.
            self.detach(there).await?;
        }
        self.dataplane
            .ensure_program(self.instance, role.program())?;
        match preference {
            Preference::Clsact => self.attach_clsact(ifindex, &name, role).await,
            Preference::Tcx | Preference::Auto => {
                match self.attach_tcx(ifindex, &name, role).await {
                    Err(error) if !is_unsupported(&error) => Err(error),
                    Err(_) if preference == Preference::Auto => {
                        self.attach_clsact(ifindex, &name, role).await
                    }
                    result => result.context(
                        "this kernel has no TCX, which came with Linux 6.6: use --tc-hook auto",
                    ),
                }
            }
        }
        .with_context(|| format!("cannot attach {} to {name}", role.program()))
    }

    /// Takes all programs off but these. Goes on after an error and returns the first.
    pub async fn detach_others(&mut self, keep: &Keep) -> anyhow::Result<()> {
        let attached = attached(self.dataplane)?;
        let mut result = Ok(());
        for role in Role::ALL {
            for there in attached.iter().filter(|there| there.role == role) {
                if !keep.contains(&(role, there.ifindex)) {
                    let detached = self.detach(there).await;
                    result = result.and(detached);
                }
            }
        }
        result
    }

    /// Takes a program off its interface, along with a clsact qdisc that came with it. An interface that
    /// is gone has taken everything with it.
    pub(crate) async fn detach(&mut self, attached: &Attached) -> anyhow::Result<()> {
        match attached.kind {
            Kind::Tcx => self.detach_link(attached.ifindex, attached.role)?,
            Kind::Xdp | Kind::XdpGeneric => {
                self.detach_link(attached.ifindex, attached.role)?;
                self.dataplane.clear_xdp_interface(attached.ifindex)?;
            }
            Kind::Clsact => {
                if let Ok(name) = interface_name(attached.ifindex) {
                    detach_clsact(&name, attached)?;
                    if attached.note.owns_qdisc == 1 {
                        self.netlink.remove_unused_clsact(attached.ifindex).await?;
                    }
                }
            }
        }
        self.dataplane
            .hooks
            .remove(&key(attached.ifindex, attached.role))
            .context("cannot take a note off the hooks map")
    }

    async fn attach_tcx(&mut self, ifindex: u32, name: &str, role: Role) -> anyhow::Result<()> {
        let mut program = SchedClassifier::from_pin(self.instance.program(role.program()))?;
        let pin = self.link_pin(ifindex, role);
        // Left by a command that was killed right here, or by an interface that is gone.
        let mut is_attached = false;
        if let Ok(left) = PinnedLink::from_pin(&pin) {
            is_attached = self.is_linked(ifindex, role).await?;
            if !is_attached {
                left.unpin()?;
            }
        }
        if !is_attached {
            let id = program.attach_with_options(
                name,
                role.direction(),
                TcAttachOptions::TcxOrder(LinkOrder::default()),
            )?;
            let link: FdLink = program.take_link(id)?.try_into()?;
            link.pin(pin)?;
        }
        self.note(ifindex, role, note(Kind::Tcx))
    }

    /// Takes a role's program off an interface where a link holds it, and removes the link's pin.
    pub(crate) fn detach_link(&self, ifindex: u32, role: Role) -> anyhow::Result<()> {
        pinned::detach(&self.link_pin(ifindex, role))
            .with_context(|| format!("cannot detach {}", role.program()))
    }

    async fn attach_clsact(&mut self, ifindex: u32, name: &str, role: Role) -> anyhow::Result<()> {
        let mut program = SchedClassifier::from_pin(self.instance.program(role.program()))?;
        let had_qdisc = self.netlink.has_clsact(ifindex).await?;
        // The note comes first: if this process is killed before it knows the filter's handle, the
        // filter can still be found, by its name.
        let mut hook = Hook {
            owns_qdisc: u16::from(!had_qdisc),
            ..note(Kind::Clsact)
        };
        self.note(ifindex, role, hook)?;
        if !had_qdisc {
            qdisc_add_clsact(name)?;
        }
        let id = program.attach_with_options(
            name,
            role.direction(),
            TcAttachOptions::Netlink(NlOptions::default()),
        )?;
        let link = program.take_link(id)?;
        hook.handle = link.handle()?.into();
        hook.priority = link.priority()?;
        // Dropping the link would detach the filter, which is to outlive this process.
        std::mem::forget(link);
        self.note(ifindex, role, hook)
    }

    /// Notes how a role's program is attached.
    pub(crate) fn note(&mut self, ifindex: u32, role: Role, hook: Hook) -> anyhow::Result<()> {
        self.dataplane
            .hooks
            .insert(key(ifindex, role), hook, 0)
            .context("cannot note what is attached")
    }

    /// Whether a noted program is really there.
    pub(crate) async fn is_alive(&self, attached: &Attached) -> anyhow::Result<bool> {
        match attached.kind {
            Kind::Tcx | Kind::Xdp | Kind::XdpGeneric => {
                self.is_linked(attached.ifindex, attached.role).await
            }
            Kind::Clsact => {
                let is_ingress = attached.role.direction() == TcAttachType::Ingress;
                self.netlink
                    .has_filter(attached.ifindex, is_ingress, attached.note.priority)
                    .await
            }
        }
    }

    /// Whether a role's program is on an interface, not by way of clsact.
    async fn is_linked(&self, ifindex: u32, role: Role) -> anyhow::Result<bool> {
        let id = self.program_id(role)?;
        if role == Role::Xdp {
            return Ok(self.netlink.xdp_programs(ifindex).await?.contains(&id));
        }
        Ok(tcx::program_ids(ifindex, role.direction())
            .context("cannot ask for TCX programs")?
            .contains(&id))
    }

    /// The id of a role's program.
    pub(crate) fn program_id(&self, role: Role) -> anyhow::Result<u32> {
        Ok(ProgramInfo::from_pin(self.instance.program(role.program()))?.id())
    }

    /// Where a role's link at an interface is pinned.
    pub(crate) fn link_pin(&self, ifindex: u32, role: Role) -> PathBuf {
        self.instance.links().join(link_name(ifindex, role))
    }
}

fn detach_clsact(name: &str, attached: &Attached) -> anyhow::Result<()> {
    let direction = attached.role.direction();
    let result = if attached.note.priority == 0 {
        // Its process was killed before it could note more.
        qdisc_detach_program(name, direction, attached.role.program()).map_err(ProgramError::from)
    } else {
        let handle = TcHandle::from(attached.note.handle);
        SchedClassifierLink::attached(name, direction, attached.note.priority, handle, None)
            .map_err(|error| ProgramError::TcError(TcError::IoError(error)))
            .and_then(aya::programs::Link::detach)
    };
    match result {
        Err(error) if is_not_there(&error) => Ok(()),
        result => result.with_context(|| format!("cannot detach the filter from {name}")),
    }
}

/// Takes portway's clsact filters off every interface, by the names of their programs, where nothing else is known
/// of them, and the qdiscs that are empty after that.
pub async fn detach_unknown_filters(netlink: &Netlink) -> anyhow::Result<()> {
    let interfaces = if_nameindex().context("cannot list the interfaces")?;
    for interface in &interfaces {
        let name = interface.name().to_string_lossy();
        let mut has_any = false;
        for role in Role::ALL.into_iter().filter(|role| *role != Role::Xdp) {
            let detached = qdisc_detach_program(&name, role.direction(), role.program());
            match detached.map_err(ProgramError::from) {
                Ok(()) => has_any = true,
                Err(error) if is_not_there(&error) => {}
                Err(error) => return Err(error).context(format!("cannot detach from {name}")),
            }
        }
        if has_any {
            netlink.remove_unused_clsact(interface.index()).await?;
        }
    }
    Ok(())
}

/// Whether somebody else has removed the filter, its qdisc or the interface.
fn is_not_there(error: &ProgramError) -> bool {
    let code = match error {
        ProgramError::NetlinkError(error) | ProgramError::TcError(TcError::NetlinkError(error)) => {
            error.raw_os_error()
        }
        ProgramError::TcError(TcError::IoError(error)) => match error.kind() {
            io::ErrorKind::NotFound => return true,
            _ => error.raw_os_error(),
        },
        _ => None,
    };
    const NOT_THERE: [i32; 3] = [nix::libc::ENOENT, nix::libc::EINVAL, nix::libc::ENODEV];
    code.is_some_and(|code| NOT_THERE.contains(&code))
}

/// Whether the kernel does not know TCX links: `EINVAL` for the attach type (before 6.6).
fn is_unsupported(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref::<ProgramError>(),
        Some(ProgramError::SyscallError(error))
            if error.io_error.raw_os_error() == Some(nix::libc::EINVAL)
    )
}

fn key(ifindex: u32, role: Role) -> HookKey {
    HookKey {
        ifindex,
        role: role as u32,
    }
}

/// The note of a link.
pub(crate) fn note(kind: Kind) -> Hook {
    Hook::of_kind(kind as u32)
}
