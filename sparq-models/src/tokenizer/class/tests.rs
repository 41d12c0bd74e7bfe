use std::{collections::BTreeMap, fs, path::Path};

use serde_json::Value;

use crate::{
    error::Error,
    tokenizer::{Tokenizer, TokenizerConfig, TokenizerFiles},
};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../sparq-backend-tests/fixtures/tokenizers");

/// Families and classes, with the tokens, frames and ids that transformers' `AutoTokenizer` gives.
#[test]
fn classes_are_those_that_transformers_takes() {
    let files = ["bytelevel", "spm"].map(|name| (name, fs::read(format!("{FIXTURES}/{name}.json")).unwrap()));
    let cases = fs::read(format!("{FIXTURES}/classes.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_slice(&cases).unwrap();
    let (mut compared, mut texts) = (0, 0);
    for case in &cases {
        let about = format!("{} {} {}", case["file"], case["model"], case["config"]);
        let (file, bytes) = files.iter().find(|(name, _)| case["file"] == *name).unwrap();
        let config = TokenizerConfig::new(
            Path::new("m"),
            &TokenizerFiles {
                model: Some(&case["model"]),
                config: Some(&case["config"]),
                is_byte_level: &|| *file == "bytelevel",
                ..TokenizerFiles::default()
            },
        );
        if case.get("error").is_some() {
            // Code of the checkpoint does not run here.
            let has_code = case["config"].get("auto_map").is_some();
            assert!(has_code || matches!(config, Err(Error::Config { .. })), "{about}: {config:?}");
            continue;
        }
        let config = config.unwrap_or_else(|error| panic!("{about}: {error}"));
        let tokens: BTreeMap<String, String> = serde_json::from_value(case["tokens"].clone()).unwrap();
        assert_eq!(config.special_tokens, tokens, "{about}");
        let tokenizer = Tokenizer::with_config("tokenizer.json", bytes, &config).unwrap();
        let ids = |text: &Value| Value::from(tokenizer.encode(text.as_str().unwrap(), true).unwrap());
        assert_eq!(ids(&"".into()), case["frame"], "{about}");
        for text in case["texts"].as_array().unwrap() {
            assert_eq!(ids(&text["text"]), text["ids"], "{about}: {}", text["text"]);
            texts += 1;
        }
        compared += 1;
    }
    assert!(compared > 250 && texts > 600, "{compared} cases, {texts} texts");
}
