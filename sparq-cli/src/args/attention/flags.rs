//! `--attention`, and the flags that add to its notation.

use clap::{
    Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches,
    builder::{PossibleValue, PossibleValuesParser},
    error::ErrorKind,
};
use sparq_models::{
    attention::{MethodSpec, RATIO, SpecKey, SpecKeys, key, ratio},
    core::MethodKind,
};

use super::notation_help;

/// A flag that says what the notation of `--attention` can say as well.
#[derive(Debug)]
pub(super) struct KeyFlag {
    pub(super) flag: &'static str,
    /// The key of the notation, or [`RATIO`].
    pub(super) key: &'static str,
    value_name: &'static str,
    /// What `--help` says. Flags without it are hidden: they are those of before, and go with the next release.
    pub(super) help: Option<&'static str>,
}

const HIDDEN: KeyFlag = KeyFlag { flag: "", key: "", value_name: "VALUE", help: None };

/// A switch, which states that the mean value is off.
pub(super) const NO_MEAN_VALUE: &str = "no-mean-value";
/// Needed together.
pub(super) const SIZES: [&str; 2] = ["sparq-rank", "sparq-top-k"];

pub(super) static FLAGS: [KeyFlag; 10] = [
    KeyFlag {
        flag: "compression-ratio",
        key: RATIO,
        value_name: "X",
        help: Some("Read about one part in X of what dense attention reads [default: 8]"),
    },
    KeyFlag { flag: "min-top-k", key: "min-k", ..HIDDEN },
    KeyFlag { flag: SIZES[0], key: "r", value_name: "R", ..HIDDEN },
    KeyFlag { flag: SIZES[1], key: "k", value_name: "K", ..HIDDEN },
    KeyFlag { flag: "local-window", key: "l", ..HIDDEN },
    KeyFlag { flag: NO_MEAN_VALUE, key: "mean", ..HIDDEN },
    KeyFlag { flag: "group-scores", key: "group", ..HIDDEN },
    KeyFlag {
        flag: "dense-below",
        key: "dense-below",
        value_name: "auto|N",
        help: Some(
            "SparQ: attend densely to contexts shorter than N tokens; auto measures from which length on SparQ \
             is faster here, once for each shape [default: auto; 0 for the small model inside this program]",
        ),
    },
    KeyFlag { flag: "k-index", key: "kt", ..HIDDEN },
    KeyFlag { flag: "choice", key: "topk", ..HIDDEN },
];

impl KeyFlag {
    fn arg(&'static self) -> Arg {
        let arg = Arg::new(self.flag).long(self.flag).hide(self.help.is_none()).help(self.help.unwrap_or(""));
        if self.flag == NO_MEAN_VALUE {
            return arg.action(ArgAction::SetTrue);
        }
        let arg = match SIZES.iter().find(|size| SIZES.contains(&self.flag) && **size != self.flag) {
            Some(other) => arg.requires(other),
            None => arg,
        };
        let words = key(self.key).map(SpecKey::words).unwrap_or_default();
        let arg = arg.value_name(self.value_name);
        if words.is_empty() {
            return arg.value_parser(move |text: &str| self.read(text));
        }
        let word = |word: &&'static str| match *word {
            "cache" => PossibleValue::new("cache").alias("auto"),
            other => PossibleValue::new(other),
        };
        arg.value_parser(PossibleValuesParser::new(words.iter().map(word).collect::<Vec<_>>()))
    }

    /// A value, as the notation takes it.
    fn read(&self, text: &str) -> Result<String, String> {
        match key(self.key) {
            Some(key) if key.read(text, &mut SpecKeys::default()) => Ok(text.to_owned()),
            Some(key) => Err(format!("{} is needed", key.values().replace('`', ""))),
            None if ratio(text).is_some() => Ok(text.to_owned()),
            None => Err("a number of at least 1 is needed".to_owned()),
        }
    }

    /// What was typed, as the notation takes it.
    fn value(&self, matches: &ArgMatches) -> Option<String> {
        if self.flag == NO_MEAN_VALUE {
            return matches.get_flag(self.flag).then(|| "off".to_owned());
        }
        let value = matches.get_one::<String>(self.flag)?;
        Some(if value == "auto" && self.key == "kt" { "cache" } else { value }.to_owned())
    }
}

/// The method of `--attention` with what other flags add to it.
#[derive(Debug, Clone)]
pub(crate) struct MethodArgs {
    pub(crate) spec: MethodSpec,
    /// The other flags that were stated.
    pub(super) stated: Vec<String>,
}

impl Args for MethodArgs {
    fn augment_args(command: Command) -> Command {
        let attention = Arg::new("attention")
            .long("attention")
            .value_name("METHOD")
            .default_value("sparq")
            .value_parser(MethodSpec::parse)
            .help(notation_help("How decode steps attend to the cache; prompts are always attended densely"));
        FLAGS.iter().fold(command.arg(attention), |command, flag| command.arg(flag.arg()))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for MethodArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let typed = matches.get_one::<MethodSpec>("attention").copied();
        let typed = typed.unwrap_or(MethodKind::Sparq.into());
        let value = |flag: &'static KeyFlag| Some((flag, flag.value(matches)?));
        let flags: Vec<(&KeyFlag, String)> = FLAGS.iter().filter_map(value).collect();
        let conflict = |message| clap::Error::raw(ErrorKind::ArgumentConflict, message + "\n");
        let spec = merged(&typed, &flags).map_err(conflict)?;
        Ok(Self { spec, stated: flags.iter().map(|(flag, _)| format!("--{}", flag.flag)).collect() })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// A notation with what flags add. Dense attention takes nothing and ignores all, so that a command can be
/// repeated with `--attention dense` in it.
fn merged(typed: &MethodSpec, flags: &[(&KeyFlag, String)]) -> Result<MethodSpec, String> {
    if typed.kind == MethodKind::Dense {
        return Ok(*typed);
    }
    let mut spec = *typed;
    for (KeyFlag { flag, key, .. }, value) in flags {
        if !typed.takes(key) {
            return Err(format!("--{flag} has no effect with --attention {}", typed.kind));
        }
        if typed.states(key) {
            return Err(format!("--{flag} and --attention both state `{key}`"));
        }
        spec = spec.with(key, value).map_err(|error| error.to_string())?;
    }
    let Some(clash) = spec.clash() else { return Ok(spec) };
    let flag = |key: &str| flags.iter().find(|(flag, _)| flag.key == key).map(|(flag, _)| flag.flag);
    let beside: Vec<String> =
        clash.beside(&spec).filter_map(|key| Some(format!("--{}", flag(key)?))).collect();
    let beside = beside.join(" and ");
    Err(match flag(clash.option) {
        Some(flag) if beside.is_empty() => {
            format!("--{flag} has no effect with --attention {typed}, which states {}", clash.words)
        }
        Some(flag) => format!("--{flag} has no effect beside {beside}"),
        None => format!("`{}` of --attention {typed} has no effect beside {beside}", clash.option),
    })
}

/// Whether a flag can say something beside this notation. Dense attention ignores all of them.
pub(crate) fn adds(spec: &MethodSpec, flag: &str) -> bool {
    let Some(flag) = FLAGS.iter().find(|known| known.flag == flag) else { return true };
    let together = |other: &&KeyFlag| SIZES.contains(&flag.flag) && SIZES.contains(&other.flag);
    let all = FLAGS.iter().filter(|other| other.flag == flag.flag || together(other));
    // Any value will do.
    let any = |flag: &KeyFlag| key(flag.key).and_then(|key| key.words().first().copied()).unwrap_or("1");
    let flags: Vec<(&KeyFlag, String)> = all.map(|flag| (flag, any(flag).to_owned())).collect();
    merged(spec, &flags).is_ok()
}

/// Whether a profile takes the place of a flag.
pub(crate) fn in_a_profile(flag: &str) -> bool {
    ["attention", "dense-layers"].contains(&flag) || FLAGS.iter().any(|known| known.flag == flag)
}

/// Whether one of two flags states sizes and the other what chooses them.
pub(crate) fn exclude_each_other(a: &str, b: &str) -> bool {
    let chooses = |flag| ["compression-ratio", "min-top-k"].contains(&flag);
    SIZES.contains(&a) && chooses(b) || SIZES.contains(&b) && chooses(a)
}

/// As clap names them.
pub(super) fn profile_excludes() -> Vec<&'static str> {
    ["attention", "dense_layers"].into_iter().chain(FLAGS.iter().map(|flag| flag.flag)).collect()
}
