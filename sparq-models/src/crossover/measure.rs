//! Timing both methods over one cache, within a second and a given memory.

use std::time::{Duration, Instant};

use burn::tensor::{DType, Device, Distribution, Tensor};
use sparq_core::{
    AttentionLayer, AttentionShape, CacheConfig, LayerCache, NewTokens, SparqConfig,
    method::{DecodeMethod, Dense, Sparq},
};

use super::Crossover;
use crate::error::{Error, Result};

/// Time of a measurement.
const DEADLINE: Duration = Duration::from_secs(1);
/// The shortest context that is measured.
const SHORTEST: usize = 256;
/// The longest context that is measured.
const LONGEST: usize = 65536;
/// The longest first context at which sizes are measured as they are. Beyond it smaller ones are measured:
/// filling a cache would take the time.
const LONGEST_FIRST: usize = 4096;
/// The part of it that goes into filling a cache where smaller sizes are measured.
const FILLING: Duration = Duration::from_millis(400);
/// Steps per method and length, of which the least disturbed counts.
const STEPS: usize = 5;
/// SparQ counts as faster from this part of dense attention's time on, so that noise does not choose it.
const FASTER: f64 = 0.95;
/// Bytes that are read between two steps on a CPU, so that neither finds its keys in the caches: in a
/// model, all other layers come in between.
const EVICTED: usize = 64 << 20;
/// The longest reach of an estimate, in lengths that were measured. Where SparQ gains little or nothing
/// with the length, noise says where the lines cross; what it reads grows an eighth as fast, so it is not
/// held back for good.
const REACH: usize = 4;

/// A crossover as it was measured.
pub(super) struct Measured {
    pub(super) crossover: Crossover,
    /// Whether it follows from more than one length, or needs no other.
    pub(super) is_sure: bool,
}

/// Measures the crossover; `None` where `memory` bytes are too few for the shortest context.
pub(super) fn measure(
    layer: &AttentionLayer,
    config: &SparqConfig,
    device: &Device,
    dtype: DType,
    memory: u64,
) -> Result<Option<Measured>> {
    let longest = longest(layer, config, dtype, memory);
    if longest < SHORTEST {
        return Ok(None);
    }
    let mut bench = Bench::new(layer, config, device, dtype, memory)?;
    let first = config.top_k.saturating_add(1).checked_next_power_of_two().map(|len| len.max(SHORTEST));
    let as_it_is = first.filter(|&first| first <= LONGEST_FIRST.min(longest / 2));
    let (crossover, lengths) = match as_it_is {
        Some(first) => {
            let points = as_stated(&mut bench, config, first, longest)?;
            (of_points(&points, config.top_k), points.len())
        }
        None => {
            let points = smaller(&mut bench, config, longest)?;
            (of_smaller(&points, config.top_k), points.len())
        }
    };
    Ok(Some(Measured { crossover, is_sure: lengths > 1 || !crossover.estimated }))
}

/// The longest context, a power of two, whose cache fits into `memory` while it grows and is filled.
pub(super) fn longest(layer: &AttentionLayer, config: &SparqConfig, dtype: DType, memory: u64) -> usize {
    let AttentionShape { kv_heads, head_dim, .. } = layer.shape;
    let bytes = |len: usize| -> Option<u64> {
        let elements = kv_heads.checked_mul(head_dim)?.checked_mul(len)?;
        let rows = elements.checked_mul(2 * dtype.size())?;
        let cache = rows.checked_add(config.kt_format.bytes(elements, dtype))?;
        // While it grows the old one is there too, and the new rows in f32.
        let growing =
            cache.checked_add(cache / 2)?.checked_add(elements.checked_mul(2 * DType::F32.size())?)?;
        u64::try_from(growing).ok()
    };
    let fits = |&len: &usize| bytes(len).is_some_and(|bytes| bytes <= memory - memory / 4);
    let lengths = std::iter::successors(Some(SHORTEST), |len| Some(2 * len));
    lengths.take_while(|&len| len <= LONGEST).take_while(fits).last().unwrap_or(0)
}

/// Seconds at one length.
#[derive(Debug, Clone, Copy)]
struct Point {
    tokens: f64,
    dense: f64,
    sparq: f64,
}

/// Seconds at one length with an eighth and with a quarter of its positions.
#[derive(Debug, Clone, Copy)]
struct Smaller {
    tokens: f64,
    dense: f64,
    eighth: f64,
    quarter: f64,
}

/// Lengths that double from `first`, until SparQ is faster.
fn as_stated(bench: &mut Bench, config: &SparqConfig, first: usize, longest: usize) -> Result<Vec<Point>> {
    let mut points = vec![];
    doubling(first, longest, |len| {
        bench.fill(len)?;
        let point = Point {
            tokens: len as f64,
            dense: bench.seconds(&mut Dense)?,
            sparq: bench.sparq(config, config.top_k)?,
        };
        points.push(point);
        Ok(point.sparq <= FASTER * point.dense)
    })?;
    Ok(points)
}

/// Two lengths, one twice the other, with numbers of positions that grow with them: as long as there is time
/// to fill a cache, since differences are surer there.
fn smaller(bench: &mut Bench, config: &SparqConfig, longest: usize) -> Result<Vec<Smaller>> {
    bench.fill(SHORTEST)?;
    bench.sync()?;
    let first = longest.min(4 * SHORTEST);
    let start = Instant::now();
    bench.fill(first)?;
    bench.sync()?;
    let per_token = start.elapsed().as_secs_f64() / first as f64;
    let is_affordable = |&len: &usize| per_token * len as f64 <= FILLING.as_secs_f64();
    let lengths =
        std::iter::successors(Some(2 * first), |len| Some(2 * len)).take_while(|&len| len <= longest);
    let last = lengths.take_while(is_affordable).last().unwrap_or(2 * first);
    let mut points = vec![];
    for len in [last / 2, last].into_iter().filter(|&len| len <= longest) {
        bench.fill(len)?;
        points.push(Smaller {
            tokens: len as f64,
            dense: bench.seconds(&mut Dense)?,
            eighth: bench.sparq(config, len / 8)?,
            quarter: bench.sparq(config, len / 4)?,
        });
    }
    Ok(points)
}

/// Calls `measure` with lengths that double until it says so, or until the next would take too long.
fn doubling(first: usize, longest: usize, mut measure: impl FnMut(usize) -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    let mut len = first;
    loop {
        let before = start.elapsed();
        let is_enough = measure(len)?;
        let now = start.elapsed();
        // Twice the length takes twice the time.
        if is_enough || len > longest / 2 || now + 2 * (now - before) > DEADLINE {
            return Ok(());
        }
        len *= 2;
    }
}

/// The crossover by points with the sizes themselves: where the line through the last two reaches
/// [`FASTER`].
fn of_points(points: &[Point], top_k: usize) -> Crossover {
    let gain = |point: Point| FASTER * point.dense - point.sparq;
    let measured_tokens = points.last().map_or(0, |last| last.tokens as usize);
    let crossing = match *points {
        [only] if gain(only) >= 0.0 => Some(only.tokens),
        [.., before, last] => {
            let slope = (gain(last) - gain(before)) / (last.tokens - before.tokens);
            (slope > 0.0).then(|| last.tokens - gain(last) / slope)
        }
        _ => None,
    };
    let farthest = measured_tokens.saturating_mul(REACH);
    let tokens = crossing.map_or(farthest, |tokens| (tokens.ceil() as usize).min(farthest));
    let tokens = tokens.max(top_k.saturating_add(1));
    Crossover { tokens, measured_tokens, estimated: tokens > measured_tokens }
}

/// The crossover by smaller sizes. A step takes a fixed time, one for each token of the context and one
/// for each position that is read: the last two lengths tell the three apart, as an eighth of one is a
/// quarter of the other.
fn of_smaller(points: &[Smaller], top_k: usize) -> Crossover {
    let measured_tokens = points.last().map_or(0, |last| last.tokens as usize);
    let positions = top_k.saturating_add(1);
    let farthest = positions.saturating_mul(REACH);
    let crossing = match *points {
        [.., before, last] => {
            let step = last.tokens - before.tokens;
            let dense = ((last.dense - before.dense) / step).max(0.0);
            let per_token = ((last.eighth - before.quarter) / step).max(0.0);
            let per_position = ((last.quarter - last.eighth) / (last.tokens / 8.0)).max(0.0);
            let fixed_dense = last.dense - dense * last.tokens;
            let fixed = last.eighth - per_token * last.tokens - per_position * last.tokens / 8.0;
            let gained = FASTER * dense - per_token;
            let lost = fixed + per_position * positions as f64 - FASTER * fixed_dense;
            (gained > 0.0).then(|| lost / gained)
        }
        _ => None,
    };
    let tokens = crossing.map_or(farthest, |tokens| (tokens.max(0.0).ceil() as usize).min(farthest));
    Crossover { tokens: tokens.max(positions), measured_tokens, estimated: true }
}

/// A buffer that fills the caches of the machine; empty for devices with memory of their own.
fn evicted(device: &Device, memory: u64) -> Vec<u64> {
    let bytes = EVICTED.min(usize::try_from(memory / 4).unwrap_or(EVICTED));
    vec![1; if on_cpu(device) { bytes / size_of::<u64>() } else { 0 }]
}

fn on_cpu(device: &Device) -> bool {
    sparq_core::device::kind(device) == sparq_core::device::Kind::Cpu
}

struct Bench {
    cache: LayerCache,
    shape: AttentionShape,
    device: Device,
    caches: Vec<u64>,
}

impl Bench {
    fn new(
        layer: &AttentionLayer,
        config: &SparqConfig,
        device: &Device,
        dtype: DType,
        memory: u64,
    ) -> Result<Self> {
        let layer = AttentionLayer { window: None, ..*layer };
        let sparq = Sparq::new(*config, &layer.shape)?;
        let cache = CacheConfig { layer, batch: 1, max_len: LONGEST, dtype };
        let cache = LayerCache::new(&cache, sparq.cache_extras(), device)?;
        let caches = evicted(device, memory);
        let mut bench = Self { cache, shape: layer.shape, device: device.clone(), caches };
        if !on_cpu(device) {
            // Kernels are compiled before the clock starts.
            bench.fill(SHORTEST)?;
            bench.seconds(&mut Dense)?;
            bench.sparq(config, config.top_k.min(SHORTEST / 4))?;
        }
        Ok(bench)
    }

    fn random(&self, heads: usize, tokens: usize) -> Tensor<4> {
        let dims = [1, heads, tokens, self.shape.head_dim];
        Tensor::random(dims, Distribution::Uniform(-1.0, 1.0), (&self.device, DType::F32))
    }

    fn fill(&mut self, len: usize) -> Result<()> {
        let new = len - self.cache.lens()[0].min(len);
        if new == 0 {
            return Ok(());
        }
        let plan = self.cache.plan(&NewTokens::all(1, new))?;
        let [k, v] = [0, 1].map(|_| self.random(self.shape.kv_heads, new));
        Ok(self.cache.append(k, v, &plan)?)
    }

    /// Seconds of a step of SparQ that reads `top_k` positions.
    fn sparq(&self, config: &SparqConfig, top_k: usize) -> Result<f64> {
        let local_window = config.local_window.min(top_k);
        let config = SparqConfig { top_k, local_window, dense_below: 0, ..*config };
        self.seconds(&mut Sparq::new(config, &self.shape)?)
    }

    /// Seconds of a step.
    fn seconds(&self, method: &mut dyn DecodeMethod) -> Result<f64> {
        let mut least = f64::INFINITY;
        for step in 0..=STEPS {
            let q = self.random(self.shape.heads, 1);
            std::hint::black_box(self.caches.iter().fold(0_u64, |sum, x| sum.wrapping_add(*x)));
            self.sync()?;
            let start = Instant::now();
            let decoded = method.decode(q, &self.cache.sequence(0)?)?;
            self.sync()?;
            // The first step also compiles and allocates.
            if step > 0 {
                least = least.min(start.elapsed().as_secs_f64());
            }
            drop(decoded);
        }
        Ok(least)
    }

    fn sync(&self) -> Result<()> {
        self.device.sync().map_err(|error| Error::ReadBack { message: format!("{error:?}") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crossing_lies_between_or_beyond_what_was_timed() {
        // dense = n, SparQ = 500 + n / 10: 0.95 n = 500 + 0.1 n at n = 588.2.
        let at = |n: f64| Point { tokens: n, dense: n, sparq: 500.0 + n / 10.0 };
        let found = |points: &[Point]| {
            let Crossover { tokens, measured_tokens, estimated } = of_points(points, 99);
            (tokens, measured_tokens, estimated)
        };
        assert_eq!(found(&[at(256.0), at(512.0), at(1024.0)]), (589, 1024, false));
        assert_eq!(found(&[at(256.0), at(512.0)]), (589, 512, true), "beyond the last point");
        assert_eq!(found(&[at(1024.0)]), (1024, 1024, false), "faster from the start");
        assert_eq!(found(&[at(256.0)]), (1024, 256, true), "nothing to go by");
        let never = |n: f64| Point { tokens: n, dense: n, sparq: 100.0 + n };
        assert_eq!(found(&[never(256.0), never(512.0)]), (2048, 512, true), "never for good");
        let late = |n: f64| Point { tokens: n, dense: n, sparq: 100.0 + 0.949_999 * n };
        assert_eq!(found(&[late(256.0), late(512.0)]), (2048, 512, true));
        assert_eq!(of_points(&[at(1024.0)], 1500).tokens, 1501, "top-k covers all below");
    }

    #[test]
    fn large_sizes_follow_from_smaller_ones() {
        // dense = 10 + n, SparQ = 500 + n / 10 + k / 2.
        let at = |n: f64| Smaller {
            tokens: n,
            dense: 10.0 + n,
            eighth: 500.0 + n / 10.0 + n / 16.0,
            quarter: 500.0 + n / 10.0 + n / 8.0,
        };
        // 0.95 (10 + n) = 500 + n / 10 + 10000 / 2 at n = 6459.4, and k is more.
        let found = |top_k| of_smaller(&[at(512.0), at(1024.0)], top_k);
        assert_eq!(found(9_999), Crossover { tokens: 10_000, measured_tokens: 1024, estimated: true });
        // With SparQ dearer than that: 5 k.
        let dear = |n: f64| Smaller { eighth: at(n).eighth * 3.0, quarter: at(n).quarter * 3.0, ..at(n) };
        let found = of_smaller(&[dear(512.0), dear(1024.0)], 9_999);
        // 0.95 (10 + n) = 1500 + 3 n / 10 + 15000 at n = 25370.
        assert!((25_369..=25_371).contains(&found.tokens) && found.estimated, "{found:?}");
        let never = |n: f64| Smaller { tokens: n, dense: n, eighth: 2.0 * n, quarter: 3.0 * n };
        assert_eq!(of_smaller(&[never(512.0), never(1024.0)], 9_999).tokens, 40_000);
        assert_eq!(of_smaller(&[], usize::MAX).tokens, usize::MAX);
    }

    #[test]
    fn memory_bounds_the_lengths() {
        let shape = AttentionShape { heads: 8, kv_heads: 8, head_dim: 128 };
        let config = SparqConfig::new(&shape, 16, 128);
        let at = |memory| longest(&shape.into(), &config, DType::F32, memory);
        // 1024 elements a token: 12 kB of cache, half as much again, and 8 kB of new rows: 26 kB.
        assert_eq!((at(26 * 1024 * 4096 * 2), at(26 * 1024 * 4096)), (4096, 2048));
        assert_eq!((at(1 << 20), at(u64::MAX)), (0, LONGEST));
    }
}
