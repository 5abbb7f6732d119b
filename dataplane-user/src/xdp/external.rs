//! The XDP program on external interfaces: attached where it is the choice, the reason noted where it is not.

use std::collections::{BTreeSet, HashMap};

use anyhow::Context as _;
use dataplane_common::registry::Hook;
use nix::errno::Errno;

use super::choice::{Declined, Facts, Mode, choose};
use crate::{
    attach::Hooks,
    dataplane::Dataplane,
    hooks::{self, Attached, Keep, Note, Role},
    netlink::{
        netdev::XdpFeatures,
        network::{Link, Network},
        offload,
    },
};

/// What external interfaces are looked at by.
pub struct External<'a> {
    /// Changes what is attached.
    pub hooks: Hooks<'a>,
    /// The network as it is now.
    pub network: &'a Network,
    /// What devices can do in XDP, if the kernel tells.
    pub features: Option<&'a HashMap<u32, XdpFeatures>>,
    /// What the user asks for.
    pub mode: Mode,
}

impl External<'_> {
    /// Attaches the program to those of `interfaces` where it is the choice, and has it kept there.
    /// `attached` is what is attached so far.
    ///
    /// # Errors
    ///
    /// What is noted cannot be read or written. That the kernel refuses the program is no error: its packets
    /// then take TC's way.
    pub async fn sync(
        &mut self,
        interfaces: &BTreeSet<u32>,
        attached: &[Attached],
        keep: &mut Keep,
    ) -> anyhow::Result<()> {
        let protocols = self.mode.protocols();
        self.hooks
            .dataplane
            .update_settings(|settings| settings.xdp = protocols)?;
        let declined = declined(self.hooks.dataplane)?;
        for (ifindex, _) in declined.iter().filter(|(at, _)| !interfaces.contains(at)) {
            hooks::remove_note(self.hooks.dataplane, *ifindex, Note::XdpDeclined)?;
        }
        for ifindex in interfaces {
            let Some(link) = self.network.links.get(ifindex) else {
                continue;
            };
            let before = declined.get(ifindex).copied();
            let now = self.attach(link, before, interfaces, attached).await?.err();
            match now {
                None => {
                    keep.insert((Role::Xdp, *ifindex));
                    if before.is_some() {
                        hooks::remove_note(self.hooks.dataplane, *ifindex, Note::XdpDeclined)?;
                    }
                }
                Some(why) if before != now => note(self.hooks.dataplane, *ifindex, why)?,
                Some(_) => {}
            }
        }
        Ok(())
    }

    async fn attach(
        &mut self,
        link: &Link,
        before: Option<Declined>,
        interfaces: &BTreeSet<u32>,
        attached: &[Attached],
    ) -> anyhow::Result<Result<(), Declined>> {
        // What has no MAC has no frames.
        let (Some(framing), Some(mac)) = (link.framing, link.mac) else {
            return Ok(Err(Declined::Bare));
        };
        let own = self.hooks.program_id(Role::Xdp)?;
        let facts = Facts {
            framing,
            device: link.device,
            // Where the kernel does not tell, the driver may have none.
            has_hardware_gro: offload::is_in_hardware(link.index).unwrap_or(false),
            features: self
                .features
                .map(|features| features.get(&link.index).copied().unwrap_or_default()),
            has_ports: self
                .network
                .links
                .values()
                .any(|port| port.bridge == Some(link.index)),
            has_vlans: self
                .network
                .links
                .values()
                .any(|vlan| vlan.vlan_of == Some(link.index)),
            foreign: link.xdp.iter().copied().find(|program| *program != own),
            slot_owner: self
                .hooks
                .dataplane
                .xdp_slot_owner(link.index)?
                .filter(|owner| *owner != link.index && interfaces.contains(owner)),
            refused: match before {
                // Somebody else was quicker: what that was is seen next time.
                Some(Declined::Refused(Errno::EBUSY | Errno::EEXIST)) => None,
                Some(Declined::Refused(errno)) => Some(errno),
                _ => None,
            },
        };
        let flavor = match choose(self.mode, &facts) {
            Ok(flavor) => flavor,
            Err(declined) => return Ok(Err(declined)),
        };
        let tried = self
            .hooks
            .attach_xdp(attached, link.index, mac, flavor)
            .await?;
        Ok(tried.map_err(|errno| match errno {
            // Where the kernel says no more of it.
            Errno::EOPNOTSUPP if self.features.is_none() => Declined::NotNative,
            errno => Declined::Refused(errno),
        }))
    }
}

/// Why external interfaces have no XDP program, by interface.
pub fn declined(dataplane: &Dataplane) -> anyhow::Result<HashMap<u32, Declined>> {
    let notes = hooks::notes(dataplane, Note::XdpDeclined)?.into_iter();
    Ok(notes
        .filter_map(|(ifindex, note)| Some((ifindex, Declined::decode(note.kind, note.handle)?)))
        .collect())
}

/// Forgets refusals, so that the next pass tries again.
pub fn forget_refusals(dataplane: &mut Dataplane) -> anyhow::Result<()> {
    for (ifindex, why) in declined(dataplane)? {
        if matches!(why, Declined::Refused(_)) {
            hooks::remove_note(dataplane, ifindex, Note::XdpDeclined)
                .context("cannot forget a refusal")?;
        }
    }
    Ok(())
}

fn note(dataplane: &mut Dataplane, ifindex: u32, why: Declined) -> anyhow::Result<()> {
    let (kind, handle) = why.encode();
    let hook = Hook {
        handle,
        ..Hook::of_kind(kind)
    };
    hooks::write_note(dataplane, ifindex, Note::XdpDeclined, hook)
}
