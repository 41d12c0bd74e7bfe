use std::path::Path;

use serde_json::Value;
use tokenizers::{NormalizedString, pattern::Pattern};

use super::{super::words::WordPattern, *};

#[test]
fn patterns_split_as_pythons_tokenizers_does() {
    let file = "../sparq-backend-tests/fixtures/tokenizers/patterns.json";
    let json = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
    let json: Value = serde_json::from_slice(&json).unwrap();
    let texts: Vec<&str> =
        json["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    let mut wrong = Vec::new();
    let patterns = json["patterns"].as_array().unwrap();
    for entry in patterns {
        let pattern = entry[0].as_str().unwrap();
        let words = match WordPattern::from_ruby(pattern) {
            Ok(words) => words,
            Err(error) => {
                wrong.push(error);
                continue;
            }
        };
        for (text, expected) in texts.iter().zip(entry[1].as_array().unwrap()) {
            let expected = match expected {
                Value::Null => (*text, *text),
                both => (both[0].as_str().unwrap(), both[1].as_str().unwrap()),
            };
            let found = (&words).find_matches(text).unwrap();
            let pieces = found.iter().map(|&((from, to), is_match)| match (is_match, &text[from..to]) {
                (_, "") => String::new(),
                (true, piece) => format!("⟦{piece}⟧"),
                (false, piece) => piece.to_owned(),
            });
            let pieces: String = pieces.collect();
            let mut replaced = NormalizedString::from(*text);
            replaced.replace(&words, "_").unwrap();
            if (&*pieces, replaced.get()) != expected {
                wrong
                    .push(format!("{pattern}: {text:?}: {pieces:?}, {:?}, not {expected:?}", replaced.get()));
            }
        }
    }
    assert!(patterns.len() > 300);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn patterns_of_the_same_meaning_stay_as_they_are() {
    for pattern in [
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\s+",
        r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|\s+"##,
        r"[\p{Han}]+|[\p{Lu}\p{M}&&[^\p{Han}]]*|\p{L}++|(?<=a)b|(?:\r?\n)+(?!\r?\n)",
        r" ?[^(\s|[.,!?…。，、।۔،])]+",
    ] {
        assert_eq!(translate(pattern).as_deref(), Ok(pattern));
    }
}

#[test]
fn repetitions_lines_and_options_are_written_out() {
    for (pattern, expected) in [
        (r"\p{N}{1,3}+", r"(?:\p{N}{1,3})+"),
        ("a{2}?", "(?:a{2})?"),
        ("a{3,1}", "(?>a{1,3})"),
        ("a{,}", r"a\{,}"),
        (r"\s++$", r"\s++(?m:$)"),
        ("(?m)a.b", "(?s)a.b"),
        ("a(?i)b|c", "a(?i:b|c)"),
        ("(?x) a | b # or c\n | [ ]", "a|b|[ ]"),
        (r"\p{^L}[[:^alpha:]]", r"\P{L}[[^\p{Alphabetic}]]"),
        (r"(?i:\p{Lu})", r"(?i:(?-i:\p{Lu}))"),
    ] {
        assert_eq!(translate(pattern).as_deref(), Ok(expected));
    }
}

#[test]
fn what_is_not_built_is_named() {
    for (pattern, named) in [
        (r"\X+", r"`\X`"),
        (r"a\Kb", r"`\K`"),
        (r"\G\w", r"`\G`"),
        (r"\g<1>", r"`\g`"),
        ("(?~ab)", "`(?~…`"),
        ("(?s:.)", "`(?s…`"),
        ("(?P<n>a)", "`(?P…`"),
        ("(?i-s:a)", "`(?i-s`"),
        (r"\101", r"`\101`"),
        (r"\xE9", r"`\xE9`"),
        (r"(?i:(a)\1)", "where case is ignored"),
        ("(?i:less)", "`ss` where case is ignored"),
        ("(?i:[ß])", "`ß` where case is ignored"),
        (r"(?i:[\p{L}])", r"`\p{L}` in a class where case is ignored"),
        ("[[:novel:]]", "`[:novel:]`"),
        (r"[\w-x]", "a range from a class"),
        ("(a", "a group without an end"),
        ("a)", "a `)` that closes no group"),
        ("[a", "a class without an end"),
    ] {
        let error = WordPattern::from_ruby(pattern).err().unwrap_or_default();
        assert!(
            error.starts_with(&format!("pattern `{pattern}`: ")) && error.contains(named),
            "{pattern}: {error}"
        );
    }
    assert!(translate(&"(".repeat(100_000)).is_err());
    assert!(translate(&"[".repeat(100_000)).is_err());
}
