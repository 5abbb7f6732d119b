//! `portway-bench`: runs scenarios and writes what it has found to `target/bench`.

use std::{env, path::PathBuf, process::ExitCode};

use anyhow::{Result, bail};
use clap::Parser;
use portway_bench::{
    cpu::Cpus,
    machine,
    model::Report,
    output,
    plan::{Effort, Plan},
    room, runner, scenarios,
};
use portway_tests::{interrupt, requirement::Requirement};

/// How many rounds a run has unless told otherwise.
const ROUNDS: usize = 7;

/// The same of a quick one.
const QUICK_ROUNDS: usize = 3;

/// Measures portway against iptables, nftables, docker-proxy and a bare redirect.
///
/// In network namespaces of its own: changes nothing on this machine that it does not put back. Results are
/// in target/bench.
#[derive(Debug, Parser)]
#[command(name = "portway-bench", bin_name = "cargo xtask bench")]
struct Args {
    /// A few scenarios in less than a minute. Their figures are no results.
    #[arg(long)]
    quick: bool,

    /// How many samples to take of each contender. [default: 7, with --quick 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,

    /// Run this scenario; may be given more than once. [default: all]
    #[arg(long, value_name = "SCENARIO")]
    only: Vec<String>,

    /// List the scenarios.
    #[arg(long)]
    list: bool,

    /// Run nothing: make docs/benchmarks.md and its charts of a run's bench.json. [default: the last run's]
    #[arg(long, value_name = "FILE", conflicts_with_all = ["quick", "rounds", "only", "list"])]
    docs: Option<Option<PathBuf>>,
}

fn main() -> ExitCode {
    // Before there are other threads.
    interrupt::end_lab_on_ctrl_c_after(room::put_back);
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("portway-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    if args.list {
        for plan in scenarios::all() {
            println!("{:<20} {}", plan.id, plan.title);
        }
        return Ok(());
    }
    if let Some(samples) = &args.docs {
        print(&output::write_docs(samples.as_deref())?);
        return Ok(());
    }
    let chosen = choose(args)?;
    Cpus::divide()?.keep_off()?;
    for required in [Requirement::Root, Requirement::Kernel, Requirement::Portway] {
        if let Some(why) = required.missing() {
            bail!("the bench cannot run here: {why}");
        }
    }
    let default = if args.quick { QUICK_ROUNDS } else { ROUNDS };
    let effort = Effort {
        quick: args.quick,
        rounds: args.rounds.map_or(default, usize::from),
    };
    let mut report = Report {
        machine: machine::machine(),
        kernel: machine::kernel()?,
        cpu: machine::cpu(),
        date: machine::date()?,
        command: command(),
        quick: effort.quick,
        rounds: effort.rounds,
        scenarios: Vec::new(),
    };
    let mut failed = Vec::new();
    for (index, plan) in chosen.iter().enumerate() {
        let place = format!("{}/{}", index + 1, chosen.len());
        match runner::run(plan, effort, &place) {
            Ok(scenarios) => report.scenarios.extend(scenarios),
            // The others are worth having.
            Err(error) => {
                eprintln!("[{place}]   {error:#}");
                failed.push(plan.id);
            }
        }
    }
    print(&output::write(&report)?);
    if !failed.is_empty() {
        bail!("no results of {}", failed.join(", "));
    }
    Ok(())
}

fn print(paths: &[PathBuf]) {
    for path in paths {
        println!("{}", path.display());
    }
}

fn choose(args: &Args) -> Result<Vec<Plan>> {
    let mut all = scenarios::all();
    for id in &args.only {
        if !all.iter().any(|plan| plan.id == id) {
            bail!("no scenario {id}: see cargo xtask bench --list");
        }
    }
    all.retain(|plan| match args.only.as_slice() {
        [] => plan.quick || !args.quick,
        only => only.iter().any(|id| id == plan.id),
    });
    Ok(all)
}

/// How a user would start this run again.
fn command() -> String {
    let arguments = env::args().skip(1);
    ["cargo xtask bench".to_owned()]
        .into_iter()
        .chain(arguments)
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn every_scenario_has_a_name_of_its_own() {
        let mut ids: Vec<_> = scenarios::all().iter().map(|plan| plan.id).collect();
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count);
    }
}
