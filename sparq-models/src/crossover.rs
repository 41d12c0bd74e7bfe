//! The context length from which SparQ is faster than dense attention, measured where it runs.
//!
//! Below it a step's fixed costs outweigh the bytes that are not read. It depends on the device, the
//! dtype, the shape of the layer and the sizes of SparQ, so it is measured for each of them on first
//! use, which takes a second at most, and kept in a file.

use std::{
    collections::BTreeMap,
    env, fs,
    io::Write,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use burn::tensor::{DType, Device, Distribution, Tensor};
use serde::{Deserialize, Serialize};
use sparq_core::{
    AttentionLayer, AttentionShape, CacheConfig, LayerCache, Method, NewTokens, SparqConfig,
    method::{DecodeMethod, Dense, Sparq},
};

use crate::error::{Error, Result};

/// Time after which no longer context is tried.
const DEADLINE: Duration = Duration::from_millis(600);
/// The longest context that is tried.
const LONGEST: usize = 16384;
/// Steps per method and length, of which the median counts.
const STEPS: usize = 5;
/// SparQ counts as faster from this part of dense attention's time on, so that noise does not choose it.
const FASTER: f64 = 0.95;
/// Bytes that are read between two steps on a CPU, so that neither finds its keys in the caches: in a
/// model, all other layers come in between.
const EVICTED: usize = 64 << 20;

/// Measured crossovers, in memory and in a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Crossovers {
    file: Option<PathBuf>,
    known: BTreeMap<String, Crossover>,
}

/// One measured crossover.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crossover {
    /// SparQ is faster from this many tokens on; `None` where dense attention stays faster.
    pub tokens: Option<usize>,
}

impl Crossover {
    /// The value for [`SparqConfig::dense_below`].
    pub fn dense_below(self) -> usize {
        self.tokens.unwrap_or(usize::MAX)
    }
}

impl Crossovers {
    /// Those of the user: `sparq-rs/crossover.json` in `XDG_CACHE_HOME`, or in `.cache` of the home
    /// folder. Without either, or where the file cannot be read, nothing is known yet.
    pub fn of_user() -> Self {
        let folder = |name: &str| env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from);
        let cache = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")));
        Self::new(cache.map(|cache| cache.join("sparq-rs").join("crossover.json")))
    }

    /// Those in `file`; in memory alone for `None`.
    pub fn new(file: Option<PathBuf>) -> Self {
        let content = file.as_ref().and_then(|file| fs::read(file).ok());
        let known = content.and_then(|content| serde_json::from_slice(&content).ok());
        Self { file, known: known.unwrap_or_default() }
    }

    /// Lets the SparQ methods among `methods`, one per layer, attend densely below their crossover.
    /// Methods that state a length of their own keep it.
    ///
    /// # Errors
    /// [`Error::Core`] where a step does not run on the device.
    pub fn apply(
        &mut self,
        methods: &mut [Method],
        layers: &[AttentionLayer],
        device: &Device,
        dtype: DType,
    ) -> Result<()> {
        for (method, layer) in methods.iter_mut().zip(layers) {
            if let Method::Sparq(config) = method
                && config.dense_below == 0
            {
                config.dense_below = self.find(layer, config, device, dtype)?.dense_below();
            }
        }
        Ok(())
    }

    /// The crossover of a layer, measured if it is not known.
    ///
    /// # Errors
    /// As [`Crossovers::apply`].
    pub fn find(
        &mut self,
        layer: &AttentionLayer,
        config: &SparqConfig,
        device: &Device,
        dtype: DType,
    ) -> Result<Crossover> {
        let key = key(layer, config, device, dtype);
        if let Some(&known) = self.known.get(&key) {
            return Ok(known);
        }
        let measured = measure(layer, config, device, dtype)?;
        self.known.insert(key, measured);
        // A cache that cannot be written costs a second next time and nothing else.
        drop(self.store());
        Ok(measured)
    }

    /// Writes the file beside its place and moves it there, so that it is whole at any time.
    fn store(&self) -> std::io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let folder = file.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let temporary = folder.join(format!("crossover.{}.tmp", std::process::id()));
        let mut output = fs::File::create(&temporary)?;
        output.write_all(&serde_json::to_vec_pretty(&self.known)?)?;
        output.sync_all()?;
        fs::rename(temporary, file)
    }
}

/// Everything that the crossover depends on.
fn key(layer: &AttentionLayer, config: &SparqConfig, device: &Device, dtype: DType) -> String {
    let AttentionShape { heads, kv_heads, head_dim } = layer.shape;
    format!(
        "{} {} threads={} {} heads={heads}/{kv_heads} d={head_dim} r={} k={} index={:?} choice={:?} mean={} softcap={}",
        env!("CARGO_PKG_VERSION"),
        sparq_core::device::describe(device),
        rayon::current_num_threads(),
        dtype.name(),
        config.rank,
        config.top_k,
        config.index,
        config.choice,
        config.mean_value,
        layer.softcap.is_some(),
    )
}

/// Times both methods over one cache at lengths that double, until SparQ is faster.
fn measure(layer: &AttentionLayer, config: &SparqConfig, device: &Device, dtype: DType) -> Result<Crossover> {
    let layer = AttentionLayer { window: None, ..*layer };
    let mut sparq = Sparq::new(SparqConfig { dense_below: 0, ..*config }, &layer.shape)?;
    let cache = CacheConfig { layer, batch: 1, max_len: LONGEST + 1, dtype };
    let mut bench = Bench {
        cache: LayerCache::new(&cache, sparq.cache_extras(), device)?,
        shape: layer.shape,
        device: device.clone(),
        caches: evicted(device),
    };
    let start = Instant::now();
    let mut points: Vec<(f64, f64, f64)> = vec![];
    let mut len = (config.top_k + 1).next_power_of_two().max(256);
    while len <= LONGEST {
        bench.fill(len)?;
        // SparQ appends to the transposed keys as well: its part of the margin.
        let dense = bench.median(&mut Dense)?;
        let with_sparq = bench.median(&mut sparq)?;
        points.push((len as f64, dense, with_sparq));
        if with_sparq <= FASTER * dense || start.elapsed() > DEADLINE {
            break;
        }
        len *= 2;
    }
    Ok(Crossover { tokens: crossing(&points).map(|tokens| tokens.max(config.top_k + 1)) })
}

/// Where the line through the last two points reaches [`FASTER`], from (tokens, dense, SparQ).
fn crossing(points: &[(f64, f64, f64)]) -> Option<usize> {
    let gain = |(_, dense, sparq): (f64, f64, f64)| FASTER * dense - sparq;
    match *points {
        [] => None,
        [only] => (gain(only) >= 0.0).then_some(only.0 as usize),
        [.., before, last] => {
            let slope = (gain(last) - gain(before)) / (last.0 - before.0);
            (slope > 0.0).then(|| (last.0 - gain(last) / slope).ceil() as usize)
        }
    }
}

/// A buffer that fills the caches of the machine; empty for devices with memory of their own.
fn evicted(device: &Device) -> Vec<u64> {
    let on_cpu = ["flex", "ndarray"].contains(&sparq_core::device::describe(device).as_str());
    vec![1; if on_cpu { EVICTED / size_of::<u64>() } else { 0 }]
}

struct Bench {
    cache: LayerCache,
    shape: AttentionShape,
    device: Device,
    caches: Vec<u64>,
}

impl Bench {
    fn random(&self, heads: usize, tokens: usize) -> Tensor<4> {
        let dims = [1, heads, tokens, self.shape.head_dim];
        Tensor::random(dims, Distribution::Uniform(-1.0, 1.0), (&self.device, DType::F32))
    }

    fn fill(&mut self, len: usize) -> Result<()> {
        let held = self.cache.lens()[0];
        let plan = self.cache.plan(&NewTokens::all(1, len - held))?;
        let [k, v] = [0, 1].map(|_| self.random(self.shape.kv_heads, len - held));
        Ok(self.cache.append(k, v, &plan)?)
    }

    /// Seconds of a step.
    fn median(&self, method: &mut dyn DecodeMethod) -> Result<f64> {
        let mut times = vec![];
        for _ in 0..=STEPS {
            let q = self.random(self.shape.heads, 1);
            std::hint::black_box(self.caches.iter().fold(0_u64, |sum, x| sum.wrapping_add(*x)));
            self.sync()?;
            let start = Instant::now();
            let decoded = method.decode(q, &self.cache)?;
            self.sync()?;
            times.push(start.elapsed().as_secs_f64());
            drop(decoded);
        }
        // The first step also compiles and allocates.
        let mut times = times.split_off(1);
        times.sort_by(f64::total_cmp);
        Ok(times[times.len() / 2])
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
        let at = |n: f64| (n, n, 500.0 + n / 10.0);
        assert_eq!(crossing(&[at(256.0), at(512.0), at(1024.0)]), Some(589));
        assert_eq!(crossing(&[at(256.0), at(512.0)]), Some(589), "beyond the last point");
        assert_eq!(crossing(&[at(1024.0)]), Some(1024), "faster from the start");
        assert_eq!(crossing(&[at(256.0)]), None, "nothing to go by");
        let never = |n: f64| (n, n, 100.0 + n);
        assert_eq!(crossing(&[never(256.0), never(512.0)]), None);
        assert_eq!(crossing(&[]), None);
    }

    #[cfg(feature = "flex")]
    #[test]
    fn what_was_measured_is_kept_by_shape_and_size() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cache/crossover.json");
        let shape = AttentionShape { heads: 2, kv_heads: 2, head_dim: 16 };
        let config = SparqConfig::new(&shape, 4, 64);
        let (device, layers) = (Device::flex(), [AttentionLayer::from(shape); 2]);
        let mut methods = [Method::Sparq(config), Method::Dense];
        let mut crossovers = Crossovers::new(Some(file.clone()));
        crossovers.apply(&mut methods, &layers, &device, DType::F32).unwrap();
        let Method::Sparq(SparqConfig { dense_below, .. }) = methods[0] else { panic!("{methods:?}") };
        assert!(dense_below > config.top_k, "{dense_below}");
        assert_eq!(methods[1], Method::Dense);

        // The file holds it, and what it holds is taken without measuring.
        let text = fs::read_to_string(&file).unwrap();
        let planted: BTreeMap<String, Crossover> = serde_json::from_str(&text).unwrap();
        assert_eq!(planted.len(), 1);
        let planted: BTreeMap<_, _> =
            planted.into_keys().map(|key| (key, Crossover { tokens: Some(4321) })).collect();
        fs::write(&file, serde_json::to_vec(&planted).unwrap()).unwrap();
        let mut other = Crossovers::new(Some(file.clone()));
        let mut find = |config: &SparqConfig| other.find(&layers[0], config, &device, DType::F32).unwrap();
        assert_eq!(find(&config).tokens, Some(4321));
        find(&SparqConfig { rank: 8, ..config });
        assert_eq!(other.known.len(), 2);

        // A length that is stated stays; a damaged file counts as empty.
        let mut methods = [Method::Sparq(SparqConfig { dense_below: 7, ..config })];
        other.apply(&mut methods, &layers, &device, DType::F32).unwrap();
        assert_eq!(methods, [Method::Sparq(SparqConfig { dense_below: 7, ..config })]);
        fs::write(&file, "{").unwrap();
        assert_eq!(Crossovers::new(Some(file)).known.len(), 0);
    }
}
