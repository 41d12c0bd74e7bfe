//! Colours, marks and letters that all charts share.

use plotters::{
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use super::{Area, failed};

/// Okabe and Ito's colours, which colour-blind readers can tell apart; yellow left out, which is too
/// light for lines.
const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(90, 90, 90),
    RGBColor(140, 86, 75),
];

pub(super) const INK: RGBColor = RGBColor(40, 40, 40);
pub(super) const GRID: RGBColor = RGBColor(225, 225, 225);
pub(super) const FONT: &str = "Helvetica, Arial, sans-serif";

/// A colour for method number `method` of those compared.
pub(super) fn colour(method: usize) -> RGBColor {
    COLOURS[method % COLOURS.len()]
}

/// Text of a size in ink.
pub(super) fn text(size: u32) -> TextStyle<'static> {
    (FONT, size).into_font().color(&INK)
}

/// Text around a point.
pub(super) fn centred(size: u32) -> TextStyle<'static> {
    text(size).pos(Pos::new(HPos::Center, VPos::Center))
}

/// The mark of method number `method`: shapes differ where colours are not seen.
pub(super) fn mark(area: &Area<'_>, method: usize, (x, y): (i32, i32)) -> anyhow::Result<()> {
    let style = colour(method).filled();
    let r = 4;
    // Where colours come again, shapes are others.
    match (method + method / COLOURS.len()) % 4 {
        0 => area.draw(&Circle::new((x, y), r, style)),
        1 => area.draw(&Rectangle::new([(x - r, y - r), (x + r, y + r)], style)),
        2 => area.draw(&Polygon::new([(x, y - r - 1), (x + r + 1, y + r), (x - r - 1, y + r)], style)),
        _ => {
            area.draw(&Polygon::new([(x, y - r - 1), (x + r + 1, y), (x, y + r + 1), (x - r - 1, y)], style))
        }
    }
    .map_err(failed)
}

/// A legend of methods from the upper left corner of an area down.
pub(super) fn legend(area: &Area<'_>, names: &[&str], (x, y): (i32, i32)) -> anyhow::Result<()> {
    for (method, name) in names.iter().enumerate() {
        let y = y + 22 * method as i32;
        let line = vec![(x, y), (x + 26, y)];
        area.draw(&PathElement::new(line, colour(method).stroke_width(2))).map_err(failed)?;
        mark(area, method, (x + 13, y))?;
        let style = text(15).pos(Pos::new(HPos::Left, VPos::Center));
        area.draw(&Text::new((*name).to_owned(), (x + 34, y), style)).map_err(failed)?;
    }
    Ok(())
}

/// The width of a column for the legend beside the plot: room for the longest name.
pub(super) fn legend_width(names: &[&str]) -> u32 {
    let longest = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    // Letters of this font are half as wide as high, and a little more.
    (LEGEND_FRAME + longest as u32 * 17 / 2).max(NARROWEST_LEGEND)
}

/// Line and margins of a legend.
const LEGEND_FRAME: u32 = 50;
const NARROWEST_LEGEND: u32 = 160;
