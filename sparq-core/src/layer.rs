//! Cache and decode method of one layer, together.

use burn::tensor::{DType, Device, Tensor};

use crate::{
    cache::{CacheConfig, CacheMark, LayerCache},
    error::{Error, Result},
    method::{DecodeMethod, Decoded, Method, dense_transfer},
    ops::{self, AttendParams, MOST_QUERIES},
    spans::{AppendPlan, NewTokens},
    transfer::{Traffic, Transfer},
};

/// What one attention layer remembers between calls: its cache, its method, its traffic.
#[derive(Debug)]
pub struct LayerState {
    cache: LayerCache,
    method: Box<dyn DecodeMethod>,
    traffic: Traffic,
}

/// A point that a layer can go back to, as often as wanted: see [`LayerState::go_back`].
#[derive(Debug)]
pub struct LayerMark {
    cache: CacheMark,
    method: Box<dyn DecodeMethod>,
}

impl LayerState {
    /// An empty state on `device`.
    ///
    /// # Errors
    /// [`crate::Error`] for sizes or hyper-parameters out of range, or a dtype that the device
    /// does not support.
    pub fn new(config: &CacheConfig, method: &Method, device: &Device) -> Result<Self> {
        Self::with_method(config, method.for_layer(&config.layer.shape)?, device)
    }

    /// An empty state that runs a method of the caller's own.
    ///
    /// # Errors
    /// As [`LayerState::new`].
    pub fn with_method(config: &CacheConfig, method: Box<dyn DecodeMethod>, device: &Device) -> Result<Self> {
        Ok(Self {
            cache: LayerCache::new(config, method.cache_extras(), device)?,
            method,
            traffic: Traffic::default(),
        })
    }

    /// The cache.
    pub fn cache(&self) -> &LayerCache {
        &self.cache
    }

    /// The method, as it is now.
    pub fn method(&self) -> &dyn DecodeMethod {
        self.method.as_ref()
    }

    /// Makes room for `len` tokens per sequence, so that decode steps up to there do not grow it.
    ///
    /// # Errors
    /// [`crate::Error::CacheFull`] past the maximum.
    pub fn reserve(&mut self, len: usize) -> Result<()> {
        self.cache.reserve(len)
    }

    /// Forgets what each sequence holds from position `len` on; the method goes back as well.
    ///
    /// # Errors
    /// [`Error::CannotGoBack`] where the method remembers more than the cached tokens; the state is of
    /// no use then. A [`LayerState::mark`] serves such methods.
    pub fn truncate(&mut self, len: usize) -> Result<()> {
        if self.cache.lens().iter().all(|&held| held <= len) {
            return Ok(());
        }
        self.cache.truncate(len)?;
        self.method.truncate(&self.cache)
    }

    /// Forgets what one sequence holds from position `len` on, all of it for 0; the method goes back as well.
    ///
    /// # Errors
    /// As [`LayerState::truncate`], and [`Error::Shape`] for a sequence that is not there.
    pub fn truncate_sequence(&mut self, sequence: usize, len: usize) -> Result<()> {
        if self.cache.lens().get(sequence).is_some_and(|&held| held <= len) {
            return Ok(());
        }
        self.cache.truncate_sequence(sequence, len)?;
        self.method.truncate(&self.cache)
    }

    /// The point that cache and method are at; `None` where the method cannot be copied. What the cache
    /// holds is not copied: a mark is good for as long as the tokens before it stay.
    pub fn mark(&self) -> Option<LayerMark> {
        Some(LayerMark { cache: self.cache.mark(), method: self.method.fork()? })
    }

    /// Goes back to a mark of this layer: cache and method are as they were, to the bit. Traffic counts
    /// on.
    ///
    /// # Errors
    /// Those of [`LayerCache::rewind`].
    pub fn go_back(&mut self, mark: &LayerMark) -> Result<()> {
        let method = mark.method.fork().ok_or(Error::CannotGoBack { method: mark.method.name() })?;
        self.cache.rewind(&mark.cache, method.cache_extras())?;
        self.method = method;
        Ok(())
    }

    /// Decodes with `method` from now on. The method that ran so far goes on where it is the same and
    /// differs in sizes. `false`, and nothing is changed, where the cache does not keep what the method
    /// needs and cannot make it of what it keeps, or where the method had to watch the prefill.
    ///
    /// # Errors
    /// [`crate::Error::InvalidConfig`] for hyper-parameters that do not fit the layer.
    pub fn set_method(&mut self, method: &Method) -> Result<bool> {
        let next = match self.method.resume(method) {
            Some(next) => next,
            None if method.watches_prefill() && self.cache.lens().iter().any(|&len| len > 0) => {
                return Ok(false);
            }
            None => method.for_layer(&self.cache.config().layer.shape)?,
        };
        let extras = next.cache_extras();
        if extras != self.method.cache_extras() && self.cache.rewind(&self.cache.mark(), extras).is_err() {
            return Ok(false);
        }
        self.cache.drop_copies();
        self.method = next;
        Ok(true)
    }

    /// Goes back to a mark of this layer's cache, decodes with `method` from there on and counts
    /// transfers anew; returns the method that ran so far. So methods can be compared on one prefill.
    ///
    /// `method` is taken as it is: one that watches the prefill must have watched this one.
    ///
    /// # Errors
    /// As [`LayerCache::rewind`]; nothing is changed then.
    pub fn restart(
        &mut self,
        mark: &CacheMark,
        method: Box<dyn DecodeMethod>,
    ) -> Result<Box<dyn DecodeMethod>> {
        self.cache.rewind(mark, method.cache_extras())?;
        self.traffic = Traffic::default();
        Ok(std::mem::replace(&mut self.method, method))
    }

    /// Transfers of all decode steps so far.
    pub fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// Begins to count transfers anew.
    pub fn reset_traffic(&mut self) {
        self.traffic = Traffic::default();
    }

    /// Appends the new tokens and attends to everything before them that the layer's window leaves,
    /// densely and causally.
    ///
    /// `q: [batch, heads, width, head_dim]`, `k`, `v: [batch, kv_heads, width, head_dim]`; returns
    /// `[batch, heads, width, head_dim]` in f32. Rows of padding come back finite and meaningless.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] and [`crate::Error::CacheFull`].
    pub fn prefill(
        &mut self,
        q: Tensor<4>,
        k: Tensor<4>,
        v: Tensor<4>,
        new: &NewTokens,
    ) -> Result<Tensor<4>> {
        let plan = self.cache.plan(new)?;
        self.prefill_planned(q, k, v, &plan)
    }

    /// [`LayerState::prefill`] with a plan that is shared between layers.
    ///
    /// # Errors
    /// As [`LayerState::prefill`].
    pub fn prefill_planned(
        &mut self,
        q: Tensor<4>,
        k: Tensor<4>,
        v: Tensor<4>,
        plan: &AppendPlan,
    ) -> Result<Tensor<4>> {
        let [q, k, v] = [q, k, v].map(|x| x.cast(DType::F32));
        ops::check_queries(&q, self.cache.config(), plan.width())?;
        self.cache.append(k, v, plan)?;
        self.method.observe_prefill(&q, &self.cache, plan)?;
        let params = AttendParams::new(plan.clone(), &self.cache.config().layer);
        Ok(ops::prefill(q, self.cache.k()?, self.cache.v()?, params)?.output)
    }

    /// Appends new tokens without attending: a cache of random keys and values reaches any length
    /// without the time of a prefill. The method observes the queries `q` as in a prefill.
    ///
    /// `q: [batch, heads, width, head_dim]`, `k`, `v: [batch, kv_heads, width, head_dim]`.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] and [`crate::Error::CacheFull`].
    pub fn append(&mut self, q: &Tensor<4>, k: Tensor<4>, v: Tensor<4>, new: &NewTokens) -> Result<()> {
        let plan = self.cache.plan(new)?;
        ops::check_queries(q, self.cache.config(), plan.width())?;
        self.cache.append(k, v, &plan)?;
        self.method.observe_prefill(q, &self.cache, &plan)
    }

    /// Appends one token per sequence, or as many as `q` has, and attends with the layer's method: each token
    /// sees those before it and itself, as in steps of one token each.
    ///
    /// `q: [batch, heads, width, head_dim]`, `k`, `v: [batch, kv_heads, width, head_dim]`; returns
    /// `[batch, heads, width, head_dim]` in f32.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] and [`crate::Error::CacheFull`].
    pub fn decode(&mut self, q: Tensor<4>, k: Tensor<4>, v: Tensor<4>) -> Result<Tensor<4>> {
        let [_, _, width, _] = q.dims();
        let plan = self.cache.plan(&NewTokens::all(self.cache.config().batch, width))?;
        Ok(self.decode_planned(q, k, v, &plan)?.output)
    }

    /// [`LayerState::decode`] with a plan that is shared between layers, and all that the method
    /// reports.
    ///
    /// # Errors
    /// As [`LayerState::decode`].
    pub fn decode_planned(
        &mut self,
        q: Tensor<4>,
        k: Tensor<4>,
        v: Tensor<4>,
        plan: &AppendPlan,
    ) -> Result<Decoded> {
        let [q, k, v] = [q, k, v].map(|x| x.cast(DType::F32));
        let width = plan.width();
        ops::check_queries(&q, self.cache.config(), width)?;
        let longest = plan.lens_after().into_iter().max().unwrap_or(0);
        // Columns of padding would shift the queries against the last tokens.
        let whole = plan.as_slice().iter().all(|append| append.take == width);
        if width == 1 || (width <= MOST_QUERIES && whole && self.method.takes_several(longest)) {
            self.cache.append(k, v, plan)?;
            let mut decoded = self.method.decode(q, &self.cache)?;
            let mut dense = dense_transfer(&self.cache);
            for transfer in [&mut decoded.transfer, &mut dense] {
                transfer.append = transfer.append.times(width);
            }
            self.traffic.record(decoded.transfer, dense);
            return Ok(decoded);
        }
        let (mut outputs, mut selection, mut transfer) = (vec![], None, Transfer::default());
        for t in 0..width {
            let [q, k, v] = [&q, &k, &v].map(|x| x.clone().narrow(2, t, 1));
            let decoded = self.decode_planned(q, k, v, &plan.column(t))?;
            outputs.push(decoded.output);
            selection = decoded.selection;
            transfer += decoded.transfer;
        }
        Ok(Decoded { output: Tensor::cat(outputs, 2), selection, transfer })
    }
}
