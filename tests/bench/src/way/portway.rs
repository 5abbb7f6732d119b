//! portway. Where it is alone, whatever it leaves to the kernel is lost, and seen.

use anyhow::{Context, Result, ensure};
use dataplane_common::layout::DEFAULT_MAX_FLOWS;
use portway_tests::portway::Portway;

use crate::{
    bed::Bed,
    frame::{FIRST_CONTAINER_PORT, FIRST_PORT},
    way::Published,
};

/// Opens it with these options on a host without rules, with room for twice the flows, as conntrack has it.
///
/// # Errors
/// As [`open`].
pub fn open_alone(bed: &Bed, published: Published, options: &str) -> Result<String> {
    let max_flows = DEFAULT_MAX_FLOWS.max(2 * published.flows);
    let options = format!("{options} --admission direct --max-flows {max_flows}");
    open(bed, published, &options)
}

/// The same with XDP, where the container takes frames by a program.
///
/// # Errors
/// As [`open`]; or it does not.
pub fn open_passing(bed: &Bed, published: Published) -> Result<String> {
    let instance = open_alone(bed, published, "--mode xdp --intake pass")?;
    ensure!(bed.container.has_xdp()?, "no program in the container");
    Ok(instance)
}

/// Loads it with these options, publishes, and returns the instance's name.
///
/// # Errors
/// It fails, with its own words; or it does not admit flows by itself.
pub fn open(bed: &Bed, published: Published, options: &str) -> Result<String> {
    let Published {
        protocol, ports, ..
    } = published;
    let portway = Portway::new(&bed.lab.host)?;
    portway.load(options)?;
    let range = |first: u16| match ports {
        1 => first.to_string(),
        _ => format!("{first}-{}", first + (ports - 1)),
    };
    let address = bed.container.address;
    let (outside, inside) = (range(FIRST_PORT), range(FIRST_CONTAINER_PORT));
    portway
        .publish(&format!("{outside}:{address}:{inside}/{protocol}"))
        .with_context(|| format!("portway does not publish {ports} ports"))?;
    let admission = portway
        .status()?
        .admission
        .context("portway is not loaded")?;
    ensure!(
        admission.mode == "direct",
        "the kernel admits flows: {}",
        admission.why
    );
    Ok(portway.leave())
}
