//! The bench itself: a quick run, what it must find on any machine, and what is left when it is interrupted.

use std::{
    fs,
    path::Path,
    process::ExitCode,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use portway_bench::{
    contenders::{IPTABLES, LIMIT, NFT, PORTWAY_TC},
    model::Scenario,
    plan::Effort,
    room::SETTINGS,
    runner, scenarios, stats,
};
use portway_tests::{
    harness::{self, Test},
    netns::Netns,
    wait::PATIENCE,
};

/// What the tests look at is one for the whole machine.
static ALONE: Mutex<()> = Mutex::new(());

fn main() -> ExitCode {
    harness::run([
        Test::of_portway("packet_rates_differ_by_wide_margins", rates),
        Test::of_portway("an_interrupted_bench_puts_everything_back", interrupted),
    ])
}

fn rates() -> Result<()> {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let before = settings()?;
    let effort = Effort {
        quick: true,
        rounds: 3,
    };
    let established = run("established", effort)?;
    let echo = run("echo", effort)?;
    for (scenario, contender, than, margin) in [
        (&established, PORTWAY_TC, IPTABLES, 1.3),
        (&established, PORTWAY_TC, NFT, 1.3),
        (&established, LIMIT, IPTABLES, 1.8),
        (&echo, PORTWAY_TC, IPTABLES, 1.3),
    ] {
        let ratio = stats::times_better(scenario, contender, than, effort.quick)
            .with_context(|| format!("{}: no ratio of {contender} to {than}", scenario.id))?;
        ensure!(
            ratio.median > margin,
            "{}: {contender} has only {ratio:?} times the rate of {than}",
            scenario.id
        );
    }
    ensure!(settings()? == before, "not put back: {:?}", settings()?);
    Ok(())
}

fn interrupted() -> Result<()> {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let before = settings()?;
    let here = Netns::at(Path::new("/proc/self/ns/net"))?;
    let bench = here
        .command(env!("CARGO_BIN_EXE_portway-bench"))
        .args(["--only", "established", "--rounds", "1000"])
        .start()?;
    bench.line("round 1/1000", Duration::from_secs(60))?;
    bench.signal(Signal::SIGINT);
    let code = bench.wait(PATIENCE)?;
    ensure!(code == 130, "ended with status {code}:\n{}", bench.said());
    ensure!(settings()? == before, "not put back: {:?}", settings()?);
    Ok(())
}

fn run(id: &str, effort: Effort) -> Result<Scenario> {
    let plan = scenarios::all().into_iter().find(|plan| plan.id == id);
    let plan = plan.with_context(|| format!("no scenario {id}"))?;
    let mut found = runner::run(&plan, effort, "test")?;
    found.pop().context("nothing measured")
}

fn settings() -> Result<Vec<String>> {
    let read = |path| fs::read_to_string(path).with_context(|| format!("no {path}"));
    SETTINGS.into_iter().map(read).collect()
}
