//! How the next token is drawn.

use clap::Args;
use sparq_models::{config::GenerationConfig, sampling::SamplerConfig};

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

    /// Drop tokens below this part of the most likely one's probability; 0 turns this off
    #[arg(long, value_name = "P")]
    pub(crate) min_p: Option<f32>,

    /// Divide the scores of tokens that came up already by this; 1 turns this off
    #[arg(long, value_name = "X")]
    pub(crate) repetition_penalty: Option<f32>,

    /// Seed: the same seed and options give the same text
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
}

impl SamplingArgs {
    /// Flags first, then the checkpoint's own defaults.
    pub(crate) fn resolve(&self, defaults: &GenerationConfig) -> SamplerConfig {
        let off = SamplerConfig::default();
        // A checkpoint that does not sample means greedy, whatever else it lists.
        let sampled = defaults.do_sample.unwrap_or(false);
        let temperature = match sampled {
            true => defaults.temperature.unwrap_or(1.0),
            false => 0.0,
        };
        SamplerConfig {
            temperature: self.temperature.unwrap_or(temperature),
            top_k: self.top_k.or(defaults.top_k.filter(|_| sampled)).unwrap_or(off.top_k),
            top_p: self.top_p.or(defaults.top_p.filter(|_| sampled)).unwrap_or(off.top_p),
            min_p: self.min_p.unwrap_or(off.min_p),
            repetition_penalty: self
                .repetition_penalty
                .or(defaults.repetition_penalty)
                .unwrap_or(off.repetition_penalty),
            seed: self.seed,
        }
    }
}
