//! A port is published once: the second container is refused, in Docker's words, and another port
//! serves beside the first.

use anyhow::{Result, ensure};

use super::Scenario;
use crate::{
    docker::{self, try_docker},
    guest::GREETING,
    stage::Stage,
};

pub(super) const SCENARIO: Scenario = Scenario {
    number: 2,
    name: "taken-port",
    title: "A taken port is refused, another serves beside it",
    play,
};

/// What Docker and portway say.
const REFUSAL: &str = "Bind for 0.0.0.0:9000 failed: port is already allocated";

fn play(stage: &mut Stage<'_>) -> Result<()> {
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
        let said = refused.stderr.contains(REFUSAL);
        let outcome = if said {
            REFUSAL
        } else {
            refused.stderr.as_str()
        };
        pass.expect("second container with -p 9000:8080", REFUSAL, outcome)?;
        pass.remove("second")?;
        pass.outside(9000, GREETING)?;

        pass.docker("run -d --name second -p 9001:8080 -e GREETING=Second echo")?;
        pass.settle(9001)?;
        pass.outside(9001, "Second")?;
        pass.outside(9000, GREETING)?;
        pass.on_host("localhost:9001", "Second")?;

        if let Some(portway) = pass.portway() {
            let container = docker::address(host, "second", "bridge")?;
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
