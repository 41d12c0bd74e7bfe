//! `sparq tokenize`.

use std::process::ExitCode;

use serde::Serialize;
use sparq_models::tokenizer::Piece;

use crate::{
    args::{TokenizeArgs, open_without_weights},
    output::{self, Progress},
};

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Tokens<'a> {
    /// How many there are.
    count: usize,
    ids: &'a [u32],
    pieces: &'a [Piece],
}

/// Runs the subcommand.
pub(crate) fn run(args: &TokenizeArgs) -> anyhow::Result<ExitCode> {
    let text = args.prompt.read()?;
    let checkpoint = open_without_weights(args.model.as_deref(), args.offline, &mut Progress::new(false))?;
    let tokenizer = checkpoint.tokenizer()?;
    let ids = tokenizer.encode(&text, !args.no_special_tokens)?;
    let pieces = tokenizer.pieces(&ids)?;

    output::print(&if args.json {
        let tokens = Tokens { count: ids.len(), ids: &ids, pieces: &pieces };
        serde_json::to_string_pretty(&tokens)? + "\n"
    } else if args.ids {
        let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
        ids.join(" ") + "\n"
    } else {
        output::pieces(&pieces)
    })?;
    Ok(ExitCode::SUCCESS)
}
