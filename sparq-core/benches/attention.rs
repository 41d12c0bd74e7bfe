//! The CPU kernels: decode steps of one layer at d = 128, r = 32, k = 128, dense and SparQ, through the
//! product's operations; appends; linear layers; and what the machine reads at.
//!
//! `cargo bench -p sparq-core --bench attention`. Divan prints the bytes that a step must move over
//! its time, to be read against the bandwidth of `read_bandwidth`.

use std::{cell::RefCell, hint::black_box};

use burn::tensor::{DType, Device, Distribution, Tensor};
use divan::{Bencher, counter::BytesCount};
use sparq_core::{
    AttentionShape, CacheConfig, KtFormat, LayerCache, NewTokens, SparqConfig, TopkRule,
    cache::CacheExtras,
    ops::{self, AttendParams, SparqParams},
};

const RANK: usize = 32;
const TOP_K: usize = 128;

fn main() {
    divan::main();
}

/// One decode step over a cache.
#[derive(Debug, Clone, Copy)]
struct Case {
    kv_heads: usize,
    len: usize,
    dtype: DType,
    format: KtFormat,
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kv_heads, len, dtype, format } = self;
        write!(f, "32/{kv_heads} S={len} {dtype:?}")?;
        match format {
            KtFormat::Cache => Ok(()),
            format => write!(f, " {format:?}"),
        }
    }
}

/// Lengths, groups and dtypes, with the transposed keys in `format`.
fn cases(format: KtFormat) -> Vec<Case> {
    let mut cases = Vec::new();
    for kv_heads in [32, 8] {
        for len in [1024, 4096, 16384] {
            for dtype in [DType::F32, DType::F16, DType::BF16] {
                cases.push(Case { kv_heads, len, dtype, format });
            }
        }
    }
    cases
}

fn plain() -> Vec<Case> {
    cases(KtFormat::Cache)
}

fn coded() -> Vec<Case> {
    let cases = [KtFormat::Int8, KtFormat::Int4].into_iter().flat_map(cases);
    cases.filter(|case| case.dtype == DType::F16).collect()
}

impl Case {
    fn shape(self) -> AttentionShape {
        AttentionShape { heads: 32, kv_heads: self.kv_heads, head_dim: 128 }
    }

    fn random(self, heads: usize, tokens: usize) -> Tensor<4> {
        let shape = [1, heads, tokens, self.shape().head_dim];
        Tensor::random(shape, Distribution::Normal(0.0, 1.0), (&Device::flex(), DType::F32))
    }

    /// A cache of `len` tokens with room for more.
    fn cache(self) -> LayerCache {
        let max_len = self.len + 2048;
        let config = CacheConfig { layer: self.shape().into(), batch: 1, max_len, dtype: self.dtype };
        let extras = CacheExtras { k_t: true, kt_format: self.format, mean_value: false };
        let mut cache = LayerCache::new(&config, extras, &Device::flex()).expect("a valid cache");
        cache.reserve(max_len).expect("within the maximum");
        let plan = cache.plan(&NewTokens::all(1, self.len)).expect("it fits");
        let (k, v) = (self.random(self.kv_heads, self.len), self.random(self.kv_heads, self.len));
        cache.append(k, v, &plan).expect("shapes fit");
        cache
    }

    fn params(self, cache: &LayerCache, topk_rule: TopkRule) -> SparqParams {
        let config = SparqConfig {
            mean_value: false,
            kt_format: self.format,
            topk_rule,
            ..SparqConfig::new(&self.shape(), RANK, TOP_K)
        };
        SparqParams { attend: cache.attend_params(1), config, retained_mass: false }
    }

    fn dense_bytes(self) -> BytesCount {
        BytesCount::new(2 * self.len * self.kv_heads * 128 * self.dtype.size())
    }

    fn sparq_bytes(self) -> BytesCount {
        let k_t = self.format.bytes(self.len * RANK, self.dtype);
        BytesCount::new((k_t + 2 * TOP_K * 128 * self.dtype.size()) * self.kv_heads)
    }
}

/// A sum over 256 MiB on all threads.
#[divan::bench]
fn read_bandwidth(bencher: Bencher<'_, '_>) {
    let data = vec![1.0f32; 1 << 26];
    bencher.counter(BytesCount::of_slice(&data)).bench_local(|| ops::sum_in_memory(&data));
}

#[divan::bench(args = plain())]
fn dense(bencher: Bencher<'_, '_>, case: Case) {
    let (q, cache) = (case.random(32, 1), case.cache());
    let (k, v) = (cache.k().expect("filled"), cache.v().expect("filled"));
    let params = cache.attend_params(1);
    bencher
        .counter(case.dense_bytes())
        .bench_local(|| black_box(ops::decode_dense(q.clone(), k.clone(), v.clone(), params.clone())));
}

/// Eight queries over one reading of the cache: beside eight times [`dense`].
#[divan::bench(args = plain())]
fn dense_of_eight_queries(bencher: Bencher<'_, '_>, case: Case) {
    let (q, cache) = (case.random(32, 8), case.cache());
    let (k, v) = (cache.k().expect("filled"), cache.v().expect("filled"));
    let params = cache.attend_params(8);
    bencher
        .counter(case.dense_bytes())
        .bench_local(|| black_box(ops::decode_dense(q.clone(), k.clone(), v.clone(), params.clone())));
}

#[divan::bench(args = plain())]
fn sparq(bencher: Bencher<'_, '_>, case: Case) {
    sparq_choosing(bencher, case, TopkRule::Exact);
}

#[divan::bench(args = plain())]
fn sparq_from_buckets(bencher: Bencher<'_, '_>, case: Case) {
    sparq_choosing(bencher, case, TopkRule::Buckets);
}

fn sparq_choosing(bencher: Bencher<'_, '_>, case: Case, topk_rule: TopkRule) {
    let (q, cache) = (case.random(32, 1), case.cache());
    let params = case.params(&cache, topk_rule);
    let (k, k_t) = (cache.k().expect("filled"), cache.k_t().expect("kept"));
    let (v, sum) = (cache.v().expect("filled"), cache.v_sum().expect("kept"));
    bencher.counter(case.sparq_bytes()).bench_local(|| {
        let (q, k, k_t) = (q.clone(), k.clone(), k_t.clone());
        black_box(ops::decode_sparq(q, k, k_t, v.clone(), sum.clone(), params.clone()))
    });
}

#[divan::bench(args = coded())]
fn sparq_codes(bencher: Bencher<'_, '_>, case: Case) {
    let (q, cache) = (case.random(32, 1), case.cache());
    let params = case.params(&cache, TopkRule::Exact);
    let (k, k_t) = (cache.k().expect("filled"), cache.quantized_kt().expect("kept"));
    let (v, sum) = (cache.v().expect("filled"), cache.v_sum().expect("kept"));
    bencher.counter(case.sparq_bytes()).bench_local(|| {
        let (q, k, k_t) = (q.clone(), k.clone(), k_t.clone());
        black_box(ops::decode_sparq_quantized(q, k, k_t, v.clone(), sum.clone(), params.clone()))
    });
}

/// One token into `k`, `k_t` and `v`: the same at every length.
#[divan::bench(args = [KtFormat::Cache, KtFormat::Int8, KtFormat::Int4], sample_count = 100, sample_size = 10)]
fn append(bencher: Bencher<'_, '_>, format: KtFormat) {
    let case = Case { kv_heads: 32, len: 4096, dtype: DType::F16, format };
    let mut cache = case.cache();
    let (k, v) = (case.random(32, 1), case.random(32, 1));
    let mut appended = 0;
    bencher.bench_local(|| {
        appended += 1;
        assert!(appended < 2048, "the benchmark would grow the cache");
        let plan = cache.plan(&NewTokens::all(1, 1)).expect("it fits");
        cache.append(k.clone(), v.clone(), &plan).expect("shapes fit");
    });
}

/// Eight of 32 768 tokens forgotten: the sum of values is brought back from the end of the block before. They are
/// appended again outside of the clock.
#[divan::bench(args = [DType::F32, DType::F16, DType::BF16], sample_count = 100, sample_size = 1)]
fn going_back(bencher: Bencher<'_, '_>, dtype: DType) {
    let case = Case { kv_heads: 8, len: 32767, dtype, format: KtFormat::Cache };
    let config = CacheConfig { layer: case.shape().into(), batch: 1, max_len: case.len, dtype };
    let extras = CacheExtras { k_t: true, mean_value: true, ..CacheExtras::default() };
    let cache = LayerCache::new(&config, extras, &Device::flex()).expect("a valid cache");
    let cache = RefCell::new(cache);
    let append = |tokens: usize| {
        let plan = cache.borrow().plan(&NewTokens::all(1, tokens)).expect("it fits");
        let [k, v] = [(); 2].map(|()| case.random(case.kv_heads, tokens));
        cache.borrow_mut().append(k, v, &plan).expect("shapes fit");
    };
    append(case.len - 8);
    let truncate = |()| cache.borrow_mut().truncate_sequence(0, case.len - 8).expect("it is there");
    bencher.with_inputs(|| append(8)).bench_local_values(truncate);
}

#[divan::bench(args = [512, 2048])]
fn prefill(bencher: Bencher<'_, '_>, len: usize) {
    let case = Case { kv_heads: 8, len, dtype: DType::BF16, format: KtFormat::Cache };
    let (q, cache) = (case.random(32, len), case.cache());
    let empty = LayerCache::new(cache.config(), CacheExtras::default(), &Device::flex()).expect("valid");
    let plan = empty.plan(&NewTokens::all(1, len)).expect("it fits");
    let params = AttendParams::new(plan, &case.shape().into());
    let (k, v) = (cache.k().expect("filled"), cache.v().expect("filled"));
    bencher.bench_local(|| black_box(ops::prefill(q.clone(), k.clone(), v.clone(), params.clone())));
}

#[divan::bench(args = [(1, 4096, DType::F32), (1, 4096, DType::F16), (1, 4096, DType::BF16),
    (1, 14336, DType::F32), (1, 14336, DType::F16), (1, 14336, DType::BF16), (256, 4096, DType::F32),
    (256, 4096, DType::BF16)])]
fn linear(bencher: Bencher<'_, '_>, (tokens, outputs, dtype): (usize, usize, DType)) {
    let device = Device::flex();
    let random = |rows, dtype| {
        Tensor::<2>::random([rows, 4096], Distribution::Default, (&device, DType::F32)).cast(dtype)
    };
    let (x, weight) = (random(tokens, DType::F32), random(outputs, dtype));
    bencher
        .counter(BytesCount::new(outputs * 4096 * dtype.size()))
        .bench_local(|| black_box(ops::linear(x.clone(), weight.clone())));
}
