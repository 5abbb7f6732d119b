//! The demo: a lab with a client, a host and a private Docker daemon, in which portway shows what it
//! does. Changes nothing on this machine, and leaves nothing on it.

use std::{process::ExitCode, time::Instant};

use anyhow::{Context, Result, bail};
use clap::Parser;
use portway_tests::{
    docker::DockerLab,
    interrupt,
    report::Report,
    requirement::Requirement,
    scenarios::{self, Scenario},
};

/// Plays portway's scenarios in a lab of network namespaces with its own Docker daemon.
///
/// Each is played without portway, then with it, and must come out the same.
#[derive(Debug, Parser)]
#[command(name = "portway-lab")]
struct Args {
    /// Scenarios to play, by number or name. [default: all]
    scenarios: Vec<String>,

    /// List the scenarios.
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    // Before there are other threads.
    interrupt::end_lab_on_ctrl_c();
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("portway-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    if args.list {
        for scenario in scenarios::ALL {
            println!(
                "{} {:<16} {}",
                scenario.number, scenario.name, scenario.title
            );
        }
        return Ok(());
    }
    let chosen = choose(&args.scenarios)?;
    for required in [
        Requirement::Root,
        Requirement::Kernel,
        Requirement::Docker,
        Requirement::Portway,
    ] {
        if let Some(why) = required.missing() {
            bail!("the lab cannot run here: {why}");
        }
    }
    let begin = Instant::now();
    let mut report = Report::live();
    report.note("client 10.99.0.2 ---- ext0 10.99.0.1 host ---- docker0 ---- containers");
    let lab = DockerLab::new().context("cannot build the lab")?;
    let took = begin.elapsed().as_secs_f64();
    report.note(&format!("lab and its own Docker daemon up in {took:.1} s"));
    for scenario in &chosen {
        scenario.play(&lab, &mut report)?;
    }
    drop(lab);
    report.note(&format!(
        "\n{} scenarios came out the same without and with portway, in {:.0} s; the lab is gone",
        chosen.len(),
        begin.elapsed().as_secs_f64()
    ));
    Ok(())
}

fn choose(names: &[String]) -> Result<Vec<Scenario>> {
    if names.is_empty() {
        return Ok(scenarios::ALL.to_vec());
    }
    let chosen = names.iter().map(|name| {
        Scenario::find(name).with_context(|| format!("no scenario {name}: see portway-lab --list"))
    });
    chosen.collect()
}
