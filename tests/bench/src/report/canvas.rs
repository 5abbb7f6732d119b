//! What all charts have in common: page, title, legend, colours.

use anyhow::{Result, anyhow};
use plotters::{
    coord::Shift,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use crate::contenders;

/// A drawing in a string.
pub type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A chart's size, in pixels.
pub const SIZE: (u32, u32) = (880, 440);

/// The text of marks and values, in pixels.
pub const SMALL: f64 = 11.0;

/// How much of the picture is above the chart, in pixels.
const HEAD: u32 = 74;

/// How wide a letter of the legend is, in pixels: there are no fonts here to measure it.
const LETTER: i32 = 7;

const INK: RGBColor = RGBColor(0x1f, 0x23, 0x28);
const FAINT: RGBColor = RGBColor(0x59, 0x63, 0x6e);
const GRID: RGBColor = RGBColor(0xd1, 0xd9, 0xe0);

/// Draws a picture: `draw` gets the part below title and legend.
///
/// # Errors
/// Those of `draw`.
pub fn picture(
    title: &str,
    unit: &str,
    contenders: &[&str],
    draw: impl FnOnce(&Area<'_>) -> Result<()>,
) -> Result<String> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        // A light page also where the reader's is dark.
        root.fill(&WHITE).map_err(broken)?;
        let (head, chart) = root.split_vertically(HEAD);
        head.draw(&Text::new(title, (16, 14), style(17.0, INK)))
            .map_err(broken)?;
        head.draw(&Text::new(unit, (16, 52), style(SMALL, FAINT)))
            .map_err(broken)?;
        legend(&head, contenders)?;
        draw(&chart)?;
        root.present().map_err(broken)?;
    }
    Ok(svg)
}

/// In one row, at the right.
fn legend(head: &Area<'_>, contenders: &[&str]) -> Result<()> {
    let widths = contenders
        .iter()
        .map(|name| LETTER * i32::try_from(name.len()).unwrap_or_default() + 34);
    let mut x = SIZE.0.cast_signed() - 8 - widths.clone().sum::<i32>();
    for (name, width) in contenders.iter().zip(widths) {
        let mark = Rectangle::new([(x, 52), (x + 10, 62)], colour(name).filled());
        head.draw(&mark).map_err(broken)?;
        head.draw(&Text::new(*name, (x + 15, 52), style(12.0, INK)))
            .map_err(broken)?;
        x += width;
    }
    Ok(())
}

/// A contender's colour, the same in all charts: told apart also by those who confuse red and green (Okabe and
/// Ito's palette).
pub fn colour(contender: &str) -> RGBColor {
    match contender {
        contenders::LIMIT => RGBColor(0x99, 0x99, 0x99),
        contenders::IPTABLES => RGBColor(0xd5, 0x5e, 0x00),
        contenders::NFT => RGBColor(0xe6, 0x9f, 0x00),
        contenders::DOCKER_PROXY => RGBColor(0xcc, 0x79, 0xa7),
        contenders::PORTWAY_TC => RGBColor(0x56, 0xb4, 0xe9),
        contenders::PORTWAY_XDP => RGBColor(0x00, 0x72, 0xb2),
        contenders::PORTWAY_PASS => RGBColor(0xf0, 0xe4, 0x42),
        contenders::PORTWAY_AUTO => RGBColor(0x00, 0x9e, 0x73),
        _ => INK,
    }
}

/// Text of `pixels` height.
pub fn style(pixels: f64, colour: RGBColor) -> TextStyle<'static> {
    // plotters takes a font's whole height, of which SVG's font-size is 1/1.24.
    ("sans-serif", pixels * 1.24).into_font().color(&colour)
}

/// Text of marks on axes.
pub fn marks() -> TextStyle<'static> {
    style(SMALL, FAINT)
}

/// Text that stands on the middle of its place.
pub fn standing() -> TextStyle<'static> {
    style(SMALL, INK).pos(Pos::new(HPos::Center, VPos::Bottom))
}

/// Lines that only guide the eye.
pub fn grid() -> RGBColor {
    GRID
}

/// Lines that are to be seen.
pub fn ink() -> RGBColor {
    INK
}

/// The contenders of some series, each once, in the order in which they first come.
pub fn each_once<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut all = Vec::new();
    for name in names {
        if !all.contains(&name) {
            all.push(name);
        }
    }
    all
}

/// plotters' errors hold what no other thread may have.
pub fn broken(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("the chart cannot be drawn: {error}")
}
