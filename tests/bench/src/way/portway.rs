//! portway, alone: whatever it leaves to the kernel is lost here, and seen.

use anyhow::{Context, Result};
use dataplane_common::layout::DEFAULT_MAX_FLOWS;
use portway_tests::portway::Portway;

use crate::{
    bed::Bed,
    frame::{FIRST_CONTAINER_PORT, FIRST_PORT},
    sender::{Flows, Traffic},
};

/// `portway load` for TC.
pub const LOAD_TC: &str = "--mode tc --admission direct";

/// The same for XDP.
pub const LOAD_XDP: &str = "--mode xdp --admission direct";

/// Loads it with these options, publishes, and returns the instance's name. There is room for twice the flows
/// that take turns, as conntrack has it.
///
/// # Errors
/// It fails; with its own words.
pub fn open(bed: &Bed, traffic: Traffic, options: &str) -> Result<String> {
    let portway = Portway::new(&bed.lab.host)?;
    let max_flows = match traffic.flows {
        Flows::Turns(flows) if flows > DEFAULT_MAX_FLOWS / 2 => 2 * flows,
        _ => DEFAULT_MAX_FLOWS,
    };
    portway.load(&format!("{options} --max-flows {max_flows}"))?;
    let ports = traffic.ports;
    let range = |first: u16| match ports {
        1 => first.to_string(),
        _ => format!("{first}-{}", first + (ports - 1)),
    };
    let address = bed.container.address;
    let (outside, inside) = (range(FIRST_PORT), range(FIRST_CONTAINER_PORT));
    portway
        .publish(&format!("{outside}:{address}:{inside}/udp"))
        .with_context(|| format!("portway does not publish {ports} ports"))?;
    Ok(portway.leave())
}
