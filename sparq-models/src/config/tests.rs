use std::path::Path;

use serde_json::{Value, json};

use super::*;

fn llama() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama",
        "vocab_size": 128, "hidden_size": 64, "intermediate_size": 96,
        "num_hidden_layers": 3, "num_attention_heads": 4, "max_position_embeddings": 512,
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
    ModelConfig::from_fields(&fields(json))
}

fn message(json: &Value) -> String {
    read(json).unwrap_err().to_string()
}

#[test]
fn absent_and_null_fields_take_their_defaults() {
    let config = read(&with(json!({"num_key_value_heads": null, "head_dim": null}))).unwrap();
    assert_eq!((config.num_key_value_heads, config.head_dim), (4, 16));
    assert_eq!(config.dtype, None);
}

#[test]
fn named_fields_are_taken_over() {
    let config = read(&with(json!({
        "num_key_value_heads": 2, "head_dim": 32,
        "torch_dtype": "bfloat16"
    })))
    .unwrap();
    assert_eq!((config.num_key_value_heads, config.head_dim), (2, 32));
    assert_eq!(config.dtype, Some(DType::BF16));
    assert_eq!(read(&with(json!({"dtype": "float16"}))).unwrap().dtype, Some(DType::F16));
}

#[test]
fn errors_name_file_and_field() {
    let cases = [
        (json!({"hidden_size": null}), "field `hidden_size` is missing"),
        (json!({"vocab_size": 0}), "field `vocab_size`: must not be 0"),
        (json!({"num_hidden_layers": "three"}), "field `num_hidden_layers`: invalid type"),
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
fn architecture_falls_back_to_model_type() {
    let path = Path::new("config.json");
    let name = |json: &Value| {
        let fields = ConfigFields::new(path, json)?;
        fields.architecture().map(str::to_owned)
    };
    assert_eq!(name(&llama()).unwrap(), "LlamaForCausalLM");
    assert_eq!(name(&with(json!({"architectures": null}))).unwrap(), "llama");
    assert_eq!(name(&with(json!({"architectures": []}))).unwrap(), "llama");
    let error = name(&json!({})).unwrap_err().to_string();
    assert!(error.contains("field `architectures` is missing"), "{error}");
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
    let json = json!({"off": null, "set": 7, "zero": 0});
    let fields = fields(&json);
    assert_eq!(fields.positive_or("absent", 5).unwrap(), Some(5));
    assert_eq!(fields.positive_or("off", 5).unwrap(), None);
    assert_eq!(fields.positive_or("set", 5).unwrap(), Some(7));
    assert!(fields.positive_or("zero", 5).is_err());
    assert_eq!(fields.positive_float_or("absent", 0.5).unwrap(), Some(0.5));
    assert_eq!(fields.positive_float_or("off", 0.5).unwrap(), None);
}

#[test]
fn layer_types_win_over_the_rule() {
    let windows = |json: &Value| layer_windows(&fields(json), 3, Some(8), |i| i == 0);
    assert_eq!(windows(&json!({})).unwrap(), [Some(8), None, None]);
    let types = json!({"layer_types": ["full_attention", "sliding_attention", "sliding_attention"]});
    assert_eq!(windows(&types).unwrap(), [None, Some(8), Some(8)]);
    let message = |json: Value| windows(&json).unwrap_err().to_string();
    assert!(message(json!({"layer_types": ["full_attention"]})).contains("1 entries"));
    let chunked = message(json!({"layer_types": ["full_attention", "chunked_attention", "x"]}));
    assert!(chunked.contains("\"chunked_attention\" is not supported"), "{chunked}");
}
