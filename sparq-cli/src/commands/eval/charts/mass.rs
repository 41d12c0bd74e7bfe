//! Attention mass retained, by layer, one panel per compression, and by layer and head, one per method.

use plotters::prelude::*;
use sparq_models::eval::{Results, results::TaskResults};

use super::{
    Chart, draw, failed,
    panels::{Axes, Panel, draw_all},
    style::{FONT, GRID, INK, centred, colour, legend, legend_width, mark},
};

/// Width of a panel and height of the chart.
const PANEL: (u32, u32) = (300, 330);

/// Heads of all layers that can be told apart.
const MOST_CELLS: usize = 600;

/// The first task that measured it.
fn measured(results: &Results) -> Option<&TaskResults> {
    results.tasks.iter().find(|task| !task.mass(0).is_empty())
}

/// Each head, at the smallest part of the bytes.
pub(super) fn by_head(results: &Results) -> anyhow::Result<Option<Chart>> {
    let (Some(task), Some(&compression)) = (measured(results), results.compressions().last()) else {
        return Ok(None);
    };
    let mass = task.mass(0);
    let heads = mass.iter().map(Vec::len).max().unwrap_or(0);
    let panel = |method: usize| {
        let layers = task.mass(method);
        let cells = layers.iter().enumerate().flat_map(|(layer, heads)| {
            heads.iter().enumerate().map(move |(head, &mass)| (head, layer, Some(mass.min(1.0))))
        });
        Panel { title: results.settings.methods[method].label(), cells: cells.collect() }
    };
    let methods = results.method_names().into_iter().filter_map(|name| results.find(name, compression));
    let panels: Vec<Panel> = methods.map(panel).collect();
    if panels.is_empty() || heads * mass.len() > MOST_CELLS {
        return Ok(None);
    }
    let number = |count: usize| (0..count).map(|number| number.to_string()).collect::<Vec<_>>();
    let axes =
        Axes { columns: (number(heads), "query head"), rows: (number(mass.len()), "layer"), cross: None };
    let title =
        format!("Attention mass read on {}, %, by layer and head, 1/{compression} of the bytes", task.task);
    Ok(Some(Chart { name: "mass-heads".into(), title, svg: draw_all(&axes, &panels)? }))
}

/// Means over heads.
pub(super) fn by_layer(results: &Results) -> anyhow::Result<Option<Chart>> {
    let Some(task) = measured(results) else {
        return Ok(None);
    };
    let sizes = results.compressions();
    let names = results.method_names();
    let layers = task.mass(0).len();
    if sizes.is_empty() || layers < 2 {
        return Ok(None);
    }
    let plots = PANEL.0 * sizes.len() as u32;
    let size = (plots + legend_width(&names), PANEL.1);
    let svg = draw(size, |area| {
        let (plots, side) = area.split_horizontally(plots);
        legend(&side, &names, (8, 60))?;
        for (plot, &compression) in plots.split_evenly((1, sizes.len())).iter().zip(&sizes) {
            let title = format!("1/{compression} of the bytes");
            let (width, _) = plot.dim_in_pixel();
            plot.draw(&Text::new(title, (width as i32 / 2 + 24, 16), centred(16))).map_err(failed)?;
            let mut chart = ChartBuilder::on(plot)
                .margin(10)
                .margin_top(32)
                .x_label_area_size(46)
                .y_label_area_size(58)
                .build_cartesian_2d(0.0..(layers - 1) as f64, 0.0..102.0)
                .map_err(failed)?;
            chart
                .configure_mesh()
                .bold_line_style(GRID)
                .light_line_style(TRANSPARENT)
                .axis_style(INK)
                .label_style((FONT, 14))
                .axis_desc_style((FONT, 15))
                .x_labels(layers.min(8))
                .x_label_formatter(&|x| format!("{x:.0}"))
                .x_desc("layer")
                .y_label_formatter(&|y| format!("{y:.0}"))
                .y_desc("attention mass read, %")
                .draw()
                .map_err(failed)?;
            for (number, name) in names.iter().enumerate() {
                let Some(method) = results.find(name, compression) else { continue };
                let mean = |heads: &Vec<f64>| 100.0 * heads.iter().sum::<f64>() / heads.len().max(1) as f64;
                let points: Vec<(f64, f64)> = task
                    .mass(method)
                    .iter()
                    .enumerate()
                    .map(|(layer, heads)| (layer as f64, mean(heads)))
                    .collect();
                let style = colour(number).stroke_width(2);
                chart.draw_series([PathElement::new(points.clone(), style)]).map_err(failed)?;
                for point in &points {
                    mark(plot, number, local(plot, chart.backend_coord(point)))?;
                }
            }
        }
        Ok(())
    })?;
    Ok(Some(Chart {
        name: "mass".into(),
        title: format!("Attention mass read on {}, by layer", task.task),
        svg,
    }))
}

/// A point of the whole drawing as one of the panel.
fn local(plot: &super::Area<'_>, (x, y): (i32, i32)) -> (i32, i32) {
    let base = plot.get_base_pixel();
    (x - base.0, y - base.1)
}
