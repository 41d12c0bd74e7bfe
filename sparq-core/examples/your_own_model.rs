//! SparQ attention inside a Burn module of your own: `cargo run --release -p sparq-core --example your_own_model`.
//!
//! The module holds the weights. A `LayerState` beside it, one for each layer and run, holds the cache and the decode
//! method.

use burn::{
    module::Module,
    nn::{Linear, LinearConfig, RotaryEncoding, RotaryEncodingConfig},
    tensor::{DType, Device, Distribution, Tensor},
};
use sparq_core::{AttentionShape, CacheConfig, LayerState, Method, NewTokens, Result, SparqConfig};

const SHAPE: AttentionShape = AttentionShape { heads: 8, kv_heads: 2, head_dim: 32 };
const HIDDEN: usize = 256;
const MAX_LEN: usize = 1024;

/// Self-attention with grouped queries and rotary embeddings.
#[derive(Module, Debug)]
struct SparqAttention {
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    rope: RotaryEncoding,
}

impl SparqAttention {
    /// `x: [batch, width, HIDDEN]`, of sequences of one length, to the same shape. Several tokens are a prompt, one token is a decode step.
    fn forward(&self, x: Tensor<3>, state: &mut LayerState) -> Result<Tensor<3>> {
        let [batch, width, _] = x.dims();
        let AttentionShape { heads, kv_heads, head_dim } = SHAPE;
        let start = state.cache().lens()[0];
        let split = |y: Tensor<3>, heads| y.reshape([batch, width, heads, head_dim]).swap_dims(1, 2);
        let q = self.rope.apply(split(self.q.forward(x.clone()), heads), start);
        let k = self.rope.apply(split(self.k.forward(x.clone()), kv_heads), start);
        let v = split(self.v.forward(x), kv_heads);
        let y = match width {
            1 => state.decode(q, k, v)?,
            _ => state.prefill(q, k, v, &NewTokens::all(batch, width))?,
        };
        Ok(self.o.forward(y.swap_dims(1, 2).reshape([batch, width, heads * head_dim])))
    }

    fn new(device: &Device) -> Self {
        let AttentionShape { heads, kv_heads, head_dim } = SHAPE;
        let linear = |inputs, outputs| LinearConfig::new(inputs, outputs).with_bias(false).init(device);
        Self {
            q: linear(HIDDEN, heads * head_dim),
            k: linear(HIDDEN, kv_heads * head_dim),
            v: linear(HIDDEN, kv_heads * head_dim),
            o: linear(heads * head_dim, HIDDEN),
            rope: RotaryEncodingConfig::new(MAX_LEN, head_dim).init(device),
        }
    }
}

/// Runs a prompt and some single tokens; returns the last output and the bytes moved, as a part of what dense
/// attention moves.
fn run(layer: &SparqAttention, x: &Tensor<3>, prompt: usize, method: &Method) -> Result<(Tensor<3>, f64)> {
    let cache = CacheConfig { layer: SHAPE.into(), batch: 1, max_len: MAX_LEN, dtype: DType::F32 };
    let mut state = LayerState::new(&cache, method, &x.device())?;
    let mut y = layer.forward(x.clone().narrow(1, 0, prompt), &mut state)?;
    for token in prompt..x.dims()[1] {
        y = layer.forward(x.clone().narrow(1, token, 1), &mut state)?;
    }
    Ok((y, state.traffic().ratio()))
}

/// The largest difference of two outputs.
fn difference(a: Tensor<3>, b: Tensor<3>) -> f32 {
    (a - b).abs().max().into_scalar::<f32>()
}

fn main() -> Result<()> {
    let device = sparq_core::device::parse("cpu")?;
    let layer = SparqAttention::new(&device);
    let x = Tensor::random([1, 640, HIDDEN], Distribution::Default, &device);
    let (dense, _) = run(&layer, &x, 600, &Method::Dense)?;
    let (sparse, part) = run(&layer, &x, 600, &Method::Sparq(SparqConfig::new(&SHAPE, 8, 128)))?;
    println!("SparQ moved {:.0} % of the bytes", 100.0 * part);
    println!("largest difference from dense attention: {:.5}", difference(dense, sparse));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_components_and_positions_are_dense_attention() {
        let device = sparq_core::device::parse("cpu").unwrap();
        let layer = SparqAttention::new(&device);
        let x = Tensor::random([1, 40, HIDDEN], Distribution::Default, &device);
        let (dense, _) = run(&layer, &x, 32, &Method::Dense).unwrap();
        let everything = Method::Sparq(SparqConfig::new(&SHAPE, SHAPE.head_dim, MAX_LEN));
        let (sparse, _) = run(&layer, &x, 32, &everything).unwrap();
        assert!(difference(dense.clone(), sparse) < 1e-5);
        let little = Method::Sparq(SparqConfig::new(&SHAPE, 4, 8));
        let (sparse, part) = run(&layer, &x, 32, &little).unwrap();
        assert!(part < 0.5 && difference(dense, sparse) > 0.0, "{part}");
    }

    #[test]
    fn the_example_runs() {
        main().unwrap();
    }
}
