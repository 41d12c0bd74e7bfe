//! A decode method that stands in for others while a prompt is prefilled.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::tensor::Tensor;
use sparq_core::{
    AttentionShape, CachedSequence, DecodeMethod, Decoded, Method, PromptChunk, Result, cache::CacheExtras,
    method::Dense,
};

/// Methods that watch, shared with the stand-in.
type Shared = Arc<Mutex<Vec<Box<dyn DecodeMethod>>>>;

/// Lets methods of a sequence watch one dense prefill, and has the cache keep what any of them needs.
#[derive(Debug)]
struct StandIn(Shared);

/// The methods that watch the prefill of one sequence in one layer.
#[derive(Debug)]
pub(crate) struct Watchers {
    shape: AttentionShape,
    methods: Shared,
}

impl Watchers {
    /// Watchers that can give every one of `methods` what it has to have seen.
    pub(crate) fn new(shape: AttentionShape, methods: &[Method]) -> Result<Self> {
        let mut watching: Vec<Box<dyn DecodeMethod>> = vec![];
        for method in methods {
            if watching.iter().all(|other| other.resume(method).is_none()) {
                watching.push(method.for_layer(&shape)?);
            }
        }
        Ok(Self { shape, methods: Arc::new(Mutex::new(watching)) })
    }

    /// What decodes the layer during the prefill.
    pub(crate) fn stand_in(&self) -> Box<dyn DecodeMethod> {
        Box::new(StandIn(self.methods.clone()))
    }

    /// One of the methods, as it is after the prefill.
    pub(crate) fn resume(&self, method: &Method) -> Result<Box<dyn DecodeMethod>> {
        match lock(&self.methods).iter().find_map(|watching| watching.resume(method)) {
            Some(method) => Ok(method),
            None => method.for_layer(&self.shape),
        }
    }
}

/// The content; a panic elsewhere does not make it wrong.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl DecodeMethod for StandIn {
    fn name(&self) -> &'static str {
        "watchers"
    }

    fn cache_extras(&self) -> CacheExtras {
        let mut extras = CacheExtras::default();
        for method in lock(&self.0).iter() {
            let own = method.cache_extras();
            if own.k_t && !extras.k_t {
                // One form at a time: for methods that read another it is made where they restart.
                (extras.k_t, extras.kt_format) = (true, own.kt_format);
            }
            extras.mean_value |= own.mean_value;
        }
        extras
    }

    fn observe_prefill(&mut self, chunk: &PromptChunk<'_>, sequence: &CachedSequence<'_>) -> Result<()> {
        lock(&self.0).iter_mut().try_for_each(|method| method.observe_prefill(chunk, sequence))
    }

    fn decode(&mut self, q: Tensor<4>, sequence: &CachedSequence<'_>) -> Result<Decoded> {
        Dense.decode(q, sequence)
    }
}
