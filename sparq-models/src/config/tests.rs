use std::path::Path;

use serde_json::{Value, json};

use super::*;

fn llama() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama",
        "vocab_size": 128, "hidden_size": 64, "intermediate_size": 96,
        "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 512,
        "rms_norm_eps": 1e-6, "hidden_act": "silu", "eos_token_id": 2
    })
}

/// A Llama configuration with some fields replaced.
pub(crate) fn with(changes: Value) -> Value {
    let mut json = llama();
    for (name, value) in changes.as_object().unwrap() {
        json[name] = value.clone();
    }
    json
}

/// The fields of a configuration file.
pub(crate) fn fields(json: &Value) -> ConfigFields<'_> {
    ConfigFields::new(Path::new("m/config.json"), json).unwrap()
}

fn read(json: &Value) -> Result<ModelConfig> {
    ModelConfig::read(&fields(json), &Defaults::LLAMA)
}

fn message(json: &Value) -> String {
    read(json).unwrap_err().to_string()
}

#[test]
fn absent_and_null_fields_take_their_defaults() {
    let config = read(&with(json!({
        "num_key_value_heads": null, "head_dim": null, "rms_norm_eps": null, "max_position_embeddings": null
    })))
    .unwrap();
    assert_eq!((config.num_key_value_heads, config.head_dim), (4, 16));
    assert_eq!((config.norm_epsilon, config.max_position_embeddings), (1e-6, 2048));
    assert!(!config.tied);
}

#[test]
fn named_fields_are_taken_over() {
    let json = with(json!({"num_key_value_heads": 2, "head_dim": 32, "tie_word_embeddings": true}));
    let config = read(&json).unwrap();
    assert_eq!((config.num_key_value_heads, config.head_dim, config.tied), (2, 32, true));
    let dtype = |json: Value| stored_dtype(&fields(&with(json))).unwrap();
    assert_eq!(dtype(json!({"torch_dtype": "bfloat16"})), Some(DType::BF16));
    assert_eq!(dtype(json!({"dtype": "float16", "torch_dtype": "float32"})), Some(DType::F16));
    assert_eq!(dtype(json!({"dtype": "torch.float32"})), Some(DType::F32));
    assert_eq!(dtype(json!({"dtype": "int8"})), None);
}

#[test]
fn errors_name_file_and_field_in_plain_words() {
    let cases = [
        (json!({"hidden_size": null}), "field `hidden_size` is missing"),
        (json!({"vocab_size": 0}), "field `vocab_size`: must not be 0"),
        (
            json!({"num_hidden_layers": "three"}),
            "field `num_hidden_layers`: expected a whole number that is not negative, found \"three\"",
        ),
        (json!({"num_hidden_layers": 1.5}), "expected a whole number that is not negative, found 1.5"),
        (json!({"num_hidden_layers": -1}), "expected a whole number that is not negative, found -1"),
        (
            json!({"num_hidden_layers": [2]}),
            "expected a whole number that is not negative, found a list of 1",
        ),
        (json!({"rms_norm_eps": {}}), "field `rms_norm_eps`: expected a number, found an object"),
        (json!({"tie_word_embeddings": 1}), "expected true or false, found 1"),
        (json!({"hidden_act": 3}), "field `hidden_act`: expected a text, found 3"),
        (json!({"num_key_value_heads": 3}), "is not a multiple of num_key_value_heads = 3"),
        (json!({"hidden_size": 66}), "hidden_size = 66 is not a multiple of"),
        (json!({"head_dim": 15}), "head_dim = 15 is odd"),
    ];
    for (change, expected) in cases {
        let message = message(&with(change));
        assert!(message.starts_with("`m/config.json`: "), "{message}");
        assert!(message.contains(expected), "{message}");
    }
    let error = ConfigFields::new(Path::new("c"), &json!([1])).unwrap_err();
    assert!(error.to_string().contains("expected a JSON object"));
}

#[test]
fn values_are_shown_short_and_without_control_characters() {
    assert_eq!(brief(&json!("\u{1b}[31mred")), "\"\\u{1b}[31mred\"");
    let long = brief(&json!("x".repeat(1000)));
    assert!(long.len() < 100 && long.ends_with("…\""), "{long}");
}

/// Sizes whose products no memory holds are errors before anything is multiplied.
#[test]
fn absurd_sizes_are_named() {
    let huge = 1_u64 << 62;
    for (change, expected) in [
        (
            json!({"hidden_size": 1_000_000_000_000_000_000_u64, "head_dim": 16}),
            "hidden_size = 1000000000000000000",
        ),
        (json!({"vocab_size": huge}), "vocab_size = 4611686018427387904"),
        (json!({"head_dim": huge}), "head_dim = 4611686018427387904"),
        (json!({"intermediate_size": huge}), "intermediate_size = 4611686018427387904"),
        (
            json!({"num_attention_heads": huge, "num_key_value_heads": huge, "head_dim": huge}),
            "num_attention_heads = 4611686018427387904",
        ),
    ] {
        let message = message(&with(change));
        assert!(message.contains(expected) && message.contains("more than any memory holds"), "{message}");
    }
    // Layers are compared with the weights; nothing is kept for each of them.
    let config = read(&with(json!({"num_hidden_layers": u64::MAX}))).unwrap();
    assert_eq!(config.windows.window(usize::MAX - 1), None);
}

#[test]
fn activations_go_by_the_names_of_transformers() {
    let named = |name: Value| {
        Activation::read(&fields(&with(json!({"hidden_act": name}))), "hidden_act", Activation::Gelu)
    };
    assert_eq!(named(Value::Null).unwrap(), Activation::Gelu);
    assert_eq!(named(json!("silu")).unwrap(), Activation::Silu);
    assert_eq!(named(json!("gelu_pytorch_tanh")).unwrap(), Activation::GeluTanh);
    assert_eq!(named(json!("gelu_new")).unwrap(), Activation::GeluTanh);
    let error = named(json!("relu")).unwrap_err().to_string();
    assert!(error.contains("hidden_act = \"relu\" is not supported"), "{error}");
}

#[test]
fn null_switches_off_what_is_on_by_default() {
    let json = json!({"off": null, "set": 7, "zero": 0, "huge": 1e300});
    let fields = fields(&json);
    assert_eq!(fields.positive_or("absent", 5).unwrap(), Some(5));
    assert_eq!(fields.positive_or("off", 5).unwrap(), None);
    assert_eq!(fields.positive_or("set", 5).unwrap(), Some(7));
    assert!(fields.positive_or("zero", 5).is_err());
    assert_eq!(fields.cap_or("absent", 0.5).unwrap(), Some(0.5));
    assert_eq!(fields.cap_or("off", 0.5).unwrap(), None);
    assert!(fields.cap_or("huge", 0.5).unwrap_err().to_string().contains("`huge`: 1e300 is more than f32"));
}

#[test]
fn layer_types_win_over_the_rule() {
    let read = |json: &Value| LayerWindows::read(&fields(json), 3, Some(8), Sliding::AllBut(3));
    let windows = |json: Value| {
        let windows = read(&json).unwrap();
        [0, 1, 2].map(|index| windows.window(index))
    };
    assert_eq!(windows(json!({})), [Some(8), Some(8), None]);
    assert_eq!(windows(json!({"layer_types": null})), [Some(8), Some(8), None]);
    let types = json!({"layer_types": ["full_attention", "sliding_attention", "attention"]});
    assert_eq!(windows(types), [None, Some(8), None]);
    let message = |json: Value| read(&json).unwrap_err().to_string();
    assert!(message(json!({"layer_types": ["full_attention"]})).contains("1 entries"));
    let chunked = message(json!({"layer_types": ["full_attention", "chunked_attention", "x"]}));
    assert!(chunked.contains("\"chunked_attention\" is not supported"), "{chunked}");
    let json = json!({"layer_types": ["sliding_attention", "full_attention", "full_attention"]});
    let none = LayerWindows::read(&fields(&json), 3, None, Sliding::None).unwrap_err().to_string();
    assert!(none.contains("there is no window"), "{none}");
}

#[test]
fn layer_types_follow_from_any_rule() {
    let types = |layers, rule: Sliding| -> Vec<_> {
        let json = json!({});
        LayerWindows::read(&fields(&json), layers, Some(8), rule).unwrap().layer_types().collect()
    };
    let (full, sliding) = ("full_attention", "sliding_attention");
    assert_eq!(types(3, Sliding::All), [sliding]);
    assert_eq!(types(3, Sliding::From(0)), [sliding]);
    assert_eq!(types(3, Sliding::From(2)), [full, sliding]);
    assert_eq!(types(3, Sliding::From(3)), [full]);
    assert_eq!(types(2, Sliding::AllBut(3)), [sliding]);
    assert_eq!(types(3, Sliding::AllBut(3)), [full, sliding]);
    assert_eq!(types(3, Sliding::AllBut(1)), [full]);
    assert_eq!(LayerWindows::all(2, None).layer_types().collect::<Vec<_>>(), [full]);
}
