//! Quality against bytes moved, one line per method.

use plotters::prelude::*;
use sparq_models::eval::Results;

use super::{
    Chart, draw, failed,
    style::{FONT, GRID, INK, colour, legend, legend_width, mark},
};

/// Width of the plot and height of the chart.
const PLOT: (u32, u32) = (600, 430);

/// One method's points: part of dense bytes, value.
type Line = Vec<(f64, f64)>;

/// Score as a part of that of dense attention, on average over tasks.
pub(super) fn quality(results: &Results) -> anyhow::Result<Option<Chart>> {
    let lines = lines(results, |method| {
        let (bytes, score, _) = results.overall(method);
        score.map(|score| (bytes, 100.0 * score))
    });
    if lines.iter().all(Vec::is_empty) {
        return Ok(None);
    }
    let top = lines.iter().flatten().map(|point| point.1).fold(100.0, f64::max);
    let names = results.method_names();
    let svg = draw((PLOT.0 + legend_width(&names), PLOT.1), |area| {
        let (plot, side) = area.split_horizontally(PLOT.0);
        legend(&side, &names, (8, 40))?;
        let mut chart = ChartBuilder::on(&plot)
            .margin(14)
            .x_label_area_size(52)
            .y_label_area_size(64)
            .build_cartesian_2d(x_range(&lines).log_scale().base(2.0), 0.0..top * 1.05)
            .map_err(failed)?;
        chart
            .configure_mesh()
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .axis_style(INK)
            .label_style((FONT, 14))
            .axis_desc_style((FONT, 16))
            .x_labels(6)
            .x_label_formatter(&|x| fraction(*x))
            .x_desc("KV cache bytes moved, part of dense attention")
            .y_label_formatter(&|y| format!("{y:.0}"))
            .y_desc("score, % of dense attention")
            .draw()
            .map_err(failed)?;
        let dense = vec![(x_range(&lines).start, 100.0), (x_range(&lines).end, 100.0)];
        chart.draw_series([PathElement::new(dense, INK.stroke_width(1))]).map_err(failed)?;
        for (method, line) in lines.iter().enumerate() {
            let style = colour(method).stroke_width(2);
            chart.draw_series([PathElement::new(line.clone(), style)]).map_err(failed)?;
            for point in line {
                mark(&plot, method, chart.backend_coord(point))?;
            }
        }
        Ok(())
    })?;
    let title = "Mean score against bytes moved".to_owned();
    Ok(Some(Chart { name: "score".into(), title, svg }))
}

/// Divergence from dense attention, on average over tasks.
pub(super) fn divergence(results: &Results) -> anyhow::Result<Option<Chart>> {
    // A divergence of nothing has no logarithm.
    let floor = 1e-5;
    let lines = lines(results, |method| {
        let (bytes, _, kl) = results.overall(method);
        Some((bytes, kl.max(floor)))
    });
    if lines.iter().all(Vec::is_empty) {
        return Ok(None);
    }
    let values = || lines.iter().flatten().map(|point| point.1);
    let low = 10f64.powf(values().fold(f64::INFINITY, f64::min).log10().floor());
    let high = 10f64.powf(values().fold(low, f64::max).log10().ceil()).max(10.0 * low);
    let names = results.method_names();
    let svg = draw((PLOT.0 + legend_width(&names), PLOT.1), |area| {
        let (plot, side) = area.split_horizontally(PLOT.0);
        legend(&side, &names, (8, 40))?;
        let mut chart = ChartBuilder::on(&plot)
            .margin(14)
            .x_label_area_size(52)
            .y_label_area_size(72)
            .build_cartesian_2d(x_range(&lines).log_scale().base(2.0), (low..high).log_scale())
            .map_err(failed)?;
        chart
            .configure_mesh()
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .axis_style(INK)
            .label_style((FONT, 14))
            .axis_desc_style((FONT, 16))
            .x_labels(6)
            .x_label_formatter(&|x| fraction(*x))
            .x_desc("KV cache bytes moved, part of dense attention")
            .y_labels(6)
            .y_label_formatter(&|y| power(*y))
            .y_desc("KL from dense attention, nats per token")
            .draw()
            .map_err(failed)?;
        for (method, line) in lines.iter().enumerate() {
            let style = colour(method).stroke_width(2);
            chart.draw_series([PathElement::new(line.clone(), style)]).map_err(failed)?;
            for point in line {
                mark(&plot, method, chart.backend_coord(point))?;
            }
        }
        Ok(())
    })?;
    let title = "Divergence from dense attention against bytes moved".to_owned();
    Ok(Some(Chart { name: "kl".into(), title, svg }))
}

/// The points of every method, by bytes.
fn lines(results: &Results, point: impl Fn(usize) -> Option<(f64, f64)>) -> Vec<Line> {
    let line = |name: &&str| {
        let mut line: Line = results.sizes(name).into_iter().filter_map(&point).collect();
        line.sort_by(|a, b| a.0.total_cmp(&b.0));
        line
    };
    results.method_names().iter().map(line).collect()
}

/// From the smallest part that was moved to all; an axis has a label for each power of two.
fn x_range(lines: &[Line]) -> std::ops::Range<f64> {
    let least = lines.iter().flatten().map(|point| point.0).fold(1.0, f64::min).max(1e-6);
    0.85 * least..1.1
}

/// `1/8` for an eighth, decimals for what is no such part.
fn fraction(part: f64) -> String {
    let whole = 1.0 / part;
    match (whole - whole.round()).abs() < 0.01 {
        true if whole.round() == 1.0 => "1".to_owned(),
        true => format!("1/{whole:.0}"),
        false => format!("{part:.2}"),
    }
}

fn power(value: f64) -> String {
    if value >= 0.001 { format!("{value}") } else { format!("{value:e}") }
}
