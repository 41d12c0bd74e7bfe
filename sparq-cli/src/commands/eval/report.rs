//! `sparq eval report`.

use std::{fs, path::Path, process::ExitCode};

use anyhow::Context;
use sparq_models::eval::Results;

use super::{charts, page};
use crate::{args::EvalReportArgs, output::Sink};

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
    for chart in charts::all(&results)? {
        let name = format!("{stem}-{}.svg", chart.name);
        written.push(write(&folder.join(&name), &chart.svg)?);
        links.push((chart.title, name));
    }
    let name = format!("{stem}.md");
    written.insert(0, write(&folder.join(name), &page::page(&results, &links))?);
    for path in written {
        println!("{path}");
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes one file whole and gives back its path.
fn write(path: &Path, text: &str) -> anyhow::Result<String> {
    let mut sink = Sink::open(Some(path))?;
    sink.write(text)?;
    sink.finish()?;
    Ok(path.display().to_string())
}
