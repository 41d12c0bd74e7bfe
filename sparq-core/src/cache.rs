//! The KV cache of one layer.

use burn::tensor::{DType, Device, Tensor};

use crate::{
    config::{AttentionLayer, AttentionShape},
    device::Limits,
    error::{Error, Result},
    index::{self, IndexDtype, QuantizedIndex},
    ops,
    spans::{AppendPlan, NewTokens, Spans},
    transfer::Part,
};

/// Positions that a cache grows by at least.
const BLOCK: usize = 256;

/// Sizes of a KV cache.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CacheConfig {
    /// The layer that the cache belongs to.
    pub layer: AttentionLayer,
    /// Sequences in the batch.
    pub batch: usize,
    /// The most tokens that any sequence may hold.
    pub max_len: usize,
    /// Storage dtype of keys, transposed keys and values: F32, F16 or BF16.
    pub dtype: DType,
}

/// What a decode method wants the cache to keep beside keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheExtras {
    /// The transposed copy of the keys, for SparQ's first step.
    pub k_index: bool,
    /// How that copy is stored.
    pub index: IndexDtype,
    /// The running sum of values, for SparQ's third step.
    pub mean_value: bool,
}

/// A point that a cache can go back to, as often as wanted: see [`LayerCache::rewind`].
#[derive(Debug, Clone)]
pub struct CacheMark {
    lens: Vec<usize>,
    extras: CacheExtras,
    v_sum: Option<Tensor<3>>,
}

/// Keys and values of one layer, with the copies that sparse methods read.
///
/// Memory grows in blocks up to [`CacheConfig::max_len`], at least by half of what is there, so
/// that appending a token costs `O(d)` on average, whatever the length. Padding is never stored.
/// A layer with a sliding window keeps all positions and reads those in its window.
///
/// | tensor | axes |
/// |---|---|
/// | `k`, `v` | `[batch, kv_heads, capacity, head_dim]` |
/// | `k_index` | `[batch, kv_heads, head_dim, capacity]`, or codes: [`QuantizedIndex`] |
/// | `v_sum` | `[batch, kv_heads, head_dim]`, f32 |
#[derive(Debug)]
pub struct LayerCache {
    config: CacheConfig,
    extras: CacheExtras,
    device: Device,
    limits: Limits,
    capacity: usize,
    lens: Vec<usize>,
    // One owner each: an append takes the tensor out, writes in place and puts it back. A second
    // handle that is alive at that moment would turn the write into a copy of the whole buffer.
    k: Option<Tensor<4>>,
    v: Option<Tensor<4>>,
    k_index: Option<Tensor<4>>,
    quantized: Option<QuantizedIndex>,
    v_sum: Option<Tensor<3>>,
}

impl LayerCache {
    /// An empty cache on `device`. It takes no memory before the first append.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] for impossible sizes, [`Error::UnsupportedDtype`] and
    /// [`Error::UnsupportedIndex`] where the device cannot hold the dtype or the form of the keys.
    pub fn new(config: &CacheConfig, extras: CacheExtras, device: &Device) -> Result<Self> {
        config.layer.validate()?;
        crate::device::require_dtype(device, config.dtype)?;
        if extras.k_index {
            crate::device::require_index(device, extras.index)?;
        }
        for (field, value) in [("batch", config.batch), ("max_len", config.max_len)] {
            if value == 0 {
                return Err(Error::InvalidConfig {
                    field,
                    value: "0".into(),
                    reason: "it must be at least 1".into(),
                });
            }
        }
        Ok(Self {
            config: *config,
            extras,
            device: device.clone(),
            limits: Limits::of(device),
            capacity: 0,
            lens: vec![0; config.batch],
            k: None,
            v: None,
            k_index: None,
            quantized: None,
            v_sum: None,
        })
    }

    /// Sizes that the cache was created with.
    pub fn config(&self) -> &CacheConfig {
        &self.config
    }

    /// Tokens that each sequence holds.
    pub fn lens(&self) -> &[usize] {
        &self.lens
    }

    /// Positions that fit without growing.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Live positions: those that the next query sees. The layer's window leaves the last ones.
    pub fn spans(&self) -> Spans {
        Spans::from_lens(&self.lens, self.config.layer.window)
    }

    /// Keys `[batch, kv_heads, capacity, head_dim]`.
    ///
    /// # Errors
    /// [`Error::MissingInCache`] before the first append.
    pub fn k(&self) -> Result<Tensor<4>> {
        handle(&self.k, "a cached token")
    }

    /// Values `[batch, kv_heads, capacity, head_dim]`.
    ///
    /// # Errors
    /// [`Error::MissingInCache`] before the first append.
    pub fn v(&self) -> Result<Tensor<4>> {
        handle(&self.v, "a cached token")
    }

    /// Transposed keys `[batch, kv_heads, head_dim, capacity]`.
    ///
    /// # Errors
    /// [`Error::MissingInCache`] where [`CacheExtras::k_index`] is off or the copy is stored as codes,
    /// or before the first append.
    pub fn k_index(&self) -> Result<Tensor<4>> {
        handle(&self.k_index, "the transposed keys")
    }

    /// Transposed keys as codes.
    ///
    /// # Errors
    /// [`Error::MissingInCache`] where [`CacheExtras::index`] is the dtype of the cache, or before the
    /// first append.
    pub fn quantized_index(&self) -> Result<QuantizedIndex> {
        self.quantized.clone().ok_or(Error::MissingInCache { missing: "the transposed keys as codes" })
    }

    /// Sum of all values of each sequence, whatever the window, `[batch, kv_heads, head_dim]`, f32.
    /// All zero where [`CacheExtras::mean_value`] is off.
    ///
    /// # Errors
    /// [`Error::MissingInCache`] before the first append.
    pub fn v_sum(&self) -> Result<Tensor<3>> {
        handle(&self.v_sum, "a cached token")
    }

    /// Plans an append of `new` tokens behind what is there.
    ///
    /// # Errors
    /// [`Error::Shape`] for another batch size, [`Error::CacheFull`] past the maximum.
    pub fn plan(&self, new: &NewTokens) -> Result<AppendPlan> {
        if new.batch() != self.config.batch {
            return Err(Error::Shape {
                tensor: "new tokens",
                axes: "[batch]",
                found: vec![new.batch()],
                expected: vec![self.config.batch],
            });
        }
        let plan = AppendPlan::new(new, &self.lens);
        let needed = plan.lens_after().into_iter().max().unwrap_or(0);
        if needed > self.config.max_len {
            return Err(Error::CacheFull { needed, max: self.config.max_len });
        }
        Ok(plan)
    }

    /// Makes room for `len` tokens per sequence, so that the appends up to there do not grow.
    ///
    /// # Errors
    /// [`Error::CacheFull`] past the maximum, [`Error::TooLarge`] where the device holds no tensor of
    /// that size.
    pub fn reserve(&mut self, len: usize) -> Result<()> {
        if len > self.config.max_len {
            return Err(Error::CacheFull { needed: len, max: self.config.max_len });
        }
        if len > self.capacity {
            let AttentionShape { kv_heads, head_dim, .. } = self.config.layer.shape;
            let shape = |capacity| [self.config.batch, kv_heads, capacity, head_dim];
            self.limits.check("the key cache", &shape(len), self.config.dtype)?;
            // Whole blocks where the device takes them.
            let blocks = len.next_multiple_of(BLOCK).min(self.config.max_len);
            let fits = self.limits.check("the key cache", &shape(blocks), self.config.dtype).is_ok();
            self.grow(if fits { blocks } else { len });
        }
        Ok(())
    }

    /// Appends the real rows of `k` and `v`, both `[batch, kv_heads, width, head_dim]`, in place.
    ///
    /// # Errors
    /// [`Error::Shape`] for rows that do not fit the plan or the cache, [`Error::CacheFull`] past
    /// the maximum.
    pub fn append(&mut self, k: Tensor<4>, v: Tensor<4>, plan: &AppendPlan) -> Result<()> {
        let AttentionShape { kv_heads, head_dim, .. } = self.config.layer.shape;
        let expected = [self.config.batch, kv_heads, plan.width(), head_dim];
        for (tensor, rows) in [("k", &k), ("v", &v)] {
            if rows.dims() != expected {
                return Err(Error::Shape {
                    tensor,
                    axes: "[batch, kv_heads, width, head_dim]",
                    found: rows.dims().to_vec(),
                    expected: expected.to_vec(),
                });
            }
        }
        let lens = plan.lens_after();
        let needed = lens.iter().copied().max().unwrap_or(0);
        if needed > self.capacity || self.k.is_none() {
            let roomy = needed.max(1).max(self.capacity + self.capacity / 2).min(self.config.max_len);
            // Near the limit of the device only what is needed.
            self.reserve(roomy).or_else(|_| self.reserve(needed.max(1)))?;
        }
        let mean_value = self.extras.mean_value;
        match (self.k.take(), self.v.take(), self.k_index.take(), self.v_sum.take()) {
            (Some(k_cache), Some(v_cache), Some(k_index), Some(v_sum)) => {
                let cache = [k_cache, v_cache, k_index];
                let ([k_cache, v_cache, k_index], v_sum) =
                    ops::append_with_index(cache, v_sum, [k, v], plan, mean_value);
                (self.k, self.v) = (Some(k_cache), Some(v_cache));
                (self.k_index, self.v_sum) = (Some(k_index), Some(v_sum));
            }
            (Some(k_cache), Some(v_cache), k_index, v_sum) => {
                self.k_index = k_index;
                self.v_sum = match mean_value {
                    true => v_sum.map(|sum| ops::accumulate(sum, v.clone(), plan)),
                    false => v_sum,
                };
                let [k_cache, v_cache] = ops::append([k_cache, v_cache], [k, v], plan);
                (self.k, self.v) = (Some(k_cache), Some(v_cache));
            }
            _ => return Err(Error::MissingInCache { missing: "keys and values" }),
        }
        if let Some((index, k)) = self.quantized.take().zip(self.k.clone()) {
            self.quantized = Some(ops::append_quantized(index, k, plan));
        }
        self.lens = lens;
        Ok(())
    }

    /// Forgets all tokens and keeps the memory.
    pub fn clear(&mut self) {
        self.lens.fill(0);
        self.v_sum = self.v_sum.take().map(|sum| sum.zeros_like());
    }

    /// Forgets what each sequence holds from position `len` on, and keeps the memory. Shorter
    /// sequences stay as they are.
    ///
    /// The sum of values is made anew from those that are left: subtracting would keep the rounding
    /// of what went.
    ///
    /// # Errors
    /// None that a caller can bring about.
    pub fn truncate(&mut self, len: usize) -> Result<()> {
        if self.lens.iter().all(|&held| held <= len) {
            return Ok(());
        }
        self.lens.iter_mut().for_each(|held| *held = (*held).min(len));
        self.renew_last_codes()?;
        let Some(mut sum) = self.v_sum.take().map(|sum| sum.zeros_like()) else {
            return Ok(());
        };
        if let Some(v) = self.v.as_ref().filter(|_| self.extras.mean_value) {
            let [batch, kv_heads, _, head_dim] = v.dims();
            let used = self.lens.iter().copied().max().unwrap_or(0);
            let left = NewTokens::ragged(used, &self.lens)?;
            for start in (0..used).step_by(BLOCK) {
                let end = used.min(start + BLOCK);
                let rows = v.clone().slice([0..batch, 0..kv_heads, start..end, 0..head_dim]);
                let plan = AppendPlan::new(&left.columns(start, end - start), &self.lens);
                sum = ops::accumulate(sum, rows.cast(DType::F32), &plan);
            }
        }
        self.v_sum = Some(sum);
        Ok(())
    }

    /// Makes the codes of the last block of each sequence anew, after tokens went: its scales may be
    /// those of keys that are gone.
    fn renew_last_codes(&mut self) -> Result<()> {
        if let Some((codes, k)) = self.quantized.take().zip(self.k.clone()) {
            let rest: Vec<usize> = self.lens.iter().map(|held| held % index::BLOCK).collect();
            let firsts: Vec<usize> = self.lens.iter().zip(&rest).map(|(held, rest)| held - rest).collect();
            let plan = AppendPlan::new(&NewTokens::ragged(index::BLOCK, &rest)?, &firsts);
            self.quantized = Some(ops::append_quantized(codes, k, &plan));
        }
        Ok(())
    }

    /// The point that the cache is at.
    pub fn mark(&self) -> CacheMark {
        CacheMark { lens: self.lens.clone(), extras: self.extras, v_sum: self.v_sum.clone() }
    }

    /// Goes back to a mark of this cache and keeps only `extras` up to date from there on. What was
    /// there at the mark is there again, to the bit; the memory stays. Transposed keys in a form that
    /// is not there are made from the keys, the same as if they had been kept all along, in the place
    /// of those in another form.
    ///
    /// # Errors
    /// [`Error::MissingInCache`] where the cache did not sum the values up to the mark,
    /// [`Error::UnsupportedIndex`] where the device cannot hold the form of the keys.
    pub fn rewind(&mut self, mark: &CacheMark, extras: CacheExtras) -> Result<()> {
        if extras.k_index {
            crate::device::require_index(&self.device, extras.index)?;
        }
        if extras.mean_value && !mark.extras.mean_value {
            return Err(Error::MissingInCache { missing: "the sum of values" });
        }
        self.lens.clone_from(&mark.lens);
        self.v_sum.clone_from(&mark.v_sum);
        self.extras = extras;
        if extras.k_index && !self.holds_index(extras.index) {
            return self.make_index();
        }
        self.renew_last_codes()
    }

    /// Whether the transposed keys are there in this form. What is there is kept up to date, also where
    /// the method that runs does not ask for it.
    fn holds_index(&self, form: IndexDtype) -> bool {
        match (form.bits(), &self.quantized) {
            (None, _) => self.k_index.is_some(),
            (Some(bits), Some(codes)) => {
                index::bits(codes.words.shape().num_elements(), codes.scales.shape().num_elements()) == bits
            }
            (Some(_), None) => false,
        }
    }

    /// Makes the transposed keys from the keys, in the form of the extras, and drops other forms.
    fn make_index(&mut self) -> Result<()> {
        (self.k_index, self.quantized) = (None, None);
        // Before the first append they grow with the keys.
        let Some(k) = &self.k else { return Ok(()) };
        let AttentionShape { kv_heads, head_dim, .. } = self.config.layer.shape;
        let batch = self.config.batch;
        let Some(bits) = self.extras.index.bits() else {
            let columns = [batch, kv_heads, head_dim, self.capacity];
            let empty = Tensor::zeros(columns, (&self.device, self.config.dtype));
            let all = columns.map(|size| 0..size);
            self.k_index = Some(empty.slice_assign(all, k.clone().swap_dims(2, 3)));
            return Ok(());
        };
        let k = k.clone();
        self.grow_quantized(self.capacity, 0, bits);
        if let Some(codes) = self.quantized.take() {
            let width = self.lens.iter().copied().max().unwrap_or(0);
            let plan = AppendPlan::new(&NewTokens::ragged(width, &self.lens)?, &vec![0; batch]);
            self.quantized = Some(ops::append_quantized(codes, k, &plan));
        }
        Ok(())
    }

    /// Bytes held on the device.
    pub fn bytes(&self) -> usize {
        let AttentionShape { kv_heads, head_dim, .. } = self.config.layer.shape;
        let rows = self.config.batch * kv_heads * head_dim;
        let index = match (self.extras.k_index, self.extras.index.bits()) {
            (false, _) => 0,
            (true, None) => rows * self.capacity * self.config.dtype.size(),
            (true, Some(bits)) => {
                let capacity = self.capacity.next_multiple_of(index::BLOCK);
                rows * (capacity * bits / 8 + capacity / index::BLOCK * DType::F32.size())
            }
        };
        2 * rows * self.capacity * self.config.dtype.size() + index
    }

    /// What appending one token to every sequence writes: `k`, `v` and the copies kept.
    pub(crate) fn append_part(&self) -> Part {
        let (elements, size) = (self.vector_elements(), self.config.dtype.size());
        let rows = Part::new(2 * elements, size);
        match self.extras.k_index {
            true => rows + self.index_part(elements),
            false => rows,
        }
    }

    /// `elements` components of the transposed keys, scales included.
    pub(crate) fn index_part(&self, elements: usize) -> Part {
        let mut part = Part::new(elements, 1);
        part.bytes = self.extras.index.bytes(elements, self.config.dtype) as u64;
        part
    }

    fn keeps_plain_index(&self) -> bool {
        self.extras.k_index && self.extras.index.bits().is_none()
    }

    /// What keeping the sum of values up to date reads and writes per token.
    pub(crate) fn mean_value_part(&self) -> Part {
        match self.extras.mean_value {
            true => Part::new(2 * self.vector_elements(), DType::F32.size()),
            false => Part::default(),
        }
    }

    /// Elements of one vector per sequence and KV head.
    fn vector_elements(&self) -> usize {
        self.config.batch * self.config.layer.shape.kv_heads * self.config.layer.shape.head_dim
    }

    fn grow(&mut self, capacity: usize) {
        let AttentionShape { kv_heads, head_dim, .. } = self.config.layer.shape;
        let batch = self.config.batch;
        let options = (&self.device, self.config.dtype);
        let used = self.lens.iter().copied().max().unwrap_or(0);
        let rows = |old: Option<Tensor<4>>| {
            let new = Tensor::zeros([batch, kv_heads, capacity, head_dim], options);
            match old {
                Some(old) if used > 0 => {
                    let live = [0..batch, 0..kv_heads, 0..used, 0..head_dim];
                    new.slice_assign(live.clone(), old.slice(live))
                }
                _ => new,
            }
        };
        self.k = Some(rows(self.k.take()));
        self.v = Some(rows(self.v.take()));
        if self.keeps_plain_index() {
            let new = Tensor::zeros([batch, kv_heads, head_dim, capacity], options);
            self.k_index = Some(match self.k_index.take() {
                Some(old) if used > 0 => {
                    let live = [0..batch, 0..kv_heads, 0..head_dim, 0..used];
                    new.slice_assign(live.clone(), old.slice(live))
                }
                _ => new,
            });
        }
        if let Some(bits) = self.extras.index.bits().filter(|_| self.extras.k_index) {
            self.grow_quantized(capacity, used, bits);
        }
        if self.v_sum.is_none() {
            let options = (&self.device, DType::F32);
            self.v_sum = Some(Tensor::zeros([batch, kv_heads, head_dim], options));
        }
        self.capacity = capacity;
    }

    fn grow_quantized(&mut self, capacity: usize, used: usize, bits: usize) {
        let AttentionShape { kv_heads, head_dim, .. } = self.config.layer.shape;
        let batch = self.config.batch;
        let blocks = capacity.div_ceil(index::BLOCK);
        let words_per_block = index::BLOCK * bits / 32;
        let words = [batch, kv_heads, head_dim, blocks * words_per_block];
        let mut new = QuantizedIndex {
            words: Tensor::zeros(words, (&self.device, DType::I32)),
            scales: Tensor::zeros([batch, kv_heads, head_dim, blocks], (&self.device, DType::F32)),
        };
        if let Some(old) = self.quantized.take().filter(|_| used > 0) {
            let blocks = used.div_ceil(index::BLOCK);
            let live = |len| [0..batch, 0..kv_heads, 0..head_dim, 0..len];
            let words = live(blocks * words_per_block);
            new.words = new.words.slice_assign(words.clone(), old.words.slice(words));
            new.scales = new.scales.slice_assign(live(blocks), old.scales.slice(live(blocks)));
        }
        self.quantized = Some(new);
    }
}

fn handle<const D: usize>(tensor: &Option<Tensor<D>>, missing: &'static str) -> Result<Tensor<D>> {
    tensor.clone().ok_or(Error::MissingInCache { missing })
}
