//! The pre-tokenizers of a `tokenizer.json`, whose regular expressions take text of any length.
//!
//! The library splits by a backtracking matcher that gives up on long texts, and takes all of the text that
//! is left as one word then, without an error. Most patterns need it for runs of blanks alone:
//! `\s+(?!\S)|\s+`, a run without its last blank where a word follows, else the run. Such a pattern is
//! matched here without looking ahead. For any other pattern, a matcher that gives up is an error.

use std::sync::LazyLock;

use fancy_regex::{Regex, RegexBuilder};
use serde::{Deserialize, Deserializer, de};
use serde_json::Value;
use tokenizers::{
    Offsets, PreTokenizedString, PreTokenizer, PreTokenizerWrapper, SplitDelimiterBehavior,
    pattern::{Invert, Pattern},
    pre_tokenizers::byte_level::ByteLevel,
};

use super::ruby;

/// The ends of patterns that match runs of blanks by looking ahead.
const BLANKS: [&str; 2] = [r"\s+(?!\S)|\s+", r"\s+(?!\S)|\s"];

/// What a byte-level pre-tokenizer splits by that is given no pattern.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// The most steps back in one match: seconds, where a pattern is of the slow kind.
const BACKTRACK_LIMIT: usize = 100_000_000;

/// One of the library's pre-tokenizers.
#[derive(Clone)]
pub(super) enum Words {
    /// One after the other.
    Sequence(Vec<Words>),
    /// By a regular expression.
    Split { words: WordPattern, behavior: SplitDelimiterBehavior, invert: bool },
    /// Byte-level, with a pattern of its own.
    ByteLevel { add_prefix_space: bool },
    /// One without a regular expression of the model's.
    Other(PreTokenizerWrapper),
}

impl Words {
    fn from_json(json: &Value) -> Result<Self, String> {
        /// The fields of `Split`.
        #[derive(Deserialize)]
        struct Split {
            behavior: SplitDelimiterBehavior,
            invert: bool,
        }
        let text = |error: serde_json::Error| error.to_string();
        let regex = json.pointer("/pattern/Regex").and_then(Value::as_str);
        match (json["type"].as_str(), regex, json["pretokenizers"].as_array()) {
            (Some("Sequence"), _, Some(parts)) => {
                Ok(Self::Sequence(parts.iter().map(Self::from_json).collect::<Result<_, _>>()?))
            }
            (Some("Split"), Some(regex), _) => {
                let Split { behavior, invert } = Split::deserialize(json).map_err(text)?;
                let words = WordPattern::from_ruby(regex)?;
                Ok(Self::Split { words, behavior, invert })
            }
            (Some("ByteLevel"), ..) => {
                let level = ByteLevel::deserialize(json).map_err(text)?;
                Ok(match level.use_regex {
                    true => Self::ByteLevel { add_prefix_space: level.add_prefix_space },
                    false => Self::Other(level.into()),
                })
            }
            _ => Ok(Self::Other(PreTokenizerWrapper::deserialize(json).map_err(text)?)),
        }
    }

    /// The same with or without a space before every text, where it is byte-level and does it otherwise now.
    pub(super) fn with_prefix_space(&self, on: bool) -> Option<Self> {
        match self {
            Self::ByteLevel { add_prefix_space } if *add_prefix_space != on => {
                Some(Self::ByteLevel { add_prefix_space: on })
            }
            Self::Other(PreTokenizerWrapper::ByteLevel(level)) if level.add_prefix_space != on => {
                let level = ByteLevel::new(on, level.trim_offsets, level.use_regex);
                Some(Self::Other(level.into()))
            }
            Self::Sequence(parts) => {
                let changed: Vec<_> = parts.iter().map(|part| part.with_prefix_space(on)).collect();
                let is_changed = changed.iter().any(Option::is_some);
                let parts = changed.into_iter().zip(parts).map(|(new, old)| new.unwrap_or(old.clone()));
                is_changed.then(|| Self::Sequence(parts.collect()))
            }
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = Value::deserialize(deserializer)?;
        Self::from_json(&json).map_err(|error| de::Error::custom(format!("field `pre_tokenizer`: {error}")))
    }
}

impl PreTokenizer for Words {
    fn pre_tokenize(&self, text: &mut PreTokenizedString) -> tokenizers::Result<()> {
        match self {
            Self::Sequence(parts) => parts.iter().try_for_each(|part| part.pre_tokenize(text)),
            Self::Split { words, behavior, invert: false } => {
                text.split(|_, piece| piece.split(words, *behavior))
            }
            Self::Split { words, behavior, invert: true } => {
                text.split(|_, piece| piece.split(Invert(words), *behavior))
            }
            Self::ByteLevel { add_prefix_space } => {
                static WORDS: LazyLock<Result<WordPattern, Box<fancy_regex::Error>>> =
                    LazyLock::new(|| WordPattern::new(GPT2));
                let words = WORDS.as_ref().map_err(ToString::to_string)?;
                text.split(|_, mut piece| {
                    if *add_prefix_space && !piece.get().starts_with(' ') {
                        piece.prepend(" ");
                    }
                    piece.split(words, SplitDelimiterBehavior::Isolated)
                })?;
                ByteLevel::new(false, true, false).pre_tokenize(text)
            }
            Self::Other(other) => other.pre_tokenize(text),
        }
    }
}

/// A regular expression of `tokenizer.json`, such as one that matches words.
#[derive(Clone)]
pub(super) struct WordPattern {
    regex: Regex,
    /// The group of a run of blanks that leaves its last one to the word after it.
    blanks: Option<usize>,
}

impl WordPattern {
    /// Takes a pattern as `tokenizer.json` has it.
    ///
    /// # Errors
    ///
    /// The pattern, and what is wrong with it or not built.
    pub(super) fn from_ruby(pattern: &str) -> Result<Self, String> {
        let text = ruby::translate(pattern).map_err(|error| ruby::refusal(pattern, &error))?;
        Self::new(&text).map_err(|error| format!("pattern `{pattern}`: {error}"))
    }

    fn new(pattern: &str) -> Result<Self, Box<fancy_regex::Error>> {
        let compile = |pattern: &str| {
            RegexBuilder::new(pattern).backtrack_limit(BACKTRACK_LIMIT).build().map_err(Box::new)
        };
        let head = BLANKS.iter().find_map(|blanks| pattern.strip_suffix(blanks));
        if let Some(head) = head.filter(|head| is_alternatives(head)) {
            let regex = compile(&format!(r"{head}(\s+)"))?;
            // A pattern that may match nothing goes on differently after such a match.
            if !regex.is_match("").map_err(Box::new)? {
                return Ok(Self { blanks: Some(regex.captures_len() - 1), regex });
            }
        }
        Ok(Self { regex: compile(pattern)?, blanks: None })
    }

    /// The next match in `text` from `at` on.
    fn find(&self, text: &str, at: usize, group: usize) -> fancy_regex::Result<Option<Offsets>> {
        let Some(found) = self.regex.find_from_pos(text, at)? else {
            return Ok(None);
        };
        let (start, end) = (found.start(), found.end());
        let last = found.as_str().chars().next_back().filter(|last| last.is_whitespace());
        let last = last.map_or(0, char::len_utf8);
        // The group is looked up where it matters only: that takes longer.
        if last == 0
            || end == text.len()
            || end - start == last
            || !found.as_str().starts_with(char::is_whitespace)
        {
            return Ok(Some((start, end)));
        }
        let groups = self.regex.captures_from_pos(text, start)?;
        let is_run = groups.is_some_and(|groups| groups.get(group).is_some());
        Ok(Some((start, if is_run { end - last } else { end })))
    }

    /// All matches in `text`.
    fn matches(&self, text: &str) -> fancy_regex::Result<Vec<Offsets>> {
        let Some(group) = self.blanks else {
            return self
                .regex
                .find_iter(text)
                .map(|found| found.map(|found| (found.start(), found.end())))
                .collect();
        };
        let mut matches = Vec::new();
        let mut at = 0;
        while let Some((start, end)) = self.find(text, at, group)? {
            // Only a pattern that looks around itself can match nothing here.
            at = end.max(start + text[start..].chars().next().map_or(1, char::len_utf8));
            matches.push((start, end));
            if at >= text.len() {
                break;
            }
        }
        Ok(matches)
    }
}

/// Whether a pattern's beginning is alternatives of their own, so that the one after them is replaced alone.
fn is_alternatives(head: &str) -> bool {
    let escapes = |text: &str| text.chars().rev().take_while(|&c| c == '\\').count();
    let is_or = head.strip_suffix('|').is_some_and(|before| escapes(before) % 2 == 0);
    head.is_empty() || is_or
}

impl Pattern for &WordPattern {
    fn find_matches(&self, text: &str) -> tokenizers::Result<Vec<(Offsets, bool)>> {
        if text.is_empty() {
            return Ok(vec![((0, 0), false)]);
        }
        let found = self.matches(text).map_err(|error| {
            format!("a pattern of the tokenizer gives up on a text of {} bytes: {error}", text.len())
        })?;
        let mut pieces = Vec::with_capacity(found.len());
        let mut done = 0;
        for (start, end) in found {
            if done != start {
                pieces.push(((done, start), false));
            }
            pieces.push(((start, end), true));
            done = end;
        }
        if done != text.len() {
            pieces.push(((done, text.len()), false));
        }
        Ok(pieces)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pattern of Llama 3 without its end.
    const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|";

    /// Texts in which runs of blanks of all kinds come before, between and after words.
    const TEXTS: &[&str] = &[
        "",
        " ",
        "   ",
        "a",
        "a b",
        "a  b",
        "  a   b  ",
        "a \n b",
        "a\n\n  b\n",
        "\t\tx\u{a0}\u{a0} y",
        "a\u{3000}\u{3000}語 5",
        "don't  12345   !?\r\n  \r\n z",
        " \u{2003}  7 ",
        "é  😀  \u{301}",
    ];

    fn words(pattern: &str, text: &str) -> Vec<(Offsets, bool)> {
        (&WordPattern::new(pattern).unwrap()).find_matches(text).unwrap()
    }

    #[test]
    fn runs_of_blanks_are_split_as_by_looking_ahead() {
        for end in BLANKS {
            for head in [LLAMA3, GPT2.strip_suffix(BLANKS[0]).unwrap(), "", r"\|+|"] {
                let pattern = format!("{head}{end}");
                let words = WordPattern::new(&pattern).unwrap();
                assert!(words.blanks.is_some(), "{pattern}");
                let plain = WordPattern { regex: Regex::new(&pattern).unwrap(), blanks: None };
                for text in TEXTS {
                    let found = (&words).find_matches(text).unwrap();
                    assert_eq!(found, (&plain).find_matches(text).unwrap(), "{pattern} {text:?}");
                }
            }
        }
    }

    #[test]
    fn what_only_looks_like_such_an_end_is_left_alone() {
        for pattern in [r"\|\s+(?!\S)|\s+", r"\p{L}*|\s+(?!\S)|\s+", r"a|\s+(?!\S)|\s+|b"] {
            assert!(WordPattern::new(pattern).unwrap().blanks.is_none(), "{pattern}");
        }
        assert_eq!(
            words(r"\|\s+(?!\S)|\s+", "a|  b"),
            [((0, 1), false), ((1, 3), true), ((3, 4), true), ((4, 5), false)]
        );
    }

    #[test]
    fn a_million_blanks_are_two_pieces() {
        let text = format!("a{}b", " ".repeat(1_200_000));
        let pieces = words(&format!(r"{LLAMA3}\s+(?!\S)|\s+"), &text);
        assert_eq!(pieces, [((0, 1), true), ((1, 1_200_000), true), ((1_200_000, 1_200_002), true)]);
    }

    #[test]
    fn a_matcher_that_gives_up_is_an_error() {
        let words = WordPattern::new(r"a|\s+(?=b)|c").unwrap();
        let error = (&words).find_matches(&" ".repeat(1_200_000)).unwrap_err().to_string();
        assert!(error.contains("gives up on a text of 1200000 bytes"), "{error}");
    }
}
