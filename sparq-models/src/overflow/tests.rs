use std::path::Path;

use burn::tensor::{DType, Device, Tensor};
use sparq_core::{AttentionShape, Method, NewTokens};

use super::*;
use crate::{
    attention::{AttentionPlan, MethodSpec},
    checkpoint::Checkpoint,
    forward::{self, Row, Want},
    state::StateConfig,
    text_model::TextModel,
};

fn model() -> TextModel {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sparq-cli/demo");
    let checkpoint = Checkpoint::open(folder).unwrap();
    TextModel::load(&checkpoint, &Device::flex(), DType::F32, &mut |_, _| ()).unwrap()
}

/// What is found where the layers before `layer` hold ones, and this one's keys and values are as
/// `change` makes them, `[kv_heads, 6, head_dim]` each; the layers behind hold NaN, as they would.
fn found(dtype: DType, layer: usize, change: impl Fn(usize, &mut [f32], &mut [f32])) -> Overflow {
    let model = model();
    let config = StateConfig { batch: 1, max_len: 16, dtype };
    let mut state = ModelState::uniform(model.model(), &config, &Method::Dense).unwrap();
    let tokens = 6;
    for (i, own) in state.layers_mut().iter_mut().enumerate() {
        let AttentionShape { heads, kv_heads, head_dim } = own.cache().config().layer.shape;
        let value = if i > layer { f32::NAN } else { 1.0 };
        let (mut k, mut v) =
            (vec![value; kv_heads * tokens * head_dim], vec![value; kv_heads * tokens * head_dim]);
        if i == layer {
            change(head_dim, &mut k, &mut v);
        }
        let device = Device::flex();
        let rows = |x: Vec<f32>| {
            Tensor::<1>::from_floats(x.as_slice(), &device).reshape([1, kv_heads, tokens, head_dim])
        };
        let q = Tensor::zeros([1, heads, tokens, head_dim], &device);
        own.prefill(q, rows(k), rows(v), &NewTokens::all(1, tokens)).unwrap();
    }
    locate(&state).unwrap()
}

#[test]
fn the_first_layer_and_token_are_named() {
    let keys = found(DType::F16, 2, |d, k, _| (k[4 * d + 1], k[5 * d]) = (70_000.0, -1e9));
    assert_eq!(keys.part, OverflowPart::Keys { layer: 2, token: 4 });
    assert_eq!(keys.to_string(), "the keys of layer 2 do not fit into f16 at token 4");
    assert!(keys.hint().contains("bf16"), "{}", keys.hint());
    let values = found(DType::F16, 0, |d, _, v| v[3 * d] = -66_000.0);
    assert_eq!(values.part, OverflowPart::Values { layer: 0, token: 3 });
    let whole = |d: usize, k: &mut [f32], v: &mut [f32]| {
        for x in [k, v] {
            x.chunks_exact_mut(d).skip(2).step_by(6).for_each(|row| row.fill(f32::NAN));
        }
    };
    let scores = found(DType::F32, 3, whole);
    assert_eq!(scores.part, OverflowPart::Layer { layer: 2, token: 2 });
    assert!(scores.to_string().contains("layer 2 gives numbers that are not finite at token 2"));
    assert!(scores.hint().starts_with("f32 has overflowed"), "{}", scores.hint());
    assert!(found(DType::F16, 3, whole).hint().starts_with("try f32"));
    assert_eq!(found(DType::F32, 0, whole).part, OverflowPart::Embedding { token: 2 });
    assert_eq!(found(DType::F32, usize::MAX, |_, _, _| ()).part, OverflowPart::Logits);
}

#[test]
fn the_hint_names_the_dtype_of_the_caches() {
    let keys = OverflowPart::Keys { layer: 0, token: 0 };
    let hint = |dtype, part| Overflow { part, dtype }.hint();
    assert!(hint(DType::BF16, keys).starts_with("bf16 has overflowed"));
    assert!(hint(DType::F32, keys).starts_with("f32 has overflowed"));
    assert!(hint(DType::BF16, OverflowPart::Logits).starts_with("f32 has overflowed"));
}

#[test]
fn a_step_behind_a_key_that_overflows_ends_the_run_whatever_the_method() {
    let model = model();
    let config = StateConfig { batch: 1, max_len: 64, dtype: DType::F16 };
    let ids = model.tokenizer().encode("It was a dark night, and the old house", true).unwrap();
    let layers = model.model().attention_layers();
    let shape = layers[0].shape;
    for spec in
        ["dense", "sparq:r=8:k=64:l=8", "local:k=64", "h2o:k=64", "quest:k=64", "double-sparsity:k=64"]
    {
        let spec: MethodSpec = spec.parse().unwrap();
        let methods = AttentionPlan::from(spec).methods(&layers, 64).unwrap();
        let mut state = ModelState::new(model.model(), &config, &methods).unwrap();
        let logits = forward::step(model.model(), &[Row::prompt(&ids)], &mut state, Want::Last).unwrap();
        forward::read_finite(logits, &state).unwrap();
        // One more token whose key is beyond f16 in the second layer, as a step would append it.
        for (layer, own) in state.layers_mut().iter_mut().enumerate() {
            let key = if layer == 1 { 1e5 } else { 0.1 };
            let rows = |x: f32, heads: usize| Tensor::full([1, heads, 1, shape.head_dim], x, &Device::flex());
            own.decode(rows(0.1, shape.heads), rows(key, shape.kv_heads), rows(1.0, shape.kv_heads)).unwrap();
        }
        let logits = forward::step(model.model(), &[Row::decode(&[ids[0]])], &mut state, Want::Last).unwrap();
        let error = forward::read_finite(logits, &state).unwrap_err();
        let message = format!(
            "the model's numbers overflowed: the keys of layer 1 do not fit into f16 at token {}",
            ids.len()
        );
        assert_eq!(error.to_string(), message, "{spec:?}");
    }
}
