//! Publishing many ports by hand: how long the command takes, and what the kernel's memory grows by.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use portway_tests::{container::Container, lab::Lab, portway::Portway};

use crate::{
    contenders::PORTWAY_AUTO,
    control::maps,
    model::Better,
    plan::{Contender, Effort, Measure, Plan, Stage},
};

/// The published range: 10,001 ports.
const RANGE: &str = "20000-30000";

/// What is told in bytes.
const KILOBYTE: f64 = 1e3;

/// The scenario.
pub fn plan() -> Plan {
    Plan {
        id: "publish",
        title: "portway publish of 10,001 ports",
        quick: true,
        measures: vec![
            Measure {
                suffix: "-time",
                title: "`portway publish` of 10,001 ports",
                unit: "ms",
                better: Better::Lower,
            },
            Measure {
                suffix: "-memory",
                title: "The kernel's memory for 10,001 more ports",
                unit: "kB",
                better: Better::Lower,
            },
        ],
        prepare: Box::new(prepare),
    }
}

fn prepare(_: Effort) -> Result<Stage> {
    let lab = Lab::new()?;
    let container = Container::new(&lab.host, 1)?;
    let portway = Portway::new(&lab.host)?;
    portway.load("")?;
    let instance = portway.leave();
    let mut stage = Stage::new(format!(
        "`portway publish {RANGE}:CONTAINER:{RANGE}/udp`, from its start to its end; and how much more memory \
         portway's maps take afterwards."
    ));
    stage.add(Publishing {
        lab,
        container,
        instance,
    });
    Ok(stage)
}

struct Publishing {
    lab: Lab,
    container: Container,
    instance: String,
}

impl Contender for Publishing {
    fn name(&self) -> &str {
        PORTWAY_AUTO
    }

    fn sample(&mut self) -> Result<Vec<f64>> {
        let host = &self.lab.host;
        let portway = Portway::again(host, &self.instance)?;
        let before = maps::total(&maps::memory(host, &portway)?);
        let publish = format!("publish {RANGE}:{}:{RANGE}/udp", self.container.address);
        let begin = Instant::now();
        portway.text(&publish)?;
        let took = begin.elapsed();
        let after = maps::total(&maps::memory(host, &portway)?);
        let port = portway.port("udp", 30_000)?;
        let port = port.context("the last port of the range is not published")?;
        ensure!(port.state == "active", "the range is {}", port.state);
        portway.text(&format!("unpublish {RANGE}/udp"))?;
        Ok(vec![
            took.as_secs_f64() * 1e3,
            after.saturating_sub(before) as f64 / KILOBYTE,
        ])
    }
}
