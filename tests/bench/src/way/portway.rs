//! portway, alone: whatever it leaves to the kernel is lost here, and seen.

use anyhow::{Context, Result};
use portway_tests::portway::Portway;

use crate::{
    bed::Bed,
    frame::{FIRST_CONTAINER_PORT, FIRST_PORT},
};

/// `portway load` for TC. Room for twice the flows of the largest scenario.
pub const LOAD_TC: &str = "--mode tc --admission direct --max-flows 2097152";

/// The same for XDP.
pub const LOAD_XDP: &str = "--mode xdp --admission direct --max-flows 2097152";

/// Loads it with these options, publishes, and returns the instance's name.
///
/// # Errors
/// It fails; with its own words.
pub fn open(bed: &Bed, ports: u16, options: &str) -> Result<String> {
    let portway = Portway::new(&bed.lab.host)?;
    portway.load(options)?;
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
