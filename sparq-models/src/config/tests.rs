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
fn with(changes: Value) -> Value {
    let mut json = llama();
    for (name, value) in changes.as_object().unwrap() {
        json[name] = value.clone();
    }
    json
}

fn read(json: &Value) -> Result<ModelConfig> {
    ModelConfig::from_fields(&ConfigFields::new(Path::new("m/config.json"), json)?)
}

fn message(json: &Value) -> String {
    read(json).unwrap_err().to_string()
}

#[test]
fn absent_and_null_fields_take_their_defaults() {
    let config = read(&with(json!({"num_key_value_heads": null, "head_dim": null}))).unwrap();
    assert_eq!((config.num_key_value_heads, config.head_dim), (4, 16));
    assert_eq!(config.rope_theta, 10_000.0);
    assert_eq!(config.rope_scaling, RopeScaling::None);
    assert!(!config.tie_word_embeddings && !config.attention_bias && !config.mlp_bias);
    assert_eq!((config.dtype, config.bos_token_id), (None, None));
    assert_eq!(config.eos_token_ids, [2]);
}

#[test]
fn named_fields_are_taken_over() {
    let config = read(&with(json!({
        "num_key_value_heads": 2, "head_dim": 32, "tie_word_embeddings": true,
        "torch_dtype": "bfloat16", "bos_token_id": 1, "eos_token_id": [2, 5]
    })))
    .unwrap();
    assert_eq!((config.num_key_value_heads, config.head_dim), (2, 32));
    assert!(config.tie_word_embeddings);
    assert_eq!(config.dtype, Some(DType::BF16));
    assert_eq!((config.bos_token_id, config.eos_token_ids), (Some(1), vec![2, 5]));
    assert_eq!(read(&with(json!({"dtype": "float16"}))).unwrap().dtype, Some(DType::F16));
}

#[test]
fn errors_name_file_and_field() {
    let cases = [
        (json!({"hidden_size": null}), "field `hidden_size` is missing"),
        (json!({"vocab_size": 0}), "field `vocab_size`: must not be 0"),
        (json!({"rms_norm_eps": 0.0}), "field `rms_norm_eps`: must be above 0"),
        (json!({"num_hidden_layers": "three"}), "field `num_hidden_layers`: invalid type"),
        (json!({"num_key_value_heads": 3}), "is not a multiple of num_key_value_heads = 3"),
        (json!({"hidden_size": 66}), "hidden_size = 66 is not a multiple of"),
        (json!({"head_dim": 15}), "head_dim = 15 is odd"),
        (json!({"hidden_act": "relu"}), "hidden_act = \"relu\" is not supported"),
        (json!({"eos_token_id": -1}), "field `eos_token_id`"),
        (json!({"rope_scaling": 2}), "field `rope_scaling`: expected an object"),
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
fn rope_scaling_is_read_in_old_and_new_spelling() {
    let scaling = |json: Value| read(&with(json)).unwrap().rope_scaling;
    let linear = RopeScaling::Linear { factor: 2.0 };
    assert_eq!(scaling(json!({"rope_scaling": {"type": "linear", "factor": 2}})), linear);
    assert_eq!(scaling(json!({"rope_scaling": {"rope_type": "linear", "factor": 2.0}})), linear);
    assert_eq!(scaling(json!({"rope_scaling": {"rope_type": "default"}})), RopeScaling::None);
    let llama3 = json!({
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192
    });
    let expected = RopeScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 8192,
    };
    assert_eq!(scaling(json!({"rope_scaling": llama3})), expected);

    let mut parameters = llama3;
    parameters["rope_theta"] = json!(500_000.0);
    let config = read(&with(json!({"rope_parameters": parameters, "rope_theta": 1.0}))).unwrap();
    assert_eq!((config.rope_theta, config.rope_scaling), (500_000.0, expected));
    let config = read(&with(json!({"rope_parameters": {"rope_type": "default"}}))).unwrap();
    assert_eq!((config.rope_theta, config.rope_scaling), (10_000.0, RopeScaling::None));
}

#[test]
fn rope_scaling_errors_name_type_and_field() {
    let yarn = message(&with(json!({"rope_scaling": {"type": "yarn", "factor": 4.0}})));
    assert!(yarn.contains("rope scaling of type \"yarn\" is not supported"), "{yarn}");
    let missing = message(&with(json!({"rope_scaling": {"type": "linear"}})));
    assert!(missing.contains("field `rope_scaling.factor` is missing"), "{missing}");
    let equal = message(&with(json!({"rope_scaling": {
        "type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4,
        "original_max_position_embeddings": 8192
    }})));
    assert!(equal.contains("high_freq_factor = 4 must be above"), "{equal}");
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
fn generation_config_is_optional_field_by_field() {
    let path = Path::new("generation_config.json");
    let read = |json: &Value| GenerationConfig::from_fields(&ConfigFields::new(path, json)?);
    assert_eq!(read(&json!({})).unwrap(), GenerationConfig::default());
    let json = json!({
        "eos_token_id": [128001, 128008, 128009], "bos_token_id": 128000, "do_sample": true,
        "temperature": 0.5, "top_k": 40, "top_p": 0.75, "repetition_penalty": 1.25
    });
    let config = read(&json).unwrap();
    assert_eq!(config.eos_ids(&[128001, 7]), [7, 128001, 128008, 128009]);
    assert_eq!((config.bos_token_id, config.do_sample), (Some(128000), Some(true)));
    assert_eq!((config.temperature, config.top_k), (Some(0.5), Some(40)));
    assert_eq!((config.top_p, config.repetition_penalty), (Some(0.75), Some(1.25)));
    let error = read(&json!({"top_k": 0.5})).unwrap_err().to_string();
    assert!(error.starts_with("`generation_config.json`: field `top_k`"), "{error}");
}
