//! How the next token is drawn, and how many.

use clap::Args;
use sparq_models::{
    config::GenerationConfig,
    sampling::{SamplerConfig, TokenRules},
};

use super::attention::no_effect;

/// Flags that are not given take the checkpoint's `generation_config.json`, and else turn the
/// filter off.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Sampling (defaults: generation_config.json, else greedy)")]
pub(crate) struct SamplingArgs {
    /// Temperature; 0 takes the most likely token
    #[arg(long, value_name = "T")]
    pub(crate) temperature: Option<f32>,

    /// Draw from the K most likely tokens; 0 turns this off
    #[arg(long, value_name = "K")]
    pub(crate) top_k: Option<usize>,

    /// Draw from the most likely tokens that hold this much probability; 1 turns this off
    #[arg(long, value_name = "P")]
    pub(crate) top_p: Option<f32>,

    /// Drop tokens below this fraction of the most likely one's probability; 0 turns this off
    #[arg(long, value_name = "P")]
    pub(crate) min_p: Option<f32>,

    /// Locally typical sampling: draw from the tokens nearest to the expected surprise, up to this much
    /// probability; 1 turns this off
    #[arg(long, value_name = "P")]
    pub(crate) typical_p: Option<f32>,

    /// Penalty on tokens that already occurred; 1 turns this off
    #[arg(long, value_name = "X")]
    pub(crate) repetition_penalty: Option<f32>,

    /// Never repeat a sequence of N tokens; 0 turns this off
    #[arg(long, value_name = "N")]
    pub(crate) no_repeat_ngram_size: Option<usize>,

    /// Minimum number of tokens to generate; 0 turns this off
    #[arg(long, value_name = "N")]
    pub(crate) min_new_tokens: Option<usize>,

    /// Seed: the same seed and options give the same text
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,

    /// Ignore generation_config.json, except for its end-of-text tokens
    #[arg(long)]
    pub(crate) ignore_generation_config: bool,
}

/// Tokens to generate at most, and what says so.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TokenLimit {
    pub(crate) tokens: usize,
    /// Words for a user: `--max-new-tokens`.
    pub(crate) named: String,
}

impl SamplingArgs {
    /// What of the checkpoint's settings is to count.
    pub(crate) fn defaults(&self, of_checkpoint: &GenerationConfig) -> GenerationConfig {
        match self.ignore_generation_config {
            true => of_checkpoint.ends_only(),
            false => of_checkpoint.clone(),
        }
    }

    /// Flags first, then the checkpoint's own defaults.
    pub(crate) fn resolve(&self, of_checkpoint: &GenerationConfig) -> SamplerConfig {
        let own = self.defaults(of_checkpoint).sampler();
        let rules = TokenRules {
            no_repeat_ngram_size: self.no_repeat_ngram_size.unwrap_or(own.rules.no_repeat_ngram_size),
            min_new_tokens: self.min_new_tokens.unwrap_or(own.rules.min_new_tokens),
            // Two ways of saying one thing.
            min_length: if self.min_new_tokens.is_some() { 0 } else { own.rules.min_length },
            ..own.rules
        };
        SamplerConfig {
            temperature: self.temperature.unwrap_or(own.temperature),
            top_k: self.top_k.unwrap_or(own.top_k),
            top_p: self.top_p.unwrap_or(own.top_p),
            min_p: self.min_p.unwrap_or(own.min_p),
            typical_p: self.typical_p.unwrap_or(own.typical_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(own.repetition_penalty),
            rules,
            seed: self.seed,
            ..own
        }
    }

    /// Tokens to generate at most behind a prompt of `prompt_tokens`: what `flag` says, else what the
    /// checkpoint does, else `built_in`.
    ///
    /// # Errors
    /// Where the checkpoint's own limit leaves nothing behind the prompt.
    pub(crate) fn limit(
        &self,
        flag: Option<usize>,
        of_checkpoint: &GenerationConfig,
        prompt_tokens: usize,
        built_in: usize,
    ) -> anyhow::Result<TokenLimit> {
        let own = self.defaults(of_checkpoint);
        let source = own.source.unwrap_or_default();
        let stated = match (own.max_new_tokens, own.max_length) {
            (Some(tokens), _) => Some((tokens, format!("max_new_tokens = {tokens} of {source}"))),
            (None, Some(all)) => {
                Some((all.saturating_sub(prompt_tokens), format!("max_length = {all} of {source}")))
            }
            (None, None) => None,
        };
        let flag_name = "--max-new-tokens".to_owned();
        Ok(match (flag, stated) {
            (Some(tokens), None) => TokenLimit { tokens, named: flag_name },
            (Some(tokens), Some((_, own))) => {
                TokenLimit { tokens, named: format!("{flag_name}, over {own}") }
            }
            (None, None) => TokenLimit { tokens: built_in, named: flag_name },
            (None, Some((0, own))) => {
                anyhow::bail!("the prompt has {prompt_tokens} tokens, which leaves none of {own}: state -n")
            }
            (None, Some((tokens, named))) => TokenLimit { tokens, named },
        })
    }

    /// Texts to stop at: those of flags, else those of the checkpoint.
    pub(crate) fn stops(&self, flags: &[String], of_checkpoint: &GenerationConfig) -> Vec<String> {
        match flags.is_empty() {
            true => self.defaults(of_checkpoint).stop_strings,
            false => flags.to_vec(),
        }
    }

    /// Which flags have no effect, as the likeliest token is taken.
    pub(crate) fn without_effect(&self, of_checkpoint: &GenerationConfig) -> Option<String> {
        if self.resolve(of_checkpoint).temperature != 0.0 {
            return None;
        }
        let flags = [
            ("--top-k", self.top_k.is_some_and(|top_k| top_k > 0)),
            ("--top-p", self.top_p.is_some_and(|top_p| top_p < 1.0)),
            ("--min-p", self.min_p.is_some_and(|min_p| min_p > 0.0)),
            ("--typical-p", self.typical_p.is_some_and(|typical_p| typical_p < 1.0)),
            ("--seed", self.seed != 0),
        ];
        let stated = flags.into_iter().filter_map(|(flag, is_on)| is_on.then_some(flag));
        let why = match self.temperature {
            None => "without --temperature",
            Some(_) => "at --temperature 0",
        };
        no_effect(&stated.collect::<Vec<_>>(), why)
    }

    /// Says once what of the checkpoint's settings was left out or is not honoured.
    pub(crate) fn notes<'c>(&self, of_checkpoint: &'c GenerationConfig) -> &'c [String] {
        match self.ignore_generation_config {
            true => &[],
            false => &of_checkpoint.notes,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;
    use sparq_models::config::ConfigFields;

    use super::*;
    use crate::args::{Cli, Command};

    fn args(flags: &[&str]) -> SamplingArgs {
        let words = ["sparq", "generate", "Once"].iter().chain(flags);
        match Cli::try_parse_from(words).unwrap().command {
            Command::Generate(args) => args.sampling,
            _ => unreachable!("generate was typed"),
        }
    }

    fn file() -> GenerationConfig {
        let json = json!({
            "do_sample": true, "temperature": 0.5, "top_k": 40, "min_p": 0.25, "typical_p": 0.5,
            "no_repeat_ngram_size": 3, "min_length": 9, "max_length": 20, "eos_token_id": 7,
            "stop_strings": ["."],
        });
        let path = std::path::Path::new("generation_config.json");
        GenerationConfig::from_fields(&ConfigFields::new(path, &json).unwrap())
    }

    #[test]
    fn a_flag_beats_the_file_which_beats_the_built_in_default() {
        let own = args(&[]).resolve(&file());
        assert_eq!((own.temperature, own.top_k, own.min_p, own.top_p), (0.5, 40, 0.25, 1.0));
        assert_eq!((own.rules.no_repeat_ngram_size, own.rules.min_length), (3, 9));
        let flags =
            ["--top-k=0", "--min-p=0", "--typical-p=1", "--no-repeat-ngram-size=0", "--min-new-tokens=0"];
        let off = args(&flags).resolve(&file());
        assert_eq!(off, SamplerConfig { temperature: 0.5, ..SamplerConfig::default() });
        let ignored = args(&["--ignore-generation-config"]);
        assert_eq!(ignored.resolve(&file()), SamplerConfig::default());
        assert_eq!(ignored.defaults(&file()).eos_ids(), [7]);
        assert_eq!(ignored.stops(&[], &file()), [] as [&str; 0]);
        // Filters of a file that does not sample are there for whoever states a temperature.
        let greedy = GenerationConfig { do_sample: None, ..file() };
        assert_eq!(args(&[]).resolve(&greedy).temperature, 0.0);
        let warm = args(&["--temperature", "1"]).resolve(&greedy);
        assert_eq!((warm.temperature, warm.top_k), (1.0, 40));
    }

    #[test]
    fn filters_without_a_temperature_are_noted() {
        let note = |flags: &[&str], file: &GenerationConfig| args(flags).without_effect(file);
        let greedy = GenerationConfig::default();
        let flags = ["--top-p", "0.9", "--seed", "3"];
        assert_eq!(note(&flags, &greedy).unwrap(), "--top-p and --seed have no effect without --temperature");
        assert_eq!(note(&["--min-p=0.1"], &greedy).unwrap(), "--min-p has no effect without --temperature");
        let stated = ["--temperature=0", "--top-k=4", "--typical-p=0.5"];
        let expected = "--top-k and --typical-p have no effect at --temperature 0";
        assert_eq!(note(&stated, &file()).unwrap(), expected);
        assert_eq!(note(&flags, &file()), None);
        assert_eq!(note(&["--top-p=1", "--top-k=0", "--repetition-penalty=2"], &greedy), None);
    }

    #[test]
    fn the_number_of_tokens_says_where_it_comes_from() {
        let limit = |flag, file: &GenerationConfig| args(&[]).limit(flag, file, 6, 512).unwrap();
        let none = GenerationConfig::default();
        let both = GenerationConfig { max_new_tokens: Some(5), ..file() };
        let found = |limit: TokenLimit| (limit.tokens, limit.named);
        assert_eq!(found(limit(None, &none)), (512, "--max-new-tokens".into()));
        assert_eq!(found(limit(Some(3), &none)), (3, "--max-new-tokens".into()));
        let of_file = "max_length = 20 of generation_config.json";
        assert_eq!(found(limit(None, &file())), (14, of_file.into()));
        assert_eq!(found(limit(Some(3), &file())), (3, format!("--max-new-tokens, over {of_file}")));
        assert_eq!(limit(None, &both).tokens, 5);
        let error = args(&[]).limit(None, &file(), 20, 512).unwrap_err().to_string();
        assert!(error.contains("the prompt has 20 tokens") && error.contains(of_file), "{error}");
    }
}
