//! How many kernels one decode step of one layer launches on a Cube backend, cache append included.

use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{DType, Device, Distribution, Tensor};
use cubecl::logging::{LaunchObservation, LaunchObserver};
use sparq_core::{
    AttentionShape, CacheConfig, GroupScores, KtFormat, LayerCache, Method, NewTokens, SparqConfig, device,
};

#[derive(Debug, Default)]
struct Launches(Mutex<Vec<&'static str>>);

impl LaunchObserver for Launches {
    fn launched(&self, kernel: &'static str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(kernel);
    }
}

/// Kernels that one step launches, after steps that have compiled and tuned what there is.
fn launches(shape: AttentionShape, method: Method, len: usize, device: &Device) -> Vec<&'static str> {
    let config = CacheConfig { layer: shape.into(), batch: 1, max_len: len + 8, dtype: DType::F32 };
    let mut method = method.for_layer(&shape).expect("a valid method");
    let mut cache = LayerCache::new(&config, method.cache_extras(), device).expect("a valid cache");
    cache.reserve(len + 8).expect("it fits");
    let random = |heads, width| {
        let shape = [1, heads, width, shape.head_dim];
        Tensor::<4>::random(shape, Distribution::Normal(0.0, 1.0), (device, DType::F32))
    };
    let plan = cache.plan(&NewTokens::all(1, len)).expect("it fits");
    cache.append(random(shape.kv_heads, len), random(shape.kv_heads, len), &plan).expect("shapes fit");
    let mut step = || {
        let (q, k, v) = (random(shape.heads, 1), random(shape.kv_heads, 1), random(shape.kv_heads, 1));
        device.sync().expect("a device that works");
        let seen = Arc::new(Launches::default());
        let watching = LaunchObservation::new(seen.clone());
        let plan = cache.plan(&NewTokens::all(1, 1)).expect("it fits");
        cache.append(k, v, &plan).expect("shapes fit");
        let decoded = method.decode(q, &cache.sequence(0).expect("it is there")).expect("a step");
        drop(watching);
        let output = decoded.output.into_data().try_to_vec::<f32>().expect("f32 data");
        assert!(output.iter().all(|x| x.is_finite()));
        seen.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    };
    step();
    step()
}

/// One launch appends; SparQ takes two more, and one more for each of: many positions to read, the sum of
/// softmax scores as the group's rule, and transposed keys in few bits.
#[test]
fn a_decode_step_takes_few_launches() {
    let device = match device::parse("wgpu") {
        Ok(device) => device,
        Err(error) => {
            println!("not run: {error}");
            return;
        }
    };
    let single = AttentionShape { heads: 2, kv_heads: 2, head_dim: 64 };
    let grouped = AttentionShape { heads: 8, kv_heads: 2, head_dim: 64 };
    let sparq = |shape: &AttentionShape, top_k| SparqConfig::new(shape, 16, top_k);
    let softmax = SparqConfig { group_scores: GroupScores::Softmax, ..sparq(&grouped, 64) };
    let coded = |kt_format| SparqConfig { kt_format, mean_value: false, ..sparq(&grouped, 64) };
    let cases = [
        ("dense, short", single, Method::Dense, 200, 2),
        ("dense, split", single, Method::Dense, 1000, 3),
        ("sparq with the mean value", single, Method::Sparq(sparq(&single, 64)), 1000, 3),
        ("sparq, grouped", grouped, Method::Sparq(sparq(&grouped, 64)), 1000, 3),
        ("sparq, many positions", grouped, Method::Sparq(sparq(&grouped, 400)), 1000, 4),
        ("sparq, sums of softmax scores", grouped, Method::Sparq(softmax), 1000, 4),
        ("sparq, keys in 8 bits", grouped, Method::Sparq(coded(KtFormat::Int8)), 1000, 4),
        ("sparq, keys in 4 bits", grouped, Method::Sparq(coded(KtFormat::Int4)), 1000, 4),
    ];
    for (what, shape, method, len, expected) in cases {
        let kernels = launches(shape, method, len, &device);
        println!("{what}: {} launches: {kernels:?}", kernels.len());
        assert_eq!(kernels.len(), expected, "{what}: {kernels:?}");
    }
}
