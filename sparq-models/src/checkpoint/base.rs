//! Names of tensors in checkpoints of the base model.
//!
//! A model with an output layer holds the base model as one of its parts, and `save_pretrained` of the base
//! model alone writes the tensors without the name of that part. transformers puts it before such names, and
//! takes it away where it stands before a name that does not have it.

/// The part of a model that is the base model.
#[derive(Debug)]
pub(crate) struct Base {
    /// What the names of its tensors begin with.
    prefix: &'static str,
    /// What it consists of.
    parts: [&'static str; 3],
}

/// Llama's, and those of most families since.
const LLAMA: Base = Base { prefix: "model", parts: ["embed_tokens", "layers", "norm"] };
const GPT_NEOX: Base = Base { prefix: "gpt_neox", parts: ["embed_in", "layers", "final_layer_norm"] };

/// Names of output layers.
const HEADS: [&str; 2] = ["lm_head.weight", "embed_out.weight"];

impl Base {
    /// That of the models whose `model_type` is this.
    pub(super) fn of(model_type: &str) -> &'static Self {
        match model_type {
            "gpt_neox" => &GPT_NEOX,
            _ => &LLAMA,
        }
    }

    /// The name that a model knows the tensor `name` by, where that is another one.
    pub(super) fn renamed(&self, name: &str) -> Option<String> {
        let is_inside = |name: &str| name.split_once('.').is_some_and(|(part, _)| self.parts.contains(&part));
        match name.strip_prefix(self.prefix).and_then(|rest| rest.strip_prefix('.')) {
            None => is_inside(name).then(|| format!("{}.{name}", self.prefix)),
            Some(rest) => {
                let inner = rest.strip_prefix(self.prefix).and_then(|rest| rest.strip_prefix('.'));
                (HEADS.contains(&rest) || inner.is_some_and(is_inside)).then(|| rest.to_owned())
            }
        }
    }
}

/// Whether the tensor `name` is the output layer.
pub(super) fn is_head(name: &str) -> bool {
    HEADS.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_the_base_model_is_added_and_taken_away_as_in_transformers() {
        let llama = |name| Base::of("llama").renamed(name);
        for (stored, known) in [
            ("embed_tokens.weight", "model.embed_tokens.weight"),
            ("layers.0.self_attn.q_proj.bias", "model.layers.0.self_attn.q_proj.bias"),
            ("norm.weight", "model.norm.weight"),
            ("model.model.norm.weight", "model.norm.weight"),
            ("model.lm_head.weight", "lm_head.weight"),
        ] {
            assert_eq!(llama(stored).as_deref(), Some(known));
        }
        let neox = |name| Base::of("gpt_neox").renamed(name);
        assert_eq!(neox("layers.1.mlp.x").as_deref(), Some("gpt_neox.layers.1.mlp.x"));
        assert_eq!(neox("final_layer_norm.bias").as_deref(), Some("gpt_neox.final_layer_norm.bias"));
        assert_eq!(neox("gpt_neox.embed_out.weight").as_deref(), Some("embed_out.weight"));
        for other in
            ["model.norm.weight", "lm_head.weight", "module.model.norm.weight", "norm", "norms.x", "v_head.x"]
        {
            assert_eq!(llama(other), None, "{other}");
        }
        assert_eq!(neox("model.gpt_neox.embed_in.weight"), None);
    }
}
