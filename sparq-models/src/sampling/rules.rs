//! What forbids, forces or shifts tokens before one is chosen.

use super::SamplerConfig;

/// Rules about the next token, by the names that `generation_config.json` has for them. The default has
/// none.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TokenRules {
    /// Sequences of tokens, and what is added to the logit of the last one where the others come before.
    pub sequence_bias: Vec<(Vec<u32>, f32)>,
    /// No sequence of this many tokens comes twice, prompt included; 0 is off.
    pub no_repeat_ngram_size: usize,
    /// Sequences that do not come up.
    pub bad_words_ids: Vec<Vec<u32>>,
    /// The text, prompt included, does not end before it has this many tokens.
    pub min_length: usize,
    /// The text does not end before it has this many new tokens.
    pub min_new_tokens: usize,
    /// The token behind a prompt of a single token.
    pub forced_bos_token_id: Option<u32>,
    /// The last token, where the text reaches its greatest length: one of these.
    pub forced_eos_token_ids: Vec<u32>,
    /// Takes logits that are no numbers as 0 and infinite ones as the largest of f32, instead of failing.
    pub remove_invalid_values: bool,
    /// New tokens after which an end becomes likelier, and the factor per token.
    pub length_decay: Option<(usize, f64)>,
    /// Tokens that do not come up.
    pub suppress_tokens: Vec<u32>,
    /// Tokens that do not come first.
    pub begin_suppress_tokens: Vec<u32>,
    /// Makes log probabilities of the logits at the end, which changes no choice.
    pub renormalize_logits: bool,
}

/// What the rules about beginning and end of a text go by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TextFrame {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens to generate at most.
    pub max_new_tokens: usize,
    /// Tokens that end the text.
    pub eos_ids: Vec<u32>,
}

impl TokenRules {
    /// The rules that are not off, each with its value; of lists, their length.
    pub(super) fn settings(&self) -> Vec<(&'static str, String)> {
        let count = |name, count: usize| (count > 0).then(|| (name, count.to_string()));
        let several = |name, count: usize| (count > 0).then(|| (name, format!("({count})")));
        let flag = |name, is_on: bool| is_on.then(|| (name, "true".to_owned()));
        let id = |name, id: Option<u32>| id.map(|id| (name, id.to_string()));
        let decay = |(start, factor)| ("exponential_decay_length_penalty", format!("[{start},{factor}]"));
        let settings = [
            several("sequence_bias", self.sequence_bias.len()),
            count("no_repeat_ngram_size", self.no_repeat_ngram_size),
            several("bad_words_ids", self.bad_words_ids.len()),
            count("min_length", self.min_length),
            count("min_new_tokens", self.min_new_tokens),
            id("forced_bos_token_id", self.forced_bos_token_id),
            id("forced_eos_token_id", self.forced_eos_token_ids.first().copied()),
            flag("remove_invalid_values", self.remove_invalid_values),
            self.length_decay.map(decay),
            several("suppress_tokens", self.suppress_tokens.len()),
            several("begin_suppress_tokens", self.begin_suppress_tokens.len()),
            flag("renormalize_logits", self.renormalize_logits),
        ];
        settings.into_iter().flatten().collect()
    }
}

/// Applies all rules to the logits after `history`, in the order of transformers.
pub(super) fn apply(
    config: &SamplerConfig,
    frame: &TextFrame,
    logits: &mut [f32],
    history: &[u32],
    scratch: &mut Vec<f32>,
) {
    let rules = &config.rules;
    let new_tokens = history.len().saturating_sub(frame.prompt_tokens);
    add_biases(logits, history, &rules.sequence_bias);
    if config.repetition_penalty != 1.0 {
        penalise(logits, history, config.repetition_penalty, scratch);
    }
    if rules.no_repeat_ngram_size > 0 {
        ban_repeated(logits, history, rules.no_repeat_ngram_size);
    }
    // An end of the text is no bad word.
    let ends = |words: &Vec<u32>| matches!(words[..], [id] if frame.eos_ids.contains(&id));
    for words in rules.bad_words_ids.iter().filter(|words| !ends(words)) {
        add_bias(logits, history, words, f32::NEG_INFINITY);
    }
    if history.len() < rules.min_length || new_tokens < rules.min_new_tokens {
        ban(logits, &frame.eos_ids);
    }
    if let Some(id) = rules.forced_bos_token_id.filter(|_| history.len() == 1) {
        force(logits, &[id]);
    }
    if !rules.forced_eos_token_ids.is_empty() && new_tokens.saturating_add(1) == frame.max_new_tokens {
        force(logits, &rules.forced_eos_token_ids);
    }
    if rules.remove_invalid_values {
        logits.iter_mut().for_each(|logit| *logit = valid(*logit));
    }
    if let Some((start, factor)) = rules.length_decay {
        favour(logits, &frame.eos_ids, new_tokens.saturating_sub(start), factor);
    }
    ban(logits, &rules.suppress_tokens);
    // A forced first token does not count as the beginning.
    let begin = usize::from(frame.prompt_tokens <= 1 && rules.forced_bos_token_id.is_some());
    if new_tokens == begin {
        ban(logits, &rules.begin_suppress_tokens);
    }
}

fn add_biases(logits: &mut [f32], history: &[u32], biases: &[(Vec<u32>, f32)]) {
    biases.iter().for_each(|(ids, bias)| add_bias(logits, history, ids, *bias));
}

/// Adds `bias` to the last token of a sequence where the text ends with the others.
fn add_bias(logits: &mut [f32], history: &[u32], ids: &[u32], bias: f32) {
    if let Some((&last, before)) = ids.split_last()
        && history.ends_with(before)
        && let Some(logit) = logits.get_mut(last as usize)
    {
        *logit += bias;
    }
}

/// Makes tokens that occurred before less likely, once for each, however often it occurred.
fn penalise(logits: &mut [f32], history: &[u32], penalty: f32, seen: &mut Vec<f32>) {
    seen.clear();
    seen.resize(logits.len(), 0.0);
    for &id in history {
        let id = id as usize;
        // A token beyond the logits, such as padding, cannot be drawn anyway.
        if id < logits.len() && seen[id] == 0.0 {
            seen[id] = 1.0;
            let logit = logits[id];
            logits[id] = if logit < 0.0 { logit * penalty } else { logit / penalty };
        }
    }
}

/// Forbids what would make the last `size` tokens a sequence that came before.
fn ban_repeated(logits: &mut [f32], history: &[u32], size: usize) {
    let Some(start) = (history.len() + 1).checked_sub(size) else { return };
    let prefix = &history[start..];
    for window in history.windows(size) {
        if let Some((&last, before)) = window.split_last()
            && before == prefix
        {
            ban(logits, &[last]);
        }
    }
}

fn ban(logits: &mut [f32], ids: &[u32]) {
    for &id in ids {
        if let Some(logit) = logits.get_mut(id as usize) {
            *logit = f32::NEG_INFINITY;
        }
    }
}

/// Forbids all tokens but these.
fn force(logits: &mut [f32], ids: &[u32]) {
    logits.fill(f32::NEG_INFINITY);
    for &id in ids {
        if let Some(logit) = logits.get_mut(id as usize) {
            *logit = 0.0;
        }
    }
}

fn valid(logit: f32) -> f32 {
    match logit {
        _ if logit.is_nan() => 0.0,
        f32::INFINITY => f32::MAX,
        f32::NEG_INFINITY => f32::MIN,
        _ => logit,
    }
}

/// Makes ends likelier, the more the longer the text is `beyond` where that begins.
fn favour(logits: &mut [f32], eos_ids: &[u32], beyond: usize, factor: f64) {
    if beyond == 0 {
        return;
    }
    let growth = (factor.powf(beyond as f64) - 1.0) as f32;
    for &id in eos_ids {
        if let Some(logit) = logits.get_mut(id as usize).filter(|logit| logit.is_finite()) {
            *logit += logit.abs() * growth;
        }
    }
}
