//! Scores by length and depth.

use std::fmt::Write;

use sparq_models::eval::{Results, results::TaskResults, summary::Cell};

use super::aligned;

/// One table for each task whose answers stand at stated depths, at the smallest part of the bytes, where
/// methods differ most.
pub(super) fn tables(text: &mut String, results: &Results) {
    let Some(&compression) = results.compressions().last() else { return };
    for task in results.tasks.iter().filter(|task| task.is_grid()) {
        if task.lengths_done().is_empty() {
            let _ = writeln!(
                text,
                "{} by length and depth: dense attention fails at every length, so there is nothing to \
                 compare.\n",
                task.task
            );
            continue;
        }
        table(text, results, task, compression);
    }
}

/// Rows are lengths with all depths, each followed by its depths; cells where dense attention fails are
/// dashes.
fn table(text: &mut String, results: &Results, task: &TaskResults, compression: f64) {
    let methods: Vec<usize> = std::iter::once(0)
        .chain(results.method_names().iter().filter_map(|name| results.find(name, compression)))
        .collect();
    let columns = methods.iter().map(|&method| results.settings.methods[method].label());
    let title = format!("{} by length and depth, %", task.task);
    let mut rows = vec![std::iter::once(title).chain(columns).collect::<Vec<String>>()];
    let cells: Vec<Vec<Cell>> = methods.iter().map(|&method| task.cells(method)).collect();
    let mut last = 0;
    for (number, Cell { length, depth, .. }) in cells[0].iter().enumerate() {
        if *length != last {
            last = *length;
            let of_length = cells.iter().map(|cells| {
                let here: Vec<&Cell> = cells.iter().filter(|cell| cell.length == last).collect();
                let is_done = task.lengths_done().contains(&last);
                let sum: f64 = here.iter().map(|cell| cell.score).sum();
                figure(sum / here.len() as f64, is_done)
            });
            rows.push(std::iter::once(format!("{last} tokens")).chain(of_length).collect());
        }
        let place = depth.map_or(String::new(), |depth| format!("{last}, depth {:.0} %", 100.0 * depth));
        let row = cells.iter().map(|cells| figure(cells[number].score, cells[number].is_done));
        rows.push(std::iter::once(place).chain(row).collect());
    }
    aligned(text, &rows);
    text.push('\n');
}

fn figure(score: f64, is_done: bool) -> String {
    if is_done { format!("{:.0}", 100.0 * score) } else { "–".to_owned() }
}
