//! Which charts there are.

use anyhow::Result;

use crate::{
    contenders::IPTABLES,
    model::{Report, Scenario},
    report::{
        bars::{self, Bars},
        lines::{self, Lines},
    },
};

/// A chart, drawn.
#[derive(Debug, Clone)]
pub struct Picture {
    /// Its file's name.
    pub file: &'static str,
    /// What it shows.
    pub title: &'static str,
    /// The picture.
    pub svg: String,
}

/// What bars show of a scenario.
#[derive(Debug, Clone, Copy)]
enum Height {
    /// Its samples.
    Samples,
    /// How many times better than iptables each contender was.
    TimesBetter,
}

/// A bar chart to be: some scenarios side by side, where the run has them.
struct BarChart {
    file: &'static str,
    title: &'static str,
    unit: &'static str,
    height: Height,
    groups: &'static [(&'static str, &'static str)],
}

const BAR_CHARTS: &[BarChart] = &[
    BarChart {
        file: "packet-rate.svg",
        title: "Packets to a container",
        unit: "Mpps per CPU second",
        height: Height::Samples,
        groups: &[
            ("established", "64 flows"),
            ("many-flows", "2^20 flows"),
            ("new-1", "every packet a new flow"),
        ],
    },
    BarChart {
        file: "udp-socket.svg",
        title: "Datagrams to a socket in a container",
        unit: "Mpps per CPU second",
        height: Height::Samples,
        groups: &[
            ("socket-established", "64 flows"),
            ("socket-new", "every packet a new flow"),
        ],
    },
    BarChart {
        file: "tcp.svg",
        title: "TCP",
        unit: "times better than iptables",
        height: Height::TimesBetter,
        groups: &[
            ("tcp-connect", "connect, request, close"),
            ("tcp-request-rate", "requests"),
            ("tcp-bulk-in-rate", "bulk in"),
            ("tcp-bulk-out-rate", "bulk out"),
        ],
    },
    BarChart {
        file: "tcp-latency.svg",
        title: "Latency of TCP requests over 64 connections",
        unit: "µs",
        height: Height::Samples,
        groups: &[
            ("tcp-request-p50", "50th percentile"),
            ("tcp-request-p99", "99th percentile"),
        ],
    },
];

/// New flows by the number of published ports.
const PORTS: &[(&str, u32)] = &[
    ("new-1", 1),
    ("new-1000", 1000),
    ("new-10000", 10_000),
    ("new-65000", 65_000),
];

/// Those that the run has the samples for.
///
/// # Errors
/// One cannot be drawn.
pub fn pictures(report: &Report) -> Result<Vec<Picture>> {
    let mut pictures = Vec::new();
    for chart in BAR_CHARTS {
        let groups = measured(report, chart.groups);
        if groups.is_empty() {
            continue;
        }
        let bars = match chart.height {
            Height::Samples => Bars::of_samples(&groups),
            Height::TimesBetter => Bars::of_ratios(&groups, IPTABLES, report.quick),
        };
        pictures.push(Picture {
            file: chart.file,
            title: chart.title,
            svg: bars::draw(chart.title, chart.unit, &bars)?,
        });
    }
    let points = measured(report, PORTS);
    if points.len() > 1 {
        let title = "New flows by number of published ports";
        pictures.push(Picture {
            file: "published-ports.svg",
            title,
            svg: lines::draw(title, "Mpps per CPU second", &Lines::of_samples(&points))?,
        });
    }
    Ok(pictures)
}

fn measured<'a, T: Copy>(report: &'a Report, wanted: &[(&str, T)]) -> Vec<(&'a Scenario, T)> {
    wanted
        .iter()
        .filter_map(|(id, with)| Some((report.scenario(id)?, *with)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{report::fixed, scenarios};

    fn drawn() -> Vec<Picture> {
        pictures(&fixed::report()).expect("charts of a report that is well")
    }

    /// The texts of a picture; plotters gives each a line of its own.
    fn texts(svg: &str) -> Vec<&str> {
        svg.lines().filter(|line| !line.starts_with('<')).collect()
    }

    #[test]
    fn each_chart_is_of_measures_that_there_are() {
        let measures = scenarios::measures();
        let wanted = BAR_CHARTS.iter().flat_map(|chart| chart.groups);
        let wanted = wanted
            .map(|(id, _)| id)
            .chain(PORTS.iter().map(|(id, _)| id));
        for id in wanted {
            assert!(
                measures.iter().any(|(own, _)| own == id),
                "no scenario {id}"
            );
        }
    }

    #[test]
    fn only_what_was_measured_is_drawn() {
        let files: Vec<_> = drawn().iter().map(|picture| picture.file).collect();
        assert_eq!(
            files,
            ["packet-rate.svg", "tcp-latency.svg", "published-ports.svg"]
        );
    }

    #[test]
    fn a_chart_has_its_title_unit_groups_contenders_and_values() {
        for (picture, expected) in drawn().iter().zip([
            &[
                "Packets to a container",
                "Mpps per CPU second",
                "64 flows",
                "limit",
                "2.00",
                "0.265",
            ],
            &[
                "Latency of TCP requests over 64 connections",
                "µs",
                "99th percentile",
                "portway-auto",
                "800",
                "600",
            ],
            &[
                "New flows by number of published ports",
                "Mpps per CPU second",
                "10,000",
                "iptables",
                "0.00370",
                "1.40",
            ],
        ]) {
            let texts = texts(&picture.svg);
            for text in expected {
                assert!(
                    texts.contains(text),
                    "{}: no {text:?} in {texts:?}",
                    picture.file
                );
            }
        }
    }

    #[test]
    fn the_same_report_gives_the_same_pictures() {
        for (one, other) in drawn().iter().zip(drawn()) {
            assert_eq!(one.svg, other.svg);
        }
    }

    #[test]
    fn nothing_is_drawn_of_nothing() {
        let mut report = fixed::report();
        for scenario in &mut report.scenarios {
            scenario.series.clear();
        }
        pictures(&report).expect("charts without a bar");
    }
}
