//! Tensors of old files that follow from the configuration.

/// Names of buffers that models of some time stored beside their weights: rotary frequencies and tables,
/// causal masks, scales. transformers ignores them in every family.
const BUFFERS: &[&str] = &[
    "causal_mask",
    "cos_cached",
    "embed_scale",
    "inv_freq",
    "masked_bias",
    "normalizer",
    "position_ids",
    "sin_cached",
];

/// Whether no number of the tensor `name` was trained.
pub(crate) fn is_constant(name: &str) -> bool {
    let mut parts = name.rsplit('.');
    let (last, owner) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    // The mask of an attention block lies where a bias would be, if a block had one as a whole.
    let is_mask = last == "bias" && ["attention", "attn", "self_attn"].contains(&owner);
    is_mask
        || BUFFERS.contains(&last)
        || last.ends_with("_inv_freq")
        || name.split('.').any(|part| part == "rotary_emb")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_told_from_weights() {
        for name in [
            "model.layers.0.self_attn.rotary_emb.inv_freq",
            "model.rotary_emb.cos_cached",
            "model.rotary_emb.sliding_attention_inv_freq",
            "model.layers.3.self_attn.sin_cached",
            "gpt_neox.layers.1.attention.bias",
            "gpt_neox.layers.1.attention.masked_bias",
            "model.embed_tokens.embed_scale",
            "model.normalizer",
        ] {
            assert!(is_constant(name), "{name}");
        }
        for name in [
            "model.layers.0.self_attn.q_proj.bias",
            "gpt_neox.layers.1.attention.dense.bias",
            "gpt_neox.layers.1.attention.query_key_value.bias",
            "model.layers.0.self_attn.q_norm.weight",
            "lm_head.weight",
        ] {
            assert!(!is_constant(name), "{name}");
        }
    }
}
