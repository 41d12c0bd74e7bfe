//! Which attention to decode with.

mod flags;

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use sparq_models::{
    attention::{AttentionPlan, DenseBelow, KEYS, Profile, SpecKey},
    core::{KtFormat, MethodKind, SparqConfig},
};

use flags::{MethodArgs, profile_excludes};
pub(crate) use flags::{adds, exclude_each_other, in_a_profile};

/// What `--attention` takes, as `--help` says it.
pub(crate) fn notation_help(intro: &str) -> String {
    let methods = MethodKind::ALL.map(MethodKind::name).join(", ");
    let key = |key: &dyn SpecKey| {
        let value = if key.words().is_empty() { "N".to_owned() } else { key.words().join("|") };
        let methods: Vec<&str> = key.methods().iter().map(|kind| kind.name()).collect();
        format!("- {}={value}: {} ({})", key.name(), key.doc().replace('`', ""), methods.join(", "))
    };
    let keys: Vec<String> = KEYS.into_iter().map(key).collect();
    format!(
        "{intro}. METHOD is NAME[@RATIO][:KEY=VALUE]..., such as sparq@8, sparq:r=16:k=64 or h2o:k=64; RATIO is \
         that of --compression-ratio (see docs/methods.md)\n\
         Names: {methods}\n\
         Keys, and the methods that take them:\n{}",
        keys.join("\n")
    )
}

/// How the copy of the keys is stored, where no method says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum KtArg {
    Auto,
    Int8,
    Int4,
}

impl KtArg {
    pub(crate) fn form(self) -> KtFormat {
        match self {
            Self::Auto => KtFormat::Cache,
            Self::Int8 => KtFormat::Int8,
            Self::Int4 => KtFormat::Int4,
        }
    }
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Attention")]
pub(crate) struct AttentionArgs {
    #[command(flatten)]
    pub(crate) method: MethodArgs,

    /// Attend densely in the first N layers
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) dense_layers: usize,

    /// Take the method of each layer from a file (see docs/methods.md)
    #[arg(long, value_name = "FILE", conflicts_with_all = profile_excludes())]
    pub(crate) profile: Option<PathBuf>,
}

impl AttentionArgs {
    /// The attention of the run; `demo` for the small model inside the program, which is scaled
    /// down and so is its smallest top-k.
    pub(crate) fn resolve(&self, demo: bool) -> anyhow::Result<AttentionPlan> {
        if let Some(path) = &self.profile {
            return Ok(AttentionPlan::Profile(Profile::read(path)?));
        }
        let mut spec = self.method.spec;
        if spec.takes("min-k") && !spec.states("r") && !spec.states("k") {
            let least = if demo { crate::demo::MIN_TOP_K } else { SparqConfig::MIN_TOP_K };
            spec.keys.min_top_k.get_or_insert(least);
        }
        if spec.kind == MethodKind::Sparq {
            spec.keys.dense_below = match spec.keys.dense_below {
                // As where nothing is stated.
                Some(DenseBelow::Auto) => None,
                // The small model is there to show SparQ at work, at whatever length.
                None if demo => Some(DenseBelow::Tokens(0)),
                stated => stated,
            };
        }
        let dense_layers = if spec.kind == MethodKind::Dense { 0 } else { self.dense_layers };
        Ok(AttentionPlan::Method { spec, dense_layers })
    }

    /// What was said and has no effect on a model of so many layers.
    pub(crate) fn notes(&self, layers: usize) -> Vec<String> {
        let mut notes = vec![];
        let is_dense = self.method.spec.kind == MethodKind::Dense;
        if is_dense && self.profile.is_none() {
            let first = (self.dense_layers > 0).then(|| "--dense-layers".to_owned());
            let stated: Vec<String> = self.method.stated.iter().cloned().chain(first).collect();
            notes.extend(no_effect(&stated, "with --attention dense"));
        }
        if !is_dense && layers > 0 && self.dense_layers >= layers {
            let covered = format!("--dense-layers {} covers all {layers} layers", self.dense_layers);
            notes.push(format!("{covered} of the model: all are attended densely"));
        }
        notes
    }
}

/// `--a and --b have no effect WHERE`; `None` for no flags.
pub(super) fn no_effect(flags: &[impl AsRef<str>], where_: &str) -> Option<String> {
    let flags: Vec<&str> = flags.iter().map(AsRef::as_ref).collect();
    let (last, others) = flags.split_last()?;
    Some(match others {
        [] => format!("{last} has no effect {where_}"),
        others => format!("{} and {last} have no effect {where_}", others.join(", ")),
    })
}

#[cfg(test)]
mod tests;
