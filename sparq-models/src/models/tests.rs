use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use burn::tensor::DType;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::{Value, json};

use super::*;
use crate::checkpoint::Checkpoint;
use crate::config::{
    Activation,
    record::names_read,
    tests::{fields, with},
};

/// The table of the documentation has a line for every architecture.
#[test]
fn the_documentation_lists_every_architecture() {
    let page = include_str!("../../../docs/models.md");
    for Architecture { name, family, examples, .. } in architectures() {
        let examples: Vec<String> = examples.iter().map(|example| format!("`{example}`")).collect();
        let line = format!("| {family} | `{name}` | {} |\n", examples.join(", "));
        assert!(page.contains(&line), "docs/models.md lacks the line\n{line}");
    }
}

/// Names of one use that all architectures share, and those that this one has beside them.
fn listed(architecture: &str, wanted: KeyUse) -> BTreeSet<&'static str> {
    let keys = config_keys(architecture).unwrap();
    keys.into_iter().filter(|(_, key_use)| *key_use == wanted).map(|(name, _)| name).collect()
}

/// A configuration of an architecture with some fields replaced.
fn config(architecture: &Architecture, changes: Value) -> Value {
    let mut json = with(changes);
    json["architectures"] = json!([architecture.name]);
    json["model_type"] = json!(architecture.model_type);
    json
}

/// What a family reads is what it lists, so that the lists can be trusted.
#[test]
fn what_is_read_is_what_is_listed() {
    // Read by the checkpoint, the loader and the tokenizer.
    let elsewhere = ["architectures", "dtype", "eos_token_id", "model_type", "torch_dtype"];
    let factors = vec![1.0; 8];
    let longrope = json!({"type": "longrope", "short_factor": factors, "long_factor": factors});
    let changes = [
        json!({"head_dim": 16, "use_sliding_window": true, "sliding_window_pattern": 2}),
        json!({"head_dim": 16, "rope_scaling": longrope, "num_key_value_heads": 2}),
    ];
    for architecture in architectures() {
        let name = architecture.name;
        let [used, refused, harmless] =
            [KeyUse::Used, KeyUse::Refused, KeyUse::Harmless].map(|wanted| listed(name, wanted));
        let total = used.len() + refused.len() + harmless.len();
        let known: BTreeSet<_> = used.iter().chain(&refused).chain(&harmless).collect();
        assert_eq!(known.len(), total, "{name}: a field is listed twice");
        let read = names_read(|| {
            for changes in &changes {
                let json = config(architecture, changes.clone());
                architecture.config(&fields(&json)).map(drop).unwrap_or_default();
            }
        });
        for field in &read {
            // Looked at to refuse it where the rotary embedding is scaled.
            let is_part = field == "partial_rotary_factor" && harmless.contains(field.as_str());
            let is_listed = used.contains(field.as_str()) || refused.contains(field.as_str());
            assert!(is_listed || is_part, "{name}: `{field}` is read and not listed as used");
        }
        for field in used {
            let is_read = read.contains(field) || elsewhere.contains(&field);
            assert!(is_read, "{name}: `{field}` is listed as used and is not read");
        }
    }
}

#[test]
fn fields_that_are_not_built_are_refused_by_name() {
    let refused = |name: &str, changes: Value| {
        let architecture = architectures().iter().find(|known| known.name == name).unwrap();
        architecture.config(&fields(&config(architecture, changes))).err().map(|error| error.to_string())
    };
    for architecture in architectures() {
        for (changes, field) in [
            (json!({"is_causal": false}), "is_causal"),
            // transformers takes it for no.
            (json!({"is_causal": null}), "is_causal"),
            (json!({"is_encoder_decoder": true}), "is_encoder_decoder"),
            (json!({"per_layer_config": {"0": {"rms_norm_eps": 0.5}}}), "per_layer_config"),
            (json!({"kv_sharing_modes": ["reuse", "reuse", "reuse"]}), "kv_sharing_modes"),
        ] {
            let message = refused(architecture.name, changes).unwrap();
            assert!(message.starts_with(&format!("`m/config.json`: field `{field}`: ")), "{message}");
            assert!(message.contains("is not supported: "), "{message}");
        }
        let neutral = json!({
            "is_causal": true, "is_encoder_decoder": false, "per_layer_config": {}, "kv_sharing_modes": null,
            "unheard_of": [1], "use_cache": false, "attention_dropout": "x"
        });
        assert_eq!(refused(architecture.name, neutral), None, "{}", architecture.name);
    }
    for name in ["LlamaForCausalLM", "GemmaForCausalLM", "GPTNeoXForCausalLM"] {
        for changes in [
            json!({"sliding_window": 8}),
            json!({"attention_chunk_size": 8}),
            json!({"layer_types": ["sliding_attention", "full_attention", "full_attention"]}),
        ] {
            assert!(refused(name, changes.clone()).is_some(), "{name} {changes}");
        }
        let neutral = json!({"sliding_window": 512, "attention_chunk_size": null,
            "layer_types": ["full_attention", "full_attention", "full_attention"]});
        assert_eq!(refused(name, neutral), None);
    }
    for name in ["GemmaForCausalLM", "Gemma2ForCausalLM", "Gemma3ForCausalLM"] {
        let message = refused(name, json!({"use_bidirectional_attention": true})).unwrap();
        assert!(message.contains("use_bidirectional_attention"), "{message}");
        assert_eq!(refused(name, json!({"use_bidirectional_attention": false})), None);
    }
}

#[test]
fn the_architecture_is_the_first_that_is_listed_or_that_of_the_model_type() {
    let name = |changes: Value| {
        let json = with(changes);
        architecture_name(&fields(&json)).map(str::to_owned).map_err(|error| error.to_string())
    };
    assert_eq!(name(json!({})).unwrap(), "LlamaForCausalLM");
    assert_eq!(name(json!({"architectures": ["A", "B"]})).unwrap(), "A");
    for absent in [json!(null), json!([])] {
        let json = json!({"architectures": absent, "model_type": "gemma3_text"});
        assert_eq!(name(json).unwrap(), "Gemma3ForCausalLM");
    }
    assert_eq!(name(json!({"architectures": null, "model_type": "gpt2"})).unwrap(), "gpt2");
    let neither = name(json!({"architectures": null, "model_type": null})).unwrap_err();
    assert!(neither.contains("field `architectures` is missing"), "{neither}");
    for (wrong, found) in
        [(json!("LlamaForCausalLM"), "\"Ll"), (json!([3]), "found 3"), (json!({}), "an object")]
    {
        let message = name(json!({"architectures": wrong})).unwrap_err();
        assert!(message.contains("field `architectures`: expected") && message.contains(found), "{message}");
    }
}

#[test]
fn what_names_no_architecture_or_two_is_refused() {
    let message = |changes: Value| Architecture::of(&fields(&with(changes))).unwrap_err().to_string();
    let unknown = message(json!({"architectures": ["NovelForCausalLM"]}));
    assert!(unknown.starts_with("`m/config.json`: architecture `NovelForCausalLM` is not"), "{unknown}");
    let unknown = message(json!({"architectures": null, "model_type": "gpt2"}));
    assert!(
        unknown.contains("field `architectures` is missing, and model_type = \"gpt2\" is none of"),
        "{unknown}"
    );
    let two = message(json!({"model_type": "gemma3_text"}));
    assert!(two.contains("model_type = \"gemma3_text\" is not that of architectures"), "{two}");
    let other = message(json!({"architectures": ["GPTNeoXForCausalLM"]}));
    assert!(other.contains("which is \"gpt_neox\": one of the two is wrong"), "{other}");
    let of = |json: &Value| Architecture::of(&fields(json)).unwrap().name;
    assert_eq!(of(&with(json!({"model_type": null}))), "LlamaForCausalLM");
    assert_eq!(of(&with(json!({"architectures": null}))), "LlamaForCausalLM");
    let json = json!({});
    let empty = ConfigFields::new(Path::new("config.json"), &json).unwrap();
    assert!(Architecture::of(&empty).unwrap_err().to_string().contains("field `architectures` is missing"));
}

/// Frequencies, tables, masks and scales that conversions of all times stored beside the weights.
#[test]
fn buffers_of_old_files_stop_no_family() {
    let families = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sparq-backend-tests/fixtures/families");
    let mut tried = BTreeSet::new();
    for folder in fs::read_dir(families).unwrap().map(|entry| entry.unwrap().path()) {
        let Ok(bytes) = fs::read(folder.join("model.safetensors")) else { continue };
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let layer = file.names().into_iter().find_map(|name| Some(name.split_once(".layers.0.")?.0)).unwrap();
        let names = ["rotary_emb.inv_freq", "rotary_emb.cos_cached", "rotary_emb.sin_cached", "masked_bias"];
        let mut added: Vec<_> = names.map(|name| format!("{layer}.layers.0.self_attn.{name}")).to_vec();
        added.extend([format!("{layer}.embed_tokens.embed_scale"), format!("{layer}.normalizer")]);
        added.push(format!("{layer}.layers.0.attention.bias"));
        let view = TensorView::new(Dtype::F32, vec![1], &[0; 4]).unwrap();
        let mut views: Vec<_> = file.tensors();
        added.retain(|name| views.iter().all(|(known, _)| known != name));
        views.extend(added.into_iter().map(|name| (name, view.clone())));
        let copy = tempfile::tempdir().unwrap();
        fs::write(copy.path().join("model.safetensors"), safetensors::serialize(views, None).unwrap())
            .unwrap();
        fs::copy(folder.join("config.json"), copy.path().join("config.json")).unwrap();
        let checkpoint = Checkpoint::open(copy.path()).unwrap();
        let device = Device::flex();
        crate::text_model::load_model(&checkpoint, &device, DType::F32, &mut |_, _| ()).unwrap();
        tried.insert(checkpoint.architecture().unwrap().to_owned());
    }
    assert_eq!(tried.into_iter().collect::<Vec<_>>(), supported());
}

/// What transformers 5.24 takes for fields that are absent: key-value heads, components of a head, longest
/// context, epsilon, whether embeddings are tied, window, base.
#[test]
fn absent_fields_take_the_defaults_of_transformers() {
    let silu = Activation::Silu;
    let gelu = Activation::GeluTanh;
    for (model_type, heads, dim, longest, epsilon, activation, tied, window, theta) in [
        ("llama", 32, 128, 2048, 1e-6, silu, false, None, 1e4),
        ("mistral", 8, 128, 131_072, 1e-6, silu, false, Some(4096), 1e4),
        ("qwen2", 32, 128, 32_768, 1e-6, silu, false, None, 1e4),
        ("qwen3", 32, 128, 32_768, 1e-6, silu, false, None, 1e4),
        ("phi3", 32, 128, 4096, 1e-5, silu, false, None, 1e4),
        ("gemma", 16, 256, 8192, 1e-6, gelu, true, None, 1e4),
        ("gemma2", 4, 256, 8192, 1e-6, gelu, true, Some(4096), 1e4),
        ("gemma3_text", 4, 256, 131_072, 1e-6, gelu, true, Some(4096), 1e6),
        ("gpt_neox", 32, 128, 2048, 1e-5, Activation::Gelu, false, None, 1e4),
    ] {
        let json = json!({
            "model_type": model_type, "vocab_size": 64, "hidden_size": 4096, "intermediate_size": 64,
            "num_hidden_layers": 6, "num_attention_heads": 32
        });
        let read = |json: &Value| Architecture::of(&fields(json)).unwrap().config(&fields(json));
        let config = read(&json).unwrap();
        let (_, rope) = config.ropes.iter().next().unwrap();
        assert_eq!((config.num_key_value_heads, config.head_dim), (heads, dim), "{model_type}");
        assert_eq!((config.max_position_embeddings, config.norm_epsilon), (longest, epsilon), "{model_type}");
        assert_eq!((config.activation, config.tied), (activation, tied), "{model_type}");
        assert_eq!((config.windows.tokens(), rope.theta), (window, theta), "{model_type}");
        let mut null = json.clone();
        null["num_key_value_heads"] = Value::Null;
        null["num_attention_heads"] = json!(16);
        assert_eq!(read(&null).unwrap().num_key_value_heads, 16, "{model_type}");
        if ["llama", "phi3", "gpt_neox"].contains(&model_type) {
            continue;
        }
        let mut few = json;
        few["num_attention_heads"] = json!(2);
        let message = read(&few).unwrap_err().to_string();
        let expected = format!("num_key_value_heads = {heads}, the default of this architecture");
        assert!(message.ends_with(&expected), "{model_type}: {message}");
    }
}

#[test]
fn norms_may_add_nothing_and_full_attention_has_two_names() {
    let config = |model_type: &str, change: Value| {
        let mut json = with(change);
        json["model_type"] = json!(model_type);
        json.as_object_mut().unwrap().remove("architectures");
        Architecture::of(&fields(&json)).unwrap().config(&fields(&json))
    };
    for (model_type, name) in
        [("llama", "rms_norm_eps"), ("gpt_neox", "layer_norm_eps"), ("gemma2", "rms_norm_eps")]
    {
        assert_eq!(config(model_type, json!({name: 0})).unwrap().norm_epsilon, 0.0);
        let message = config(model_type, json!({name: -1e-5})).unwrap_err().to_string();
        assert!(message.contains("must be 0 or more"), "{message}");
    }
    let types = |name: &str| json!({"layer_types": ["full_attention", name, "attention"]});
    for model_type in ["llama", "phi3", "gemma"] {
        assert!(config(model_type, types("attention")).is_ok(), "{model_type}");
        assert!(config(model_type, types("sliding_attention")).is_err(), "{model_type}");
    }
}
