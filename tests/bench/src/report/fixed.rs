//! A run that never was, for the tests of what is made of runs. Its numbers divide without a rest.

use crate::{
    contenders::{IPTABLES, LIMIT, PORTWAY_AUTO, PORTWAY_XDP},
    model::{Better, Report, Scenario, Series, Skipped},
};

/// Always the same.
pub fn report() -> Report {
    Report {
        machine: "virtual machine, 2 cores, 24 GiB".to_owned(),
        kernel: "6.18.0 #1 SMP".to_owned(),
        cpu: "AMD EPYC".to_owned(),
        date: "2026-11-20T12:00:00Z".to_owned(),
        command: "cargo xtask bench --rounds 5".to_owned(),
        quick: false,
        rounds: 5,
        scenarios: vec![
            rates(
                "established",
                "Packets of 64 flows",
                &[
                    (LIMIT, [2.0, 2.25, 1.75, 2.0, 2.0]),
                    (IPTABLES, [0.5, 0.5, 0.5, 0.5625, 0.4375]),
                    (PORTWAY_XDP, [1.5, 1.5, 1.5, 1.75, 1.25]),
                ],
            ),
            rates(
                "new-1",
                "New flows, 1 published port",
                &[(IPTABLES, [0.265; 5]), (PORTWAY_XDP, [1.5; 5])],
            ),
            rates(
                "new-10000",
                "New flows, 10,000 published ports",
                &[(IPTABLES, [0.003_7; 5]), (PORTWAY_XDP, [1.4; 5])],
            ),
            Scenario {
                skipped: vec![Skipped {
                    contender: PORTWAY_XDP.to_owned(),
                    why: "not supported yet".to_owned(),
                }],
                ..rates("echo", "Echoed packets", &[(IPTABLES, [0.231; 5])])
            },
            Scenario {
                unit: "µs".to_owned(),
                better: Better::Lower,
                ..rates(
                    "tcp-request-p99",
                    "99th percentile of the latency",
                    &[(IPTABLES, [800.0; 5]), (PORTWAY_AUTO, [600.0; 5])],
                )
            },
            Scenario {
                unit: "ms".to_owned(),
                better: Better::Lower,
                ..rates(
                    "publish-time",
                    "`portway publish` of 10,001 ports",
                    &[(PORTWAY_AUTO, [120.0, 110.0, 90.0, 150.0, 130.0])],
                )
            },
        ],
    }
}

fn rates(id: &str, title: &str, series: &[(&str, [f64; 5])]) -> Scenario {
    Scenario {
        id: id.to_owned(),
        title: title.to_owned(),
        unit: "Mpps per CPU s".to_owned(),
        better: Better::Higher,
        note: "Arrived packets by CPU time of the sending core.".to_owned(),
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
