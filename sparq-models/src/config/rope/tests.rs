use serde_json::{Value, json};

use super::*;
use crate::config::tests::{fields, with};

fn read(changes: Value) -> Result<RopeConfig> {
    RopeConfig::read(&fields(&with(changes)), 16, RopeFields::default())
}

fn message(changes: Value) -> String {
    read(changes).unwrap_err().to_string()
}

#[test]
fn rope_scaling_is_read_in_old_and_new_spelling() {
    let scaling = |json: Value| read(json).unwrap().scaling;
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
    let config = read(json!({"rope_parameters": parameters, "rope_theta": 1.0})).unwrap();
    assert_eq!((config.theta, config.scaling), (500_000.0, expected));
    let config = read(json!({"rope_parameters": {"rope_type": "default"}})).unwrap();
    assert_eq!((config.theta, config.rotary_dim, config.scaling), (10_000.0, 16, RopeScaling::None));
}

#[test]
fn rope_scaling_errors_name_type_and_field() {
    let yarn = message(json!({"rope_scaling": {"type": "yarn", "factor": 4.0}}));
    assert!(yarn.contains("rope scaling of type \"yarn\" is not supported"), "{yarn}");
    let missing = message(json!({"rope_scaling": {"type": "linear"}}));
    assert!(missing.contains("field `rope_scaling.factor` is missing"), "{missing}");
    let equal = message(json!({"rope_scaling": {
        "type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4,
        "original_max_position_embeddings": 8192
    }}));
    assert!(equal.contains("high_freq_factor = 4 must be above"), "{equal}");
}

#[test]
fn longrope_derives_its_attention_factor() {
    let factors = vec![1.0; 8];
    let section = json!({"type": "longrope", "short_factor": factors, "long_factor": factors});
    let config = read(json!({
        "rope_scaling": section, "max_position_embeddings": 4096, "original_max_position_embeddings": 64
    }));
    let expected = RopeScaling::LongRope {
        short_factor: vec![1.0; 8],
        long_factor: vec![1.0; 8],
        // ln(4096 / 64) / ln 64 = 1
        attention_factor: 2f64.sqrt(),
        original_max_position_embeddings: 64,
    };
    assert_eq!(config.unwrap().scaling, expected);
    let message = message(json!({"rope_scaling": {
        "type": "su", "short_factor": [1.0], "long_factor": [1.0]
    }}));
    assert!(message.contains("short_factor must hold 8 numbers"), "{message}");
}

#[test]
fn part_of_a_head_may_be_rotated() {
    assert_eq!(read(json!({"partial_rotary_factor": 0.75})).unwrap().rotary_dim, 12);
    let parameters = json!({"rope_type": "default", "partial_rotary_factor": 0.5});
    assert_eq!(read(json!({"rope_parameters": parameters})).unwrap().rotary_dim, 8);
    assert!(message(json!({"partial_rotary_factor": 1.5})).contains("must be at most 1"));
}
