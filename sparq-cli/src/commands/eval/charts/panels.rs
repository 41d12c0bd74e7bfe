//! Small maps side by side, one per method: parts of one by row and column.

use plotters::prelude::*;

use super::{
    Area, draw, failed,
    style::{INK, centred},
};

const CELL: (i32, i32) = (52, 26);
/// Around the cells of a panel: left, top, right, bottom.
const FRAME: (i32, i32, i32, i32) = (58, 34, 14, 50);
/// The narrowest panel has room for its title.
const NARROWEST: i32 = 220;
/// Room for the scale on the right.
const SCALE: i32 = 84;
/// Panels in a row.
const PANELS: usize = 4;
/// Ends of the scale, from nothing to all: light to dark, so that it prints in grey.
const LOW: RGBColor = RGBColor(247, 251, 255);
const HIGH: RGBColor = RGBColor(8, 64, 129);

/// What all panels share.
pub(super) struct Axes {
    /// Labels of the columns and what they are.
    pub(super) columns: (Vec<String>, &'static str),
    /// Labels of the rows and what they are.
    pub(super) rows: (Vec<String>, &'static str),
    /// What a cross stands for, where there are any.
    pub(super) cross: Option<&'static str>,
}

/// One map.
pub(super) struct Panel {
    pub(super) title: String,
    /// Column, row, and the part to show; a cross for none.
    pub(super) cells: Vec<(usize, usize, Option<f64>)>,
}

/// Draws the panels in rows, with the scale of colours.
pub(super) fn draw_all(axes: &Axes, panels: &[Panel]) -> anyhow::Result<String> {
    let cells = (CELL.0 * axes.columns.0.len() as i32, CELL.1 * axes.rows.0.len() as i32);
    let panel = ((FRAME.0 + cells.0 + FRAME.2).max(NARROWEST), FRAME.1 + cells.1 + FRAME.3);
    let columns = panels.len().min(PANELS) as i32;
    let rows = panels.len().div_ceil(PANELS) as i32;
    let size = ((columns * panel.0 + SCALE) as u32, (rows * panel.1 + 8) as u32);
    draw(size, |area| {
        for (number, one) in panels.iter().enumerate() {
            let at = ((number % PANELS) as i32 * panel.0, (number / PANELS) as i32 * panel.1);
            // Narrow maps stand in the middle of their panels.
            let spare = (panel.0 - FRAME.0 - cells.0 - FRAME.2) / 2;
            one.draw(area, axes, (at.0 + spare, at.1))?;
        }
        scale(area, axes, (columns * panel.0 + 8, FRAME.1), cells.1)
    })
}

impl Panel {
    fn draw(&self, area: &Area<'_>, axes: &Axes, at: (i32, i32)) -> anyhow::Result<()> {
        let ((columns, x_title), (rows, y_title)) = (&axes.columns, &axes.rows);
        let (left, top) = (at.0 + FRAME.0, at.1 + FRAME.1);
        let (right, bottom) = (left + CELL.0 * columns.len() as i32, top + CELL.1 * rows.len() as i32);
        let write = |text: &str, at: (i32, i32), size: u32| {
            area.draw(&Text::new(text.to_owned(), at, centred(size))).map_err(failed)
        };
        write(&self.title, ((left + right) / 2, top - 14), 15)?;
        for &(column, row, part) in &self.cells {
            let corner = (left + CELL.0 * column as i32, top + CELL.1 * row as i32);
            let end = (corner.0 + CELL.0, corner.1 + CELL.1);
            let fill = shade(part.unwrap_or(0.0));
            area.draw(&Rectangle::new([corner, end], fill.filled())).map_err(failed)?;
            area.draw(&Rectangle::new([corner, end], WHITE.stroke_width(1))).map_err(failed)?;
            let middle = ((corner.0 + end.0) / 2, (corner.1 + end.1) / 2);
            let Some(part) = part else {
                write("×", middle, 14)?;
                continue;
            };
            let colour = if part > 0.5 { WHITE } else { INK };
            let style = centred(13).color(&colour);
            let text = format!("{:.0}", 100.0 * part);
            area.draw(&Text::new(text, middle, style)).map_err(failed)?;
        }
        area.draw(&Rectangle::new([(left, top), (right, bottom)], INK.stroke_width(1))).map_err(failed)?;
        for (column, label) in columns.iter().enumerate() {
            let x = left + CELL.0 * column as i32 + CELL.0 / 2;
            write(label, (x, bottom + 12), 13)?;
        }
        for (row, label) in rows.iter().enumerate() {
            let y = top + CELL.1 * row as i32 + CELL.1 / 2;
            write(label, (left - 18, y), 13)?;
        }
        write(x_title, ((left + right) / 2, bottom + 31), 14)?;
        let style = centred(14).transform(FontTransform::Rotate270);
        let place = (at.0 + 14, (top + bottom) / 2);
        area.draw(&Text::new(y_title.to_string(), place, style)).map_err(failed)
    }
}

/// The colour of a part between 0 and 1.
fn shade(part: f64) -> RGBColor {
    let mix = |low: u8, high: u8| (f64::from(low) + part * (f64::from(high) - f64::from(low))).round() as u8;
    RGBColor(mix(LOW.0, HIGH.0), mix(LOW.1, HIGH.1), mix(LOW.2, HIGH.2))
}

/// What the colours mean.
fn scale(area: &Area<'_>, axes: &Axes, (x, top): (i32, i32), height: i32) -> anyhow::Result<()> {
    let bottom = top + height;
    let steps = height.max(2);
    for step in 0..steps {
        let part = 1.0 - f64::from(step) / f64::from(steps - 1);
        let bar = [(x, top + step), (x + 16, top + step + 1)];
        area.draw(&Rectangle::new(bar, shade(part).filled())).map_err(failed)?;
    }
    area.draw(&Rectangle::new([(x, top), (x + 16, bottom)], INK.stroke_width(1))).map_err(failed)?;
    for (label, y) in [("100 %", top + 4), ("50", (top + bottom) / 2), ("0", bottom - 4)] {
        area.draw(&Text::new(label, (x + 40, y), centred(13))).map_err(failed)?;
    }
    match axes.cross {
        Some(cross) => area.draw(&Text::new(cross, (x + 34, bottom + 24), centred(12))).map_err(failed),
        None => Ok(()),
    }
}
