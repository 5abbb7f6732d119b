//! `docker run -p`: a client outside and a process on the host both get their answer.

use anyhow::Result;

use super::Scenario;
use crate::{guest::GREETING, stage::Stage};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    number: 1,
    name: "published-port",
    title: "A published port answers outside and on the host",
    play,
};

fn play(stage: &mut Stage<'_>) -> Result<()> {
    stage.docker("run -d --name web -p 9000:8080 echo")?;
    stage.without_and_with(|pass| {
        pass.outside(9000, GREETING)?;
        pass.on_host("localhost:9000", GREETING)
    })?;
    stage.remove("web")
}
