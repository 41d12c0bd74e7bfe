//! Work that runs twice, or beside other work.

use burn::tensor::{DType, Device};
use sparq_core::{AttentionShape, CacheConfig, LayerState, Method, NewTokens, SparqConfig};

use crate::{
    problem::{Path, Problem, dense, floats, sparq, tensor},
    tolerance::{Tolerance, assert_close, f32},
};

const SHAPE: AttentionShape = AttentionShape { heads: 8, kv_heads: 2, head_dim: 64 };

/// The same step on the same cache gives the same bits every time.
pub fn repeated_runs_give_the_same_result(device: &Device, row: Tolerance) {
    let problem = Problem::random(SHAPE, NewTokens::ragged(700, &[700, 333]).expect("within the width"), 71);
    let cache = problem.cache(row.dtype, device);
    let config = SparqConfig { mean_value: true, ..SparqConfig::new(&SHAPE, 16, 64) };
    let first = sparq(Path::Product, problem.queries(device), &cache, config);
    let first_dense = dense(Path::Product, problem.queries(device), &cache);
    for time in 1..6 {
        let again = sparq(Path::Product, problem.queries(device), &cache, config);
        assert_eq!(again.positions, first.positions, "kept positions, time {time}");
        assert_eq!(again.output, first.output, "outputs, time {time}");
        assert_eq!(again.mass, first.mass, "masses, time {time}");
        let again = dense(Path::Product, problem.queries(device), &cache);
        assert_eq!(again, first_dense, "dense outputs, time {time}");
    }
}

/// Layers that decode in turns, and layers that decode on two threads at once, give what each gives
/// alone.
pub fn two_streams_do_not_disturb_each_other(device: &Device) {
    let alone: Vec<_> = (0..2).map(|seed| Stream::new(seed, device).run(STEPS)).collect();

    let mut streams = [Stream::new(0, device), Stream::new(1, device)];
    let mut turns = [vec![], vec![]];
    for _ in 0..STEPS {
        for (stream, outputs) in streams.iter_mut().zip(&mut turns) {
            outputs.extend(stream.run(1));
        }
    }

    let threads: Vec<_> = (0..2)
        .map(|seed| {
            let device = device.clone();
            std::thread::spawn(move || Stream::new(seed, &device).run(STEPS))
        })
        .collect();
    let threads: Vec<_> =
        threads.into_iter().map(|thread| thread.join().expect("a stream's thread")).collect();

    for (seed, alone) in alone.iter().enumerate() {
        for step in 0..STEPS {
            let what = format!("stream {seed}, step {step}");
            assert_close(&turns[seed][step], &alone[step], f32().oracle, &format!("{what}, in turns"));
            assert_close(&threads[seed][step], &alone[step], f32().oracle, &format!("{what}, on a thread"));
        }
    }
}

const STEPS: usize = 12;

/// A layer on its way through a text of random tokens.
struct Stream {
    layer: LayerState,
    seed: u64,
    step: u64,
    device: Device,
}

impl Stream {
    fn new(seed: u64, device: &Device) -> Self {
        let prompt = 300 + 50 * seed as usize;
        let max_len = prompt + STEPS;
        let config = SparqConfig { mean_value: true, ..SparqConfig::new(&SHAPE, 16, 32) };
        let sizes = CacheConfig { layer: SHAPE.into(), batch: 1, max_len, dtype: DType::F32 };
        let mut layer = LayerState::new(&sizes, &Method::Sparq(config), device).expect("a valid layer");
        let text = Problem::random(SHAPE, NewTokens::all(1, prompt), 80 + seed);
        let q = tensor(vec![0.1; SHAPE.heads * prompt * 64], [1, SHAPE.heads, prompt, 64], device);
        layer
            .prefill(q, text.rows(&text.k, device), text.rows(&text.v, device), &text.tokens)
            .expect("it fits");
        Self { layer, seed, step: 0, device: device.clone() }
    }

    /// Outputs of the next steps.
    fn run(&mut self, steps: usize) -> Vec<Vec<f32>> {
        (0..steps)
            .map(|_| {
                self.step += 1;
                let next = Problem::random(SHAPE, NewTokens::all(1, 1), 1000 * (self.seed + 1) + self.step);
                let rows = |x| next.rows(x, &self.device);
                let (k, v) = (rows(&next.k), rows(&next.v));
                floats(self.layer.decode(next.queries(&self.device), k, v).expect("it fits"))
            })
            .collect()
    }
}
