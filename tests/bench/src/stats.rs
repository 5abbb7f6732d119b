//! Statistics of samples that were taken round by round.
//!
//! What disturbs a machine lasts longer than a sample and shorter than a run, so it hits all contenders of a
//! round alike: contenders are compared within each round, and only then is anything averaged.

use crate::model::{Better, Scenario, Series};

/// A ratio from fewer rounds is not reported, unless the report says that it is a quick one.
pub const MINIMUM_ROUNDS: usize = 5;

/// The middle of some samples, and their ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// Half of the samples are not above it.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Summary {
    /// Of these samples; none of no samples, or if one of them is no number.
    pub fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        samples
            .iter()
            .all(|sample| sample.is_finite())
            .then_some(Self { median, min, max })
    }
}

/// How many times better a contender is than another, as [`ratio`] has it. More than 1 is better, whichever
/// way the quantity improves.
///
/// None also if either of them was not measured.
pub fn times_better(
    scenario: &Scenario,
    contender: &str,
    than: &str,
    quick: bool,
) -> Option<Summary> {
    let (contender, than) = (scenario.of(contender)?, scenario.of(than)?);
    match scenario.better {
        Better::Higher => ratio(contender, than, quick),
        Better::Lower => ratio(than, contender, quick),
    }
}

/// How many times one is the other: the ratio of each round that both have a sample of, summed up.
///
/// None of too few rounds: [`MINIMUM_ROUNDS`], or 1 in a quick run.
pub fn ratio(of: &Series, to: &Series, quick: bool) -> Option<Summary> {
    let rounds = of.samples.iter().zip(&to.samples);
    let ratios: Vec<_> = rounds.map(|(of, to)| of / to).collect();
    let enough = if quick { 1 } else { MINIMUM_ROUNDS };
    if ratios.len() < enough {
        return None;
    }
    Summary::of(&ratios)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario(better: Better, series: &[(&str, &[f64])]) -> Scenario {
        Scenario {
            id: String::new(),
            title: String::new(),
            unit: String::new(),
            better,
            note: String::new(),
            series: series
                .iter()
                .map(|(contender, samples)| Series {
                    contender: (*contender).to_owned(),
                    samples: samples.to_vec(),
                    note: String::new(),
                })
                .collect(),
            skipped: Vec::new(),
        }
    }

    fn summary(median: f64, min: f64, max: f64) -> Option<Summary> {
        Some(Summary { median, min, max })
    }

    #[test]
    fn the_median_is_the_middle_one_or_between_the_middle_two() {
        assert_eq!(Summary::of(&[3.0, 1.0, 2.0]), summary(2.0, 1.0, 3.0));
        assert_eq!(Summary::of(&[4.0, 1.0, 2.0, 3.0]), summary(2.5, 1.0, 4.0));
        assert_eq!(Summary::of(&[7.0]), summary(7.0, 7.0, 7.0));
    }

    #[test]
    fn nothing_and_no_numbers_have_no_summary() {
        assert_eq!(Summary::of(&[]), None);
        assert_eq!(Summary::of(&[1.0, f64::NAN]), None);
        assert_eq!(Summary::of(&[1.0, f64::INFINITY]), None);
    }

    #[test]
    fn a_disturbance_that_hits_a_whole_round_leaves_the_ratio_alone() {
        let rates = scenario(
            Better::Higher,
            &[
                ("a", &[2.0, 0.2, 4.0, 2.0, 1.0]),
                ("b", &[1.0, 0.1, 2.0, 1.0, 0.5]),
            ],
        );
        assert_eq!(
            times_better(&rates, "a", "b", false),
            summary(2.0, 2.0, 2.0)
        );
        assert_eq!(
            times_better(&rates, "b", "a", false),
            summary(0.5, 0.5, 0.5)
        );
    }

    #[test]
    fn the_median_is_that_of_ratios_and_no_ratio_of_medians() {
        let rates = scenario(
            Better::Higher,
            &[
                ("a", &[1.0, 2.0, 6.0, 8.0, 10.0]),
                ("b", &[1.0, 1.0, 1.0, 4.0, 10.0]),
            ],
        );
        assert_eq!(
            times_better(&rates, "a", "b", false),
            summary(2.0, 1.0, 6.0)
        );
    }

    #[test]
    fn less_is_better_where_durations_are_compared() {
        let durations = scenario(Better::Lower, &[("a", &[1.0; 5]), ("b", &[4.0; 5])]);
        assert_eq!(
            times_better(&durations, "a", "b", false),
            summary(4.0, 4.0, 4.0)
        );
    }

    #[test]
    fn few_rounds_give_no_ratio_but_in_a_quick_run() {
        let rates = scenario(Better::Higher, &[("a", &[2.0; 4]), ("b", &[1.0; 4])]);
        assert_eq!(times_better(&rates, "a", "b", false), None);
        assert_eq!(times_better(&rates, "a", "b", true), summary(2.0, 2.0, 2.0));
        assert_eq!(times_better(&rates, "a", "c", true), None);
    }
}
