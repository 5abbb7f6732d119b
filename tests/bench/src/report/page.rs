//! The page about a run, in Markdown.

use std::{
    collections::BTreeSet,
    fmt::{self, Write as _},
};

use crate::{
    contenders::IPTABLES,
    model::{Better, Report, Scenario},
    report::{
        charts::Picture,
        number::{round, significant},
        targets::{self, Bound, Quantity, Target, Verdict},
    },
    stats::{self, Summary},
};

/// The page, with the charts by their addresses below `folder`, which is empty or ends in a slash.
pub fn page(report: &Report, pictures: &[Picture], folder: &str) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write_page(&mut text, report, pictures, folder);
    text
}

fn write_page(
    text: &mut String,
    report: &Report,
    pictures: &[Picture],
    folder: &str,
) -> fmt::Result {
    writeln!(text, "# Benchmarks\n")?;
    write_head(text, report)?;
    write_targets(text, report)?;
    if !pictures.is_empty() {
        writeln!(text, "\n## Charts")?;
    }
    for picture in pictures {
        writeln!(text, "\n![{}]({folder}{})", picture.title, picture.file)?;
    }
    for scenario in &report.scenarios {
        write_scenario(text, scenario, report.quick)?;
    }
    Ok(())
}

fn write_head(text: &mut String, report: &Report) -> fmt::Result {
    if report.quick {
        writeln!(
            text,
            "**From a quick run: it shows that the bench works. Its figures are no results.**\n"
        )?;
    }
    writeln!(text, "| | |\n|---|---|")?;
    for (name, value) in [
        ("machine", &report.machine),
        ("CPU", &report.cpu),
        ("kernel", &report.kernel),
        ("date", &report.date),
        ("command", &format!("`{}`", report.command)),
    ] {
        writeln!(text, "| {name} | {value} |")?;
    }
    writeln!(
        text,
        "\nThis page is made of one run's samples by `cargo xtask bench --docs`. Each contender was measured \
         {} times,\nround by round: in each round every one of them, and each time another one first. Ratios are \
         taken within\nrounds; what is given is their median, and from where to where they went.",
        report.rounds
    )
}

fn write_targets(text: &mut String, report: &Report) -> fmt::Result {
    let verdicts: Vec<_> = targets::ALL
        .iter()
        .map(|target| (target, target.judge(report)))
        .collect();
    let reached = verdicts
        .iter()
        .filter(|(_, verdict)| matches!(verdict, Verdict::Reached(_)))
        .count();
    writeln!(
        text,
        "\n## Targets\n\n{reached} of {} reached.\n\n| | compared | target | measured | from, to | |\n\
         |---|---|--:|--:|--:|---|",
        verdicts.len()
    )?;
    let mut reasons = BTreeSet::new();
    for (target, verdict) in &verdicts {
        let (figures, outcome) = match verdict {
            Verdict::Reached(summary) => (figures(summary), "reached"),
            Verdict::Missed(summary) => (figures(summary), "**not reached**"),
            Verdict::Unmeasured(why) => {
                reasons.extend(why);
                ("| ".to_owned(), "not measured")
            }
        };
        writeln!(
            text,
            "| {} | {} | {} | {figures} | {outcome} |",
            target.what,
            compared(target.quantity),
            bound(target)
        )?;
    }
    if !reasons.is_empty() {
        writeln!(text, "\nNot measured because of:\n")?;
    }
    for reason in reasons {
        writeln!(text, "- {reason}")?;
    }
    Ok(())
}

/// Two cells: the median, and the ends.
fn figures(summary: &Summary) -> String {
    format!(
        "{} | {}, {}",
        significant(summary.median),
        significant(summary.min),
        significant(summary.max)
    )
}

fn compared(quantity: Quantity) -> String {
    match quantity {
        Quantity::Ratio(of, to) if of.contender == to.contender => of.contender.to_owned(),
        Quantity::Ratio(of, to) => format!("{} / {}", of.contender, to.contender),
        Quantity::Plain(sampled, _) => sampled.contender.to_owned(),
    }
}

fn bound(target: &Target) -> String {
    let (sign, bound) = match target.bound {
        Bound::AtLeast(bound) => ('≥', bound),
        Bound::AtMost(bound) => ('≤', bound),
    };
    match target.quantity {
        Quantity::Ratio(..) => format!("{sign} {}", round(bound)),
        Quantity::Plain(_, unit) => format!("{sign} {} {unit}", round(bound)),
    }
}

fn write_scenario(text: &mut String, scenario: &Scenario, quick: bool) -> fmt::Result {
    let better = match scenario.better {
        Better::Higher => "more is better",
        Better::Lower => "less is better",
    };
    let comparable = scenario.series.len() > 1 && scenario.of(IPTABLES).is_some();
    writeln!(text, "\n## {}\n\n{}\n", scenario.title, scenario.note)?;
    write!(
        text,
        "| `{}` | {}, {better} | from, to |",
        scenario.id, scenario.unit
    )?;
    if comparable {
        writeln!(text, " times better than {IPTABLES} | from, to |")?;
        writeln!(text, "|---|--:|--:|--:|--:|")?;
    } else {
        writeln!(text, "\n|---|--:|--:|")?;
    }
    for series in &scenario.series {
        let Some(summary) = Summary::of(&series.samples) else {
            continue;
        };
        write!(text, "| {} | {} |", series.contender, figures(&summary))?;
        if comparable {
            let ratio = stats::times_better(scenario, &series.contender, IPTABLES, quick)
                .filter(|_| series.contender != IPTABLES);
            let ratio = ratio.as_ref().map_or_else(|| "| ".to_owned(), figures);
            write!(text, " {ratio} |")?;
        }
        writeln!(text)?;
    }
    let notes = scenario
        .series
        .iter()
        .filter(|series| !series.note.is_empty())
        .map(|series| (&series.contender, format!("{}.", series.note)));
    let skipped = scenario.skipped.iter().map(|skipped| {
        (
            &skipped.contender,
            format!("not measured: {}.", skipped.why),
        )
    });
    let remarks: Vec<_> = notes.chain(skipped).collect();
    if !remarks.is_empty() {
        writeln!(text)?;
    }
    for (contender, remark) in remarks {
        writeln!(text, "- {contender}: {remark}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixed;

    fn rendered() -> String {
        let picture = Picture {
            file: "rates.svg",
            title: "Rates",
            svg: String::new(),
        };
        page(&fixed::report(), &[picture], "bench/")
    }

    fn expect(lines: &[&str]) {
        let text = rendered();
        for line in lines {
            assert!(
                text.lines().any(|own| own == *line),
                "no {line:?} in\n{text}"
            );
        }
    }

    #[test]
    fn says_what_it_ran_on() {
        expect(&[
            "| kernel | 6.18.0 #1 SMP |",
            "| date | 2026-11-20T12:00:00Z |",
            "| command | `cargo xtask bench --rounds 5` |",
            "![Rates](bench/rates.svg)",
        ]);
    }

    #[test]
    fn each_target_is_reached_or_not_or_was_not_measured() {
        expect(&[
            "4 of 24 reached.",
            "| UDP, 64 flows | portway-xdp / limit | ≥ 0.97 | 0.750 | 0.625, 0.875 | **not reached** |",
            "| UDP, 64 flows | portway-xdp / iptables | ≥ 3 | 3.00 | 2.86, 3.11 | reached |",
            "| UDP echo | portway-xdp / iptables | ≥ 2.7 | |  | not measured |",
            "| `portway publish` of 10,001 ports | portway-auto | ≤ 100 ms | 120 | 90.0, 150 | **not reached** |",
            "- portway-xdp: not supported yet",
        ]);
    }

    #[test]
    fn each_scenario_has_its_table() {
        expect(&[
            "## Packets of 64 flows",
            "| iptables | 0.500 | 0.438, 0.562 | |  |",
            "| portway-xdp | 1.50 | 1.25, 1.75 | 3.00 | 2.86, 3.11 |",
            "| portway-auto | 600 | 600, 600 | 1.33 | 1.33, 1.33 |",
        ]);
    }

    #[test]
    fn a_quick_run_says_so() {
        let quick = Report {
            quick: true,
            ..fixed::report()
        };
        assert!(page(&quick, &[], "").contains("Its figures are no results"));
        assert!(!rendered().contains("no results"));
    }
}
