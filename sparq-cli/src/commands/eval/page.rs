//! Results as Markdown.

use std::fmt::Write;

use sparq_models::eval::{
    Results,
    results::TaskResults,
    summary::{Average, Cell},
};

/// Columns of a table: methods that move about the same number of bytes, dense attention first.
struct Group {
    title: String,
    methods: Vec<usize>,
}

/// One group for each compression; a single one where only one method was run.
fn groups(results: &Results) -> Vec<Group> {
    let names = results.method_names();
    if names.len() <= 1 {
        let methods = (0..results.settings.methods.len()).collect();
        return vec![Group { title: String::new(), methods }];
    }
    let group = |compression: f64| {
        let methods = names.iter().filter_map(|name| results.find(name, compression));
        Group {
            title: format!("1/{compression} of the bytes"),
            methods: std::iter::once(0).chain(methods).collect(),
        }
    };
    results.compressions().into_iter().map(group).collect()
}

/// The tables that a run prints: scores, distances from dense attention, the worst tasks.
pub(super) fn tables(results: &Results) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    for group in groups(results) {
        if !group.title.is_empty() {
            let _ = writeln!(text, "## {}\n", group.title);
        }
        let score = |task: &TaskResults, average: Average| task.metric.format(average.score);
        let metric = |task: &TaskResults| format!("{}: {}", task.task, task.metric.title());
        table(&mut text, results, &group, "score", &metric, &score);
        footer(&mut text, results, &group);
        let kl = |_: &TaskResults, average: Average| format!("{:.4}", average.kl);
        let name = |task: &TaskResults| task.task.clone();
        table(&mut text, results, &group, "KL from dense, nats per answer token", &name, &kl);
        text.push('\n');
        let agreement = |_: &TaskResults, average: Average| format!("{:.1}", 100.0 * average.top_1_agreement);
        table(&mut text, results, &group, "same likeliest token as dense, %", &name, &agreement);
        text.push('\n');
        let nats = |_: &TaskResults, average: Average| format!("{:.3}", average.nats_per_token);
        table(&mut text, results, &group, "nats per token of the reference answer", &name, &nats);
        text.push('\n');
    }
    turns(&mut text, results);
    text
}

/// The whole page, with the charts that were drawn.
pub(super) fn page(results: &Results, charts: &[(String, String)]) -> String {
    let settings = &results.settings;
    let plan = &settings.plan;
    let list = |values: &[usize]| values.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
    let mut text = String::from("# Decode methods compared\n\n");
    let _ = writeln!(
        text,
        "{} ({}) in {} on {}; {} samples per task, lengths {} tokens, {} depths, seed {}; sparq {}, Burn {}.\n\
         Contexts are prefilled densely; questions and answers go through the method under test, token by \
         token.\n",
        settings.model,
        settings.architecture,
        settings.dtype,
        settings.device,
        plan.limit,
        list(&plan.lengths),
        plan.depths,
        plan.seed,
        settings.sparq_version,
        settings.burn_version,
    );
    for (title, file) in charts {
        let _ = writeln!(text, "![{title}]({file})\n");
    }
    text.push_str(&tables(results));
    failures(&mut text, results);
    text
}

/// One row per task, one column per method.
fn table(
    text: &mut String,
    results: &Results,
    group: &Group,
    corner: &str,
    row: &dyn Fn(&TaskResults) -> String,
    cell: &dyn Fn(&TaskResults, Average) -> String,
) {
    let labels = group.methods.iter().map(|&method| results.settings.methods[method].label());
    let mut rows = vec![std::iter::once(corner.to_owned()).chain(labels).collect::<Vec<String>>()];
    for task in &results.tasks {
        let cells = group.methods.iter().map(|&method| cell(task, task.average(method)));
        rows.push(std::iter::once(row(task)).chain(cells).collect());
    }
    aligned(text, &rows);
}

/// A Markdown table whose columns line up in plain text too.
fn aligned(text: &mut String, rows: &[Vec<String>]) {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0).max(3);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for (number, row) in rows.iter().enumerate() {
        for (column, cell) in row.iter().enumerate() {
            let width = widths[column];
            let _ = match column {
                0 => write!(text, "| {cell:<width$} "),
                _ => write!(text, "| {cell:>width$} "),
            };
        }
        text.push_str("|\n");
        if number == 0 {
            let rule = |(column, width): (usize, &usize)| match column {
                0 => format!("|{}", "-".repeat(width + 2)),
                _ => format!("|{}:", "-".repeat(width + 1)),
            };
            let _ = writeln!(text, "{}|", widths.iter().enumerate().map(rule).collect::<String>());
        }
    }
}

/// Bytes and worst tasks under the scores.
fn footer(text: &mut String, results: &Results, group: &Group) {
    text.push('\n');
    for &method in group.methods.iter().filter(|&&method| method > 0) {
        let (bytes, score, _) = results.overall(method);
        let label = results.settings.methods[method].label();
        let _ = write!(text, "- {label}: {:.1} % of dense bytes", 100.0 * bytes);
        if let Some(score) = score {
            let _ = write!(text, ", {:.1} % of dense scores on average", 100.0 * score);
        }
        if let Some((task, part)) = results.worst_score(method) {
            let _ = write!(text, ", {:.1} % on {task}, the worst", 100.0 * part);
        }
        if let Some((task, kl)) = results.worst_kl(method) {
            let _ = write!(text, "; largest KL {kl:.3} on {task}");
        }
        text.push('\n');
    }
    text.push('\n');
}

/// Scores by turn of the tasks that ask several times.
fn turns(text: &mut String, results: &Results) {
    for task in &results.tasks {
        let count = task.turns(0).len();
        if count == 0 {
            continue;
        }
        let head = (1..=count).map(|turn| format!("turn {turn}"));
        let mut rows = vec![std::iter::once(format!("{} by turn, %", task.task)).chain(head).collect()];
        for (method, settings) in results.settings.methods.iter().enumerate() {
            let cells = task.turns(method).into_iter().map(|score| format!("{:.1}", 100.0 * score));
            rows.push(std::iter::once(settings.label()).chain(cells).collect::<Vec<String>>());
        }
        aligned(text, &rows);
        text.push('\n');
    }
}

/// Cells where dense attention itself scores nothing, so that no method can be judged.
fn failures(text: &mut String, results: &Results) {
    for task in &results.tasks {
        let cells = task.cells(0);
        let failed: Vec<&Cell> = cells.iter().filter(|cell| cell.dense == 0.0).collect();
        if failed.is_empty() || !task.metric.higher_is_better() {
            continue;
        }
        let place = |cell: &&Cell| format!("{} at depth {:.0} %", cell.length, 100.0 * cell.depth);
        let places: Vec<String> = failed.iter().map(place).collect();
        let all = if failed.len() == cells.len() { "everywhere".to_owned() } else { places.join(", ") };
        let _ = writeln!(text, "Dense attention itself scores nothing in {}: {all}.\n", task.task);
    }
}
