//! Scores by length and depth: one panel for dense attention and one for each method.

use sparq_models::eval::{Results, results::TaskResults, summary::Cell};

use super::{
    Chart,
    panels::{Axes, Panel, draw_all},
};

/// A map for every task whose answers stand at stated depths, at the smallest part of the bytes.
pub(super) fn maps(results: &Results) -> anyhow::Result<Vec<Chart>> {
    // A map of crosses says nothing.
    let is_grid = |task: &&TaskResults| task.is_grid() && !task.lengths_done().is_empty();
    let Some(&compression) = results.compressions().last() else {
        return Ok(vec![]);
    };
    results.tasks.iter().filter(is_grid).map(|task| map(results, task, compression)).collect()
}

fn map(results: &Results, task: &TaskResults, compression: f64) -> anyhow::Result<Chart> {
    let cells = task.cells(0);
    let mut lengths: Vec<usize> = cells.iter().map(|cell| cell.length).collect();
    lengths.dedup();
    let mut depths: Vec<f64> = cells.iter().filter_map(|cell| cell.depth).collect();
    depths.sort_by(f64::total_cmp);
    depths.dedup();
    let panel = |method: usize| {
        let cell = |cell: &Cell| {
            let column = lengths.iter().position(|&length| length == cell.length)?;
            let row = depths.iter().position(|&depth| Some(depth) == cell.depth)?;
            Some((column, row, cell.is_done.then_some(cell.score)))
        };
        Panel {
            title: results.settings.methods[method].label(),
            cells: task.cells(method).iter().filter_map(cell).collect(),
        }
    };
    let others = results.method_names().into_iter().filter_map(|name| results.find(name, compression));
    let panels: Vec<Panel> = std::iter::once(0).chain(others).map(panel).collect();
    let axes = Axes {
        columns: (lengths.iter().map(usize::to_string).collect(), "length, tokens"),
        rows: (depths.iter().map(|depth| format!("{:.0}", 100.0 * depth)).collect(), "depth, %"),
        cross: Some("× dense fails"),
    };
    let title = format!("{} by length and depth, 1/{compression} of the bytes", task.task);
    Ok(Chart { name: format!("heat-{}", task.task), title, svg: draw_all(&axes, &panels)? })
}
