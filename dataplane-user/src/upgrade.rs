//! Another build of portway takes the place of the one that is loaded: its programs go on with the same maps, and
//! with the flows in them.
//!
//! The kernel swaps a program for another between two packets (`BPF_LINK_UPDATE`, and clsact's replacement of a
//! filter). Old and new ones work side by side meanwhile, which is why maps have a version
//! ([`LAYOUT_VERSION`](dataplane_common::layout::LAYOUT_VERSION)). One that was killed in the middle is done again
//! by the next command that loads.

use std::{mem, path::Path};

use anyhow::Context as _;
use aya::programs::{
    ProgramError, SchedClassifier, Xdp,
    links::{FdLink, PinnedLink},
    tc::{SchedClassifierLink, TcHandle},
};
use aya_obj::programs::XdpAttachType;
use nix::libc;

use crate::{
    dataplane::Dataplane,
    hooks::{Attached, Kind, Role, attached, interface_name},
    instance::{Instance, Lock},
};

/// Swaps all programs for this build's.
///
/// # Errors
///
/// The kernel refuses this build's programs, and the others go on; or one of them cannot be swapped.
pub fn upgrade(instance: &Instance, lock: &Lock, dataplane: &mut Dataplane) -> anyhow::Result<()> {
    dataplane.load_beside(instance, lock)?;
    for there in attached(dataplane)? {
        swap(instance, &there)
            .with_context(|| format!("cannot swap the program {}", there.role.program()))?;
    }
    instance.finish_upgrade(lock)?;
    dataplane.note_build()
}

/// Swaps one program. Where it is not what is noted, the next look at everything attaches it anew.
fn swap(instance: &Instance, there: &Attached) -> anyhow::Result<()> {
    let program = instance.upgrade(there.role.program());
    let pin = instance.links().join(there.link_name());
    let link = match there.kind {
        Kind::Clsact => return swap_filter(&program, there),
        Kind::Tcx | Kind::Xdp | Kind::XdpGeneric => PinnedLink::from_pin(pin),
    };
    let Ok(link) = link.map(FdLink::from) else {
        return Ok(());
    };
    let swapped = if there.role == Role::Xdp {
        let mut program = Xdp::from_pin(program, XdpAttachType::Interface)?;
        program.attach_to_link(link.try_into()?).map(drop)
    } else {
        let mut program = SchedClassifier::from_pin(program)?;
        program.attach_to_link(link.try_into()?).map(drop)
    };
    match swapped {
        // Its interface has gone.
        Err(ProgramError::SyscallError(error))
            if error.io_error.raw_os_error() == Some(libc::ENOLINK) =>
        {
            Ok(())
        }
        result => Ok(result?),
    }
}

fn swap_filter(program: &Path, there: &Attached) -> anyhow::Result<()> {
    let Ok(name) = interface_name(there.ifindex) else {
        return Ok(());
    };
    let (note, direction) = (there.note, there.role.direction());
    if note.priority == 0 {
        return Ok(());
    }
    let handle = TcHandle::from(note.handle);
    let link = SchedClassifierLink::attached(&name, direction, note.priority, handle, None)?;
    let mut program = SchedClassifier::from_pin(program)?;
    let id = program.attach_to_link(link)?;
    // Dropping the link would detach the filter.
    mem::forget(program.take_link(id)?);
    Ok(())
}
