//! A port is published once: the second container is refused, in Docker's words, and another port
//! serves beside the first.

use anyhow::{Result, ensure};

use super::Scenario;
use crate::{
    docker::{self, try_docker},
    engine::REFUSAL,
    guest::GREETING,
    stage::Stage,
};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    number: 2,
    name: "taken-port",
    title: "A taken port is refused, another serves beside it",
    play,
};

fn play(stage: &mut Stage<'_>) -> Result<()> {
    let engine = stage.lab.docker.engine();
    stage.docker("run -d --name first -p 9000:8080 echo")?;
    stage.without_and_with(|pass| {
        let host = &pass.lab().host;
        // The pass before has left its own, whose rules have counters to be read.
        try_docker(host, "rm --force second")?;
        let refused = try_docker(host, "run -d --name second -p 9000:8080 echo")?;
        ensure!(
            !refused.status.success(),
            "Docker published port 9000 twice"
        );
        let refusal = engine.refusal();
        let said = refused.stderr.contains(refusal);
        let outcome = if said {
            refusal
        } else {
            refused.stderr.as_str()
        };
        pass.expect("second container with -p 9000:8080", refusal, outcome)?;
        pass.remove("second")?;
        pass.outside(9000, GREETING)?;

        pass.docker("run -d --name second -p 9001:8080 -e GREETING=Second echo")?;
        pass.settle(9001)?;
        pass.outside(9001, "Second")?;
        pass.outside(9000, GREETING)?;
        pass.on_host("localhost:9001", "Second")?;

        if let Some(portway) = pass.portway() {
            let container = docker::address(host, "second", engine.default_network())?;
            let refused = portway.output(&format!("publish 9000:{container}:8080"))?;
            ensure!(
                refused.code() == 1 && refused.stderr.contains(REFUSAL),
                "portway publish of a taken port: {refused}"
            );
            pass.also("portway publish of port 9000", REFUSAL);
        }
        Ok(())
    })?;
    stage.remove("first second")
}
