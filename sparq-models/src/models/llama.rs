//! Llama 2, 3, 3.1 and 3.2, and models of the same layout.
//!
//! Papers: arXiv 2302.13971, 2307.09288, 2407.21783. Reference:
//! `transformers/models/llama/modeling_llama.py`.

use burn::tensor::{Device, Tensor};
use sparq_core::AttentionShape;

use super::CausalModel;
use crate::{
    checkpoint::{Checkpoint, Loader},
    config::ModelConfig,
    error::Result,
    layers::{
        Attention, AttentionConfig, Embedding, GatedMlp, GatedMlpConfig, Linear, RmsNorm, Rope, Rotation,
        Step,
    },
    state::ModelState,
};

/// One decoder layer.
#[derive(Debug)]
struct Block {
    input_layernorm: RmsNorm,
    self_attn: Attention,
    post_attention_layernorm: RmsNorm,
    mlp: GatedMlp,
}

impl Block {
    fn load(loader: &mut Loader<'_>, name: &str, config: &ModelConfig) -> Self {
        let hidden = config.hidden_size;
        let attention = AttentionConfig {
            hidden,
            shape: config.attention_shape(),
            qkv_bias: config.attention_bias,
            out_bias: config.attention_bias,
        };
        let mlp = GatedMlpConfig { hidden, intermediate: config.intermediate_size, bias: config.mlp_bias };
        let mut norm = |part| RmsNorm::load(loader, &format!("{name}.{part}"), hidden, config.rms_norm_eps);
        Self {
            input_layernorm: norm("input_layernorm"),
            post_attention_layernorm: norm("post_attention_layernorm"),
            self_attn: Attention::load(loader, &format!("{name}.self_attn"), &attention),
            mlp: GatedMlp::load(loader, &format!("{name}.mlp"), &mlp),
        }
    }
}

/// A Llama model.
#[derive(Debug)]
pub struct Llama {
    config: ModelConfig,
    device: Device,
    rope: Rope,
    embed_tokens: Embedding,
    layers: Vec<Block>,
    norm: RmsNorm,
    lm_head: Linear,
}

/// Loads the checkpoint's weights.
pub(super) fn load(checkpoint: &Checkpoint, loader: &mut Loader<'_>) -> Result<Box<dyn CausalModel>> {
    let config = ModelConfig::from_fields(&checkpoint.config_fields()?)?;
    let table = [config.vocab_size, config.hidden_size];
    let embed_tokens = Embedding::load(loader, "model.embed_tokens", table);
    let layers = (0..config.num_hidden_layers)
        .map(|i| Block::load(loader, &format!("model.layers.{i}"), &config))
        .collect();
    // Old conversions carry the rotary frequencies, which follow from the configuration.
    loader.ignore(|name| name.ends_with("rotary_emb.inv_freq"));
    let lm_head = match config.tie_word_embeddings {
        true => {
            loader.ignore(|name| name == "lm_head.weight");
            embed_tokens.tied_head()
        }
        false => Linear::load(loader, "lm_head", table, false),
    };
    Ok(Box::new(Llama {
        device: loader.device().clone(),
        rope: Rope::new(config.head_dim, config.rope_theta, &config.rope_scaling),
        norm: RmsNorm::load(loader, "model.norm", config.hidden_size, config.rms_norm_eps),
        embed_tokens,
        layers,
        lm_head,
        config,
    }))
}

impl CausalModel for Llama {
    fn attention_shapes(&self) -> Vec<AttentionShape> {
        vec![self.config.attention_shape(); self.layers.len()]
    }

    fn vocab_size(&self) -> usize {
        self.config.vocab_size
    }

    fn max_position_embeddings(&self) -> usize {
        self.config.max_position_embeddings
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn rotation(&self, positions: &[usize], batch: usize) -> Rotation {
        self.rope.at(positions, batch, &self.device)
    }

    fn hidden(&self, ids: &[u32], state: &mut ModelState, step: &Step) -> Result<Tensor<2>> {
        let mut x = self.embed_tokens.forward(ids, &self.device);
        for (block, state) in self.layers.iter().zip(state.layers_mut()) {
            let y = block.self_attn.forward(block.input_layernorm.forward(x.clone()), state, step)?;
            x = x + y;
            let y = block.mlp.forward(block.post_attention_layernorm.forward(x.clone()));
            x = x + y;
        }
        Ok(self.norm.forward(x))
    }

    fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        self.lm_head.forward(hidden)
    }
}
