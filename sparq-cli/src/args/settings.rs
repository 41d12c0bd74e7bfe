//! What `/set` changes while `sparq chat` runs.

use anyhow::Context;
use clap::{
    ArgMatches, Args, Command, FromArgMatches, builder::NonEmptyStringValueParser, error::ContextKind,
    error::ErrorKind, parser::ValueSource,
};
use sparq_models::{attention::MethodSpec, config::GenerationConfig};

use super::{AttentionArgs, SamplingArgs, TokenLimit, attention};

/// Tokens of an answer where neither a flag nor the checkpoint says how many.
const MAX_NEW_TOKENS: usize = 1024;

/// What takes a setting back.
const DEFAULT: &str = "default";

/// What `/set` can change between two answers.
#[derive(Debug, Clone, Args)]
pub(crate) struct ChatSettings {
    /// Maximum number of tokens per answer [default: from generation_config.json, else 1024]
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) max_new_tokens: Option<usize>,

    /// Stop at this text, which is not printed; repeatable; may be a special token
    /// [default: from generation_config.json]
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
}

/// Settings, and what was said to get them.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) values: ChatSettings,
    stated: Vec<Stated>,
}

/// A setting that was stated: the name of its flag, and its value where it takes one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stated {
    name: String,
    value: Option<String>,
}

impl Stated {
    /// As `/set` takes it.
    fn words(&self) -> String {
        match &self.value {
            Some(value) if value.is_empty() || value.contains(char::is_whitespace) => {
                format!("{} \"{value}\"", self.name)
            }
            Some(value) => format!("{} {value}", self.name),
            None => self.name.clone(),
        }
    }

    fn flag(&self) -> String {
        match &self.value {
            Some(value) => format!("--{}={value}", self.name),
            None => format!("--{}", self.name),
        }
    }
}

impl Settings {
    /// What was stated and holds, one a line.
    pub(crate) fn stated(&self) -> Vec<String> {
        self.stated.iter().map(Stated::words).collect()
    }

    /// Names of all settings, but for those of before.
    pub(crate) fn names() -> Vec<String> {
        let command = command();
        let shown = command.get_arguments().filter(|arg| !arg.is_hide_set());
        shown.filter_map(clap::Arg::get_long).map(str::to_owned).collect()
    }

    /// The settings with what `words` say, and what of the settings before no longer holds: names of flags
    /// without their dashes, each with its value, or with `default` to take it back.
    ///
    /// # Errors
    /// What clap says about a name or a value, in one line.
    pub(crate) fn with(&self, words: &[&str]) -> anyhow::Result<(Self, Vec<String>)> {
        let typed = typed(words)?;
        let is_default = |stated: &Stated| stated.value.as_deref() == Some(DEFAULT);
        let new: Vec<Stated> = typed.iter().filter(|stated| !is_default(stated)).cloned().collect();
        let mut stated = self.stated.clone();
        stated.retain(|before| typed.iter().all(|typed| typed.name != before.name));
        let mut notes = vec![];
        stated.retain(|before| {
            let winner = new.iter().find(|new| gives_way(before, new));
            let note =
                winner.map(|new| format!("`{}` no longer holds beside `{}`", before.words(), new.words()));
            notes.extend(note);
            winner.is_none()
        });
        stated.extend(new);
        let flags = stated.iter().map(Stated::flag);
        let matches = command().try_get_matches_from(flags).map_err(|error| one_line(&error))?;
        let values = ChatSettings::from_arg_matches(&matches).map_err(|error| one_line(&error))?;
        Ok((Self { values, stated }, notes))
    }
}

impl Args for Settings {
    fn augment_args(command: Command) -> Command {
        ChatSettings::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        ChatSettings::augment_args_for_update(command)
    }
}

impl FromArgMatches for Settings {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let values = ChatSettings::from_arg_matches(matches)?;
        let mut stated = vec![];
        for arg in command().get_arguments() {
            let id = arg.get_id().as_str();
            if matches.value_source(id) != Some(ValueSource::CommandLine) {
                continue;
            }
            let name = arg.get_long().unwrap_or(id);
            let raw = matches.try_get_raw(id).ok().flatten().filter(|_| arg.get_action().takes_values());
            match raw {
                Some(raw) => stated.extend(raw.map(|value| Stated {
                    name: name.to_owned(),
                    value: Some(value.to_string_lossy().into_owned()),
                })),
                None => stated.push(Stated { name: name.to_owned(), value: None }),
            }
        }
        Ok(Self { values, stated })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The settings as flags of a command of their own.
fn command() -> Command {
    ChatSettings::augment_args(Command::new("set").no_binary_name(true).disable_help_flag(true))
}

/// Whether a setting cannot hold any more beside one that is stated now.
fn gives_way(before: &Stated, new: &Stated) -> bool {
    let (before, name) = (before.name.as_str(), new.name.as_str());
    match name {
        "profile" => attention::in_a_profile(before),
        "attention" if before == "profile" => true,
        "attention" => {
            let spec = new.value.as_deref().and_then(|text| MethodSpec::parse(text).ok());
            spec.is_some_and(|spec| !attention::adds(&spec, before))
        }
        _ => attention::exclude_each_other(before, name),
    }
}

/// What clap says in one line, with the name that is missing where one is.
fn one_line(error: &clap::Error) -> anyhow::Error {
    if error.kind() == ErrorKind::MissingRequiredArgument
        && let Some(missing) = error.get(ContextKind::InvalidArg)
    {
        return anyhow::anyhow!("{} is needed as well", missing.to_string().trim_start_matches('-'));
    }
    let text = error.to_string();
    let lines = text.lines().map(str::trim).take_while(|line| !line.is_empty());
    let line = lines.collect::<Vec<_>>().join(" ");
    anyhow::anyhow!(line.trim_start_matches("error: ").to_owned())
}

/// What was typed: `top-p 0.9`, a switch by its name alone, `default` behind any name.
fn typed(words: &[&str]) -> anyhow::Result<Vec<Stated>> {
    let command = command();
    let mut typed = vec![];
    let mut words = words.iter().peekable();
    while let Some(word) = words.next() {
        let name = word.trim_start_matches('-').replace('_', "-");
        let arg = command.get_arguments().find(|arg| arg.get_long() == Some(&name));
        let arg = arg.with_context(|| {
            format!("there is no setting `{name}`; there are {}", Settings::names().join(", "))
        })?;
        let value = match arg.get_action().takes_values() {
            true => Some(words.next().with_context(|| format!("`{name}` needs a value"))?),
            false => words.next_if(|word| **word == DEFAULT),
        };
        typed.push(Stated { name, value: value.map(|value| (*value).to_owned()) });
    }
    Ok(typed)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};
    use sparq_models::{attention::AttentionPlan, core::MethodKind};

    fn settings(flags: &str) -> Settings {
        let words = ["sparq", "chat"].into_iter().chain(flags.split_whitespace());
        match Cli::try_parse_from(words).unwrap().command {
            Command::Chat(args) => args.settings,
            _ => unreachable!("chat was typed"),
        }
    }

    /// What holds after these lines, and what was said on the way.
    fn set(flags: &str, lines: &[&str]) -> (Settings, Vec<String>) {
        let mut notes = vec![];
        let mut settings = settings(flags);
        for line in lines {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (new, more) = settings.with(&words).unwrap();
            notes.extend(more);
            settings = new;
        }
        (settings, notes)
    }

    fn notation(settings: &Settings) -> String {
        match settings.values.attention.resolve(false).unwrap() {
            AttentionPlan::Method { spec, dense_layers: 0 } => spec.to_string(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn what_is_set_changes_and_the_rest_stays() {
        let first = "--temperature 0.5 --attention dense --compression-ratio 4";
        let (settings, _) = set(first, &["top-p 0.9 max_new_tokens 7"]);
        let values = &settings.values;
        assert_eq!((values.sampling.top_p, values.max_new_tokens), (Some(0.9), Some(7)));
        assert_eq!(
            (values.sampling.temperature, values.attention.method.spec.kind),
            (Some(0.5), MethodKind::Dense)
        );
        let stated =
            ["attention dense", "compression-ratio 4", "temperature 0.5", "top-p 0.9", "max-new-tokens 7"];
        assert_eq!(settings.stated(), stated);
        let (settings, notes) = set(first, &["attention sparq no-mean-value"]);
        assert_eq!(notation(&settings), "sparq@4:mean=off:min-k=128");
        assert_eq!(notes, [""; 0]);
        // What is set last holds, and what gives way is said.
        let (settings, notes) = set(first, &["attention sparq", "sparq-rank 16 sparq-top-k 64"]);
        assert_eq!(notation(&settings), "sparq:r=16:k=64");
        assert_eq!(notes, ["`compression-ratio 4` no longer holds beside `sparq-rank 16`"]);
        let (settings, notes) = set("--sparq-rank 16 --sparq-top-k 64", &["compression-ratio 8"]);
        assert_eq!((notation(&settings).as_str(), notes.len()), ("sparq@8:min-k=128", 2));
        assert_eq!(set("--sparq-rank 16 --sparq-top-k 64", &["sparq-rank 8"]).0.stated().len(), 2);
    }

    #[test]
    fn flags_go_into_a_new_notation() {
        let (settings, notes) = set("--dense-below 0 --k-index int8", &["attention sparq:r=8:k=16"]);
        assert_eq!(notation(&settings), "sparq:r=8:k=16:dense-below=0:kt=int8");
        assert_eq!(notes, [""; 0]);
        let (settings, notes) = set("", &["local-window 2", "attention h2o:k=16"]);
        assert_eq!((notation(&settings).as_str(), notes.len()), ("h2o:k=16:l=2", 0));
        for (flags, line, holds, gone) in [
            ("--k-index int8", "attention h2o:k=16", "h2o:k=16", "`k-index int8`"),
            ("--local-window 2", "attention h2o:k=16:l=3", "h2o:k=16:l=3", "`local-window 2`"),
            ("--compression-ratio 2", "attention sparq:r=8:k=16", "sparq:r=8:k=16", "`compression-ratio 2`"),
            ("--compression-ratio 2", "attention h2o@4", "h2o@4", "`compression-ratio 2`"),
            ("--min-top-k 2", "attention quest@4", "quest@4", "`min-top-k 2`"),
        ] {
            let (settings, notes) = set(flags, &[line]);
            assert_eq!(notation(&settings), holds);
            assert_eq!(notes, [format!("{gone} no longer holds beside `{line}`")]);
        }
        // Dense attention takes nothing, and another method after it takes up what was there.
        let (settings, _) = set("--local-window 2", &["attention dense", "attention h2o:k=16"]);
        assert_eq!(notation(&settings), "h2o:k=16:l=2");
    }

    #[test]
    fn a_setting_is_taken_back() {
        let (settings, notes) = set(
            "--temperature 0.5 --no-mean-value --stop a --stop b",
            &["temperature 1", "temperature 2", "temperature default no-mean-value default", "top-k default"],
        );
        assert_eq!(settings.stated(), ["stop a", "stop b"]);
        assert_eq!((settings.values.sampling.temperature, notes.len()), (None, 0));
        assert_eq!(set("--stop a", &["stop b stop c"]).0.values.stop, ["b", "c"]);
    }

    #[test]
    fn a_profile_excludes_what_says_the_same() {
        let (settings, notes) = set("--local-window 2 --temperature 1", &["profile p.json"]);
        assert_eq!(settings.stated(), ["temperature 1", "profile p.json"]);
        assert_eq!(notes, ["`local-window 2` no longer holds beside `profile p.json`"]);
        for words in [["compression-ratio", "2"], ["dense-layers", "2"], ["local-window", "2"]] {
            let error = settings.with(&words).unwrap_err().to_string();
            assert!(error.contains("cannot be used with") && error.contains(words[0]), "{error}");
        }
        let (settings, notes) = settings.with(&["attention", "dense"]).unwrap();
        assert_eq!(settings.stated(), ["temperature 1", "attention dense"]);
        assert_eq!(notes, ["`profile p.json` no longer holds beside `attention dense`"]);
    }

    #[test]
    fn what_cannot_be_set_is_said_in_one_line() {
        let settings = settings("");
        for (words, expected) in [
            (&["colour", "red"][..], "there is no setting `colour`; there are max-new-tokens"),
            (&["top-p"], "`top-p` needs a value"),
            (&["top-p", "high"], "invalid value 'high' for '--top-p <P>'"),
            (&["choice", "best"], "[possible values: exact, buckets]"),
            (&["attention", "sparse"], "invalid value 'sparse'"),
            (&["sparq-rank", "16"], "sparq-top-k <K> is needed as well"),
        ] {
            let error = settings.with(words).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains('\n'), "{error}");
        }
    }
}
