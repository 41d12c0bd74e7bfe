use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};

use super::*;

const BOS: u32 = 0;
const EOS: u32 = 1;

fn special(id: u32, content: &str) -> Value {
    json!({
        "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true
    })
}

/// A tokenizer that puts `<s>` before every text.
fn build(pre_tokenizer: Value, decoder: Value, model: Value) -> Value {
    json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
        "added_tokens": [special(BOS, "<s>"), special(EOS, "</s>")],
        "pre_tokenizer": pre_tokenizer,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
            ],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [BOS], "tokens": ["<s>"]}}
        },
        "decoder": decoder,
        "model": model
    })
}

fn vocabulary(tokens: impl IntoIterator<Item = String>) -> Map<String, Value> {
    (0..).zip(tokens).map(|(id, token): (u32, String)| (token, json!(id))).collect()
}

/// Byte-level, as in Llama 3 and GPT-NeoX: every byte is a character of its own in the vocabulary.
pub(super) fn byte_level() -> Value {
    let printable = |byte: u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let mut shifted = 255;
    let characters = (0..256).map(|byte| {
        let code = if printable(byte) {
            byte
        } else {
            shifted += 1;
            shifted
        };
        char::from_u32(code).unwrap().to_string()
    });
    let words = ["he", "ll", "Ġw"].map(str::to_owned);
    let tokens = ["<s>", "</s>"].map(str::to_owned).into_iter().chain(characters).chain(words);
    let byte_level = json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true
    });
    let model = json!({
        "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
        "ignore_merges": false, "vocab": vocabulary(tokens),
        "merges": [["h", "e"], ["l", "l"], ["Ġ", "w"]]
    });
    build(byte_level.clone(), byte_level, model)
}

/// Sentencepiece-like, as in Llama 2 and Gemma: words begin with `▁`, rare characters are bytes.
pub(super) fn byte_fallback() -> Value {
    let bytes = (0..256).map(|byte| format!("<0x{byte:02X}>"));
    let words = ["▁", "h", "e", "l", "o", "▁w", "é", "日", "▁h"].map(str::to_owned);
    let tokens = ["<s>", "</s>"].map(str::to_owned).into_iter().chain(bytes).chain(words);
    let mut vocab = vocabulary(tokens);
    vocab.insert("w".to_owned(), json!(vocab.len()));
    let model = json!({
        "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true,
        "ignore_merges": false, "vocab": vocab, "merges": [["▁", "w"], ["▁", "h"]]
    });
    let pre_tokenizer = json!({
        "type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": true
    });
    let decoder = json!({"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
        {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    ]});
    build(pre_tokenizer, decoder, model)
}

pub(super) fn load(json: &Value) -> Tokenizer {
    Tokenizer::from_bytes("tokenizer.json", json.to_string().as_bytes()).unwrap()
}

fn both() -> [Tokenizer; 2] {
    [load(&byte_level()), load(&byte_fallback())]
}

/// The pieces of a stream, with an empty one for each step without text, and the rest last.
fn pieces(mut stream: TokenStream<'_>, ids: &[u32]) -> Vec<String> {
    let mut step = |&id: &u32| stream.step(id).unwrap().unwrap_or_default();
    let mut pieces: Vec<String> = ids.iter().map(&mut step).collect();
    pieces.push(stream.finish().unwrap());
    pieces
}

#[test]
fn text_comes_back() {
    for tokenizer in both() {
        for text in ["hello world", "😀 héllo 日本語\n\nwo  w", ""] {
            let ids = tokenizer.encode(text, true).unwrap();
            assert_eq!(tokenizer.decode(&ids).unwrap(), text, "{tokenizer:?}");
        }
    }
}

#[test]
fn exactly_one_beginning_of_text() {
    for tokenizer in both() {
        assert_eq!(tokenizer.bos_id(), Some(BOS));
        let starts = |text, add_special| {
            let ids = tokenizer.encode(text, add_special).unwrap();
            ids.iter().take_while(|&&id| id == BOS).count()
        };
        assert_eq!(starts("hello", true), 1);
        assert_eq!(starts("<s>hello", true), 1);
        assert_eq!(starts("<s>hello", false), 1);
        assert_eq!(starts("hello", false), 0);
        assert_eq!(tokenizer.encode("", true).unwrap(), [BOS]);
    }
}

#[test]
fn a_tokenizer_may_add_nothing_or_only_an_end() {
    let mut json = byte_level();
    json["post_processor"] = Value::Null;
    let tokenizer = load(&json);
    assert_eq!(tokenizer.bos_id(), None);
    assert!(!tokenizer.encode("hello", true).unwrap().contains(&BOS));

    let mut json = byte_level();
    json["post_processor"]["single"].as_array_mut().unwrap().reverse();
    assert_eq!(load(&json).bos_id(), None);
}

#[test]
fn training_settings_do_not_cut_or_pad() {
    let mut json = byte_level();
    json["truncation"] = json!({
        "direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0
    });
    json["padding"] = json!({
        "strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": EOS,
        "pad_type_id": 0, "pad_token": "</s>"
    });
    let plain = load(&byte_level()).encode("hello world", true).unwrap();
    assert_eq!(load(&json).encode("hello world", true).unwrap(), plain);
}

#[test]
fn tokens_and_ids() {
    let tokenizer = load(&byte_level());
    assert_eq!(tokenizer.token_to_id("</s>"), Some(EOS));
    assert_eq!(tokenizer.id_to_token(EOS).as_deref(), Some("</s>"));
    assert_eq!((tokenizer.token_to_id("none"), tokenizer.id_to_token(9999)), (None, None));
    assert_eq!(tokenizer.vocab_size(), 2 + 256 + 3);
}

#[test]
fn characters_of_several_tokens_stream_whole() {
    for tokenizer in both() {
        let text = "h😀é日本 語\nw";
        let ids = tokenizer.encode(text, false).unwrap();
        let pieces = pieces(tokenizer.stream(), &ids);
        assert!(ids.len() > text.chars().count());
        assert!(pieces.iter().all(|piece| !piece.contains('\u{FFFD}')), "{pieces:?}");
        assert_eq!(pieces.concat(), text, "{tokenizer:?}");
    }
}

#[test]
fn byte_level_emits_a_character_with_its_last_byte() {
    let tokenizer = load(&byte_level());
    let ids = tokenizer.encode("h😀w", false).unwrap();
    assert_eq!(pieces(tokenizer.stream(), &ids), ["h", "", "", "", "😀", "w", ""]);
}

#[test]
fn incomplete_characters_come_out_at_the_end() {
    for tokenizer in both() {
        let ids = tokenizer.encode("h😀", false).unwrap();
        let ids = &ids[..ids.len() - 1];
        let pieces = pieces(tokenizer.stream(), ids);
        assert!(pieces.last().unwrap().starts_with('\u{FFFD}'), "{pieces:?}");
        assert_eq!(pieces.concat(), tokenizer.decode(ids).unwrap());
    }
}

#[test]
fn any_ids_stream_to_what_they_decode_to() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    for tokenizer in both() {
        let size = tokenizer.vocab_size() as u32;
        for length in 0..400 {
            // Some long runs of arbitrary bytes, some texts with few bytes, special tokens in both.
            let low = if length % 2 == 0 { 0 } else { size - 12 };
            let token = |_| if rng.random_bool(0.1) { EOS } else { rng.random_range(low..size) };
            let ids: Vec<u32> = (0..length % 40).map(token).collect();
            let streamed = pieces(tokenizer.stream(), &ids).concat();
            assert_eq!(streamed, tokenizer.decode(&ids).unwrap(), "{tokenizer:?} {ids:?}");
        }
    }
}

#[test]
fn a_continuation_keeps_the_space_before_it() {
    // The run of byte tokens in the second text is longer than the context that is decoded again.
    for (tokenizer, text) in both().iter().flat_map(|t| [(t, "hello hello world"), (t, "he😀😀😀😀w wo")])
    {
        let ids = tokenizer.encode(text, true).unwrap();
        let mut splits = 0;
        for split in 0..=ids.len() {
            let (prompt, rest) = ids.split_at(split);
            let before = tokenizer.decode(prompt).unwrap();
            // A prompt does not end inside a character.
            if !before.contains('\u{FFFD}') {
                let streamed = pieces(tokenizer.stream_after(prompt).unwrap(), rest).concat();
                assert_eq!(before + &streamed, text, "{tokenizer:?} at {split}");
                splits += 1;
            }
        }
        assert!(splits > 8, "{tokenizer:?}");
    }
}

#[test]
fn nothing_is_lost_when_a_byte_breaks_the_end_of_the_prompt() {
    let tokenizer = load(&byte_fallback());
    let prompt = tokenizer.encode("h😀", false).unwrap();
    let broken = tokenizer.token_to_id("<0xFF>").unwrap();
    let rest = [&[broken][..], &tokenizer.encode("w wo", false).unwrap()].concat();
    let streamed = pieces(tokenizer.stream_after(&prompt).unwrap(), &rest).concat();
    assert_eq!(streamed, "\u{FFFD}\u{FFFD}\u{FFFD}\u{FFFD}\u{FFFD} w wo");
}

#[test]
fn damaged_files_are_errors_with_their_path() {
    let error = Tokenizer::from_bytes("m/tokenizer.json", b"{").unwrap_err().to_string();
    assert!(error.starts_with("`m/tokenizer.json` is cut short"), "{error}");
    let error = Tokenizer::from_bytes("m/tokenizer.json", b"{}").unwrap_err().to_string();
    assert!(error.starts_with("tokenizer `m/tokenizer.json`: "), "{error}");
    let error = Tokenizer::from_file("/nowhere/tokenizer.json").unwrap_err();
    assert!(matches!(error, Error::FileNotFound { .. }), "{error}");
}

#[test]
fn a_panic_of_the_library_is_an_error_that_names_the_file() {
    let error = call(Path::new("m/tokenizer.json"), || -> tokenizers::Result<()> { panic!("no entry") });
    let message = error.unwrap_err().to_string();
    assert_eq!(message, "tokenizer `m/tokenizer.json`: the library that reads it breaks off: no entry");
}

#[test]
fn texts_with_tokens_beyond_the_models_vocabulary_are_refused() {
    let tokenizer = load(&byte_level()).for_vocabulary(4);
    assert_eq!(tokenizer.encode("</s>", true).unwrap(), [BOS, EOS]);
    let error = tokenizer.encode("h", true).unwrap_err();
    assert_eq!(
        error.to_string(),
        "tokenizer `tokenizer.json`: token 106, `h`, is outside of the model's vocabulary: the file has 261 \
         tokens, the embedding table 4 rows"
    );
    assert!(error.hint().unwrap().contains("different models"));
}

#[test]
fn pieces_have_ids_spellings_and_texts() {
    let pieces = |tokenizer: &Tokenizer, text| {
        let ids = tokenizer.encode(text, true).unwrap();
        let pieces = tokenizer.pieces(&ids).unwrap();
        assert_eq!(pieces.iter().map(|piece| piece.id).collect::<Vec<_>>(), ids);
        pieces.into_iter().map(|piece| (piece.token, piece.text, piece.is_special)).collect::<Vec<_>>()
    };
    let owned = |pieces: &[(&str, &str, bool)]| -> Vec<_> {
        pieces.iter().map(|&(token, text, special)| (token.to_owned(), text.to_owned(), special)).collect()
    };
    let level = load(&byte_level());
    let expected = [("<s>", "<s>", true), ("he", "he", false), ("Ġw", " w", false), ("Ċ", "\n", false)];
    assert_eq!(pieces(&level, "he w\n"), owned(&expected));
    let expected = [("<s>", "<s>", true), ("Ã", "<0xC3>", false), ("©", "<0xA9>", false)];
    assert_eq!(pieces(&level, "é"), owned(&expected), "parts of a character");
    let fallback = load(&byte_fallback());
    let expected =
        [("<s>", "<s>", true), ("▁h", " h", false), ("▁w", " w", false), ("<0x0A>", "<0x0A>", false)];
    assert_eq!(pieces(&fallback, "h w\n"), owned(&expected));
    assert_eq!(level.spell_out(&level.encode("he", true).unwrap()).unwrap(), "<s>he");
    assert_eq!((level.model_kind(), level.bytes()), ("BPE", Some(Bytes::Level)));
    assert_eq!((fallback.added_tokens(), fallback.bytes()), (2, Some(Bytes::Fallback)));
}

#[test]
fn a_million_blanks_are_split_with_both_kinds_of_byte_level_patterns() {
    let split = |regex: &str| {
        let level = json!({
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false
        });
        json!({"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false}, level
        ]})
    };
    let mut llama = byte_level();
    llama["pre_tokenizer"] = split(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|\s*[\r\n]+|\s+(?!\S)|\s+");
    for json in [byte_level(), llama] {
        let tokenizer = load(&json);
        let count = 1_200_000;
        let ids = tokenizer.encode(&format!("he{}w{}w", " ".repeat(count), "\t".repeat(2)), false).unwrap();
        let id = |token| tokenizer.token_to_id(token).unwrap();
        assert_eq!(ids[0], id("he"));
        assert!(ids[1..count].iter().all(|&token| token == id("Ġ")));
        assert_eq!(ids[count..], [id("Ġw"), id("ĉ"), id("ĉ"), id("w")]);
    }
}

#[test]
fn a_damaged_section_is_named() {
    let error = |section: &str, value: Value| {
        let mut json = byte_level();
        json[section] = value;
        Tokenizer::from_bytes("m/tokenizer.json", json.to_string().as_bytes()).unwrap_err().to_string()
    };
    let split = json!({"type": "Split", "pattern": {"Regex": "(a"}, "behavior": "Isolated", "invert": false});
    assert!(error("pre_tokenizer", split).contains("field `pre_tokenizer`: pattern `(a`: "));
    assert!(error("pre_tokenizer", json!({"type": "Novel"})).contains("field `pre_tokenizer`"));
    assert!(error("normalizer", json!({"type": "Novel"})).contains("field `normalizer`"));
}
