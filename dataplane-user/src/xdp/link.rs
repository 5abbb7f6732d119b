//! Attaching the XDP program to an interface. It is detached as the others are.

use aya::programs::{ProgramError, Xdp, XdpMode, links::FdLink, xdp::XdpError};
use aya_obj::programs::XdpAttachType;
use dataplane_common::{headers::Mac, layout::programs};
use nix::errno::Errno;

use super::choice::Flavor;
use crate::{
    attach::{Hooks, note},
    hooks::{Attached, Kind, Role, interface_name},
};

impl Hooks<'_> {
    /// Attaches the XDP program to an interface with this MAC, unless it is there already: `attached` is what
    /// is noted. Tells if the kernel refuses it there.
    ///
    /// # Errors
    ///
    /// No such interface, or what is there does not go.
    pub async fn attach_xdp(
        &mut self,
        attached: &[Attached],
        ifindex: u32,
        mac: Mac,
        flavor: Flavor,
    ) -> anyhow::Result<Result<(), Errno>> {
        let name = interface_name(ifindex)?;
        let (kind, mode) = match flavor {
            Flavor::Native => (Kind::Xdp, XdpMode::Driver),
            Flavor::Generic => (Kind::XdpGeneric, XdpMode::Skb),
        };
        let noted = attached
            .iter()
            .find(|there| there.ifindex == ifindex && there.role == Role::Xdp);
        if let Some(there) = noted {
            if there.kind == kind && self.is_alive(there).await? {
                self.dataplane.write_xdp_interface(ifindex, mac)?;
                return Ok(Ok(()));
            }
            self.detach(there).await?;
        } else {
            // Left by a command that was killed before it could take its note.
            self.detach_link(ifindex, Role::Xdp)?;
        }
        self.dataplane.write_xdp_interface(ifindex, mac)?;
        match self.link_xdp(ifindex, mode) {
            Ok(()) => {
                self.note(ifindex, Role::Xdp, note(kind))?;
                Ok(Ok(()))
            }
            Err(error) => {
                self.dataplane.clear_xdp_interface(ifindex)?;
                match refusal(&error) {
                    Some(errno) => Ok(Err(errno)),
                    None => {
                        Err(error.context(format!("cannot attach {} to {name}", programs::XDP)))
                    }
                }
            }
        }
    }

    fn link_xdp(&self, ifindex: u32, mode: XdpMode) -> anyhow::Result<()> {
        let pin = self.instance.program(programs::XDP);
        let mut program = Xdp::from_pin(pin, XdpAttachType::Interface)?;
        let id = program.attach_to_if_index(ifindex, mode)?;
        let link: FdLink = program.take_link(id)?.try_into()?;
        link.pin(self.link_pin(ifindex, Role::Xdp))?;
        Ok(())
    }
}

/// What the kernel says of an interface where it does not take the XDP program.
fn refusal(error: &anyhow::Error) -> Option<Errno> {
    let code = match error.downcast_ref::<ProgramError>()? {
        ProgramError::SyscallError(error) if error.call == "bpf_link_create" => {
            error.io_error.raw_os_error()
        }
        ProgramError::XdpError(XdpError::NetlinkError(error)) => error.raw_os_error(),
        _ => None,
    };
    code.map(Errno::from_raw)
}
