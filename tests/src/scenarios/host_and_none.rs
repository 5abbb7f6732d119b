//! `--net host` needs no publication and gets no fast path; `--net none` has no network at all.

use anyhow::{Result, ensure};

use super::Scenario;
use crate::{guest::GREETING, image::GUEST, lab::HOST, stage::Stage};

pub(super) const SCENARIO: Scenario = Scenario {
    number: 4,
    name: "host-and-none",
    title: "The host's network and none",
    play,
};

fn play(stage: &mut Stage<'_>) -> Result<()> {
    stage.docker(&format!(
        "run -d --name open --net host echo {GUEST} serve http/8081"
    ))?;
    stage.docker("run -d --name closed --net none echo")?;
    stage.without_and_with(|pass| {
        pass.outside_left_alone(8081, GREETING)?;
        let links = pass.docker("exec closed ls /sys/class/net")?;
        pass.expect("interfaces with --net none", "lo", &links)?;
        let nowhere = format!("{HOST}:8081");
        pass.inside("closed", "host:8081", &nowhere, "network unreachable")?;
        if let Some(portway) = pass.portway() {
            let ports = portway.ls()?;
            ensure!(ports.is_empty(), "portway took a port of nobody: {ports:?}");
        }
        Ok(())
    })?;
    stage.remove("open closed")
}
