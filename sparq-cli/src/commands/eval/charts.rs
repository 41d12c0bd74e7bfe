//! Results as SVG charts, made to be read at 600 pixels and printed.

mod heat;
mod lines;
mod mass;
mod panels;
mod style;

use anyhow::anyhow;
use plotters::{coord::Shift, prelude::*};
use sparq_models::eval::Results;

/// A drawn chart.
pub(super) struct Chart {
    /// Last part of its file's name.
    pub(super) name: String,
    /// What it shows.
    pub(super) title: String,
    /// The drawing.
    pub(super) svg: String,
}

/// Where charts are drawn.
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Every chart that the results have data for.
pub(super) fn all(results: &Results) -> anyhow::Result<Vec<Chart>> {
    let mut charts = vec![];
    charts.extend(lines::quality(results)?);
    charts.extend(lines::divergence(results)?);
    charts.extend(mass::by_layer(results)?);
    charts.extend(mass::by_head(results)?);
    charts.extend(heat::maps(results)?);
    Ok(charts)
}

/// Draws on white.
fn draw(size: (u32, u32), paint: impl FnOnce(&Area<'_>) -> anyhow::Result<()>) -> anyhow::Result<String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        area.fill(&WHITE).map_err(failed)?;
        paint(&area)?;
        area.present().map_err(failed)?;
    }
    Ok(svg)
}

/// Plotters' errors carry no source that outlives the drawing.
fn failed(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("cannot draw a chart: {error}")
}
