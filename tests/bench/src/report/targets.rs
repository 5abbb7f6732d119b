//! What portway has to reach, and whether a run shows that it has.

use crate::{
    contenders::{IPTABLES, LIMIT, PORTWAY_AUTO, PORTWAY_TC, PORTWAY_XDP},
    model::{Report, Series},
    stats::{self, Summary},
};

/// Something to be reached.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// The traffic, or the deed.
    pub what: &'static str,
    /// What is looked at.
    pub quantity: Quantity,
    /// What its median must be.
    pub bound: Bound,
}

/// A number that a run yields.
#[derive(Debug, Clone, Copy)]
pub enum Quantity {
    /// The first one's samples, round by round in terms of the second one's.
    Ratio(Sampled, Sampled),
    /// Samples as they are, and their unit.
    Plain(Sampled, &'static str),
}

/// A scenario and one of its contenders.
#[derive(Debug, Clone, Copy)]
pub struct Sampled {
    /// The scenario's id.
    pub scenario: &'static str,
    /// The contender's name.
    pub contender: &'static str,
}

/// A bound that itself is good enough.
#[derive(Debug, Clone, Copy)]
pub enum Bound {
    /// This much or more.
    AtLeast(f64),
    /// This much or less.
    AtMost(f64),
}

/// What a run says of a target.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// The median is on the right side of the bound.
    Reached(Summary),
    /// It is not.
    Missed(Summary),
    /// The run has not measured it; why, if that is known.
    Unmeasured(Option<String>),
}

/// All of them.
pub const ALL: &[Target] = &[
    ratio(ESTABLISHED, "established", PORTWAY_XDP, LIMIT, 0.97),
    ratio(ESTABLISHED, "established", PORTWAY_XDP, IPTABLES, 3.0),
    ratio(ESTABLISHED, "established", PORTWAY_TC, LIMIT, 0.88),
    ratio(ESTABLISHED, "established", PORTWAY_TC, IPTABLES, 2.7),
    ratio(MANY, "many-flows", PORTWAY_XDP, LIMIT, 0.80),
    ratio(MANY, "many-flows", PORTWAY_XDP, IPTABLES, 4.4),
    ratio(NEW, "new-1", PORTWAY_XDP, LIMIT, 0.85),
    ratio(NEW, "new-1", PORTWAY_XDP, IPTABLES, 5.5),
    ratio(NEW, "new-1", PORTWAY_TC, IPTABLES, 5.0),
    ratio(
        "UDP, every packet a new flow, 10,000 published ports",
        "new-10000",
        PORTWAY_XDP,
        IPTABLES,
        350.0,
    ),
    Target {
        what: "UDP, every packet a new flow: 65,000 published ports against 1",
        quantity: Quantity::Ratio(
            sampled("new-65000", PORTWAY_XDP),
            sampled("new-1", PORTWAY_XDP),
        ),
        bound: Bound::AtLeast(0.95),
    },
    ratio("UDP echo", "echo", PORTWAY_XDP, IPTABLES, 2.7),
    ratio(
        "UDP to a socket, 64 flows",
        "socket-established",
        PORTWAY_XDP,
        IPTABLES,
        1.9,
    ),
    ratio(
        "UDP to a socket, every packet a new flow",
        "socket-new",
        PORTWAY_XDP,
        IPTABLES,
        2.6,
    ),
    ratio(
        "TCP connect, request, close",
        "tcp-connect",
        PORTWAY_AUTO,
        IPTABLES,
        1.35,
    ),
    ratio(
        "TCP requests over 64 connections",
        "tcp-request-rate",
        PORTWAY_AUTO,
        IPTABLES,
        1.25,
    ),
    at_most(
        "TCP requests over 64 connections: 99th percentile of the latency",
        "tcp-request-p99",
        PORTWAY_AUTO,
        IPTABLES,
        0.8,
    ),
    ratio(
        "TCP bulk to the container",
        "tcp-bulk-in-rate",
        PORTWAY_AUTO,
        IPTABLES,
        1.15,
    ),
    at_most(
        "TCP bulk to the container: CPU per GB",
        "tcp-bulk-in-cpu",
        PORTWAY_AUTO,
        IPTABLES,
        0.82,
    ),
    ratio(
        "TCP bulk from the container",
        "tcp-bulk-out-rate",
        PORTWAY_AUTO,
        IPTABLES,
        1.15,
    ),
    at_most(
        "TCP bulk from the container: CPU per GB",
        "tcp-bulk-out-cpu",
        PORTWAY_AUTO,
        IPTABLES,
        0.82,
    ),
    plain(
        "`portway publish` of 10,001 ports",
        "publish-time",
        100.0,
        "ms",
    ),
    plain(
        "Maps in the kernel, 1,000,000 live flows",
        "memory-maps",
        200.0,
        "MB",
    ),
    plain(
        "`portway run`, resident, 1,000,000 live flows",
        "memory-run",
        30.0,
        "MB",
    ),
];

const ESTABLISHED: &str = "UDP, 64 flows";
const MANY: &str = "UDP, 2^20 flows";
const NEW: &str = "UDP, every packet a new flow";

const fn sampled(scenario: &'static str, contender: &'static str) -> Sampled {
    Sampled {
        scenario,
        contender,
    }
}

const fn ratio(
    what: &'static str,
    scenario: &'static str,
    of: &'static str,
    to: &'static str,
    at_least: f64,
) -> Target {
    Target {
        what,
        quantity: Quantity::Ratio(sampled(scenario, of), sampled(scenario, to)),
        bound: Bound::AtLeast(at_least),
    }
}

const fn at_most(
    what: &'static str,
    scenario: &'static str,
    of: &'static str,
    to: &'static str,
    at_most: f64,
) -> Target {
    Target {
        what,
        quantity: Quantity::Ratio(sampled(scenario, of), sampled(scenario, to)),
        bound: Bound::AtMost(at_most),
    }
}

const fn plain(
    what: &'static str,
    scenario: &'static str,
    at_most: f64,
    unit: &'static str,
) -> Target {
    Target {
        what,
        quantity: Quantity::Plain(sampled(scenario, PORTWAY_AUTO), unit),
        bound: Bound::AtMost(at_most),
    }
}

impl Target {
    /// What `report` says of it.
    pub fn judge(&self, report: &Report) -> Verdict {
        match self.measured(report) {
            Some(summary) if self.bound.holds(summary.median) => Verdict::Reached(summary),
            Some(summary) => Verdict::Missed(summary),
            None => Verdict::Unmeasured(self.quantity.why_not(report)),
        }
    }

    fn measured(&self, report: &Report) -> Option<Summary> {
        match self.quantity {
            Quantity::Ratio(of, to) => {
                stats::ratio(of.series(report)?, to.series(report)?, report.quick)
            }
            Quantity::Plain(sampled, _) => Summary::of(&sampled.series(report)?.samples),
        }
    }
}

impl Quantity {
    /// What the run says of a contender that did not take part.
    fn why_not(&self, report: &Report) -> Option<String> {
        let (first, second) = match *self {
            Self::Ratio(of, to) => (of, Some(to)),
            Self::Plain(sampled, _) => (sampled, None),
        };
        [Some(first), second]
            .into_iter()
            .flatten()
            .find_map(|sampled| {
                let skipped = &report.scenario(sampled.scenario)?.skipped;
                let skipped = skipped
                    .iter()
                    .find(|skipped| skipped.contender == sampled.contender)?;
                Some(format!("{}: {}", skipped.contender, skipped.why))
            })
    }
}

impl Sampled {
    fn series(self, report: &Report) -> Option<&Series> {
        report.scenario(self.scenario)?.of(self.contender)
    }
}

impl Bound {
    fn holds(self, median: f64) -> bool {
        match self {
            Self::AtLeast(bound) => median >= bound,
            Self::AtMost(bound) => median <= bound,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{report::fixed, scenarios};

    fn verdict(what: &str, of: &str) -> Verdict {
        let report = fixed::report();
        let target = ALL.iter().find(|target| {
            target.what == what
                && match target.quantity {
                    Quantity::Ratio(_, to) => to.contender == of,
                    Quantity::Plain(..) => true,
                }
        });
        target.expect("a target of that name").judge(&report)
    }

    #[test]
    fn each_target_is_about_a_measure_that_there_is() {
        let measures = scenarios::measures();
        for target in ALL {
            let all = match target.quantity {
                Quantity::Ratio(of, to) => vec![(of, None), (to, None)],
                Quantity::Plain(sampled, unit) => vec![(sampled, Some(unit))],
            };
            for (Sampled { scenario, .. }, unit) in all {
                let found = measures.iter().find(|(id, _)| id == scenario);
                let (_, measure) = found.unwrap_or_else(|| panic!("no scenario {scenario}"));
                assert!(unit.is_none_or(|unit| unit == measure.unit), "{scenario}");
            }
        }
    }

    #[test]
    fn the_median_decides_and_the_bound_itself_is_good_enough() {
        let Verdict::Reached(summary) = verdict(ESTABLISHED, IPTABLES) else {
            panic!("three times iptables is enough");
        };
        assert!((summary.median - 3.0).abs() < 1e-12, "{summary:?}");
        assert!(matches!(verdict(ESTABLISHED, LIMIT), Verdict::Missed(_)));
    }

    #[test]
    fn less_is_better_where_that_is_the_target() {
        let what = "TCP requests over 64 connections: 99th percentile of the latency";
        assert!(matches!(verdict(what, IPTABLES), Verdict::Reached(_)));
        let what = "`portway publish` of 10,001 ports";
        assert!(matches!(verdict(what, ""), Verdict::Missed(_)));
    }

    #[test]
    fn what_was_not_measured_is_not_reached() {
        assert_eq!(verdict(MANY, LIMIT), Verdict::Unmeasured(None));
        let why = "portway-xdp: not supported yet".to_owned();
        assert_eq!(
            verdict("UDP echo", IPTABLES),
            Verdict::Unmeasured(Some(why))
        );
    }

    #[test]
    fn too_few_rounds_reach_nothing() {
        let mut report = fixed::report();
        for scenario in &mut report.scenarios {
            for series in &mut scenario.series {
                series.samples.truncate(4);
            }
        }
        let established = &ALL[1];
        assert_eq!(established.judge(&report), Verdict::Unmeasured(None));
        report.quick = true;
        assert!(matches!(established.judge(&report), Verdict::Reached(_)));
    }
}
