//! What `sparq chat` takes, and what `/set` changes while it runs.

use anyhow::Context;
use clap::{
    Args, Command, FromArgMatches, ValueEnum,
    builder::{NonEmptyStringValueParser, OsStr, Resettable},
};

use sparq_models::config::GenerationConfig;

use super::{AttentionArgs, ModelArgs, SamplingArgs, TemplateArgs, TokenLimit};

/// Tokens of an answer where neither a flag nor the checkpoint says how many.
const MAX_NEW_TOKENS: usize = 1024;

#[derive(Debug, Args)]
pub(crate) struct ChatArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,

    /// Instructions for the whole conversation
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,

    /// Do without the model's chat template: write lines that begin with `User:` and `Assistant:`
    #[arg(long)]
    pub(crate) no_chat_template: bool,

    #[command(flatten)]
    pub(crate) template: TemplateArgs,

    #[command(flatten)]
    pub(crate) settings: ChatSettings,

    /// Longest context in tokens [default: the model's own limit]
    #[arg(long, value_name = "N")]
    pub(crate) max_seq_len: Option<usize>,

    /// What to do with a message that the context has no room for: drop the oldest turns, or stop at it
    #[arg(long, value_enum, default_value_t = ContextFull::Drop)]
    pub(crate) context_full: ContextFull,

    /// Show no progress bars (they are shown on a terminal only)
    #[arg(long)]
    pub(crate) no_progress: bool,
}

/// What happens to a message that the context has no room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ContextFull {
    Drop,
    Stop,
}

/// What `/set` can change between two answers.
#[derive(Debug, Clone, Args)]
pub(crate) struct ChatSettings {
    /// Tokens of an answer at most [default: what generation_config.json says, else 1024]
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) max_new_tokens: Option<usize>,

    /// End an answer where this text comes up, and leave it out; may be given several times, and may be a
    /// special token [default: what generation_config.json says]
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) stop: Vec<String>,

    #[command(flatten)]
    pub(crate) attention: AttentionArgs,

    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
}

impl ChatSettings {
    /// Tokens of an answer at most, behind a prompt of `prompt_tokens`.
    ///
    /// # Errors
    /// As [`SamplingArgs::limit`].
    pub(crate) fn limit(
        &self,
        of_checkpoint: &GenerationConfig,
        prompt_tokens: usize,
    ) -> anyhow::Result<TokenLimit> {
        self.sampling.limit(self.max_new_tokens, of_checkpoint, prompt_tokens, MAX_NEW_TOKENS)
    }

    /// All settings, as `--help` shows them.
    pub(crate) fn help() -> String {
        let command = Self::augment_args(Command::new("set").disable_help_flag(true));
        command.help_template("{all-args}").render_help().to_string()
    }

    /// Changes what `words` say: names of flags without their dashes, each with its value.
    ///
    /// # Errors
    /// What clap says about a name or a value, in one line.
    pub(crate) fn set(&mut self, words: &[&str]) -> anyhow::Result<()> {
        // Without defaults, only what is typed is changed.
        let command = Self::augment_args(Command::new("set").no_binary_name(true).disable_help_flag(true))
            .mut_args(|arg| arg.default_value(Resettable::<OsStr>::Reset));
        let flags = flags(&command, words)?;
        let one_line = |error: clap::Error| {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
            anyhow::anyhow!(line)
        };
        let matches = command.try_get_matches_from(flags).map_err(one_line)?;
        if matches.value_source("attention").is_some() {
            self.attention.forget_sizes();
        }
        // A ratio and explicit sizes exclude each other: what is set last holds.
        if matches.value_source("compression_ratio").is_some() || matches.value_source("min_top_k").is_some()
        {
            (self.attention.sparq_rank, self.attention.sparq_top_k) = (None, None);
        }
        if matches.value_source("sparq_rank").is_some() {
            (self.attention.compression_ratio, self.attention.min_top_k) = (None, None);
        }
        self.update_from_arg_matches(&matches).map_err(one_line)
    }
}

/// The words as flags: `top-p 0.9` as `--top-p=0.9`, a switch by its name alone.
fn flags(command: &Command, words: &[&str]) -> anyhow::Result<Vec<String>> {
    let mut flags = vec![];
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let name = word.trim_start_matches('-').replace('_', "-");
        let arg = command.get_arguments().find(|arg| arg.get_long() == Some(&name));
        let arg = arg.with_context(|| {
            let names: Vec<&str> = command.get_arguments().filter_map(clap::Arg::get_long).collect();
            format!("there is no setting `{name}`; there are {}", names.join(", "))
        })?;
        flags.push(match arg.get_action().takes_values() {
            true => format!("--{name}={}", words.next().with_context(|| format!("`{name}` needs a value"))?),
            false => format!("--{name}"),
        });
    }
    Ok(flags)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};
    use sparq_models::attention::MethodName;

    fn settings() -> ChatSettings {
        let words =
            ["sparq", "chat", "--temperature", "0.5", "--attention", "dense", "--compression-ratio", "4"];
        match Cli::try_parse_from(words).unwrap().command {
            Command::Chat(args) => args.settings,
            _ => unreachable!("chat was typed"),
        }
    }

    #[test]
    fn what_is_set_changes_and_the_rest_stays() {
        let mut settings = settings();
        settings.set(&["top-p", "0.9", "max_new_tokens", "7"]).unwrap();
        assert_eq!((settings.sampling.top_p, settings.max_new_tokens), (Some(0.9), Some(7)));
        assert_eq!(
            (settings.sampling.temperature, settings.attention.attention.name),
            (Some(0.5), MethodName::Dense)
        );
        settings.set(&["attention", "sparq", "no-mean-value"]).unwrap();
        assert!(settings.attention.no_mean_value && settings.attention.attention.name == MethodName::Sparq);
        assert_eq!(settings.attention.compression_ratio, Some(4.0));
        settings.set(&["sparq-rank", "16", "sparq-top-k", "64"]).unwrap();
        assert_eq!((settings.attention.compression_ratio, settings.attention.sparq_rank), (None, Some(16)));
        settings.set(&["compression-ratio", "8"]).unwrap();
        assert_eq!((settings.attention.compression_ratio, settings.attention.sparq_rank), (Some(8.0), None));
        settings.set(&["attention", "h2o:l=2"]).unwrap();
        assert!(!settings.attention.no_mean_value, "H2O has none");
        assert_eq!(settings.attention.compression_ratio, Some(8.0));
        assert!(settings.attention.resolve(true).is_ok());
    }

    #[test]
    fn what_cannot_be_set_is_said_in_one_line() {
        let mut settings = settings();
        for (words, expected) in [
            (&["colour", "red"][..], "there is no setting `colour`; there are max-new-tokens"),
            (&["top-p"], "`top-p` needs a value"),
            (&["top-p", "high"], "invalid value 'high' for '--top-p <P>'"),
            (&["attention", "sparse"], "invalid value 'sparse'"),
            (&["sparq-rank", "16"], "required"),
        ] {
            let error = settings.set(words).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains('\n'), "{error}");
        }
        assert_eq!(settings.sampling.top_p, None);
    }
}
