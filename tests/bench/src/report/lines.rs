//! A chart of a rate by a number, both logarithmic, with the values at the points.

use anyhow::Result;
use plotters::prelude::*;

use crate::{
    model::Scenario,
    report::{
        canvas::{self, broken, colour},
        number::{grouped, significant},
    },
    stats::Summary,
};

/// How far apart the values at one number are at least, in pixels.
const APART: i32 = 13;

/// How far a value is above the middle of its point, in pixels.
const POINT: i32 = 6;

/// A line for each contender, of numbers and medians.
#[derive(Debug)]
pub struct Lines<'a> {
    numbers: Vec<u32>,
    lines: Vec<(&'a str, Vec<(f64, f64)>)>,
}

impl<'a> Lines<'a> {
    /// Through the medians of the samples.
    pub fn of_samples(scenarios: &[(&'a Scenario, u32)]) -> Self {
        let series = scenarios.iter().flat_map(|(scenario, _)| &scenario.series);
        let contenders = canvas::each_once(series.map(|series| series.contender.as_str()));
        let points = |contender| {
            scenarios
                .iter()
                .filter_map(|(scenario, number)| {
                    let median = Summary::of(&scenario.of(contender)?.samples)?.median;
                    // Nothing else has a logarithm.
                    (median > 0.0).then_some((f64::from(*number), median))
                })
                .collect()
        };
        Self {
            numbers: scenarios.iter().map(|(_, number)| *number).collect(),
            lines: contenders
                .iter()
                .map(|contender| (*contender, points(contender)))
                .filter(|(_, points): &(_, Vec<_>)| points.len() > 1)
                .collect(),
        }
    }

    fn points(&self) -> impl Iterator<Item = (f64, f64)> {
        self.lines.iter().flat_map(|(_, points)| points).copied()
    }
}

/// The chart as SVG.
///
/// # Errors
/// It cannot be drawn.
pub fn draw(title: &str, unit: &str, lines: &Lines<'_>) -> Result<String> {
    let contenders: Vec<_> = lines.lines.iter().map(|(name, _)| *name).collect();
    canvas::picture(title, unit, &contenders, |area| {
        let powers = powers(lines.points().map(|(_, value)| value));
        let last = lines
            .numbers
            .iter()
            .max()
            .map_or(1.0, |last| f64::from(*last));
        let numbers = lines.numbers.iter().map(|number| f64::from(*number));
        let (bottom, top) = (powers[0], powers[powers.len() - 1]);
        let mut chart = ChartBuilder::on(area)
            .margin_right(16)
            .margin_top(12)
            .x_label_area_size(36)
            .y_label_area_size(64)
            .build_cartesian_2d(
                // Some room at the sides for the values.
                (0.6..last * 1.7)
                    .log_scale()
                    .with_key_points(numbers.collect()),
                (bottom..top).log_scale().with_key_points(powers),
            )
            .map_err(broken)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(canvas::grid())
            .axis_style(canvas::grid())
            .label_style(canvas::marks())
            .x_label_formatter(&|number| grouped(&number.to_string()))
            .y_label_formatter(&|value| value.to_string())
            .draw()
            .map_err(broken)?;
        for (contender, points) in &lines.lines {
            let colour = colour(contender);
            chart
                .draw_series(LineSeries::new(points.clone(), colour.stroke_width(2)))
                .map_err(broken)?;
            let marks = points
                .iter()
                .map(|point| Circle::new(*point, 4, colour.filled()));
            chart.draw_series(marks).map_err(broken)?;
        }
        for number in &lines.numbers {
            let at = lines.points().filter(|(x, _)| *x == f64::from(*number));
            let mut values: Vec<_> = at
                .map(|point| (chart.backend_coord(&point), point.1))
                .collect();
            // From the lowest point upwards: each value above its own point and the value below it, and not
            // on another point.
            values.sort_by_key(|((_, y), _)| -y);
            let mut below = i32::MAX;
            let (left, upper) = area.get_base_pixel();
            let points: Vec<_> = values.iter().map(|((_, y), _)| *y).collect();
            for ((x, y), value) in values {
                let y = (y - POINT).min(below.saturating_sub(APART));
                let y = points.iter().fold(y, |y, point| {
                    let covered = y - APART - POINT..y + POINT;
                    if covered.contains(point) {
                        point - POINT
                    } else {
                        y
                    }
                });
                let text = Text::new(
                    significant(value),
                    (x - left, y - upper),
                    canvas::standing(),
                );
                area.draw(&text).map_err(broken)?;
                below = y;
            }
        }
        Ok(())
    })
}

/// The powers of ten around some values, from below the lowest to above the highest.
fn powers(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let (low, high) = values.fold((f64::INFINITY, 0.0_f64), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    if high == 0.0 {
        return vec![0.1, 1.0];
    }
    let first = low.log10().floor() as i32;
    let last = high.log10().ceil() as i32;
    (first..=last.max(first + 1))
        .map(|exponent| format!("1e{exponent}").parse().unwrap_or(1.0))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_of_ten_enclose_the_values() {
        assert_eq!(
            powers([0.003, 1.5].into_iter()),
            [0.001, 0.01, 0.1, 1.0, 10.0]
        );
        assert_eq!(powers([1.0].into_iter()), [1.0, 10.0]);
        assert_eq!(powers([].into_iter()), [0.1, 1.0]);
    }
}
