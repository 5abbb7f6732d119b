//! The programs load, far below where the verifier gives up.

use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use aya::programs::ProgramInfo;
use dataplane_common::layout::programs;
use portway::instance::Instance;
use portway_tests::{
    container::Container,
    harness::{self, Test},
    lab::{EXTERNAL, Lab},
    portway::Portway,
    tun::{Kind, Tunnel},
};

/// What the kernel's limit (`BPF_COMPLEXITY_LIMIT_INSNS`, include/linux/bpf.h) leaves for other verifiers, which need
/// more, or less, for the same programs.
const MOST: u32 = 1_000_000 / 4 * 3;

fn main() -> ExitCode {
    harness::run([Test::of_portway("programs_load", load)])
}

/// Prints how many instructions each program took.
fn load() -> Result<()> {
    let lab = Lab::new()?;
    let _tunnel = Tunnel::new(Kind::Tun, "tun0", &lab.host, &lab.client)?;
    let container = Container::new(&lab.host, 1)?.serve(&["udp/8080"])?;
    let portway = Portway::new(&lab.host)?;
    let instance: Instance = portway.instance().parse()?;
    let check = |name: &str| {
        let pin = lab.host.file(instance.program(name));
        let program =
            ProgramInfo::from_pin(&pin).with_context(|| format!("the pinned program {name}"))?;
        let verified = program
            .verified_instruction_count()
            .context("the kernel does not tell the instructions verified")?;
        println!("verified {name} {verified}");
        ensure!(verified < MOST, "{name}: {verified} instructions");
        Ok(())
    };
    portway.load("--admission direct")?;
    programs::ALWAYS.into_iter().try_for_each(check)?;
    for name in programs::ON_DEMAND {
        let pin = lab.host.file(instance.program(name));
        ensure!(!pin.exists(), "{name} is loaded and not needed");
    }
    portway.load(&format!(
        "--admission direct --external {EXTERNAL} --external tun0 --mode xdp --intake pass"
    ))?;
    portway.publish(&format!("9000:{}:8080/udp", container.address))?;
    programs::ON_DEMAND.into_iter().try_for_each(check)
}
