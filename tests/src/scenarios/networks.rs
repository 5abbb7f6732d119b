//! Who reaches whom on Docker's bridges. None of it is portway's, and it changes nothing.

use anyhow::Result;

use super::Scenario;
use crate::{docker, guest::GREETING, stage::Stage};

pub(super) const SCENARIO: Scenario = Scenario {
    number: 3,
    name: "networks",
    title: "Containers reach each other as their networks have it",
    play,
};

fn play(stage: &mut Stage<'_>) -> Result<()> {
    stage.docker("run -d --name one echo")?;
    stage.docker("run -d --name two echo")?;
    stage.docker("network create own")?;
    stage.docker("run -d --name three --network own echo")?;
    stage.docker("run -d --name four --network own echo")?;
    let host = &stage.lab.host;
    let engine = stage.lab.docker.engine();
    let between = if engine.isolates_networks() {
        "no answer"
    } else {
        GREETING
    };
    let two = docker::address(host, "two", engine.default_network())?;
    let four = docker::address(host, "four", "own")?;
    stage.without_and_with(|pass| {
        let default = format!("{two}:8080");
        let own = format!("{four}:8080");
        pass.inside("one", "address of two, default bridge", &default, GREETING)?;
        pass.inside(
            "one",
            "name of two, default bridge",
            "two:8080",
            "unknown name",
        )?;
        pass.inside("three", "address of four, own bridge", &own, GREETING)?;
        pass.inside("three", "name of four, own bridge", "four:8080", GREETING)?;
        pass.inside("one", "address of four, another bridge", &own, between)?;
        pass.inside("three", "address of two, another bridge", &default, between)
    })?;
    stage.remove("one two three four")?;
    stage.docker("network rm own")?;
    Ok(())
}
