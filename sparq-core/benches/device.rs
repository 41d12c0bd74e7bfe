//! Decode steps of one layer on a GPU, at the shapes of docs/kernels-gpu.md: one line of JSON each.
//!
//! `cargo bench -p sparq-core --bench device --features wgpu -- [DEVICE] [OPTIONS]`,
//! OPTIONS: `--quick`, `--calls=N`, `--only=CASE`, and `--f32` for devices without f16.
//!
//! A step appends one token and attends. N steps (100) are queued back to back, from the
//! same length on in each run, and the device is waited for once, inside of the timed region; a figure is the
//! median of several such runs, per step. CASE is as in
//! `1,8,32768,sparq`: batch, KV heads, tokens, method. Bytes are those that a step must move; they are set
//! beside the bandwidth of a copy on the same device. Beside the time of a step stand the part of it after
//! which its calls have returned (`queued_us`), and, where `cubecl` runs the kernels, what the device says that
//! each of them takes (`kernels`, medians; 4 to 6 µs of each are the measurement).

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use burn::tensor::{DType, Device, Distribution, Tensor};
use cubecl::{
    future::block_on,
    logging::{LaunchObservation, LaunchObserver, ProfileDuration, TimingRequest},
};
use sparq_core::{
    AttentionShape, CacheConfig, KtFormat, LayerCache, Method, NewTokens, Sequences, SparqConfig,
    cache::CacheExtras, device, ops,
};

/// As in the program: the thread of a device frees what this one allocates.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs of which the median is taken.
const RUNS: usize = 11;
/// Steps whose kernels are timed one by one.
const TIMED: usize = 20;
/// Time before the first run.
const WARM_UP: Duration = Duration::from_millis(300);
/// Batch, KV heads (of 32 heads) and cached tokens.
const SHAPES: [(usize, usize, usize); 8] = [
    (16, 32, 16384),
    // What a device with buffers of 2 GiB can hold of it.
    (8, 32, 16384),
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
        (None, false) => 100,
    };
    let only = arguments.iter().find_map(|argument| argument.strip_prefix("--only="));
    let dtype = if arguments.iter().any(|argument| argument == "--f32") { DType::F32 } else { DType::F16 };
    let name = arguments.iter().find(|argument| !argument.starts_with("--")).map_or("wgpu", |name| name);
    let device = device::parse(name).expect("a device");
    let bandwidth = copy(&device, if quick { 1 << 20 } else { 1 << 28 });
    println!(r#"{{"what": "copy", "device": "{name}", "gb_s": {bandwidth:.1}}}"#);
    let shapes: &[_] = if quick { &[(1, 4, 512), (2, 4, 1024)] } else { &SHAPES };
    for &(batch, kv_heads, len) in shapes {
        let shape = AttentionShape { heads: if quick { 4 } else { 32 }, kv_heads, head_dim: 128 };
        let sparq = |kt_format| Method::Sparq(SparqConfig { kt_format, ..SparqConfig::new(&shape, 32, 128) });
        let methods = [
            ("dense", Method::Dense),
            ("sparq", sparq(KtFormat::Cache)),
            ("sparq int8", sparq(KtFormat::Int8)),
            ("sparq int4", sparq(KtFormat::Int4)),
        ];
        for (method_name, method) in methods {
            if only.is_some_and(|case| case != format!("{batch},{kv_heads},{len},{method_name}")) {
                continue;
            }
            let Figures { seconds, queued, bytes, kernels } = match step(
                shape, batch, len, &method, &device, dtype, calls,
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
    let sizes: &[_] = match (only, quick) {
        (Some(_), _) => &[],
        (None, true) => &[(256, 256)],
        (None, false) => &[(4096, 4096), (14336, 4096), (128_256, 4096)],
    };
    for &(outputs, inputs) in sizes {
        let weight = random([outputs, inputs], dtype, &device);
        let x = random([1, inputs], DType::F32, &device);
        let (time, _) = median(&device, calls, || {
            (0..calls).for_each(|_| drop(ops::linear(x.clone(), weight.clone())));
        });
        let rate = (outputs * inputs * dtype.size()) as f64 / time / 1e9;
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

/// Median seconds of one of the `calls` that `run` queues, with the device waited for once at their end; and
/// until they had returned.
fn median(device: &Device, calls: usize, mut run: impl FnMut()) -> (f64, f64) {
    let mut timed = || {
        let start = Instant::now();
        run();
        let queued = start.elapsed().as_secs_f64();
        device.sync().expect("a device that works");
        (start.elapsed().as_secs_f64() / calls as f64, queued / calls as f64)
    };
    // Kernels are compiled, what was freed before is given back, and clocks rise.
    let start = Instant::now();
    while start.elapsed() < WARM_UP {
        timed();
    }
    let mut times: Vec<(f64, f64)> = (0..RUNS).map(|_| timed()).collect();
    times.sort_by(|a, b| a.0.total_cmp(&b.0));
    times[RUNS / 2]
}

/// Bandwidth of an elementwise operation that reads and writes `elements` floats, in GB/s.
fn copy(device: &Device, elements: usize) -> f64 {
    let x = random([elements], DType::F32, device);
    let (time, _) = median(device, 10, || (0..10).for_each(|_| drop(x.clone().add_scalar(1.0))));
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
    dtype: DType,
    calls: usize,
) -> sparq_core::Result<Figures> {
    let room = len + calls + TIMED;
    let config = CacheConfig { layer: shape.into(), batch, max_len: room.next_multiple_of(256), dtype };
    let methods = (0..batch).map(|_| method.for_layer(&shape).expect("a valid method"));
    let mut sequences = Sequences::new(methods.collect());
    let extras = sequences.extras();
    let mut cache = LayerCache::new(&config, CacheExtras::default(), device)?;
    cache.keep(&extras)?;
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
    let mut step = |cache: &mut LayerCache| {
        let plan = cache.plan(&NewTokens::all(batch, 1)).expect("it fits");
        cache.append(k.clone(), v.clone(), &plan).expect("shapes fit");
        let decoded = sequences.attend(q.clone(), cache, &plan).expect("a step");
        moved = decoded.transfer().total().bytes;
    };
    let start = cache.mark();
    let (seconds, queued) = median(device, calls, || {
        cache.rewind(&start, &extras).expect("it was there before");
        (0..calls).for_each(|_| step(&mut cache));
    });
    let observed = Arc::new(Kernels::default());
    let watching = LaunchObservation::new(observed.clone());
    (0..TIMED).for_each(|_| step(&mut cache));
    drop(watching);
    device.sync().expect("a device that works");
    Ok(Figures { seconds, queued, bytes: moved, kernels: observed.medians(TIMED) })
}
