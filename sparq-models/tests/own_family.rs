//! A model that this crate does not know, from its weights to text.
#![allow(clippy::unwrap_used)] // In tests, helpers included.

use std::ops::ControlFlow;

use burn::tensor::{DType, Device, Distribution, Int, Tensor, TensorData};
use sparq_models::{
    Result, TextModel,
    attention::AttentionPlan,
    core::{AttentionLayer, AttentionShape, MethodKind, device},
    generate::{Finish, GenerateOptions, Generation},
    layers::Step,
    models::CausalModel,
    state::ModelState,
    tokenizer::Tokenizer,
};

const SHAPE: AttentionShape = AttentionShape { heads: 2, kv_heads: 1, head_dim: 16 };
const HIDDEN: usize = 32;

/// Embeddings, one layer of attention without projections and positions, and the embeddings again as output layer.
#[derive(Debug, Clone)]
struct Toy {
    /// `[vocab, HIDDEN]`.
    table: Tensor<2>,
    device: Device,
}

impl CausalModel for Toy {
    fn attention_layers(&self) -> Vec<AttentionLayer> {
        vec![SHAPE.into()]
    }

    fn vocab_size(&self) -> usize {
        self.table.dims()[0]
    }

    fn max_position_embeddings(&self) -> usize {
        256
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn hidden(&self, ids: &[u32], state: &mut ModelState, step: &Step) -> Result<Tensor<2>> {
        let ids: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
        let ids = Tensor::<1, Int>::from_data(TensorData::from(&ids[..]), &self.device);
        let x = self.table.clone().select(0, ids);
        let part = |heads| {
            let columns = x.clone().narrow(1, 0, heads * SHAPE.head_dim);
            columns.reshape([-1, heads as i32, SHAPE.head_dim as i32])
        };
        let qkv = [SHAPE.heads, SHAPE.kv_heads, SHAPE.kv_heads].map(part);
        Ok(x.clone() + step.attend(qkv, &mut state.layers_mut()[0])?)
    }

    fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        hidden.matmul(self.table.clone().transpose())
    }
}

/// The tokenizer of the small model, and a toy over its vocabulary.
fn parts() -> (Toy, Tokenizer) {
    let device = device::parse("cpu").unwrap();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../sparq-cli/demo/tokenizer.json");
    let tokenizer = Tokenizer::from_file(file).unwrap();
    let dims = [tokenizer.vocab_size(), HIDDEN];
    let table = Tensor::random(dims, Distribution::Normal(0.0, 1.0), (&device, DType::F32));
    (Toy { table, device }, tokenizer)
}

fn generate(model: &TextModel, attention: AttentionPlan) -> Generation {
    let options = GenerateOptions { max_new_tokens: 12, attention, ..GenerateOptions::default() };
    model.generate("Once upon a time", &options, &mut |_| ControlFlow::Continue(())).unwrap()
}

#[test]
fn a_model_of_another_crate_writes() {
    let (toy, tokenizer) = parts();
    let model = TextModel::new(Box::new(toy.clone()), tokenizer, vec![], DType::F32);
    let dense = generate(&model, MethodKind::Dense.into());
    assert_eq!((dense.tokens.len(), &dense.stats.finish), (12, &Finish::MaxNewTokens));
    // SparQ reads everything where k covers the context.
    assert_eq!(generate(&model, GenerateOptions::default().attention).tokens, dense.tokens);
    assert_eq!(model.complete("Once upon a time").unwrap().tokens[..12], dense.tokens[..]);

    let first = dense.tokens[0];
    let model = TextModel::new(Box::new(toy), parts().1, vec![first], DType::F32);
    assert_eq!(generate(&model, MethodKind::Dense.into()).stats.finish, Finish::Eos(first));
}
