use super::*;
use crate::tokenizer::tests::{byte_fallback, byte_level, load};

const BROKEN: &str = "\u{FFFD}";

/// The pieces of a stream, with an empty one for each step without text, and the rest last.
fn pieces(mut stream: TokenStream<'_>, ids: &[u32]) -> Vec<String> {
    let mut step = |&id: &u32| stream.step(id).unwrap().unwrap_or_default();
    let mut pieces: Vec<String> = ids.iter().map(&mut step).collect();
    pieces.push(stream.finish().unwrap());
    pieces
}

/// The token of a byte, by either way of spelling bytes.
fn byte(tokenizer: &Tokenizer, byte: u8) -> u32 {
    let fallback = tokenizer.token_to_id(&format!("<0x{byte:02X}>"));
    // The byte-level tokenizer has a token per byte after its two special ones.
    fallback.unwrap_or(2 + u32::from(byte))
}

#[test]
fn bytes_that_are_no_text_come_out_at_once_and_take_no_room() {
    for json in [byte_level(), byte_fallback()] {
        let tokenizer = load(&json);
        let ids: Vec<u32> = (0..300).map(|i| byte(&tokenizer, [0xFF, 0xC3, 0x80, 0xF0][i % 4])).collect();
        let mut stream = tokenizer.stream();
        let (mut shown, mut longest) = (String::new(), 0);
        for (i, &id) in ids.iter().enumerate() {
            shown += &stream.step(id).unwrap().unwrap_or_default();
            let decoded = tokenizer.decode(&ids[..=i]).unwrap();
            assert!(decoded.starts_with(&shown), "{tokenizer:?} after {i}");
            assert!(decoded.chars().count() - shown.chars().count() <= 1, "{tokenizer:?} after {i}");
            longest = longest.max(stream.ids.len());
        }
        assert!(longest <= 8, "{longest} tokens are decoded at a time");
        assert_eq!(shown + &stream.finish().unwrap(), tokenizer.decode(&ids).unwrap(), "{tokenizer:?}");
    }
}

#[test]
fn a_character_comes_out_with_what_makes_it_whole() {
    let tokenizer = load(&byte_level());
    let id = |b| byte(&tokenizer, b);
    // An euro sign after the first two bytes of one.
    let ids = [0xE2, 0x82, 0xE2, 0x82, 0xAC].map(id);
    assert_eq!(pieces(tokenizer.stream(), &ids), ["", "", BROKEN, "", "€", ""]);
}

#[test]
fn a_run_of_bytes_is_held_back_until_it_is_no_text() {
    let tokenizer = load(&byte_fallback());
    let id = |b| byte(&tokenizer, b);
    let ids = [0xE2, 0x82, 0xAC, 0xFF, 0x41, 0xE2].map(id);
    assert_eq!(pieces(tokenizer.stream(), &ids), ["", "", "", &BROKEN.repeat(4), BROKEN, BROKEN, ""]);
    // What follows such a run keeps its blank.
    let word = tokenizer.token_to_id("▁w").unwrap();
    let ids = [id(0xFF), id(0x41), word];
    assert_eq!(pieces(tokenizer.stream(), &ids), [BROKEN, BROKEN, " w", ""]);
    assert_eq!(tokenizer.decode(&ids).unwrap(), format!("{BROKEN}{BROKEN} w"));
}

#[test]
fn a_long_run_of_bytes_comes_out_as_it_goes_on() {
    let tokenizer = load(&byte_fallback());
    let text = "😀".repeat(100);
    let mut ids: Vec<u32> = text.bytes().map(|b| byte(&tokenizer, b)).collect();
    let whole = pieces(tokenizer.stream(), &ids);
    assert_eq!(whole.concat(), text);
    assert!(whole[..31].iter().all(String::is_empty));
    assert_eq!(whole[31], "😀".repeat(8));
    assert_eq!(whole[32..36].concat(), "😀");
    // A byte that is no text, at the end or before a word, does not take back what is out.
    ids.push(byte(&tokenizer, 0xC3));
    assert_eq!(pieces(tokenizer.stream(), &ids).concat(), format!("{text}{BROKEN}"));
    ids.push(byte(&tokenizer, 0x41));
    ids.push(tokenizer.token_to_id("▁w").unwrap());
    ids.extend(tokenizer.encode("h", false).unwrap());
    assert_eq!(pieces(tokenizer.stream(), &ids).concat(), format!("{text}{BROKEN}{BROKEN} w h"));
}

#[test]
fn a_prompt_that_ends_in_a_replacement_character_is_not_repeated() {
    for json in [byte_level(), byte_fallback()] {
        let tokenizer = load(&json);
        for prompt in ["h\u{FFFD}", "\u{FFFD}\u{FFFD}", "h"] {
            let prompt = tokenizer.encode(prompt, true).unwrap();
            let next = tokenizer.encode("e\u{FFFD}l", false).unwrap();
            let streamed = pieces(tokenizer.stream_after(&prompt).unwrap(), &next).concat();
            let whole = tokenizer.decode(&[&prompt[..], &next[..]].concat()).unwrap();
            assert_eq!(tokenizer.decode(&prompt).unwrap() + &streamed, whole, "{tokenizer:?}");
        }
    }
}
