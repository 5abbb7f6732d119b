//! Runs plans: round by round, in each round every contender, and each time another one first.

use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::{
    model::{Scenario, Series},
    plan::{Effort, Plan, Stage},
};

/// Runs one plan, and says on standard error how far it is. `place` tells where it stands among all, as `3/8`.
///
/// # Errors
/// It cannot be set up, or a sample cannot be taken.
pub fn run(plan: &Plan, effort: Effort, place: &str) -> Result<Vec<Scenario>> {
    let begin = Instant::now();
    eprintln!("[{place}] {}: {}", plan.id, plan.title);
    let mut stage =
        (plan.prepare)(effort).with_context(|| format!("{} cannot be set up", plan.id))?;
    for skipped in &stage.skipped {
        eprintln!("[{place}]   without {}: {}", skipped.contender, skipped.why);
    }
    let samples = sample(plan, &mut stage, effort.rounds, place)?;
    let scenarios = (0..plan.measures.len())
        .map(|measure| scenario(plan, &stage, &samples, measure))
        .collect();
    eprintln!("[{place}]   done in {:.0} s", begin.elapsed().as_secs_f64());
    Ok(scenarios)
}

/// The samples by contender, round and measure.
fn sample(
    plan: &Plan,
    stage: &mut Stage,
    rounds: usize,
    place: &str,
) -> Result<Vec<Vec<Vec<f64>>>> {
    let count = stage.contenders.len();
    let mut samples = vec![Vec::with_capacity(rounds); count];
    for round in 0..rounds {
        for turn in 0..count {
            let at = (round + turn) % count;
            let contender = &mut stage.contenders[at];
            let name = contender.name().to_owned();
            let values = contender
                .sample()
                .with_context(|| format!("{}, round {} of {rounds}: {name}", plan.id, round + 1))?;
            ensure!(
                values.len() == plan.measures.len(),
                "{name} gave {} values, not {}",
                values.len(),
                plan.measures.len()
            );
            eprintln!(
                "[{place}]   round {}/{rounds}  {name:<16} {}",
                round + 1,
                shown(plan, &values)
            );
            samples[at].push(values);
        }
    }
    Ok(samples)
}

/// `0.546 Mpps per CPU s`, or several of that.
fn shown(plan: &Plan, values: &[f64]) -> String {
    let shown: Vec<_> = plan
        .measures
        .iter()
        .zip(values)
        .map(|(measure, value)| format!("{value:.4} {}", measure.unit))
        .collect();
    shown.join(", ")
}

fn scenario(plan: &Plan, stage: &Stage, samples: &[Vec<Vec<f64>>], at: usize) -> Scenario {
    let measure = plan.measures[at];
    let series = stage.contenders.iter().zip(samples);
    Scenario {
        id: measure.id(plan.id),
        title: measure.title.to_owned(),
        unit: measure.unit.to_owned(),
        better: measure.better,
        note: stage.note.clone(),
        series: series
            .map(|(contender, samples)| Series {
                contender: contender.name().to_owned(),
                samples: samples.iter().map(|values| values[at]).collect(),
                note: contender.note(),
            })
            .collect(),
        skipped: stage.skipped.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::{
        model::Better,
        plan::{Contender, Measure},
    };

    thread_local! {
        static ORDER: RefCell<String> = const { RefCell::new(String::new()) };
    }

    struct Counting(&'static str, f64);

    impl Contender for Counting {
        fn name(&self) -> &str {
            self.0
        }

        fn sample(&mut self) -> Result<Vec<f64>> {
            ORDER.with_borrow_mut(|order| order.push_str(self.0));
            self.1 += 1.0;
            Ok(vec![self.1, -self.1])
        }
    }

    fn measure(suffix: &'static str) -> Measure {
        Measure {
            suffix,
            title: "",
            unit: "",
            better: Better::Higher,
        }
    }

    #[test]
    fn contenders_take_turns_and_each_measure_becomes_a_scenario() -> Result<()> {
        let plan = Plan {
            id: "count",
            title: "",
            quick: false,
            measures: vec![measure("-up"), measure("-down")],
            prepare: Box::new(|_| {
                Ok(Stage {
                    note: String::new(),
                    contenders: vec![
                        Box::new(Counting("a", 0.0)),
                        Box::new(Counting("b", 10.0)),
                        Box::new(Counting("c", 20.0)),
                    ],
                    skipped: Vec::new(),
                })
            }),
        };
        let effort = Effort {
            quick: false,
            rounds: 3,
        };
        let scenarios = run(&plan, effort, "1/1")?;
        assert_eq!(ORDER.take(), "abcbcacab");
        let ids: Vec<_> = scenarios.iter().map(|found| found.id.as_str()).collect();
        assert_eq!(ids, ["count-up", "count-down"]);
        assert_eq!(scenarios[1].series[1].samples, [-11.0, -12.0, -13.0]);
        Ok(())
    }
}
