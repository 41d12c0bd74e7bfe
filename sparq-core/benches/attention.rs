//! One decode step of one layer at batch 1, 32 heads, d = 128, f32: dense and SparQ (r = 32,
//! k = 128), through the product's operations and through the oracle; and one append.
//!
//! `cargo bench -p sparq-core --bench attention`. Divan prints the bytes that a step must move over
//! its time, to be read against the bandwidth of `copy`.

use std::hint::black_box;

use burn::{
    backend::Dispatch,
    tensor::{DType, Device, Distribution, Tensor},
};
use divan::{Bencher, counter::BytesCount};
use sparq_core::{
    AttentionShape, CacheConfig, LayerCache, NewTokens, Spans, SparqConfig,
    cache::CacheExtras,
    ops::{self, DenseStep, SparqStep, oracle},
};

const SHAPE: AttentionShape = AttentionShape { heads: 32, kv_heads: 32, head_dim: 128 };
const LENS: [usize; 3] = [1024, 4096, 16384];

fn main() {
    divan::main();
}

fn random(heads: usize, tokens: usize, device: &Device) -> Tensor<4> {
    let shape = [1, heads, tokens, SHAPE.head_dim];
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), (device, DType::F32))
}

/// A cache of `len` tokens with room for more, and one query per head.
fn problem(len: usize) -> (Tensor<4>, LayerCache) {
    let device = Device::flex();
    let config = CacheConfig { layer: SHAPE.into(), batch: 1, max_len: len + 2048, dtype: DType::F32 };
    let extras = CacheExtras { k_index: true, mean_value: false };
    let mut cache = LayerCache::new(&config, extras, &device).expect("a valid cache");
    cache.reserve(len + 2048).expect("within the maximum");
    let plan = cache.plan(&NewTokens::all(1, len)).expect("it fits");
    let (k, v) = (random(32, len, &device), random(32, len, &device));
    cache.append(k, v, &plan).expect("shapes fit");
    (random(32, 1, &device), cache)
}

fn step(len: usize) -> SparqStep {
    let config = SparqConfig { mean_value: false, ..SparqConfig::new(&SHAPE, 32, 128) };
    SparqStep { spans: Spans::from_lens(&[len], None), softcap: None, config, retained_mass: false }
}

fn dense_step(cache: &LayerCache) -> DenseStep {
    DenseStep { spans: cache.spans(), softcap: None }
}

fn dense_bytes(len: usize) -> BytesCount {
    BytesCount::new(2 * len * SHAPE.kv_heads * SHAPE.head_dim * 4)
}

fn sparq_bytes(len: usize) -> BytesCount {
    BytesCount::new((len * 32 + 2 * 128 * SHAPE.head_dim) * SHAPE.kv_heads * 4)
}

/// What the machine reads at: a sum over 256 MiB on all threads.
#[divan::bench]
fn read_bandwidth(bencher: Bencher<'_, '_>) {
    use rayon::prelude::*;
    let data = vec![1.0f32; 1 << 26];
    bencher.counter(BytesCount::of_slice(&data)).bench_local(|| {
        let lanes = |chunk: &[f32]| {
            let mut sums = [0.0f32; 32];
            for part in chunk.chunks_exact(32) {
                sums.iter_mut().zip(part).for_each(|(sum, x)| *sum += x);
            }
            sums.iter().sum::<f32>()
        };
        data.par_chunks(1 << 18).map(lanes).sum::<f32>()
    });
}

#[divan::bench(args = LENS)]
fn dense(bencher: Bencher<'_, '_>, len: usize) {
    let (q, cache) = problem(len);
    let (k, v) = (cache.k().expect("filled"), cache.v().expect("filled"));
    bencher
        .counter(dense_bytes(len))
        .bench_local(|| black_box(ops::decode_dense(q.clone(), k.clone(), v.clone(), dense_step(&cache))));
}

#[divan::bench(args = LENS)]
fn dense_oracle(bencher: Bencher<'_, '_>, len: usize) {
    let (q, cache) = problem(len);
    let (k, v) = (cache.k().expect("filled"), cache.v().expect("filled"));
    bencher.counter(dense_bytes(len)).bench_local(|| {
        let (q, k, v) = (q.clone().into_dispatch(), k.clone().into_dispatch(), v.clone().into_dispatch());
        black_box(oracle::decode_dense::<Dispatch>(q, k, v, &dense_step(&cache)))
    });
}

#[divan::bench(args = LENS)]
fn sparq(bencher: Bencher<'_, '_>, len: usize) {
    let (q, cache) = problem(len);
    let (k, index) = (cache.k().expect("filled"), cache.k_index().expect("kept"));
    let (v, sum) = (cache.v().expect("filled"), cache.v_sum().expect("kept"));
    let step = step(len);
    bencher.counter(sparq_bytes(len)).bench_local(|| {
        let (q, k, index) = (q.clone(), k.clone(), index.clone());
        black_box(ops::decode_sparq(q, k, index, v.clone(), sum.clone(), step.clone()))
    });
}

#[divan::bench(args = LENS)]
fn sparq_oracle(bencher: Bencher<'_, '_>, len: usize) {
    let (q, cache) = problem(len);
    let (k, index) = (cache.k().expect("filled"), cache.k_index().expect("kept"));
    let (v, sum) = (cache.v().expect("filled"), cache.v_sum().expect("kept"));
    let step = step(len);
    bencher.counter(sparq_bytes(len)).bench_local(|| {
        black_box(oracle::decode_sparq::<Dispatch>(
            q.clone().into_dispatch(),
            k.clone().into_dispatch(),
            index.clone().into_dispatch(),
            v.clone().into_dispatch(),
            sum.clone().into_dispatch(),
            &step,
        ))
    });
}

/// Appending one token to `k`, `k_index`, `v` and the sum of values: the same at every length.
#[divan::bench(args = LENS, sample_count = 100, sample_size = 10)]
fn append(bencher: Bencher<'_, '_>, len: usize) {
    let device = Device::flex();
    let (_, mut cache) = problem(len);
    let (k, v) = (random(32, 1, &device), random(32, 1, &device));
    let mut appended = 0;
    bencher.bench_local(|| {
        appended += 1;
        assert!(appended < 2048, "the benchmark would grow the cache");
        let plan = cache.plan(&NewTokens::all(1, 1)).expect("it fits");
        cache.append(k.clone(), v.clone(), &plan).expect("shapes fit");
    });
}
