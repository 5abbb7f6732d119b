//! The capabilities of this process: a few are in force, fewer still are held back for the system calls that want
//! them, all others are given up at the start, for good.
//!
//! Capabilities are a thread's. New threads have those of the thread that makes them, so what is dropped before
//! there are any is dropped everywhere.

use std::{
    io,
    process::{Child, Command},
    thread,
};

use anyhow::{Context as _, bail};
use rustix::{
    io::Errno,
    thread::{
        CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
        remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
    },
};

/// In force all the time: links, qdiscs, neighbours, conntrack and its settings; maps and programs; programs with
/// pointers in them.
const WORKING: CapabilitySet = CapabilitySet::NET_ADMIN
    .union(CapabilitySet::BPF)
    .union(CapabilitySet::PERFMON);

/// Held back, where this process has them at all. SYS_ADMIN enters the network namespaces of containers, SYS_PTRACE
/// finds those that only processes lead to, NET_BIND_SERVICE finds out whether a low port is taken, NET_RAW is for
/// the legacy iptables, which are run to read their rules.
const HELD_BACK: CapabilitySet = CapabilitySet::SYS_ADMIN
    .union(CapabilitySet::SYS_PTRACE)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::NET_RAW);

/// Gives up for good what is never needed, for this process and for those that it will run.
///
/// # Errors
///
/// The kernel refuses.
pub fn drop_excess() -> anyhow::Result<()> {
    drop_all_but(WORKING | HELD_BACK).context("cannot drop capabilities")
}

fn drop_all_but(kept: CapabilitySet) -> io::Result<()> {
    let sets = capabilities(None)?;
    // Executing a program gives root all that the bounding set has, unless this says no.
    set_no_new_privs(true)?;
    clear_ambient_capability_set()?;
    if sets.effective.contains(CapabilitySet::SETPCAP) {
        let all = (0..u64::BITS).map(|number| CapabilitySet::from_bits_retain(1 << number));
        for capability in all.filter(|capability| !kept.contains(*capability)) {
            match remove_capability_from_bounding_set(capability) {
                // From here on this kernel has none.
                Err(Errno::INVAL) => break,
                removed => removed?,
            }
        }
    }
    let permitted = sets.permitted & kept;
    set_capabilities(
        None,
        CapabilitySets {
            effective: permitted & WORKING,
            permitted,
            inheritable: CapabilitySet::empty(),
        },
    )?;
    Ok(())
}

/// Checks that what is needed all the time is there: root in a container may lack it.
///
/// # Errors
///
/// It lacks some; with their names.
pub fn check() -> anyhow::Result<()> {
    let permitted = capabilities(None)
        .context("cannot read capabilities")?
        .permitted;
    let missing: Vec<_> = (WORKING - permitted)
        .iter_names()
        .map(|(name, _)| format!("CAP_{name}"))
        .collect();
    if !missing.is_empty() {
        bail!("this process lacks {}", missing.join(" and "));
    }
    Ok(())
}

/// Does `work` with capabilities in force that are held back, as far as this process has them.
///
/// # Errors
///
/// The kernel refuses to put them in force, or to hold them back again.
pub fn raised<R>(capability: CapabilitySet, work: impl FnOnce() -> R) -> anyhow::Result<R> {
    let before = capabilities(None).context("cannot read capabilities")?;
    let raised = CapabilitySets {
        effective: before.effective | (capability & before.permitted),
        ..before
    };
    set_capabilities(None, raised).context("cannot raise capabilities")?;
    let result = work();
    set_capabilities(None, before).context("cannot lower capabilities")?;
    Ok(result)
}

/// Runs a program that may have these capabilities, as far as this process has them, and no others.
///
/// # Errors
///
/// It cannot be run.
pub fn spawn(command: &mut Command, needed: CapabilitySet) -> io::Result<Child> {
    // From a thread that has no others itself: a program gets no more than that, as no new privileges are to be
    // had (`cap_bprm_creds_from_file`, security/commoncap.c).
    thread::scope(|scope| {
        let spawned = scope.spawn(|| {
            let permitted = capabilities(None)?.permitted & needed;
            set_capabilities(
                None,
                CapabilitySets {
                    effective: permitted,
                    permitted,
                    inheritable: CapabilitySet::empty(),
                },
            )?;
            command.spawn()
        });
        spawned
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("its thread panicked")))
    })
}
