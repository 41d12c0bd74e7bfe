//! Several sequences in one layer: `cargo run --release -p sparq-core --example sequences`.
//!
//! Each has a slot with a length and a decode method of its own. Here one is finished and leaves, and another begins
//! with a part of the first one's text, under a method that this file defines.

use burn::tensor::{DType, Device, Distribution, Int, Tensor, TensorData, activation::softmax};
use sparq_core::{
    AttentionShape, CacheConfig, CachedSequence, DecodeMethod, Decoded, LayerState, Method, NewTokens,
    Result, SparqConfig, Transfer,
};

const SHAPE: AttentionShape = AttentionShape { heads: 4, kv_heads: 2, head_dim: 32 };

/// Attends to the first positions and to the last ones.
#[derive(Debug, Clone, Copy)]
struct Ends {
    first: usize,
    last: usize,
}

impl DecodeMethod for Ends {
    fn name(&self) -> &'static str {
        "ends"
    }

    fn truncate(&mut self, _sequence: &CachedSequence<'_>) -> Result<()> {
        Ok(()) // it remembers nothing
    }

    fn fork(&self) -> Option<Box<dyn DecodeMethod>> {
        Some(Box::new(*self))
    }

    fn decode(&mut self, q: Tensor<4>, sequence: &CachedSequence<'_>) -> Result<Decoded> {
        let AttentionShape { heads, kv_heads, head_dim } = sequence.layer().shape;
        let len = sequence.len();
        let tail = len.saturating_sub(self.last);
        let positions: Vec<i32> = (0..self.first.min(tail)).chain(tail..len).map(|p| p as i32).collect();
        let count = positions.len();
        let k_t = Tensor::<1, Int>::from_data(TensorData::new(positions, [count]), &q.device());
        let rows = |x: Tensor<4>| x.select(2, k_t.clone()).cast(DType::F32);
        // The queries of a group share a KV head.
        let q = q.reshape([1, kv_heads, heads / kv_heads, head_dim]) * sequence.layer().scale();
        let weights = softmax(q.matmul(rows(sequence.k()?).swap_dims(2, 3)), 3);
        let output = weights.matmul(rows(sequence.v()?)).reshape([1, heads, 1, head_dim]);
        let transfer = Transfer {
            k: sequence.key_rows(count),
            v: sequence.value_rows(count),
            append: sequence.append_part(),
            mean_value: sequence.mean_value_part(),
            ..Transfer::default()
        };
        Ok(Decoded { output, selection: None, transfer })
    }
}

/// Random queries, keys and values of `rows` sequences.
fn random(rows: usize, width: usize, device: &Device) -> [Tensor<4>; 3] {
    let part = |heads| {
        let shape = [rows, heads, width, SHAPE.head_dim];
        Tensor::random(shape, Distribution::Normal(0.0, 1.0), (device, DType::F32))
    };
    [part(SHAPE.heads), part(SHAPE.kv_heads), part(SHAPE.kv_heads)]
}

/// One token for each of these slots; the others rest.
fn step(state: &mut LayerState, slots: &[usize], device: &Device) -> Result<Tensor<4>> {
    let [q, k, v] = random(slots.len(), 1, device);
    let plan = state.cache().plan(&NewTokens::all(slots.len(), 1).in_slots(slots)?)?;
    Ok(state.decode_planned(q, k, v, &plan)?.output)
}

fn main() -> Result<()> {
    let device = sparq_core::device::parse("cpu")?;
    let cache = CacheConfig { layer: SHAPE.into(), batch: 2, max_len: 1024, dtype: DType::F32 };
    let sparq = Method::Sparq(SparqConfig::new(&SHAPE, 8, 64));
    let mut state = LayerState::new(&cache, &sparq, &device)?;
    state.set_method_of(1, &Method::Dense)?;

    // Prompts of 500 and 60 tokens.
    let [q, k, v] = random(2, 500, &device);
    state.prefill(q, k, v, &NewTokens::ragged(500, &[500, 60])?)?;
    for _ in 0..20 {
        step(&mut state, &[0, 1], &device)?;
    }
    report("both", &state);

    // The second one leaves. Another begins with 400 tokens of the first one, and goes on alone.
    state.release(1)?;
    state.copy(0, 1, 400)?;
    state.put_method(1, Box::new(Ends { first: 4, last: 60 }))?;
    for _ in 0..20 {
        step(&mut state, &[1], &device)?;
    }
    report("the third", &state);
    Ok(())
}

/// What each sequence moved, as a part of what dense attention would have moved.
fn report(what: &str, state: &LayerState) {
    for (slot, len) in state.cache().lens().iter().enumerate() {
        let (name, ratio) = match state.sequences().method(slot) {
            Ok(method) => (method.name(), state.sequences().traffic_of(slot).ratio()),
            Err(_) => continue,
        };
        println!(
            "{what}: slot {slot}, {len} tokens, {name}: {:.0} % of the bytes of dense attention",
            100.0 * ratio
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_are_those_of_the_method_here() {
        let device = sparq_core::device::parse("cpu").expect("a CPU");
        let cache = CacheConfig { layer: SHAPE.into(), batch: 2, max_len: 256, dtype: DType::F32 };
        let local = Method::Local(sparq_core::LocalConfig { top_k: 16, initial: 4 });
        let mut state = LayerState::new(&cache, &local, &device).expect("valid");
        state.put_method(1, Box::new(Ends { first: 4, last: 12 })).expect("it needs nothing");
        let [q, k, v] = random(1, 100, &device).map(|x| Tensor::cat(vec![x.clone(), x], 0));
        state.prefill(q, k, v, &NewTokens::all(2, 100)).expect("it fits");
        let [q, k, v] = random(1, 1, &device).map(|x| Tensor::cat(vec![x.clone(), x], 0));
        let output = state.decode(q, k, v).expect("it fits").into_data().try_to_vec::<f32>().expect("f32");
        let (here, own) = output.split_at(output.len() / 2);
        assert!(here.iter().zip(own).all(|(a, b)| (a - b).abs() < 1e-6));
        main().expect("it runs");
    }
}
