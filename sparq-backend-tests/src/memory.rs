//! What a backend does with its memory. These checks need a process of their own.

use burn::tensor::{DType, Device, Tensor};
use sparq_core::{
    AttentionShape, CacheConfig, KtFormat, LayerCache, LayerState, Method, NewTokens, SparqConfig,
    cache::CacheExtras,
};

use crate::{
    problem::{Problem, floats, tensor},
    suite::{is_slow, not_run},
};

const MIB: usize = 1 << 20;

/// Appends to a cache of 3 × 32 MiB never hold a second copy of one of its buffers.
pub fn an_append_writes_in_place(device: &Device) {
    let shape = AttentionShape { heads: 8, kv_heads: 8, head_dim: 128 };
    let config = CacheConfig { layer: shape.into(), batch: 1, max_len: 8192, dtype: DType::F32 };
    let extras = CacheExtras { k_t: true, kt_format: KtFormat::Cache, mean_value: true };
    let mut cache = LayerCache::new(&config, extras, device).expect("a valid cache");
    cache.reserve(config.max_len).expect("within the maximum");
    let problem = Problem::random(shape, NewTokens::all(1, 1), 61);
    let mut append = |times: usize| {
        for _ in 0..times {
            let plan = cache.plan(&NewTokens::all(1, 1)).expect("it fits");
            let rows = |x| problem.rows(x, device);
            cache.append(rows(&problem.k), rows(&problem.v), &plan).expect("shapes fit");
        }
        // Read back: a lazy backend has done the work then.
        floats(cache.k().expect("filled").narrow(2, times - 1, 1))
    };
    append(2);
    let before = peak(device);
    append(40);
    let grown = peak(device).saturating_sub(before);
    assert!(grown < 16 * MIB, "the peak of memory grew by {} MiB in 40 appends", grown / MIB);
}

/// The memory that a layer takes stays bounded over 1000 decode steps with SparQ attention.
pub fn nothing_leaks_over_a_thousand_steps(device: &Device) {
    // A software GPU takes minutes for the larger layer. It counts its allocator's bytes, where a process
    // is known by the pages that it touches, so that a small leak shows as well.
    let (heads, kv_heads) = if is_slow() { (4, 2) } else { (32, 8) };
    let shape = AttentionShape { heads, kv_heads, head_dim: 64 };
    let (prompt, steps) = (64, 1000);
    let config = SparqConfig { mean_value: true, ..SparqConfig::new(&shape, 16, 32) };
    let max_len = prompt + steps + 100;
    let sizes = CacheConfig { layer: shape.into(), batch: 1, max_len, dtype: DType::F32 };
    let mut layer = LayerState::new(&sizes, &Method::Sparq(config), device).expect("a valid layer");
    layer.reserve(max_len).expect("within the maximum");
    let problem = Problem::random(shape, NewTokens::all(1, prompt), 62);
    let one = Problem::random(shape, NewTokens::all(1, 1), 63);
    let q = tensor(vec![0.1; heads * prompt * 64], [1, heads, prompt, 64], device);
    layer
        .prefill(q, problem.rows(&problem.k, device), problem.rows(&problem.v, device), &problem.tokens)
        .expect("it fits");
    let mut decode = |times: usize| {
        let mut last: Option<Tensor<4>> = None;
        for step in 0..times {
            let rows = |x| one.rows(x, device);
            let output = layer.decode(one.queries(device), rows(&one.k), rows(&one.v)).expect("it fits");
            // As a generation does, and so that a lazy backend's queue cannot grow.
            if step % 50 == 49 {
                floats(output.clone());
            }
            last = Some(output);
        }
        floats(last.expect("a step"))
    };
    decode(100);
    let before = held(device);
    decode(steps);
    let grown = held(device).saturating_sub(before);
    let leak = steps * heads * 64 * size_of::<f32>();
    assert!(grown < leak, "{} KiB more are held after {steps} steps: a query each", grown / 1024);
}

/// Bytes held by the device's allocator, or by this process where the device is the processor.
fn held(device: &Device) -> usize {
    device.sync().expect("a working device");
    match device.memory_pool_usage() {
        Some(usage) => usage.bytes_in_use as usize,
        None => resident(device, "VmRSS:"),
    }
}

/// The most that was ever reserved; at least what is held.
fn peak(device: &Device) -> usize {
    device.sync().expect("a working device");
    match device.memory_pool_usage() {
        // Pages are kept for reuse and so tell of the peak.
        Some(usage) => usage.bytes_reserved as usize,
        None => resident(device, "VmHWM:"),
    }
}

/// A field of `/proc/self/status` in bytes.
fn resident(device: &Device, field: &str) -> usize {
    if sparq_core::device::describe(device) == "libtorch-cuda" {
        not_run("torch's allocator of GPU memory cannot be asked from here");
    }
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else {
        not_run("this system has no /proc/self/status");
    };
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("the field");
    let kib: usize = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib * 1024
}
