//! Results as Markdown.

mod grid;

use std::fmt::Write;

use sparq_models::eval::{Results, results::TaskResults, summary::Average};

use crate::output;

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
        let score = |task: &TaskResults, method: usize| {
            let mark = if task.differs_from_dense(method) { "*" } else { "" };
            format!("{}{mark}", task.metric.format(task.average(method).score))
        };
        table(&mut text, results, &group, "score (answers)", &label, &score);
        footer(&mut text, results, &group);
        let interval = |task: &TaskResults, method: usize| match task.interval(method) {
            Some((low, high)) => format!("{:.0}–{:.0}", 100.0 * low, 100.0 * high),
            None => "–".to_owned(),
        };
        let name = |task: &TaskResults| task.task.clone();
        if results.tasks.iter().any(|task| task.interval(0).is_some()) {
            table(&mut text, results, &group, "score, interval of 95 %", &name, &interval);
            text.push('\n');
        }
        for (title, figure) in AVERAGES {
            let cell = |task: &TaskResults, method: usize| figure(task.average(method));
            table(&mut text, results, &group, title, &name, &cell);
            text.push('\n');
        }
    }
    turns(&mut text, results);
    mass(&mut text, results);
    grid::tables(&mut text, results);
    text.push_str(NOTES);
    text
}

/// An average as a table shows it.
type Figure = fn(Average) -> String;

/// Tables of averages that mean the same for all tasks.
const AVERAGES: [(&str, Figure); 3] = [
    ("KL from dense, nats per answer token", |average| format!("{:.4}", average.kl)),
    ("same likeliest token as dense, %", |average| format!("{:.1}", 100.0 * average.top_1_agreement)),
    ("nats per token of the reference answer", |average| format!("{:.3}", average.nats_per_token)),
];

/// How the tables are to be read.
const NOTES: &str = "\
\\* differs from dense attention on the same answers by more than chance explains (sign test, 5 %); scores \
without it do not, however far apart they look.\n\
† dense attention itself fails: it scores below the floor that counts as doing the task (half of the answers; \
0.1 of ROUGE-L; 32 characters repeated) at every length that was run, or at those in brackets. No method can be \
judged there, and averages of scores leave it out.\n\
Intervals are Wilson's. KL and the likeliest token compare with dense attention everywhere, also where it fails.\n";

/// A task with its metric and the number of answers; marked where dense attention fails.
fn label(task: &TaskResults) -> String {
    let done = task.lengths_done();
    let mut lengths: Vec<usize> = task.samples.iter().map(|sample| sample.length).collect();
    lengths.sort_unstable();
    lengths.dedup();
    lengths.retain(|length| !done.contains(length));
    let mark = match (lengths.is_empty(), done.is_empty()) {
        (true, _) => String::new(),
        (false, true) => " †".to_owned(),
        (false, false) => {
            let lengths: Vec<String> = lengths.iter().map(usize::to_string).collect();
            format!(" † [{}]", lengths.join(", "))
        }
    };
    format!("{}: {} ({}){mark}", task.task, task.metric.title(), task.answers())
}

/// The whole page, with the charts that were drawn.
pub(super) fn page(results: &Results, charts: &[(String, String)]) -> String {
    let settings = &results.settings;
    let plan = &settings.plan;
    let list = |values: &[usize]| values.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
    let mut text = String::from("# Decode methods compared\n\n");
    let _ = writeln!(
        text,
        "{} ({}) in {} on {}; {} per task, lengths {} tokens, {}, seed {}; sparq {}, Burn {}.\n\
         Contexts are prefilled densely; questions and answers go through the method under test, token by \
         token.\n",
        settings.model,
        settings.architecture,
        settings.dtype,
        settings.device,
        output::counted(plan.limit, "sample"),
        list(&plan.lengths),
        output::counted(plan.depths, "depth"),
        plan.seed,
        settings.sparq_version,
        settings.burn_version,
    );
    for (title, file) in charts {
        let _ = writeln!(text, "![{title}]({file})\n");
    }
    text.push_str(&tables(results));
    text
}

/// One row per task, one column per method.
fn table(
    text: &mut String,
    results: &Results,
    group: &Group,
    corner: &str,
    row: &dyn Fn(&TaskResults) -> String,
    cell: &dyn Fn(&TaskResults, usize) -> String,
) {
    let labels = group.methods.iter().map(|&method| results.settings.methods[method].label());
    let mut rows = vec![std::iter::once(corner.to_owned()).chain(labels).collect::<Vec<String>>()];
    for task in &results.tasks {
        let cells = group.methods.iter().map(|&method| cell(task, method));
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
    let done = match results.tasks_done() {
        0 => String::new(),
        1 => " on the one task that dense attention does".to_owned(),
        count => format!(" on average over the {count} tasks that dense attention does"),
    };
    for &method in group.methods.iter().filter(|&&method| method > 0) {
        let (bytes, score, _) = results.overall(method);
        let label = results.settings.methods[method].label();
        let _ = write!(text, "- {label}: {:.1} % of dense bytes", 100.0 * bytes);
        if let Some(score) = score {
            let _ = write!(text, ", {:.1} % of dense scores{done}", 100.0 * score);
        }
        if let Some((task, part)) = results.worst_score(method).filter(|_| results.tasks_done() > 1) {
            let _ = write!(text, ", {:.1} % on {task}, the worst", 100.0 * part);
        }
        if let Some((task, kl)) = results.worst_kl(method) {
            let _ = write!(text, "; largest KL {kl:.3} on {task}");
        }
        text.push('\n');
    }
    if results.tasks_done() == 0 {
        text.push_str(
            "\nDense attention fails on all tasks, so no scores are compared; KL still says who is near.\n",
        );
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

/// The attention mass that methods read, where it was measured: means over layers and heads, and the
/// head that keeps least.
fn mass(text: &mut String, results: &Results) {
    for task in results.tasks.iter().filter(|task| !task.mass(0).is_empty()) {
        let head = ["mean", "worst layer", "worst head"].map(str::to_owned);
        let title = format!("attention mass read on {}, %", task.task);
        let mut rows = vec![std::iter::once(title).chain(head).collect::<Vec<String>>()];
        for (method, settings) in results.settings.methods.iter().enumerate().skip(1) {
            let mass = task.mass(method);
            let layers: Vec<f64> = mass.iter().map(|heads| mean(heads)).collect();
            let least = |values: &mut dyn Iterator<Item = f64>| values.fold(f64::INFINITY, f64::min);
            let figures = [
                mean(&layers),
                least(&mut layers.iter().copied()),
                least(&mut mass.iter().flatten().copied()),
            ];
            let cells = figures.map(|part| format!("{:.1}", 100.0 * part));
            rows.push(std::iter::once(settings.label()).chain(cells).collect());
        }
        aligned(text, &rows);
        text.push('\n');
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}
