//! `sparq eval list`.

use std::{fmt::Write, process::ExitCode};

use sparq_models::eval::tasks::tasks;

use crate::output;

/// One line per task, then those that read a file with its form.
pub(super) fn run() -> anyhow::Result<ExitCode> {
    let width = tasks().iter().map(|task| task.name.len()).max().unwrap_or(0);
    let mut out = String::new();
    writeln!(out, "Without a file:")?;
    for task in tasks().iter().filter(|task| task.file.is_none()) {
        writeln!(out, "  {:width$}  {}", task.name, task.about)?;
    }
    writeln!(out, "\nFrom a file, as NAME=FILE:")?;
    for task in tasks() {
        if let Some(form) = task.file {
            writeln!(out, "  {:width$}  {}", task.name, task.about)?;
            writeln!(out, "  {:width$}  {form}", "")?;
        }
    }
    output::print(&out)?;
    Ok(ExitCode::SUCCESS)
}
