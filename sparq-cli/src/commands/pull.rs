//! `sparq pull`.

use std::process::ExitCode;

use anyhow::bail;

use crate::{
    args::PullArgs,
    hub,
    output::{self, Progress},
};

/// Runs the subcommand: the model's folder goes to standard output.
pub(crate) fn run(args: &PullArgs) -> anyhow::Result<ExitCode> {
    if args.model.exists() {
        bail!("`{}` is a path here, not a name on the hub", args.model.display());
    }
    let folder = hub::checked_folder(&args.model, &mut Progress::new(args.no_progress))?;
    if !folder.is_dir() {
        return Err(sparq_models::Error::FolderNotFound { path: folder }.into());
    }
    output::print(&format!("{}\n", folder.display()))?;
    Ok(ExitCode::SUCCESS)
}
