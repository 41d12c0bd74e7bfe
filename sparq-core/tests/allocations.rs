//! A decode step allocates its outputs and little else: no scores, no copies of the cache.
#![cfg(feature = "flex")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use burn::tensor::{DType, Device, Distribution, Tensor};
use sparq_core::{AttentionShape, CacheConfig, KtFormat, LayerState, Method, NewTokens, SparqConfig};

/// Counts the bytes that are asked for.
struct Counting;

static BYTES: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.fetch_add(layout.size(), Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_decode_step_allocates_its_outputs() {
    let device = Device::flex();
    let shape = AttentionShape { heads: 8, kv_heads: 2, head_dim: 64 };
    let len = 6000;
    let random = |heads, tokens| {
        Tensor::<4>::random([1, heads, tokens, 64], Distribution::Default, (&device, DType::F32))
    };
    let sparq = |kt_format, mean_value| {
        Method::Sparq(SparqConfig { kt_format, mean_value, ..SparqConfig::new(&shape, 16, 64) })
    };
    let methods = [
        Method::Dense,
        sparq(KtFormat::Cache, false),
        sparq(KtFormat::Cache, true),
        sparq(KtFormat::Int8, false),
    ];
    for method in methods {
        let cache = CacheConfig { layer: shape.into(), batch: 1, max_len: len + 64, dtype: DType::F16 };
        let mut state = LayerState::new(&cache, &method, &device).unwrap();
        state.reserve(len + 64).unwrap();
        state.prefill(random(8, len), random(2, len), random(2, len), &NewTokens::all(1, len)).unwrap();
        let (q, k, v) = (random(8, 1), random(2, 1), random(2, 1));
        let mut step = || {
            let before = BYTES.load(Relaxed);
            let output = state.decode(q.clone(), k.clone(), v.clone()).unwrap();
            drop(output);
            BYTES.load(Relaxed) - before
        };
        // The first steps fill the buffers of each thread.
        let bytes = (0..40).map(|_| step()).skip(20).min().unwrap();
        // Outputs are 2 KiB and 1 KiB of positions; Burn's handles come on top. The scores of one head
        // would be 24 KiB.
        assert!(bytes < 16 << 10, "{method:?} allocates {bytes} bytes in a step");
    }
}
