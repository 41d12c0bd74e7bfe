//! Scores by length and depth: one panel for dense attention and one for each method.

use plotters::prelude::*;
use sparq_models::eval::{Results, results::TaskResults, summary::Cell};

use super::{
    Area, Chart, draw, failed,
    style::{INK, centred},
};

const CELL: (i32, i32) = (52, 26);
/// Around the cells of a panel: left, top, right, bottom.
const FRAME: (i32, i32, i32, i32) = (58, 30, 14, 46);
/// Room for the scale on the right.
const SCALE: i32 = 84;
/// Panels in a row.
const PANELS: usize = 3;
/// Ends of the scale, from nothing to all: light to dark, so that it prints in grey.
const LOW: RGBColor = RGBColor(247, 251, 255);
const HIGH: RGBColor = RGBColor(8, 64, 129);

/// A map for every task whose answers stand at stated depths, at the smallest part of the bytes.
pub(super) fn maps(results: &Results) -> anyhow::Result<Vec<Chart>> {
    let is_grid = |task: &&TaskResults| {
        let cells = task.cells(0);
        let depths = cells.iter().filter(|cell| cell.length == cells[0].length).count();
        task.metric.is_fraction() && depths > 1 && cells.len() <= 400 && cells.len() < 2 * task.samples.len()
    };
    let Some(&compression) = results.compressions().last() else {
        return Ok(vec![]);
    };
    results.tasks.iter().filter(is_grid).map(|task| map(results, task, compression)).collect()
}

fn map(results: &Results, task: &TaskResults, compression: f64) -> anyhow::Result<Chart> {
    let names = results.method_names();
    let mut panels = vec![("dense".to_owned(), 0)];
    for name in names {
        if let Some(method) = results.find(name, compression) {
            panels.push((results.settings.methods[method].label(), method));
        }
    }
    let cells = task.cells(0);
    let mut lengths: Vec<usize> = cells.iter().map(|cell| cell.length).collect();
    lengths.dedup();
    let mut depths: Vec<f64> = cells.iter().map(|cell| cell.depth).collect();
    depths.sort_by(f64::total_cmp);
    depths.dedup();
    let panel =
        (FRAME.0 + CELL.0 * lengths.len() as i32 + FRAME.2, FRAME.1 + CELL.1 * depths.len() as i32 + FRAME.3);
    let columns = panels.len().min(PANELS) as i32;
    let rows = panels.len().div_ceil(PANELS) as i32;
    let size = ((columns * panel.0 + SCALE) as u32, (rows * panel.1 + 8) as u32);
    let svg = draw(size, |area| {
        for (number, (label, method)) in panels.iter().enumerate() {
            let at = ((number % PANELS) as i32 * panel.0, (number / PANELS) as i32 * panel.1);
            let grid = Grid { lengths: &lengths, depths: &depths, at };
            grid.draw(area, label, &task.cells(*method))?;
        }
        scale(area, columns * panel.0 + 8, panel.1)
    })?;
    let title = format!("{} by length and depth, 1/{compression} of the bytes", task.task);
    Ok(Chart { name: format!("heat-{}", task.task), title, svg })
}

struct Grid<'a> {
    lengths: &'a [usize],
    depths: &'a [f64],
    at: (i32, i32),
}

impl Grid<'_> {
    fn draw(&self, area: &Area<'_>, label: &str, cells: &[Cell]) -> anyhow::Result<()> {
        let (left, top) = (self.at.0 + FRAME.0, self.at.1 + FRAME.1);
        let (right, bottom) =
            (left + CELL.0 * self.lengths.len() as i32, top + CELL.1 * self.depths.len() as i32);
        let write = |text: String, at: (i32, i32), size: u32| {
            area.draw(&Text::new(text, at, centred(size))).map_err(failed)
        };
        write(label.to_owned(), ((left + right) / 2, top - 14), 15)?;
        for cell in cells {
            let (Some(column), Some(row)) = (
                self.lengths.iter().position(|&length| length == cell.length),
                self.depths.iter().position(|&depth| depth == cell.depth),
            ) else {
                continue;
            };
            let corner = (left + CELL.0 * column as i32, top + CELL.1 * row as i32);
            let end = (corner.0 + CELL.0, corner.1 + CELL.1);
            area.draw(&Rectangle::new([corner, end], shade(cell.score).filled())).map_err(failed)?;
            area.draw(&Rectangle::new([corner, end], WHITE.stroke_width(1))).map_err(failed)?;
            let middle = ((corner.0 + end.0) / 2, (corner.1 + end.1) / 2);
            if cell.dense == 0.0 {
                // Dense attention fails here: no method can be judged.
                write("×".to_owned(), middle, 14)?;
            } else {
                let colour = if cell.score > 0.5 { WHITE } else { INK };
                let style = centred(13).color(&colour);
                let text = format!("{:.0}", 100.0 * cell.score);
                area.draw(&Text::new(text, middle, style)).map_err(failed)?;
            }
        }
        area.draw(&Rectangle::new([(left, top), (right, bottom)], INK.stroke_width(1))).map_err(failed)?;
        for (column, length) in self.lengths.iter().enumerate() {
            let x = left + CELL.0 * column as i32 + CELL.0 / 2;
            write(length.to_string(), (x, bottom + 12), 13)?;
        }
        for (row, depth) in self.depths.iter().enumerate() {
            let y = top + CELL.1 * row as i32 + CELL.1 / 2;
            write(format!("{:.0}", 100.0 * depth), (left - 16, y), 13)?;
        }
        write("length, tokens".to_owned(), ((left + right) / 2, bottom + 30), 14)?;
        let style = centred(14).transform(FontTransform::Rotate270);
        let place = (self.at.0 + 16, (top + bottom) / 2);
        area.draw(&Text::new("depth, %", place, style)).map_err(failed)
    }
}

/// The colour of a score between 0 and 1.
fn shade(score: f64) -> RGBColor {
    let mix = |low: u8, high: u8| (f64::from(low) + score * (f64::from(high) - f64::from(low))).round() as u8;
    RGBColor(mix(LOW.0, HIGH.0), mix(LOW.1, HIGH.1), mix(LOW.2, HIGH.2))
}

/// What the colours mean.
fn scale(area: &Area<'_>, x: i32, height: i32) -> anyhow::Result<()> {
    let (top, bottom) = (FRAME.1, height - FRAME.3);
    let steps = (bottom - top).max(2);
    for step in 0..steps {
        let score = 1.0 - f64::from(step) / f64::from(steps - 1);
        let bar = [(x, top + step), (x + 16, top + step + 1)];
        area.draw(&Rectangle::new(bar, shade(score).filled())).map_err(failed)?;
    }
    area.draw(&Rectangle::new([(x, top), (x + 16, bottom)], INK.stroke_width(1))).map_err(failed)?;
    for (label, y) in [("100 %", top + 4), ("50", (top + bottom) / 2), ("0", bottom - 4)] {
        area.draw(&Text::new(label, (x + 40, y), centred(13))).map_err(failed)?;
    }
    area.draw(&Text::new("× dense fails", (x + 34, bottom + 22), centred(12))).map_err(failed)
}
