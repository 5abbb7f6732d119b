//! A bare redirect: from XDP at the external interface to the container, and from TC at its veth pair back.
//! Nothing is looked up and nothing translated.

use anyhow::Result;
use aya::programs::XdpMode;
use portway_bench_ebpf::programs;
use portway_tests::lab::EXTERNAL;

use crate::{
    bed::{Bed, INSIDE},
    ethtool::turn_gro_on,
    object::{Constants, Object},
};

/// The attached programs.
pub struct Limit {
    /// They and their maps.
    pub object: Object,
}

impl Limit {
    /// Attaches them.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn open(bed: &Bed) -> Result<Self> {
        let Bed { lab, container } = bed;
        let mut object = Object::load(&Constants {
            container_mac: container.netns.mac(INSIDE)?,
            out: lab.host.index(EXTERNAL)?,
            ..Constants::default()
        })?;
        turn_gro_on(&container.netns, INSIDE)?;
        object.redirect_to_container(&lab.host, &container.veth)?;
        let program = object.xdp(programs::LIMIT)?;
        lab.host
            .run(|| Ok(program.attach(EXTERNAL, XdpMode::Driver)?))?;
        object.attach_ingress(programs::LIMIT_REPLY, &lab.host, &container.veth)?;
        Ok(Self { object })
    }
}
