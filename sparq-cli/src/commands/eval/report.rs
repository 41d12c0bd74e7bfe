//! `sparq eval report`.

use std::{
    fs,
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use anyhow::Context;
use sparq_models::eval::Results;

use super::{charts, page};
use crate::{args::EvalReportArgs, output};

/// Writes the page and its charts, and prints their paths.
pub(super) fn run(args: &EvalReportArgs) -> anyhow::Result<ExitCode> {
    let results = Results::read(&args.results)?;
    let beside = args.results.parent().unwrap_or(Path::new("")).to_owned();
    let folder = args.output.clone().unwrap_or(beside);
    if !folder.as_os_str().is_empty() {
        fs::create_dir_all(&folder).with_context(|| format!("cannot make `{}`", folder.display()))?;
    }
    let stem = args.results.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let mut links = vec![];
    let mut written = vec![];
    for chart in charts::all(&named(&results, &output::cell))? {
        // Tasks are named by the file that is read.
        let part: String = chart.name.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
        let name = format!("{stem}-{part}.svg");
        written.push(write(&folder.join(&name), &chart.svg)?);
        links.push((chart.title, name));
    }
    let name = format!("{stem}.md");
    written.insert(0, write(&folder.join(name), &page::page(&named(&results, &for_page), &links))?);
    let mut out = io::stdout().lock();
    for path in written {
        writeln!(out, "{path}").context("cannot write to standard output")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_')
}

/// A name that a page shows as it is: no tag, no command to a terminal, no end of a column.
fn for_page(name: &str) -> String {
    output::cell(name).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('|', "\\|")
}

/// The results with their names changed.
fn named(results: &Results, change: &dyn Fn(&str) -> String) -> Results {
    let mut results = results.clone();
    let settings = &mut results.settings;
    let names = [
        &mut settings.sparq_version,
        &mut settings.burn_version,
        &mut settings.model,
        &mut settings.architecture,
        &mut settings.device,
        &mut settings.dtype,
    ];
    let methods = settings.methods.iter_mut().map(|method| &mut method.name);
    let tasks = results.tasks.iter_mut().map(|task| &mut task.task);
    for name in names.into_iter().chain(methods).chain(tasks) {
        *name = change(name);
    }
    results
}

/// Writes one file whole and gives back its path.
fn write(path: &Path, text: &str) -> anyhow::Result<String> {
    output::write(path, text)?;
    Ok(path.display().to_string())
}
