//! Reading settings that may be absent, wrong or unknown without failing.

use std::collections::{BTreeSet, HashMap, hash_map::Entry};

use serde_json::Value;

use super::ConfigFields;
use crate::error::excerpt;

/// Fields that change no text here: the caches and the outputs of transformers, speed, other tokens'
/// names, and what only beam search reads.
const HARMLESS: &[&str] = &[
    "_commit_hash",
    "_from_model_config",
    "assistant_confidence_threshold",
    "assistant_lookbehind",
    "cache_config",
    "cache_implementation",
    "chat_format",
    "compile_config",
    "continuous_batching_config",
    "decoder_start_token_id",
    "disable_compile",
    "early_stopping",
    "is_assistant",
    "length_penalty",
    "low_memory",
    "max_cache_len",
    "max_matching_ngram_size",
    "num_assistant_tokens",
    "num_assistant_tokens_schedule",
    "output_attentions",
    "output_hidden_states",
    "output_logits",
    "output_scores",
    "pad_token_id",
    "prefill_chunk_size",
    "return_dict_in_generate",
    "target_lookbehind",
    "transformers_version",
    "use_cache",
];

/// Settings of transformers that are not built, with the values that switch them off, beside null, false,
/// 0 and what is empty.
const NOT_BUILT: &[(&str, Option<f64>)] = &[
    ("assistant_early_exit", None),
    ("assistant_ensemble_weight", None),
    ("constraints", None),
    ("diversity_penalty", None),
    ("dola_layers", None),
    ("encoder_no_repeat_ngram_size", None),
    ("encoder_repetition_penalty", Some(1.0)),
    ("force_words_ids", None),
    ("guidance_scale", Some(1.0)),
    ("num_beam_groups", Some(1.0)),
    ("num_beams", Some(1.0)),
    ("num_return_sequences", Some(1.0)),
    ("penalty_alpha", None),
    ("prompt_lookup_num_tokens", None),
    ("speculation_type", None),
    ("token_healing", None),
    ("use_mtp", None),
    ("watermarking_config", None),
];

/// The fields of a file, and notes about those that cannot be used.
pub(super) struct Reader<'a> {
    fields: &'a ConfigFields<'a>,
    read: BTreeSet<&'static str>,
    pub(super) notes: Vec<String>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(fields: &'a ConfigFields<'a>) -> Self {
        Self { fields, read: BTreeSet::new(), notes: vec![] }
    }

    /// A number whose value in f32 is finite and `is_valid`.
    pub(super) fn number(
        &mut self,
        name: &'static str,
        is_valid: impl Fn(f32) -> bool,
        expected: &str,
    ) -> Option<f32> {
        let value = self.value(name)?;
        let number = value.as_f64().map(|number| number as f32);
        let number = number.filter(|&number| number.is_finite() && is_valid(number));
        if number.is_none() {
            self.leave_out(name, value, expected);
        }
        number
    }

    pub(super) fn flag(&mut self, name: &'static str) -> Option<bool> {
        let value = self.value(name)?;
        let flag = value.as_bool();
        if flag.is_none() {
            self.leave_out(name, value, "true or false");
        }
        flag
    }

    /// A whole number; 50.0 is one.
    pub(super) fn count(&mut self, name: &'static str) -> Option<usize> {
        let value = self.value(name)?;
        let count = whole(value);
        if count.is_none() {
            self.leave_out(name, value, "a whole number");
        }
        count
    }

    /// A whole number above 0.
    pub(super) fn positive_count(&mut self, name: &'static str) -> Option<usize> {
        let value = self.value(name)?;
        let count = whole(value).filter(|&count| count > 0);
        if count.is_none() {
            self.leave_out(name, value, "a whole number above 0");
        }
        count
    }

    /// A whole number; one below 0 means off, as some other programs write it.
    pub(super) fn count_or_off(&mut self, name: &'static str) -> Option<usize> {
        let value = self.value(name)?;
        if value.as_f64().is_some_and(|number| number < 0.0 && number.fract() == 0.0) {
            self.note(format!("field `{name}` is {value}, which counts as off"));
            return Some(0);
        }
        self.count(name)
    }

    pub(super) fn id(&mut self, name: &'static str) -> Option<u32> {
        let value = self.value(name)?;
        let id = id(value);
        if id.is_none() {
            self.leave_out(name, value, "the id of a token");
        }
        id
    }

    /// One id, or a list of them.
    pub(super) fn ids(&mut self, name: &'static str) -> Vec<u32> {
        match self.value(name) {
            Some(Value::Array(entries)) => self.entries(name, entries, id, "ids of tokens"),
            Some(_) => self.id(name).into_iter().collect(),
            None => vec![],
        }
    }

    /// One text, or a list of them, none of them empty.
    pub(super) fn texts(&mut self, name: &'static str) -> Vec<String> {
        let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        match self.value(name) {
            Some(Value::Array(entries)) => self.entries(name, entries, text, "texts that are not empty"),
            Some(one) => {
                self.entries(name, std::slice::from_ref(one), text, "a text that is not empty, or a list")
            }
            None => vec![],
        }
    }

    /// A list of lists of ids.
    pub(super) fn sequences(&mut self, name: &'static str) -> Vec<Vec<u32>> {
        let expected = "lists of ids of tokens";
        match self.value(name) {
            Some(Value::Array(entries)) => self.entries(name, entries, sequence, expected),
            Some(other) => {
                self.leave_out(name, other, expected);
                vec![]
            }
            None => vec![],
        }
    }

    /// A list of pairs, a list of ids and a number each. Of two with the same ids the later one holds.
    pub(super) fn biases(&mut self, name: &'static str) -> Vec<(Vec<u32>, f32)> {
        let expected = "pairs of a list of ids of tokens and a number";
        let pair = |value: &Value| match value.as_array()?.as_slice() {
            [ids, bias] => Some((sequence(ids)?, bias.as_f64()? as f32)),
            _ => None,
        };
        let pairs = match self.value(name) {
            Some(Value::Array(entries)) => self.entries(name, entries, pair, expected),
            Some(other) => {
                self.leave_out(name, other, expected);
                vec![]
            }
            None => vec![],
        };
        // In the order in which they come first, as a dict of Python keeps them.
        let mut places: HashMap<Vec<u32>, usize> = HashMap::new();
        let mut biases: Vec<(Vec<u32>, f32)> = vec![];
        for (ids, bias) in pairs {
            match places.entry(ids) {
                Entry::Occupied(place) => biases[*place.get()].1 = bias,
                Entry::Vacant(place) => {
                    biases.push((place.key().clone(), bias));
                    place.insert(biases.len() - 1);
                }
            }
        }
        biases
    }

    /// New tokens after which it begins, and the factor per token.
    pub(super) fn decay(&mut self, name: &'static str) -> Option<(usize, f64)> {
        let value = self.value(name)?;
        let decay = match value.as_array().map(Vec::as_slice) {
            Some([start, factor]) => {
                whole(start).zip(factor.as_f64().filter(|factor| factor.is_finite() && *factor > 0.0))
            }
            _ => None,
        };
        if decay.is_none() {
            self.leave_out(name, value, "a number of tokens and a factor above 0");
        }
        decay
    }

    /// Names every field that has not been read and may change the text: settings that are not built, and
    /// those that nobody knows.
    pub(super) fn name_the_rest(&mut self) {
        let named: Vec<&str> = self.fields.names().collect();
        self.name_unread(&named);
    }

    /// Names the settings that are not built.
    pub(super) fn name_known(&mut self) {
        let named: Vec<&str> = NOT_BUILT.iter().map(|&(name, _)| name).collect();
        self.name_unread(&named);
    }

    fn name_unread(&mut self, names: &[&str]) {
        let unread = names.iter().filter(|name| !self.read.contains(**name) && !HARMLESS.contains(name));
        let changing = unread.filter_map(|&name| {
            let value = self.fields.value(name)?;
            (!is_off(name, value)).then(|| format!("{} = {}", excerpt(name), excerpt(&value.to_string())))
        });
        let changing: Vec<String> = changing.collect();
        if !changing.is_empty() {
            self.note(format!("not honoured: {}", changing.join(", ")));
        }
    }

    /// The value of a field that is there and not null.
    fn value(&mut self, name: &'static str) -> Option<&'a Value> {
        self.read.insert(name);
        self.fields.value(name)
    }

    /// The entries of a list that can be read; the others are noted.
    fn entries<T>(
        &mut self,
        name: &'static str,
        entries: &[Value],
        read: impl Fn(&Value) -> Option<T>,
        expected: &str,
    ) -> Vec<T> {
        let mut found = vec![];
        for entry in entries {
            match read(entry) {
                Some(entry) => found.push(entry),
                None => self.leave_out(name, entry, expected),
            }
        }
        found
    }

    fn leave_out(&mut self, name: &str, value: &Value, expected: &str) {
        let text = if value.is_string() { "the text " } else { "" };
        let value = format!("{text}{}", excerpt(&value.to_string()));
        self.note(format!("field `{name}`: {value} is left out, expected {expected}"));
    }

    fn note(&mut self, message: String) {
        self.notes.push(format!("`{}`: {message}", self.fields.path().display()));
    }
}

/// Whether a value switches a setting off.
fn is_off(name: &str, value: &Value) -> bool {
    let off = NOT_BUILT.iter().find(|&&(known, _)| known == name).and_then(|&(_, off)| off);
    match value {
        Value::Null => true,
        Value::Bool(on) => !on,
        Value::Number(number) => number.as_f64().is_some_and(|number| number == 0.0 || Some(number) == off),
        Value::String(text) => text.is_empty(),
        Value::Array(entries) => entries.is_empty(),
        Value::Object(entries) => entries.is_empty(),
    }
}

/// A number without a fraction and not below 0; those too large for the machine are its largest.
fn whole(value: &Value) -> Option<usize> {
    match value.as_u64() {
        Some(count) => Some(usize::try_from(count).unwrap_or(usize::MAX)),
        None => value.as_f64().filter(|n| *n >= 0.0 && n.fract() == 0.0).map(|n| n as usize),
    }
}

fn id(value: &Value) -> Option<u32> {
    whole(value).and_then(|id| u32::try_from(id).ok())
}

/// A list of ids, not empty.
fn sequence(value: &Value) -> Option<Vec<u32>> {
    let ids: Option<Vec<u32>> = value.as_array()?.iter().map(id).collect();
    ids.filter(|ids| !ids.is_empty())
}
