//! Streaming with trained tokenizers of both styles, token by token.

use super::*;

/// The tokenizers that `sparq-backend-tests/fixtures/tokenizers/make.py` trained on books.
fn trained(name: &str) -> Tokenizer {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sparq-backend-tests/fixtures/tokenizers");
    Tokenizer::from_file(folder.join(name)).unwrap()
}

/// What streaming breaks on where it is done naively.
const TEXTS: &[&str] = &[
    "Hello, world!",
    "two  spaces,   three, and a tab\tand the end ",
    "one\ntwo\n\nthree\r\nfour\n",
    "\n\n  indented\n\t\ttwice",
    "😀 at the start, in the 😀 middle, at the end 😀",
    "👩‍👩‍👧‍👦 is one family, 🏳️‍🌈 one flag, 👍🏽 one thumb",
    "日本語の文章です。中文也可以,한국어도 됩니다.",
    "漢字😀漢字\n漢字",
    "naïve café, Ærøskøbing, Привет, שלום, مرحبا, ไทย",
    "e\u{301} is e with a combining accent",
    "12345 67.89 1,000,000",
    "fn main() { println!(\"{}\", 1 << 3); } // 🦀",
];

#[test]
fn every_text_streams_token_by_token() {
    for name in ["bytelevel.json", "spm.json"] {
        let tokenizer = trained(name);
        for text in TEXTS {
            let ids = tokenizer.encode(text, true).unwrap();
            let mut stream = tokenizer.stream();
            let mut shown = String::new();
            for &id in &ids {
                shown += &stream.step(id).unwrap().unwrap_or_default();
                assert!(text.starts_with(&shown), "{name}: {shown:?} of {text:?}");
            }
            shown += &stream.finish().unwrap();
            assert_eq!(shown, *text, "{name}");
        }
    }
}

#[test]
fn a_continuation_streams_from_any_token_on() {
    for name in ["bytelevel.json", "spm.json"] {
        let tokenizer = trained(name);
        for text in TEXTS {
            let ids = tokenizer.encode(text, true).unwrap();
            for split in 1..ids.len() {
                let before = tokenizer.decode(&ids[..split]).unwrap();
                if before.contains('\u{FFFD}') {
                    continue;
                }
                let mut stream = tokenizer.stream_after(&ids[..split]).unwrap();
                let mut shown = before;
                for &id in &ids[split..] {
                    shown += &stream.step(id).unwrap().unwrap_or_default();
                }
                shown += &stream.finish().unwrap();
                assert_eq!(shown, *text, "{name} from token {split}");
            }
        }
    }
}

#[test]
fn nothing_that_is_complete_is_held_back() {
    let tokenizer = trained("bytelevel.json");
    for text in TEXTS {
        let ids = tokenizer.encode(text, true).unwrap();
        let mut stream = tokenizer.stream();
        let mut shown = String::new();
        for (i, &id) in ids.iter().enumerate() {
            shown += &stream.step(id).unwrap().unwrap_or_default();
            let decoded = tokenizer.decode(&ids[..=i]).unwrap();
            assert_eq!(shown, decoded.trim_end_matches('\u{FFFD}'), "{text:?} after token {i}");
        }
    }
    // Single bytes come out with the token that ends their run.
    let tokenizer = trained("spm.json");
    let ids = tokenizer.encode("a😀 b", false).unwrap();
    let mut stream = tokenizer.stream();
    let pieces: Vec<_> = ids.iter().map(|&id| stream.step(id).unwrap().unwrap_or_default()).collect();
    assert_eq!(pieces.last().map(String::as_str), Some("😀 b"), "{pieces:?}");
}
