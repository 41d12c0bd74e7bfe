//! The KV cache of one layer.

mod memory;
mod rollback;
mod sequence;
mod slots;
mod sums;

use burn::tensor::{DType, Device, Tensor};

use crate::{
    config::{AttentionLayer, AttentionShape},
    device::Limits,
    error::{Error, Result},
    k_t::{KtFormat, QuantizedKt},
    ops::{self, AttendParams},
    spans::{Append, AppendPlan, NewTokens, Place, Spans},
};
use sums::BlockSums;

pub use rollback::CacheMark;
pub use sequence::CachedSequence;

/// Positions that a cache grows by at least, and of which the sum of values is kept apart.
const BLOCK: usize = 256;

/// Sizes of a KV cache.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CacheConfig {
    /// The layer that the cache belongs to.
    pub layer: AttentionLayer,
    /// Slots: the most sequences at a time.
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
    pub k_t: bool,
    /// How that copy is stored.
    pub kt_format: KtFormat,
    /// The running sum of values, for SparQ's third step.
    pub mean_value: bool,
}

/// All that the methods of a cache's sequences ask for together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Kept {
    /// The transposed keys as the keys are.
    plain: bool,
    /// The transposed keys as codes of so many bits.
    codes: Option<usize>,
    mean_value: bool,
}

impl Kept {
    fn of(extras: &[CacheExtras], device: &Device) -> Result<Self> {
        let mut kept = Self::default();
        for extras in extras {
            kept.mean_value |= extras.mean_value;
            if !extras.k_t {
                continue;
            }
            crate::device::require_kt(device, extras.kt_format)?;
            match (extras.kt_format.bits(), kept.codes) {
                (None, _) => kept.plain = true,
                (Some(bits), Some(others)) if bits != others => {
                    return Err(Error::InvalidConfig {
                        field: "kt_format",
                        value: format!("int{bits}"),
                        reason: format!("another sequence of the cache reads int{others}"),
                    });
                }
                (codes, _) => kept.codes = codes,
            }
        }
        Ok(kept)
    }

    /// The forms of the transposed keys.
    fn forms(self) -> impl Iterator<Item = KtFormat> {
        let codes = [KtFormat::Int8, KtFormat::Int4].into_iter();
        let codes = codes.filter(move |form| self.codes.is_some() && form.bits() == self.codes);
        self.plain.then_some(KtFormat::Cache).into_iter().chain(codes)
    }
}

/// Keys and values of one layer, with the copies that sparse methods read.
///
/// A cache has slots, each for one sequence. Every sequence has a length and memory of its own; it may come, go
/// back, leave and be copied without the others.
///
/// Memory grows in blocks up to [`CacheConfig::max_len`], at least by half of what a sequence has, so
/// that appending a token costs `O(d)` on average, whatever the length. Padding is never stored.
/// A layer with a sliding window keeps all positions and reads those in its window.
///
/// | tensor | axes where all slots have the same room |
/// |---|---|
/// | `k` | `[batch, kv_heads, capacity, head_dim]` |
/// | `v` | `[batch, kv_heads, capacity, value_dim]`: [`AttentionLayer::value_dim`] |
/// | `k_t` | `[batch, kv_heads, head_dim, capacity]`, or codes: [`QuantizedKt`] |
/// | `v_sum` | `[batch, kv_heads, value_dim]`, f32 |
///
/// Slots of different size lie one after another, as [`Place`] says; [`LayerCache::sequence`] gives the tensors
/// of one of them.
#[derive(Debug)]
pub struct LayerCache {
    config: CacheConfig,
    kept: Kept,
    device: Device,
    limits: Limits,
    lens: Vec<usize>,
    places: Vec<Place>,
    // One owner each: an append takes the tensor out, writes in place and puts it back. A second
    // handle that is alive at that moment would turn the write into a copy of the whole buffer.
    k: Option<Tensor<4>>,
    v: Option<Tensor<4>>,
    k_t: Option<Tensor<4>>,
    quantized: Option<QuantizedKt>,
    v_sum: Option<Tensor<3>>,
    sums: Vec<BlockSums>,
}

impl LayerCache {
    /// An empty cache on `device`. It takes no memory before the first append.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] for impossible sizes, [`Error::UnsupportedDtype`] and
    /// [`Error::UnsupportedKt`] where the device cannot hold the dtype or the form of the keys.
    pub fn new(config: &CacheConfig, extras: CacheExtras, device: &Device) -> Result<Self> {
        config.layer.validate()?;
        crate::device::require_dtype(device, config.dtype)?;
        let kept = Kept::of(&[extras], device)?;
        for (field, value) in [("batch", config.batch), ("max_len", config.max_len)] {
            if value == 0 {
                return Err(Error::InvalidConfig {
                    field,
                    value: "0".into(),
                    reason: "it must be at least 1".into(),
                });
            }
        }
        let AttentionShape { heads, head_dim, .. } = config.layer.shape;
        let limits = Limits::of(device);
        // One token of all sequences, queries included, is the least that a step needs.
        limits.check("the queries", &[config.batch, heads, head_dim], DType::F32)?;
        Ok(Self {
            config: *config,
            kept,
            device: device.clone(),
            limits,
            lens: vec![0; config.batch],
            places: vec![Place::default(); config.batch],
            k: None,
            v: None,
            k_t: None,
            quantized: None,
            v_sum: None,
            sums: vec![BlockSums::default(); config.batch],
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

    /// Live positions: those that the next query sees. The layer's window leaves the last ones.
    pub fn spans(&self) -> Spans {
        Spans::from_lens(&self.lens, self.config.layer.window)
    }

    /// What queries of the last `width` tokens of each sequence need, of all that it holds where it holds
    /// fewer: they are in the first columns then.
    pub fn attend_params(&self, width: usize) -> AttendParams {
        let append = |(slot, &len): (usize, &usize)| {
            let take = len.min(width);
            Append { slot, skip: 0, take, at: len - take }
        };
        self.attend_params_of(&AppendPlan::of(width, self.lens.iter().enumerate().map(append)))
    }

    /// What queries of the tokens of a plan need, once they are in the cache.
    pub fn attend_params_of(&self, plan: &AppendPlan) -> AttendParams {
        AttendParams::new(self.located(plan), &self.config.layer)
    }

    /// Keys of all slots, `[batch, kv_heads, capacity, head_dim]` where they have the same room; else
    /// [`LayerCache::sequence`] gives those of one.
    ///
    /// # Errors
    /// [`Error::MissingInCache`] before the first append.
    pub fn k(&self) -> Result<Tensor<4>> {
        handle(&self.k, "a cached token")
    }

    /// Values of all slots, as the keys, with `value_dim` components each.
    ///
    /// # Errors
    /// [`Error::MissingInCache`] before the first append.
    pub fn v(&self) -> Result<Tensor<4>> {
        handle(&self.v, "a cached token")
    }

    /// Transposed keys of all slots, `[batch, kv_heads, head_dim, capacity]` where they have the same room.
    ///
    /// # Errors
    /// [`Error::MissingInCache`] where [`CacheExtras::k_t`] is off or the copy is stored as codes,
    /// or before the first append.
    pub fn k_t(&self) -> Result<Tensor<4>> {
        handle(&self.k_t, "the transposed keys")
    }

    /// Transposed keys as codes.
    ///
    /// # Errors
    /// [`Error::MissingInCache`] where [`CacheExtras::kt_format`] is the dtype of the cache, or before the
    /// first append.
    pub fn quantized_kt(&self) -> Result<QuantizedKt> {
        self.quantized.clone().ok_or(Error::MissingInCache { missing: "the transposed keys as codes" })
    }

    /// Sum of all values of each sequence as they are stored, whatever the window, added one after another:
    /// `[batch, kv_heads, value_dim]`, f32. All zero before [`CacheExtras::mean_value`] is asked for.
    ///
    /// # Errors
    /// [`Error::MissingInCache`] before the first append.
    pub fn v_sum(&self) -> Result<Tensor<3>> {
        handle(&self.v_sum, "a cached token")
    }

    /// Plans an append of `new` tokens behind what is there.
    ///
    /// # Errors
    /// [`Error::Slot`] for a slot that is not there, [`Error::CacheFull`] past the maximum.
    pub fn plan(&self, new: &NewTokens) -> Result<AppendPlan> {
        new.slots().iter().try_for_each(|&slot| self.check_slot(slot))?;
        let plan = AppendPlan::new(new, &self.lens);
        let needed = plan.lens_after().into_iter().max().unwrap_or(0);
        if needed > self.config.max_len {
            return Err(Error::CacheFull { needed, max: self.config.max_len });
        }
        Ok(plan)
    }

    /// Appends the real rows of `k` and `v`, `[batch, kv_heads, width, head_dim]` and `[batch, kv_heads, width, value_dim]` with
    /// the sequences of the plan, in place.
    ///
    /// # Errors
    /// [`Error::Shape`] for rows that do not fit the plan or the cache, [`Error::StalePlan`] for a plan
    /// that does not begin where a sequence ends, [`Error::CacheFull`] past the maximum.
    pub fn append(&mut self, k: Tensor<4>, v: Tensor<4>, plan: &AppendPlan) -> Result<()> {
        let AttentionShape { kv_heads, head_dim, .. } = self.config.layer.shape;
        for (tensor, rows, size) in [("k", &k, head_dim), ("v", &v, self.config.layer.value_dim())] {
            let expected = [plan.as_slice().len(), kv_heads, plan.width(), size];
            if rows.dims() != expected {
                return Err(Error::Shape {
                    tensor,
                    axes: "[batch, kv_heads, width, head_dim]",
                    found: rows.dims().to_vec(),
                    expected: expected.to_vec(),
                });
            }
        }
        let mut lens = self.lens.clone();
        for append in plan.as_slice() {
            self.check_slot(append.slot)?;
            if append.at != lens[append.slot] {
                return Err(Error::StalePlan { slot: append.slot, at: append.at, held: lens[append.slot] });
            }
            lens[append.slot] += append.take;
        }
        self.make_room(|slot| lens[slot])?;
        let plan = &self.located(plan);
        let apart = self.kept.mean_value && (Self::completes_block(plan) || self.k_t.is_none());
        let mean_value = self.kept.mean_value && !apart;
        if apart {
            self.add_values(&v, plan);
        }
        match (self.k.take(), self.v.take(), self.k_t.take(), self.v_sum.take()) {
            (Some(k_cache), Some(v_cache), Some(k_t), Some(v_sum)) => {
                let cache = [k_cache, v_cache, k_t];
                let ([k_cache, v_cache, k_t], v_sum) =
                    ops::append_with_kt(cache, v_sum, [k, v], plan, mean_value);
                (self.k, self.v) = (Some(k_cache), Some(v_cache));
                (self.k_t, self.v_sum) = (Some(k_t), Some(v_sum));
            }
            (Some(k_cache), Some(v_cache), k_t, v_sum) => {
                self.k_t = k_t;
                self.v_sum = v_sum;
                let [k_cache, v_cache] = ops::append([k_cache, v_cache], [k, v], plan);
                (self.k, self.v) = (Some(k_cache), Some(v_cache));
            }
            _ => return Err(Error::MissingInCache { missing: "keys and values" }),
        }
        if let Some((k_t, k)) = self.quantized.take().zip(self.k.clone()) {
            self.quantized = Some(ops::append_quantized(k_t, k, plan));
        }
        self.lens = lens;
        if self.kept.mean_value {
            plan.as_slice().iter().for_each(|append| self.sums[append.slot].covered = self.lens[append.slot]);
        }
        Ok(())
    }
}

fn handle<const D: usize>(tensor: &Option<Tensor<D>>, missing: &'static str) -> Result<Tensor<D>> {
    tensor.clone().ok_or(Error::MissingInCache { missing })
}
