use serde_json::{Value, json};

use super::*;
use crate::config::{
    Defaults, LayerWindows, ModelConfig, Sliding,
    tests::{fields, with},
};

/// What a model with heads of 16 components reads.
fn ropes(changes: Value, names: RopeFields) -> Result<Ropes> {
    let json = with(changes);
    let fields = fields(&json);
    let mut config = ModelConfig::read(&fields, &Defaults::LLAMA)?;
    config.windows = LayerWindows::read(&fields, config.num_hidden_layers, Some(8), Sliding::None)?;
    Ropes::read(&fields, &config, names)
}

fn read_as(changes: Value, names: RopeFields) -> Result<RopeConfig> {
    match ropes(changes, names)? {
        Ropes::All(rope) => Ok(rope),
        other => panic!("one for all layers, not {other:?}"),
    }
}

fn read(changes: Value) -> Result<RopeConfig> {
    read_as(changes, RopeFields::LLAMA)
}

fn message(changes: Value) -> String {
    read(changes).unwrap_err().to_string()
}

/// Gemma 3's two, of which the third layer sees everything.
fn two(changes: Value) -> Result<Vec<(&'static str, RopeConfig)>> {
    let json = with(changes);
    let fields = fields(&json);
    let mut config = ModelConfig::read(&fields, &Defaults::LLAMA)?;
    config.windows = LayerWindows::read(&fields, config.num_hidden_layers, Some(8), Sliding::AllBut(3))?;
    let ropes = Ropes::read_by_layer_type(&fields, &config)?;
    Ok(ropes.iter().map(|(layers, rope)| (layers, rope.clone())).collect())
}

const LINEAR: RopeScaling = RopeScaling::Linear { factor: 2.0 };

#[test]
fn rope_scaling_is_read_in_old_and_new_spelling() {
    let scaling = |json: Value| read(json).unwrap().scaling;
    assert_eq!(scaling(json!({"rope_scaling": {"type": "linear", "factor": 2}})), LINEAR);
    assert_eq!(scaling(json!({"rope_scaling": {"rope_type": "linear", "factor": 2.0}})), LINEAR);
    assert_eq!(scaling(json!({"rope_scaling": {"rope_type": "default"}})), RopeScaling::None);
    let both = json!({"type": "linear", "rope_type": "default", "factor": 2.0});
    assert_eq!(scaling(json!({"rope_scaling": both})), RopeScaling::None);
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

/// Each with the base and scaling that transformers 5.24 computes with.
#[test]
fn rope_scaling_wins_over_rope_parameters() {
    let parameters = json!({"rope_type": "default", "rope_theta": 300.0});
    let linear = json!({"rope_type": "linear", "factor": 2.0});
    let linear_of_500 = json!({"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0});
    for (json, theta, scaling) in [
        (json!({"rope_parameters": parameters, "rope_scaling": linear}), 1e4, LINEAR),
        (json!({"rope_parameters": parameters, "rope_scaling": linear, "rope_theta": 20.0}), 20.0, LINEAR),
        (json!({"rope_parameters": linear_of_500, "rope_scaling": null}), 500.0, LINEAR),
        (json!({"rope_parameters": linear_of_500, "rope_scaling": {}}), 500.0, LINEAR),
        (json!({"rope_parameters": parameters, "rope_theta": 20.0}), 300.0, RopeScaling::None),
        (json!({"rope_scaling": linear_of_500, "rope_theta": 20.0}), 500.0, LINEAR),
        (json!({"rope_scaling": {"rope_type": "default", "rope_theta": 500.0}}), 500.0, RopeScaling::None),
        (json!({"rope_parameters": {}, "rope_theta": 20.0}), 20.0, RopeScaling::None),
        // Sections by type of layer say nothing to a family without such types.
        (json!({"rope_parameters": {"full_attention": linear_of_500}}), 1e4, RopeScaling::None),
    ] {
        let rope = read(json.clone()).unwrap();
        assert_eq!((rope.theta, rope.scaling), (theta, scaling), "{json}");
    }
}

#[test]
fn what_is_not_built_is_refused_wherever_it_stands() {
    for kind in ["yarn", "dynamic", "proportional", "axial", "LLAMA3"] {
        let section = json!({"rope_type": kind, "factor": 4.0});
        for json in [json!({"rope_scaling": section}), json!({"rope_parameters": section})] {
            let message = message(json);
            let expected = format!("rope_type`: rope scaling of type \"{kind}\" is not supported");
            assert!(message.contains(&expected), "{message}");
        }
    }
    let yarn = json!({"type": "yarn", "factor": 4.0});
    let beside = json!({"rope_parameters": {"rope_type": "default"}, "rope_scaling": yarn});
    assert!(message(beside).contains("field `rope_scaling.type`: rope scaling of type \"yarn\""));
    let missing = message(json!({"rope_scaling": {"type": "linear"}}));
    assert!(missing.contains("field `rope_scaling.factor` is missing"), "{missing}");
    let equal = message(json!({"rope_scaling": {
        "type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4,
        "original_max_position_embeddings": 8192
    }}));
    assert!(equal.contains("`rope_scaling.high_freq_factor`: 4 must be above"), "{equal}");
    assert!(message(json!({"rope_scaling": "linear"})).contains("expected an object, found \"linear\""));
    // Phi-3 takes one kind of scaling.
    let linear = json!({"rope_scaling": {"type": "linear", "factor": 2}});
    let message = read_as(linear, RopeFields::PHI3).unwrap_err().to_string();
    assert!(message.contains("\"linear\" is not supported (supported: default, longrope)"), "{message}");
}

#[test]
fn families_with_types_of_layers_refuse_a_section_for_each() {
    let names = RopeFields { has_layer_types: true, ..RopeFields::LLAMA };
    let linear = json!({"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0});
    let message =
        read_as(json!({"rope_parameters": {"full_attention": linear}}), names).unwrap_err().to_string();
    assert!(message.contains("field `rope_parameters.full_attention`: the layers of this"), "{message}");
    // No layer is of the type: the name says nothing.
    let other = json!({"rope_parameters": {"sliding_attention": linear, "rope_theta": 20.0}});
    assert_eq!(read_as(other, names).unwrap().theta, 20.0);
    let both =
        json!({"rope_parameters": {"full_attention": linear, "rope_type": "default", "rope_theta": 20.0}});
    assert_eq!(read_as(both, names).unwrap().theta, 20.0);
}

#[test]
fn longrope_derives_its_attention_factor() {
    let factors = vec![1.0; 8];
    for kind in ["longrope", "su", "yarn"] {
        let section = json!({"type": kind, "short_factor": factors, "long_factor": factors});
        let json = json!({
            "rope_scaling": section, "max_position_embeddings": 4096, "original_max_position_embeddings": 64
        });
        let expected = RopeScaling::LongRope {
            short_factor: vec![1.0; 8],
            long_factor: vec![1.0; 8],
            // ln(4096 / 64) / ln 64 = 1
            attention_factor: 2f64.sqrt(),
            original_max_position_embeddings: 64,
        };
        assert_eq!(read_as(json, RopeFields::PHI3).unwrap().scaling, expected, "{kind}");
    }
    let message = message(json!({"rope_scaling": {
        "type": "longrope", "short_factor": [1.0], "long_factor": [1.0]
    }}));
    assert!(message.contains("short_factor`: must hold 8 numbers above 0"), "{message}");
}

/// `original_max_position_embeddings` beside the section wins over the one in it; Phi-3 has a default.
#[test]
fn the_original_length_beside_the_section_wins() {
    let inside = |original: Value| {
        let factors = vec![1.0; 8];
        json!({"rope_type": "longrope", "short_factor": factors, "long_factor": factors,
            "original_max_position_embeddings": original})
    };
    let original = |json: Value, names| {
        let scaling = read_as(json, names).unwrap().scaling;
        scaling.original_max_position_embeddings().unwrap()
    };
    let both = json!({"rope_parameters": inside(json!(128)), "original_max_position_embeddings": 64});
    assert_eq!(original(both.clone(), RopeFields::LLAMA), 64);
    assert_eq!(original(both, RopeFields::PHI3), 64);
    let alone = json!({"rope_parameters": inside(json!(128))});
    assert_eq!(original(alone.clone(), RopeFields::LLAMA), 128);
    assert_eq!(original(alone, RopeFields::PHI3), 4096);
    let none = json!({"rope_parameters": inside(Value::Null)});
    assert_eq!(original(none.clone(), RopeFields::LLAMA), 512);
    assert_eq!(original(none, RopeFields::PHI3), 4096);
}

#[test]
fn part_of_a_head_is_rotated_where_the_family_does() {
    let phi = |json| read_as(json, RopeFields::PHI3).map(|rope| rope.rotary_dim);
    assert_eq!(phi(json!({})).unwrap(), 16);
    assert_eq!(phi(json!({"partial_rotary_factor": 0.75})).unwrap(), 12);
    let inside = json!({"rope_type": "default", "partial_rotary_factor": 0.5});
    assert_eq!(phi(json!({"rope_parameters": inside, "partial_rotary_factor": 0.75})).unwrap(), 8);
    assert_eq!(phi(json!({"rope_scaling": inside})).unwrap(), 8);
    for wrong in [0.0, 0.01, 1.5, -1.0] {
        let message = phi(json!({"partial_rotary_factor": wrong})).unwrap_err().to_string();
        assert!(message.contains(&format!("partial_rotary_factor = {wrong} rotates")), "{message}");
    }
    let neox = |json| read_as(json, RopeFields::GPT_NEOX).unwrap().rotary_dim;
    assert_eq!((neox(json!({})), neox(json!({"rotary_pct": 0.5}))), (4, 8));
    assert_eq!(neox(json!({"partial_rotary_factor": 0.5})), 4);

    // Elsewhere transformers ignores it, and fails where the embedding is scaled.
    for json in [json!({"partial_rotary_factor": 0.5}), json!({"rope_parameters": inside})] {
        assert_eq!(read(json).unwrap().rotary_dim, 16);
    }
    let scaled = json!({"rope_scaling": {"type": "linear", "factor": 2}, "partial_rotary_factor": 0.5});
    assert!(message(scaled).contains("partial_rotary_factor = 0.5: this architecture rotates whole heads"));
}

/// Gemma 3, each with what transformers 5.24 computes with.
#[test]
fn two_embeddings_in_every_form() {
    let linear = json!({"rope_type": "linear", "factor": 2.0});
    let full = |theta, scaling| ("full_attention", theta, scaling);
    for (json, (_, theta, scaling), local) in [
        (json!({}), full(1e6, RopeScaling::None), 1e4),
        (json!({"rope_scaling": linear}), full(1e6, LINEAR), 1e4),
        (
            json!({"rope_scaling": linear, "rope_theta": 30.0, "rope_local_base_freq": 20.0}),
            full(30.0, LINEAR),
            20.0,
        ),
        (
            json!({"rope_scaling": {"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0}}),
            full(500.0, LINEAR),
            1e4,
        ),
        // The older spelling does not win over what transformers starts from.
        (json!({"rope_scaling": {"type": "linear", "factor": 2.0}}), full(1e6, RopeScaling::None), 1e4),
        (
            json!({"rope_parameters": {"full_attention": {"rope_theta": 300.0}, "sliding_attention": {"rope_theta": 200.0}},
                "rope_scaling": linear}),
            full(300.0, LINEAR),
            200.0,
        ),
        // A flat section, or one inside of `rope_scaling`, says nothing.
        (
            json!({"rope_parameters": {"rope_type": "linear", "factor": 8.0, "rope_theta": 300.0}}),
            full(1e6, RopeScaling::None),
            1e4,
        ),
        (json!({"rope_scaling": {"full_attention": linear}}), full(1e6, RopeScaling::None), 1e4),
        (
            json!({"rope_parameters": {"sliding_attention": {"rope_theta": 200.0}}}),
            full(1e6, RopeScaling::None),
            200.0,
        ),
    ] {
        let ropes = two(json.clone()).unwrap();
        let [(first, full), (second, sliding)] = &ropes[..] else { panic!("{json}: {ropes:?}") };
        assert_eq!((*first, *second), ("full_attention", "sliding_attention"));
        assert_eq!((full.theta, &full.scaling), (theta, &scaling), "{json}");
        assert_eq!((sliding.theta, &sliding.scaling), (local, &RopeScaling::None), "{json}");
    }
    let alone = json!({"rope_parameters": {"sliding_attention": {}}, "rope_scaling": linear});
    assert!(
        two(alone).unwrap_err().to_string().contains("`rope_parameters.full_attention`, which is missing")
    );
    let yarn = json!({"rope_parameters": {"sliding_attention": {"rope_type": "yarn"}}});
    let message = two(yarn).unwrap_err().to_string();
    assert!(message.contains("`rope_parameters.sliding_attention.rope_type`: rope scaling"), "{message}");
    // A section that no layer uses says nothing.
    let yarn = json!({"rope_parameters": {"sliding_attention": {"rope_type": "yarn"}},
        "layer_types": ["full_attention", "full_attention", "full_attention"]});
    assert_eq!(two(yarn).unwrap().len(), 1);
}

#[test]
fn numbers_beyond_f32_are_refused() {
    for json in [
        json!({"rope_theta": 1e-300}),
        json!({"rope_scaling": {"type": "linear", "factor": 1e-300}}),
        json!({"rope_scaling": {"type": "longrope", "short_factor": vec![1.0; 8], "long_factor": vec![1e-308; 8]}}),
    ] {
        assert!(message(json).contains("turns further than f32 can hold"));
    }
    let attention = json!({"type": "longrope", "short_factor": vec![1.0; 8], "long_factor": vec![1.0; 8],
        "attention_factor": 1e308});
    assert!(
        message(json!({"rope_scaling": attention}))
            .contains("`rope_scaling.attention_factor`: 1e308 is more")
    );
    assert_eq!(read(json!({"rope_theta": 1e308})).unwrap().theta, 1e308);
}
