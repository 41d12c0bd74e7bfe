use serde_json::json;

use super::*;
use crate::tokenizer::{Tokenizer, TokenizerConfig, TokenizerFiles, tests::byte_level};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../sparq-backend-tests/fixtures/tokenizers");

fn config(config: Option<&Value>, map: Option<&Value>) -> Result<TokenizerConfig> {
    with_order(config, map, None, [FieldOrder::NONE; 2])
}

fn with_order(
    config: Option<&Value>,
    map: Option<&Value>,
    added_tokens: Option<&Value>,
    orders: [&FieldOrder; 2],
) -> Result<TokenizerConfig> {
    let read = TokenizerConfig::reads_map(config);
    let [map, added_tokens] = [map, added_tokens].map(|json| json.filter(|_| read));
    let files =
        TokenizerFiles { config, special_tokens_map: map, added_tokens, orders, ..TokenizerFiles::default() };
    TokenizerConfig::new(Path::new("m"), &files)
}

fn tokenizer(json: &Value, config: &TokenizerConfig) -> Tokenizer {
    Tokenizer::with_config("tokenizer.json", json.to_string().as_bytes(), config).unwrap()
}

/// The order of the fields of both files.
#[derive(serde::Deserialize)]
struct Orders {
    config: FieldOrder,
    map: FieldOrder,
}

/// The file, where there is one.
fn present(json: &Value) -> Option<&Value> {
    (*json != json!("absent")).then_some(json)
}

#[test]
fn tokens_are_those_that_transformers_finds() {
    let bytes = std::fs::read(format!("{FIXTURES}/bytelevel.json")).unwrap();
    let cases = std::fs::read(format!("{FIXTURES}/special.json")).unwrap();
    let orders: Vec<Orders> = serde_json::from_slice(&cases).unwrap();
    let cases: Vec<Value> = serde_json::from_slice(&cases).unwrap();
    let mut texts = 0;
    for (case, order) in cases.iter().zip(&orders) {
        let about = format!("{} {} {}", case["config"], case["map"], case["added"]);
        let orders = [&order.config, &order.map];
        let config = with_order(present(&case["config"]), present(&case["map"]), case.get("added"), orders);
        if case.get("error").is_some() {
            assert!(matches!(config, Err(Error::Config { .. })), "{about}: {config:?}");
            continue;
        }
        let config = config.unwrap();
        // A token without a text is none.
        let tokens = case["tokens"].as_object().unwrap();
        let tokens: BTreeMap<&str, &str> =
            tokens.iter().map(|(role, token)| (role.as_str(), token.as_str().unwrap())).collect();
        let found = config.special_tokens.iter().map(|(role, token)| (role.as_str(), token.as_str()));
        let named = tokens.into_iter().filter(|(_, token)| !token.is_empty());
        assert_eq!(found.collect::<Vec<_>>(), named.collect::<Vec<_>>(), "{about}");
        let tokenizer = Tokenizer::with_config("tokenizer.json", &bytes, &config).unwrap();
        for expected in case["texts"].as_array().unwrap() {
            let ids = tokenizer.encode(expected["text"].as_str().unwrap(), true).unwrap();
            assert_eq!(json!(ids), expected["ids"], "{about}: {}", expected["text"]);
            assert_eq!(json!(tokenizer.decode(&ids).unwrap()), expected["decoded"], "{about}");
            texts += 1;
        }
    }
    assert!(cases.len() > 150 && texts > 150, "{} cases, {texts} texts", cases.len());
}

#[test]
fn what_is_no_token_is_named_with_its_file() {
    let message = |own: Value, map: Value| config(Some(&own), Some(&map)).unwrap_err().to_string();
    for (own, map, expected) in [
        (json!([]), json!({}), "`m/tokenizer_config.json`: expected an object, found a list"),
        (json!({}), json!(null), "`m/special_tokens_map.json`: expected an object, found null"),
        (
            json!({"eos_token": 3}),
            json!({}),
            "`m/tokenizer_config.json`: field `eos_token`: expected a token as a text, or as an object with \
             `content`, found the number 3",
        ),
        (
            json!({"eos_token": "</s>"}),
            json!({"eos_token": {"content": true}}),
            "`m/special_tokens_map.json`: field `eos_token`: expected an object with the text of the token in \
             `content`",
        ),
        (
            json!({"added_tokens_decoder": {"7": {"content": "x", "lstrip": 1}}}),
            json!({}),
            "`m/tokenizer_config.json`: field `added_tokens_decoder.7.lstrip`: expected true or false, found \
             the number 1",
        ),
    ] {
        assert_eq!(message(own, map), expected);
    }
}

#[test]
fn what_is_no_id_is_named_with_its_token() {
    for (list, expected) in [
        (json!([]), "`m/added_tokens.json`: expected an object, found a list"),
        (json!({"<a>": "1"}), "`m/added_tokens.json`: token `<a>`: expected an id, found a text"),
    ] {
        let error = with_order(Some(&json!({})), None, Some(&list), [FieldOrder::NONE; 2]).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn fields_that_are_no_tokens_are_left_alone() {
    let own = json!({
        "bos_token": {"content": "<s>", "lstrip": false}, "eos_token": "</s>", "pad_token": null,
        "add_bos_token": true, "my_token": 3, "model_max_length": 10
    });
    let tokens = config(Some(&own), None).unwrap().special_tokens;
    let tokens: Vec<_> = tokens.iter().map(|(role, token)| (role.as_str(), token.as_str())).collect();
    assert_eq!(tokens, [("bos_token", "<s>"), ("eos_token", "</s>")]);
}

#[test]
fn some_classes_have_tokens_of_their_own_for_roles_that_no_file_mentions() {
    let own = json!({"tokenizer_class": "GPTNeoXTokenizerFast", "eos_token": null, "bos_token": "<s>"});
    let config = config(Some(&own), None).unwrap();
    let tokens: Vec<_> = config.special_tokens.iter().map(|(role, token)| (&**role, &**token)).collect();
    let expected = [("bos_token", "<s>"), ("pad_token", "<|padding|>"), ("unk_token", "<|endoftext|>")];
    assert_eq!(tokens, expected);
    let framed = tokenizer(&byte_level(), &TokenizerConfig::default());
    assert_eq!(framed.encode("h", true).unwrap().len(), 2);
    assert_eq!(tokenizer(&byte_level(), &config).encode("h", true).unwrap().len(), 1, "the class adds none");
}

#[test]
fn tokens_that_end_a_turn_are_found_by_role_and_by_spelling() {
    let mut json = byte_level();
    let tokens = json["added_tokens"].as_array_mut().unwrap();
    for (id, content, special) in
        [(900, "<|eot_id|>", true), (901, "<end_of_turn>", true), (902, "<|end|>", false)]
    {
        tokens.push(json!({
            "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": special
        }));
    }
    let ends = |own: Value| {
        let tokenizer = tokenizer(&json, &config(Some(&own), None).unwrap());
        tokenizer.end_ids().iter().map(|&id| tokenizer.id_to_token(id).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(ends(json!({})), ["<|eot_id|>", "<end_of_turn>"]);
    assert_eq!(ends(json!({"eos_token": {"content": "</s>"}})), ["</s>", "<|eot_id|>", "<end_of_turn>"]);
    let both = ["<|eot_id|>", "<end_of_turn>", "<|end|>"];
    assert_eq!(ends(json!({"pad_token": "<|end|>"})), both, "a token with a role is special");
}

#[test]
fn a_token_of_several_roles_has_the_flags_of_the_last() {
    let ids = |own: Value| {
        tokenizer(&byte_level(), &config(Some(&own), None).unwrap()).encode("h[MASK] h", false).unwrap()
    };
    let takes_the_blank = json!({"content": "[MASK]", "rstrip": true, "__type": "AddedToken"});
    let (taken, left) = (ids(json!({"mask_token": takes_the_blank})), ids(json!({"mask_token": "[MASK]"})));
    assert_ne!(taken, left);
    assert_eq!(ids(json!({"eos_token": takes_the_blank, "mask_token": "[MASK]"})), left);
    assert_eq!(ids(json!({"eos_token": "[MASK]", "mask_token": takes_the_blank})), taken);
}
