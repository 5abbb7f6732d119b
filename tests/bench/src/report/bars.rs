//! A chart of groups of bars, with their spread and their values.

use anyhow::Result;
use plotters::prelude::*;

use crate::{
    model::Scenario,
    report::{
        canvas::{self, broken, colour},
        number::{round, significant},
    },
    stats::{self, Summary},
};

/// How much of a group's width is bars.
const FILLED: f64 = 0.84;

/// How much of a bar's width is bar.
const BAR: f64 = 0.86;

/// How much higher than the highest bar the chart is.
const ROOM: f64 = 1.12;

/// One group for each scenario.
#[derive(Debug)]
pub struct Bars<'a> {
    groups: Vec<Group<'a>>,
}

#[derive(Debug)]
struct Group<'a> {
    label: &'a str,
    bars: Vec<(&'a str, Summary)>,
}

impl<'a> Bars<'a> {
    /// As high as the medians of the samples.
    pub fn of_samples(scenarios: &[(&'a Scenario, &'a str)]) -> Self {
        Self::of(scenarios, |scenario, contender| {
            Summary::of(&scenario.of(contender)?.samples)
        })
    }

    /// As high as each contender was better than `than`, which itself is left out.
    pub fn of_ratios(scenarios: &[(&'a Scenario, &'a str)], than: &str, quick: bool) -> Self {
        Self::of(scenarios, |scenario, contender| {
            (contender != than)
                .then(|| stats::times_better(scenario, contender, than, quick))
                .flatten()
        })
    }

    fn of(
        scenarios: &[(&'a Scenario, &'a str)],
        height: impl Fn(&Scenario, &str) -> Option<Summary>,
    ) -> Self {
        let groups = scenarios.iter().map(|(scenario, label)| Group {
            label,
            bars: scenario
                .series
                .iter()
                .filter_map(|series| {
                    Some((
                        series.contender.as_str(),
                        height(scenario, &series.contender)?,
                    ))
                })
                .collect(),
        });
        Self {
            groups: groups.collect(),
        }
    }

    fn highest(&self) -> f64 {
        let bars = self.groups.iter().flat_map(|group| &group.bars);
        bars.map(|(_, summary)| summary.max).fold(0.0, f64::max)
    }
}

/// The chart as SVG.
///
/// # Errors
/// It cannot be drawn.
pub fn draw(title: &str, unit: &str, bars: &Bars<'_>) -> Result<String> {
    let names = bars.groups.iter().flat_map(|group| &group.bars);
    let contenders = canvas::each_once(names.map(|(name, _)| *name));
    canvas::picture(title, unit, &contenders, |area| {
        let count = bars.groups.len();
        let highest = bars.highest();
        let top = if highest > 0.0 { highest * ROOM } else { 1.0 };
        let mut chart = ChartBuilder::on(area)
            .margin_right(16)
            .x_label_area_size(36)
            .y_label_area_size(64)
            .build_cartesian_2d(0.0..count as f64, 0.0..top)
            .map_err(broken)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(canvas::grid())
            .axis_style(canvas::grid())
            .label_style(canvas::marks())
            .x_labels(0)
            .y_label_formatter(&|value| round(*value))
            .y_labels(6)
            .draw()
            .map_err(broken)?;
        for (number, group) in bars.groups.iter().enumerate() {
            let label = (number as f64 + 0.5, 0.0);
            let label = EmptyElement::at(label)
                + Text::new(group.label.to_owned(), (0, 24), canvas::standing());
            chart.draw_series([label]).map_err(broken)?;
            let width = FILLED / group.bars.len() as f64;
            for (place, (contender, summary)) in group.bars.iter().enumerate() {
                let left = number as f64 + (1.0 - FILLED) / 2.0 + width * place as f64;
                let middle = left + width / 2.0;
                let half = width * BAR / 2.0;
                let bar = [(middle - half, 0.0), (middle + half, summary.median)];
                let bar = Rectangle::new(bar, colour(contender).filled());
                let spread = [(middle, summary.min), (middle, summary.max)];
                let spread = PathElement::new(spread, canvas::ink());
                let text = significant(summary.median);
                let value = EmptyElement::at((middle, summary.max))
                    + Text::new(text, (0, -3), canvas::standing());
                chart.draw_series([bar]).map_err(broken)?;
                chart.draw_series([spread]).map_err(broken)?;
                chart.draw_series([value]).map_err(broken)?;
            }
        }
        Ok(())
    })
}
