//! Cache and decode methods of one layer, together.

use burn::tensor::{DType, Device, Tensor};

use crate::{
    cache::{CacheConfig, CacheExtras, CacheMark, LayerCache},
    error::{Error, Result},
    method::{DecodeMethod, Method},
    ops,
    sequences::{DecodedBatch, Sequences},
    spans::{AppendPlan, NewTokens},
    transfer::Traffic,
};

/// What one attention layer remembers between calls: its cache, and for each sequence in it a method and its
/// traffic.
#[derive(Debug)]
pub struct LayerState {
    cache: LayerCache,
    sequences: Sequences,
}

/// A point that a layer can go back to, as often as wanted: see [`LayerState::go_back`].
#[derive(Debug)]
pub struct LayerMark(Vec<SequenceMark>);

/// A point that one sequence can go back to, as often as wanted: see [`LayerState::restore`].
#[derive(Debug)]
pub struct SequenceMark {
    len: usize,
    method: Box<dyn DecodeMethod>,
}

impl LayerState {
    /// An empty state on `device`.
    ///
    /// # Errors
    /// [`crate::Error`] for sizes or hyper-parameters out of range, or a dtype that the device
    /// does not support.
    pub fn new(config: &CacheConfig, method: &Method, device: &Device) -> Result<Self> {
        Self::with_methods(config, |_| method.for_layer(&config.layer.shape), device)
    }

    /// An empty state that runs methods of the caller's own: `method` makes that of each slot.
    ///
    /// # Errors
    /// Those of `method`, and as [`LayerState::new`].
    pub fn with_methods(
        config: &CacheConfig,
        method: impl FnMut(usize) -> Result<Box<dyn DecodeMethod>>,
        device: &Device,
    ) -> Result<Self> {
        // It checks the sizes: there may be no room for so many methods.
        let mut cache = LayerCache::new(config, CacheExtras::default(), device)?;
        let sequences = Sequences::new((0..config.batch).map(method).collect::<Result<_>>()?);
        cache.keep(&sequences.extras())?;
        Ok(Self { cache, sequences })
    }

    /// The cache.
    pub fn cache(&self) -> &LayerCache {
        &self.cache
    }

    /// The methods, and what they moved.
    pub fn sequences(&self) -> &Sequences {
        &self.sequences
    }

    /// Makes room for `len` tokens per sequence, so that decode steps up to there do not grow it.
    ///
    /// # Errors
    /// [`crate::Error::CacheFull`] past the maximum.
    pub fn reserve(&mut self, len: usize) -> Result<()> {
        self.cache.reserve(len)
    }

    /// Makes room for `len` tokens in one slot.
    ///
    /// # Errors
    /// As [`LayerState::reserve`], and [`Error::Slot`] for a slot that is not there.
    pub fn reserve_slot(&mut self, slot: usize, len: usize) -> Result<()> {
        self.cache.reserve_slot(slot, len)
    }

    /// Forgets what each sequence holds from position `len` on; the methods go back as well.
    ///
    /// # Errors
    /// As [`LayerState::truncate_sequence`].
    pub fn truncate(&mut self, len: usize) -> Result<()> {
        (0..self.cache.lens().len()).try_for_each(|slot| self.truncate_sequence(slot, len))
    }

    /// Forgets what one sequence holds from position `len` on, all of it for 0; its method goes back as well.
    ///
    /// # Errors
    /// [`Error::CannotGoBack`] where the method remembers more than the cached tokens; the sequence is of
    /// no use then. A mark ([`LayerState::snapshot`]) serves such methods. [`Error::Slot`] for a slot that is not
    /// there.
    pub fn truncate_sequence(&mut self, slot: usize, len: usize) -> Result<()> {
        if self.cache.sequence(slot)?.len() <= len {
            return Ok(());
        }
        self.cache.truncate_sequence(slot, len)?;
        self.sequences.method_mut(slot)?.truncate(&self.cache.sequence(slot)?)
    }

    /// Forgets what one slot holds, its traffic too, and lets others have its memory. Its method stays, and
    /// begins anew. [`LayerState::decode`] is for all slots, released ones too: a step of some names them
    /// ([`NewTokens::in_slots`], [`LayerState::decode_planned`]).
    ///
    /// # Errors
    /// [`Error::CannotGoBack`] where the method cannot begin anew: [`LayerState::put_method`] gives the slot another
    /// one. [`Error::Slot`] for a slot that is not there.
    pub fn release(&mut self, slot: usize) -> Result<()> {
        self.cache.truncate_sequence(slot, 0)?;
        self.sequences.method_mut(slot)?.truncate(&self.cache.sequence(slot)?)?;
        self.sequences.reset_traffic_of(slot);
        self.cache.release(slot)
    }

    /// Makes slot `to` hold the first `len` tokens of slot `from` and decode with its method, in the place of
    /// what it held and how it decoded.
    ///
    /// # Errors
    /// As [`LayerCache::copy`], [`Error::CannotCopy`] where the method of `from` cannot be copied, and
    /// [`Error::CannotGoBack`] where it cannot be brought to fewer tokens; nothing is changed then.
    pub fn copy(&mut self, from: usize, to: usize, len: usize) -> Result<()> {
        let method = self.sequences.method(from)?;
        let mut copy = method.fork().ok_or(Error::CannotCopy { method: method.name() })?;
        let held = self.cache.sequence(from)?.len();
        // One that cannot go back by itself says so.
        if len < held && len > 0 {
            copy.truncate(&self.cache.sequence(from)?)?;
        }
        self.cache.copy(from, to, len)?;
        if len < held {
            copy.truncate(&self.cache.sequence(to)?)?;
        }
        self.put_method(to, copy)?;
        Ok(())
    }

    /// The point that one sequence is at; `None` where its method cannot be copied. What the cache holds is not
    /// copied: a mark is good for as long as the tokens before it stay.
    ///
    /// # Errors
    /// [`Error::Slot`] for a slot that is not there.
    pub fn snapshot(&self, slot: usize) -> Result<Option<SequenceMark>> {
        let len = self.cache.sequence(slot)?.len();
        Ok(self.sequences.method(slot)?.fork().map(|method| SequenceMark { len, method }))
    }

    /// Brings one sequence back to a mark of it: cache and method are as they were, to the bit. Traffic counts
    /// on.
    ///
    /// # Errors
    /// [`Error::MissingInCache`] where tokens before the mark are gone, and as [`LayerCache::keep`].
    pub fn restore(&mut self, slot: usize, mark: &SequenceMark) -> Result<()> {
        let method = mark.method.fork().ok_or(Error::CannotCopy { method: mark.method.name() })?;
        if self.cache.sequence(slot)?.len() < mark.len {
            return Err(Error::MissingInCache { missing: "tokens before the mark" });
        }
        self.cache.truncate_sequence(slot, mark.len)?;
        self.put_method(slot, method)?;
        Ok(())
    }

    /// The point that all sequences are at; `None` where a method cannot be copied.
    pub fn mark(&self) -> Option<LayerMark> {
        let marks = (0..self.cache.lens().len()).map(|slot| self.snapshot(slot).ok().flatten());
        Some(LayerMark(marks.collect::<Option<_>>()?))
    }

    /// Goes back to a mark of this layer.
    ///
    /// # Errors
    /// As [`LayerState::restore`].
    pub fn go_back(&mut self, mark: &LayerMark) -> Result<()> {
        mark.0.iter().enumerate().try_for_each(|(slot, mark)| self.restore(slot, mark))
    }

    /// Decodes all sequences with `method` from now on: [`LayerState::set_method_of`] for each of them.
    ///
    /// # Errors
    /// As [`LayerState::set_method_of`].
    pub fn set_method(&mut self, method: &Method) -> Result<bool> {
        for slot in 0..self.cache.lens().len() {
            if !self.set_method_of(slot, method)? {
                return Ok(false);
            }
        }
        self.cache.drop_copies();
        Ok(true)
    }

    /// Decodes one sequence with `method` from now on. The method that ran so far goes on where it is the same and
    /// differs in sizes. `false`, and nothing is changed, where the method had to watch the prefill.
    ///
    /// # Errors
    /// [`crate::Error::InvalidConfig`] for hyper-parameters that do not fit the layer, [`Error::Slot`] for a slot
    /// that is not there, and as [`LayerCache::keep`].
    pub fn set_method_of(&mut self, slot: usize, method: &Method) -> Result<bool> {
        let next = match self.sequences.method(slot)?.resume(method) {
            Some(next) => next,
            None if method.watches_prefill() && !self.cache.sequence(slot)?.is_empty() => return Ok(false),
            None => method.for_layer(&self.cache.config().layer.shape)?,
        };
        self.put_method(slot, next)?;
        Ok(true)
    }

    /// Gives a slot a method as it is, one of the caller's own too, and keeps in the cache what it needs from now
    /// on; returns the method that ran so far. A method that watches the prefill must have watched that of the
    /// sequence in the slot, if there is one.
    ///
    /// # Errors
    /// [`Error::Slot`] for a slot that is not there, and as [`LayerCache::keep`]; nothing is changed then.
    pub fn put_method(
        &mut self,
        slot: usize,
        method: Box<dyn DecodeMethod>,
    ) -> Result<Box<dyn DecodeMethod>> {
        let before = self.sequences.replace(slot, method)?;
        match self.cache.keep(&self.sequences.extras()) {
            Ok(()) => Ok(before),
            Err(error) => {
                self.sequences.replace(slot, before)?;
                self.cache.keep(&self.sequences.extras())?;
                Err(error)
            }
        }
    }

    /// Goes back to a mark of this layer's cache, decodes with `methods`, one for each slot, from there on and
    /// counts transfers anew; returns the methods that ran so far. So methods can be compared on one prefill.
    ///
    /// The methods are taken as they are: one that watches the prefill must have watched this one.
    ///
    /// # Errors
    /// As [`LayerCache::rewind`], and [`Error::Slot`] for another number of methods than slots.
    pub fn restart(
        &mut self,
        mark: &CacheMark,
        methods: Vec<Box<dyn DecodeMethod>>,
    ) -> Result<Vec<Box<dyn DecodeMethod>>> {
        if methods.len() != self.cache.lens().len() {
            return Err(Error::Slot { slot: methods.len(), slots: self.cache.lens().len() });
        }
        let next = Sequences::new(methods);
        self.cache.rewind(mark, &next.extras())?;
        Ok(std::mem::replace(&mut self.sequences, next).into_methods())
    }

    /// Transfers of all decode steps so far, of all sequences.
    pub fn traffic(&self) -> Traffic {
        self.sequences.traffic()
    }

    /// Begins to count transfers anew.
    pub fn reset_traffic(&mut self) {
        (0..self.cache.lens().len()).for_each(|slot| self.sequences.reset_traffic_of(slot));
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
        ops::check_queries(&q, self.cache.config().layer.shape, [plan.as_slice().len(), plan.width()])?;
        self.cache.append(k, v, plan)?;
        self.sequences.observe_prefill(&q, &self.cache, plan)?;
        let params = self.cache.attend_params_of(plan);
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
        ops::check_queries(q, self.cache.config().layer.shape, [plan.as_slice().len(), plan.width()])?;
        self.cache.append(k, v, &plan)?;
        self.sequences.observe_prefill(q, &self.cache, &plan)
    }

    /// Appends one token per sequence, or as many as `q` has, and attends with the sequences' methods: each token
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

    /// [`LayerState::decode`] with a plan that is shared between layers and names any of the sequences, and all
    /// that the methods report. Sequences without a new token stay as they are.
    ///
    /// # Errors
    /// As [`LayerState::decode`].
    pub fn decode_planned(
        &mut self,
        q: Tensor<4>,
        k: Tensor<4>,
        v: Tensor<4>,
        plan: &AppendPlan,
    ) -> Result<DecodedBatch> {
        let [q, k, v] = [q, k, v].map(|x| x.cast(DType::F32));
        ops::check_queries(&q, self.cache.config().layer.shape, [plan.as_slice().len(), plan.width()])?;
        if self.sequences.take_together(plan, self.cache.config().layer.window) {
            self.cache.append(k, v, plan)?;
            return self.sequences.attend(q, &self.cache, plan);
        }
        let (mut outputs, mut groups) = (vec![], vec![]);
        for t in 0..plan.width() {
            let [q, k, v] = [&q, &k, &v].map(|x| x.clone().narrow(2, t, 1));
            let decoded = self.decode_planned(q, k, v, &plan.column(t))?;
            outputs.push(decoded.output);
            groups.extend(decoded.groups);
        }
        Ok(DecodedBatch { output: Tensor::cat(outputs, 2), groups })
    }
}
