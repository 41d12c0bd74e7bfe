//! Decode steps of one layer on a GPU, at the shapes of docs/kernels-gpu.md: one line of JSON each.
//!
//! `cargo bench -p sparq-core --bench device --features wgpu -- [DEVICE] [--quick] [--calls=N]`. A step
//! appends one token and attends. N steps (20) are queued back to back and the device is waited for once,
//! inside of the timed region; a figure is the median of several such runs, per step. Bytes are those
//! that a step must move; they are set beside the bandwidth of a copy on the same device. Beside the time of
//! a step stand the part of it after which its calls have returned (`queued_us`), and, where `cubecl` runs
//! the kernels, what the device says that each of them takes (`kernels`, medians).

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use burn::tensor::{DType, Device, Distribution, Tensor};
use cubecl::{
    future::block_on,
    logging::{LaunchObservation, LaunchObserver, ProfileDuration, TimingRequest},
};
use sparq_core::{
    AttentionShape, CacheConfig, IndexDtype, LayerCache, Method, NewTokens, SparqConfig, device, ops,
};

/// Runs of which the median is taken.
const RUNS: usize = 11;
/// Steps whose kernels are timed one by one.
const TIMED: usize = 20;
/// Batch, KV heads (of 32 heads) and cached tokens.
const SHAPES: [(usize, usize, usize); 7] = [
    (16, 32, 16384),
    (1, 32, 2048),
    (1, 32, 16384),
    (1, 32, 65536),
    (1, 8, 2048),
    (1, 8, 32768),
    (1, 8, 131_072),
];

/// Measurements of launches, to be read when all of them are over.
#[derive(Default)]
struct Kernels(Mutex<Vec<(&'static str, ProfileDuration)>>);

impl LaunchObserver for Kernels {
    fn launched(&self, _kernel: &'static str) {}

    fn timing(&self) -> TimingRequest {
        TimingRequest::Deferred
    }

    fn profiled(&self, kernel: &'static str, profile: ProfileDuration) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((kernel, profile));
    }
}

impl Kernels {
    /// Median microseconds of each launch of a step, in the order of the launches, of `steps` steps.
    fn medians(&self, steps: usize) -> Vec<(String, f64)> {
        let all = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let per_step = all.len() / steps;
        let mut times: BTreeMap<usize, (&'static str, Vec<f64>)> = BTreeMap::new();
        for (i, (kernel, profile)) in all.into_iter().enumerate() {
            let Some(ticks) = block_on(profile.resolve()) else { continue };
            let of_launch = times.entry(i % per_step.max(1)).or_insert((kernel, vec![]));
            of_launch.1.push(ticks.duration().as_secs_f64() * 1e6);
        }
        let median = |(kernel, mut times): (&'static str, Vec<f64>)| {
            times.sort_by(f64::total_cmp);
            // Types of the kernel's arguments are of no interest, and module paths neither.
            let name = kernel.split('<').next().unwrap_or(kernel).rsplit("::").next().unwrap_or(kernel);
            (name.to_owned(), times[times.len() / 2])
        };
        times.into_values().map(median).collect()
    }
}

/// What a step takes.
struct Figures {
    seconds: f64,
    /// Until its calls have returned.
    queued: f64,
    /// That it must move.
    bytes: u64,
    /// Kernels of `cubecl` with their microseconds on the device.
    kernels: Vec<(String, f64)>,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let calls = arguments.iter().find_map(|argument| argument.strip_prefix("--calls="));
    let calls = match (calls, quick) {
        (Some(calls), _) => calls.parse().expect("a number of calls"),
        (None, true) => 2,
        (None, false) => 20,
    };
    let name = arguments.iter().find(|argument| !argument.starts_with("--")).map_or("wgpu", |name| name);
    let device = device::parse(name).expect("a device");
    let bandwidth = copy(&device, if quick { 1 << 20 } else { 1 << 28 });
    println!(r#"{{"what": "copy", "device": "{name}", "gb_s": {bandwidth:.1}}}"#);
    let shapes: &[_] = if quick { &[(1, 4, 512), (2, 4, 1024)] } else { &SHAPES };
    for &(batch, kv_heads, len) in shapes {
        let shape = AttentionShape { heads: if quick { 4 } else { 32 }, kv_heads, head_dim: 128 };
        let sparq = |index| Method::Sparq(SparqConfig { index, ..SparqConfig::new(&shape, 32, 128) });
        let methods = [
            ("dense", Method::Dense),
            ("sparq", sparq(IndexDtype::Cache)),
            ("sparq int8", sparq(IndexDtype::Int8)),
            ("sparq int4", sparq(IndexDtype::Int4)),
        ];
        for (method_name, method) in methods {
            let Figures { seconds, queued, bytes, kernels } = match step(
                shape, batch, len, &method, &device, calls,
            ) {
                Ok(figures) => figures,
                Err(error) => {
                    println!(
                        r#"{{"what": "{method_name}", "batch": {batch}, "heads": {}, "kv_heads": {kv_heads}, "len": {len}, "not_run": "{}"}}"#,
                        shape.heads,
                        error.to_string().replace('"', "'"),
                    );
                    continue;
                }
            };
            let rate = bytes as f64 / seconds / 1e9;
            let listed: Vec<String> =
                kernels.iter().map(|(name, us)| format!(r#"["{name}", {us:.2}]"#)).collect();
            println!(
                r#"{{"what": "{method_name}", "batch": {batch}, "heads": {}, "kv_heads": {kv_heads}, "len": {len}, "us": {:.2}, "queued_us": {:.2}, "bytes": {bytes}, "launches": {}, "kernels": [{}], "gb_s": {rate:.1}, "of_copy": {:.3}}}"#,
                shape.heads,
                seconds * 1e6,
                queued * 1e6,
                kernels.len(),
                listed.join(", "),
                rate / bandwidth,
            );
        }
    }
    let sizes: &[_] = if quick { &[(256, 256)] } else { &[(4096, 4096), (14336, 4096), (128_256, 4096)] };
    for &(outputs, inputs) in sizes {
        let weight = random([outputs, inputs], DType::F16, &device);
        let x = random([1, inputs], DType::F32, &device);
        let (time, _) =
            median(&device, if quick { 2 } else { 20 }, || drop(ops::linear(x.clone(), weight.clone())));
        let rate = (outputs * inputs * 2) as f64 / time / 1e9;
        println!(
            r#"{{"what": "linear", "out": {outputs}, "in": {inputs}, "us": {:.2}, "gb_s": {rate:.1}, "of_copy": {:.3}}}"#,
            time * 1e6,
            rate / bandwidth,
        );
    }
}

fn random<const D: usize>(shape: [usize; D], dtype: DType, device: &Device) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), (device, dtype))
}

/// Median seconds of one call, of which `calls` are queued before the device is waited for; and until
/// they have returned.
fn median(device: &Device, calls: usize, mut call: impl FnMut()) -> (f64, f64) {
    call();
    device.sync().expect("a device that works");
    let mut times: Vec<(f64, f64)> = (0..RUNS)
        .map(|_| {
            let start = Instant::now();
            (0..calls).for_each(|_| call());
            let queued = start.elapsed().as_secs_f64();
            device.sync().expect("a device that works");
            (start.elapsed().as_secs_f64() / calls as f64, queued / calls as f64)
        })
        .collect();
    times.sort_by(|a, b| a.0.total_cmp(&b.0));
    times[RUNS / 2]
}

/// Bandwidth of an elementwise operation that reads and writes `elements` floats, in GB/s.
fn copy(device: &Device, elements: usize) -> f64 {
    let x = random([elements], DType::F32, device);
    let (time, _) = median(device, 10, || drop(x.clone().add_scalar(1.0)));
    (2 * 4 * elements) as f64 / time / 1e9
}

/// Measures a step.
///
/// # Errors
/// Where the cache is larger than the device allows, or in a form that it does not store.
fn step(
    shape: AttentionShape,
    batch: usize,
    len: usize,
    method: &Method,
    device: &Device,
    calls: usize,
) -> sparq_core::Result<Figures> {
    let room = len + calls * (RUNS + 2) + TIMED;
    let config =
        CacheConfig { layer: shape.into(), batch, max_len: room.next_multiple_of(256), dtype: DType::F16 };
    let mut method = method.for_layer(&shape).expect("a valid method");
    let mut cache = LayerCache::new(&config, method.cache_extras(), device)?;
    // A device may hold no buffer of that size.
    cache.reserve(config.max_len)?;
    // In pieces: the rows are f32.
    let piece = (1 << 25) / (batch * shape.kv_heads * shape.head_dim);
    for first in (0..len).step_by(piece) {
        let width = piece.min(len - first);
        let plan = cache.plan(&NewTokens::all(batch, width)).expect("it fits");
        let rows = || random([batch, shape.kv_heads, width, shape.head_dim], DType::F32, device);
        cache.append(rows(), rows(), &plan).expect("shapes fit");
    }
    let q = random([batch, shape.heads, 1, shape.head_dim], DType::F32, device);
    let (k, v) = (
        random([batch, shape.kv_heads, 1, shape.head_dim], DType::F32, device),
        random([batch, shape.kv_heads, 1, shape.head_dim], DType::F32, device),
    );
    let mut moved = 0;
    let mut call = || {
        let plan = cache.plan(&NewTokens::all(batch, 1)).expect("it fits");
        cache.append(k.clone(), v.clone(), &plan).expect("shapes fit");
        moved = method.decode(q.clone(), &cache).expect("a step").transfer.total().bytes;
    };
    let (seconds, queued) = median(device, calls, &mut call);
    let observed = Arc::new(Kernels::default());
    let watching = LaunchObservation::new(observed.clone());
    (0..TIMED).for_each(|_| call());
    drop(watching);
    device.sync().expect("a device that works");
    Ok(Figures { seconds, queued, bytes: moved, kernels: observed.medians(TIMED) })
}
