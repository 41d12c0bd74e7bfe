//! `sparq chat`.

mod command;
mod conversation;
mod fit;
mod input;
mod transcript;

use std::{
    io::{self, IsTerminal},
    process::ExitCode,
    time::Instant,
};

use sparq_models::{chat::ChatFormat, text_model::TextModel};

use crate::{
    args::ChatArgs,
    output::{self, Progress},
    room::{self, Need},
};
use conversation::{AnswerLost, Conversation, Next};
use input::{Input, NoText};

/// Runs the subcommand: a line in, an answer out, until the lines end or `/bye`. A mistake is reported and the
/// conversation goes on; a script learns of it by the exit code.
pub(crate) fn run(args: &ChatArgs) -> anyhow::Result<ExitCode> {
    let mut progress = Progress::new(args.no_progress);
    let (checkpoint, device, dtype) = args.model.resolve(&mut progress)?;
    let format = match args.no_chat_template {
        true => ChatFormat::Plain,
        false => args.template.format(&checkpoint)?,
    };
    let attention = args.settings.values.attention.resolve(args.model.is_demo())?;
    if let Some(need) = Need::of(&checkpoint, dtype, room::kt_format_of(&attention)) {
        let longest = args.max_seq_len.or(need.context);
        let limit = args.settings.values.limit(checkpoint.generation_config(), 0)?;
        need.check(room::free(&device), room::reserved(0, limit.tokens, longest))?;
    }
    let start = Instant::now();
    let model = TextModel::load(&checkpoint, &device, dtype, &mut |done, total| progress.load(done, total))?;
    progress.clear();
    let load = start.elapsed();

    if matches!(format, ChatFormat::Plain) && !args.no_chat_template {
        output::say("note: the model has no chat template; it continues lines of `User:` and `Assistant:`");
    }
    let terminal = io::stdin().is_terminal();
    if terminal {
        if let Some(note) = args.model.dtype.note(&checkpoint, &device, dtype) {
            output::say(note);
        }
        output::say("Type a message, /help for the commands, or /bye.");
    }
    let defaults = checkpoint.generation_config().clone();
    args.settings
        .values
        .sampling
        .notes(&defaults)
        .iter()
        .for_each(|note| output::say(format!("note: {note}")));
    let mut conversation = Conversation::new(&model, format, args, defaults, load)?;
    let mut input = Input::open(terminal)?;
    let mut code = ExitCode::SUCCESS;
    loop {
        let acted = match input.next() {
            Ok(Some(typed)) => conversation.act(&typed, &mut input, &mut progress),
            Ok(None) => break,
            Err(error) if error.is::<NoText>() => Err(error),
            Err(error) => return Err(error),
        };
        match acted {
            Ok(Next::Line) => {}
            Ok(Next::End) => break,
            Err(error) if error.is::<AnswerLost>() => return Err(error),
            Err(error) => {
                output::report(&error);
                if !terminal {
                    code = ExitCode::FAILURE;
                }
            }
        }
    }
    Ok(code)
}
