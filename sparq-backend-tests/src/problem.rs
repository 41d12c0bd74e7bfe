//! Attention problems made of random numbers, and the ways to solve them.

use burn::{
    backend::Dispatch,
    tensor::{DType, Device, Int, Tensor, TensorData},
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sparq_core::{
    AttentionLayer, AttentionShape, CacheConfig, KtFormat, LayerCache, NewTokens, SparqConfig,
    cache::CacheExtras,
    k_t::QuantizedKt,
    ops::{self, AttendParams, SparqParams, oracle},
};

/// Which implementation to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// The default body, made of plain Burn ops.
    Oracle,
    /// The operation that the product calls: a backend's override where it has one.
    Product,
}

/// One decode step: queries `[batch, heads, 1, d]`, keys and values `[batch, kv_heads, width, d]`.
#[derive(Debug, Clone)]
pub struct Problem {
    /// Heads and sizes.
    pub shape: AttentionShape,
    /// Sliding window.
    pub window: Option<usize>,
    /// Soft cap on the logits.
    pub softcap: Option<f32>,
    /// Scale of the logits, where it is not `1 / √d`.
    pub scale: Option<f32>,
    /// Which columns of the batch are real.
    pub tokens: NewTokens,
    /// Queries, row-major.
    pub q: Vec<f32>,
    /// Keys, row-major.
    pub k: Vec<f32>,
    /// Values, row-major.
    pub v: Vec<f32>,
}

/// Result of a step, read back.
#[derive(Debug, Clone)]
pub struct Solution {
    /// `[batch, heads, d]`, row-major.
    pub output: Vec<f32>,
    /// Kept positions per sequence and KV head, ascending, fillers removed.
    pub positions: Vec<Vec<usize>>,
    /// α per sequence and query head.
    pub mass: Vec<f32>,
    /// Log-sum-exp of the approximate and of the chosen exact scores per sequence and query head.
    pub log_sums: Vec<f32>,
}

impl Problem {
    /// Normal-like numbers from a seed.
    pub fn random(shape: AttentionShape, tokens: NewTokens, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (batch, width) = (tokens.batch(), tokens.width());
        let AttentionShape { heads, kv_heads, head_dim } = shape;
        let mut normals = |count: usize, scale: f32| -> Vec<f32> {
            // Sum of uniforms: close enough to a normal, without a further crate.
            let mut one = || (0..6).map(|_| rng.random_range(-1.0f32..1.0)).sum::<f32>() / 2f32.sqrt();
            (0..count).map(|_| one() * scale).collect()
        };
        Self {
            shape,
            window: None,
            softcap: None,
            scale: None,
            q: normals(batch * heads * head_dim, 2.0),
            k: normals(batch * kv_heads * width * head_dim, 1.0),
            v: normals(batch * kv_heads * width * head_dim, 1.0),
            tokens,
        }
    }

    /// The problem under a sliding window and a soft cap.
    pub fn limited(self, window: Option<usize>, softcap: Option<f32>) -> Self {
        Self { window, softcap, ..self }
    }

    /// The problem with another scale than `1 / √d`.
    pub fn scaled(self, scale: f32) -> Self {
        Self { scale: Some(scale), ..self }
    }

    /// The layer that the problem is for.
    pub fn layer(&self) -> AttentionLayer {
        let Self { shape, window, softcap, scale, .. } = *self;
        AttentionLayer { window, softcap, scale, ..shape.into() }
    }

    /// Number of sequences.
    pub fn batch(&self) -> usize {
        self.tokens.batch()
    }

    /// Sequence `b` alone, without its padding.
    pub fn sequence(&self, b: usize) -> Self {
        self.sequence_from(b, 0)
    }

    /// Sequence `b` alone, without its padding and its first `skip` tokens.
    pub fn sequence_from(&self, b: usize, skip: usize) -> Self {
        let AttentionShape { heads, kv_heads, head_dim } = self.shape;
        let (width, valid) = (self.tokens.width(), self.tokens.valid()[b].clone());
        let valid = valid.start + skip..valid.end;
        let rows = |x: &[f32]| -> Vec<f32> {
            (b * kv_heads..(b + 1) * kv_heads)
                .flat_map(|head| {
                    &x[(head * width + valid.start) * head_dim..(head * width + valid.end) * head_dim]
                })
                .copied()
                .collect()
        };
        Self {
            tokens: NewTokens::all(1, valid.len()),
            q: self.q[b * heads * head_dim..(b + 1) * heads * head_dim].to_vec(),
            k: rows(&self.k),
            v: rows(&self.v),
            ..*self
        }
    }

    /// Overwrites the padding of `k` and of `v`.
    pub fn poison_padding(&mut self, k: f32, v: f32) {
        let AttentionShape { kv_heads, head_dim, .. } = self.shape;
        let width = self.tokens.width();
        for row in 0..self.batch() * kv_heads * width {
            let (b, t) = (row / width / kv_heads, row % width);
            if !self.tokens.valid()[b].contains(&t) {
                self.k[row * head_dim..(row + 1) * head_dim].fill(k);
                self.v[row * head_dim..(row + 1) * head_dim].fill(v);
            }
        }
    }

    /// The queries on `device`.
    pub fn queries(&self, device: &Device) -> Tensor<4> {
        let AttentionShape { heads, head_dim, .. } = self.shape;
        tensor(self.q.clone(), [self.batch(), heads, 1, head_dim], device)
    }

    /// Keys or values on `device`, as rows `[batch, kv_heads, width, d]`.
    pub fn rows(&self, values: &[f32], device: &Device) -> Tensor<4> {
        let AttentionShape { kv_heads, head_dim, .. } = self.shape;
        tensor(values.to_vec(), [self.batch(), kv_heads, self.tokens.width(), head_dim], device)
    }

    /// A cache that holds the keys and values, with all extras.
    pub fn cache(&self, dtype: DType, device: &Device) -> LayerCache {
        self.cache_with(KtFormat::Cache, dtype, device)
    }

    /// The same with the transposed keys stored as `kt_format` says.
    pub fn cache_with(&self, kt_format: KtFormat, dtype: DType, device: &Device) -> LayerCache {
        let config = CacheConfig {
            layer: self.layer(),
            batch: self.batch(),
            max_len: 2 * self.tokens.width() + 64,
            dtype,
        };
        let extras = CacheExtras { k_t: true, kt_format, mean_value: true };
        let mut cache = LayerCache::new(&config, extras, device).expect("a valid cache");
        let plan = cache.plan(&self.tokens).expect("it fits");
        cache.append(self.rows(&self.k, device), self.rows(&self.v, device), &plan).expect("shapes fit");
        cache
    }

    /// Dense decode.
    pub fn dense(&self, path: Path, dtype: DType, device: &Device) -> Vec<f32> {
        let cache = self.cache(dtype, device);
        dense(path, self.queries(device), &cache)
    }

    /// SparQ decode, without the dense escape of the product's method.
    pub fn sparq(&self, path: Path, config: SparqConfig, dtype: DType, device: &Device) -> Solution {
        let cache = self.cache_with(config.kt_format, dtype, device);
        sparq(path, self.queries(device), &cache, config)
    }
}

/// How far the steps of one way to choose positions lie from those of another.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Comparison {
    same: usize,
    kept: usize,
    squares: f64,
    norm: f64,
}

impl Comparison {
    /// Adds a step.
    pub(crate) fn add(&mut self, expected: &Solution, found: &Solution) {
        for (expected, found) in expected.positions.iter().zip(&found.positions) {
            self.kept += expected.len();
            self.same += found.iter().filter(|&position| expected.binary_search(position).is_ok()).count();
        }
        for (a, b) in expected.output.iter().zip(&found.output) {
            self.squares += f64::from(a - b).powi(2);
            self.norm += f64::from(*a).powi(2);
        }
    }

    /// Share of the kept positions that are kept as well.
    pub(crate) fn agreement(&self) -> f64 {
        self.same as f64 / self.kept as f64
    }

    /// Distance of the outputs, of their norm.
    pub(crate) fn distance(&self) -> f64 {
        (self.squares / self.norm).sqrt()
    }
}

/// Dense decode over a cache.
pub fn dense(path: Path, q: Tensor<4>, cache: &LayerCache) -> Vec<f32> {
    attend(path, q, cache).0
}

/// The last tokens of each sequence as queries `[batch, heads, width, d]` over a cache, densely: outputs and
/// log-sum-exp.
pub fn attend(path: Path, q: Tensor<4>, cache: &LayerCache) -> (Vec<f32>, Vec<f32>) {
    let [_, _, width, _] = q.dims();
    attend_with(path, q, cache, cache.attend_params(width))
}

/// Dense decode of these queries: outputs and log-sum-exp.
pub(crate) fn attend_with(
    path: Path,
    q: Tensor<4>,
    cache: &LayerCache,
    params: AttendParams,
) -> (Vec<f32>, Vec<f32>) {
    let (k, v) = (cache.k().expect("filled"), cache.v().expect("filled"));
    match path {
        Path::Product => {
            let attended = ops::decode_dense(q, k, v, params).expect("shapes fit");
            (floats(attended.output), floats(attended.log_sum_exp))
        }
        Path::Oracle => {
            let (q, k, v) = (q.into_dispatch(), k.into_dispatch(), v.into_dispatch());
            let (output, log_sums) = oracle::attend::<Dispatch>(q, k, v, &params);
            (floats(Tensor::<4>::from_dispatch(output)), floats(Tensor::<3>::from_dispatch(log_sums)))
        }
    }
}

/// SparQ decode over a cache.
pub fn sparq(path: Path, q: Tensor<4>, cache: &LayerCache, config: SparqConfig) -> Solution {
    let params = SparqParams { attend: cache.attend_params(1), config, retained_mass: true };
    sparq_with(path, q, cache, params)
}

/// SparQ decode of these queries.
pub(crate) fn sparq_with(path: Path, q: Tensor<4>, cache: &LayerCache, params: SparqParams) -> Solution {
    let config = params.config;
    config.validate(cache.config().layer.shape.head_dim).expect("a valid configuration");
    let (k, v, v_sum) =
        (cache.k().expect("filled"), cache.v().expect("filled"), cache.v_sum().expect("kept"));
    let (output, positions, masses) = match (path, config.kt_format.bits()) {
        (Path::Product, None) => {
            let k_t = cache.k_t().expect("kept");
            parts(ops::decode_sparq(q, k, k_t, v, v_sum, params).expect("shapes fit"))
        }
        (Path::Product, Some(_)) => {
            let k_t = cache.quantized_kt().expect("kept");
            parts(ops::decode_sparq_quantized(q, k, k_t, v, v_sum, params).expect("shapes fit"))
        }
        (Path::Oracle, coded) => {
            let k_t = match coded {
                None => cache.k_t().expect("kept"),
                Some(_) => dequantized(&cache.quantized_kt().expect("kept")),
            };
            let (output, positions, masses) = oracle::decode_sparq::<Dispatch>(
                q.into_dispatch(),
                k.into_dispatch(),
                k_t.into_dispatch(),
                v.into_dispatch(),
                v_sum.into_dispatch(),
                &params,
            );
            (
                Tensor::from_dispatch(output),
                Tensor::<3, Int>::from_dispatch(positions),
                Tensor::<3>::from_dispatch(masses),
            )
        }
    };
    let [_, _, kept] = positions.dims();
    let positions = ints(positions).chunks(kept).map(sorted).collect();
    let masses = floats(masses);
    let (mass, log_sums): (Vec<&[f32]>, Vec<&[f32]>) =
        masses.chunks(3).map(|of_head| of_head.split_at(1)).unzip();
    Solution { output: floats(output), positions, mass: mass.concat(), log_sums: log_sums.concat() }
}

fn parts(attended: ops::SparqAttended) -> (Tensor<4>, Tensor<3, Int>, Tensor<3>) {
    (attended.output, attended.positions, attended.masses)
}

/// The keys `[batch, kv_heads, head_dim, capacity]` that codes stand for.
pub fn dequantized(k_t: &QuantizedKt) -> Tensor<4> {
    let (words, scales) = (k_t.words.clone().into_dispatch(), k_t.scales.clone().into_dispatch());
    Tensor::from_dispatch(oracle::dequantize::<Dispatch>(words, scales))
}

/// Ascending, without the fillers.
fn sorted(positions: &[i64]) -> Vec<usize> {
    let mut positions: Vec<usize> = positions.iter().filter(|&&p| p >= 0).map(|&p| p as usize).collect();
    positions.sort_unstable();
    positions
}

/// A tensor of f32 values, row-major.
pub fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values, shape), (device, DType::F32))
}

/// Values of a tensor as f32, read back at once.
pub fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.cast(DType::F32).into_data().try_to_vec().expect("f32 data")
}

/// Values of an integer tensor as i64, read back at once.
pub fn ints<const D: usize>(tensor: Tensor<D, Int>) -> Vec<i64> {
    tensor.into_data().iter::<i64>().collect()
}
