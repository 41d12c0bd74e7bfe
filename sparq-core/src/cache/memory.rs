//! The memory of a cache: how much each slot has, where it lies, how it grows.
//!
//! Slots of equal size lie in tensors `[batch, kv_heads, capacity, head_dim]`. Where they differ, they lie one
//! after another in tensors of one row, `[1, kv_heads, positions, head_dim]` by name: see [`Place`].

use std::ops::Range;

use burn::{
    backend::{Dispatch, tensor::FloatTensor},
    tensor::{DType, Tensor},
};

use super::{BLOCK, LayerCache};
use crate::{
    config::AttentionShape,
    device::{Kind, kind},
    error::{Error, Result},
    k_t::{self, QuantizedKt},
    ops::oracle::Part,
    spans::{AppendPlan, NewTokens, Place},
};

impl LayerCache {
    /// Makes room for `len` tokens per sequence, so that the appends up to there do not grow.
    ///
    /// # Errors
    /// [`Error::CacheFull`] past the maximum, [`Error::TooLarge`] where the device holds no tensor of
    /// that size.
    pub fn reserve(&mut self, len: usize) -> Result<()> {
        self.make_room(|_| len)
    }

    /// Makes room for `len` tokens in one slot.
    ///
    /// # Errors
    /// As [`LayerCache::reserve`], and [`Error::Slot`] for a slot that is not there.
    pub fn reserve_slot(&mut self, slot: usize, len: usize) -> Result<()> {
        self.check_slot(slot)?;
        self.make_room(|other| if other == slot { len } else { 0 })
    }

    /// Positions that fit into a slot without growing; in all of them where `None`.
    pub fn capacity(&self) -> usize {
        self.places.iter().map(|place| place.capacity).min().unwrap_or(0)
    }

    /// Makes room for `needed(slot)` positions in each slot.
    pub(super) fn make_room(&mut self, needed: impl Fn(usize) -> usize) -> Result<()> {
        let needs: Vec<usize> = (0..self.config.batch).map(needed).collect();
        let longest = needs.iter().copied().max().unwrap_or(0);
        if longest > self.config.max_len {
            return Err(Error::CacheFull { needed: longest, max: self.config.max_len });
        }
        if self.k.is_some() && needs.iter().zip(&self.places).all(|(need, place)| *need <= place.capacity) {
            return Ok(());
        }
        // Near the limit of the device only what is needed.
        let max_len = self.config.max_len;
        let roomy = |need: usize, held: usize| {
            let wanted = need.max(held.saturating_add(held / 2)).min(max_len);
            wanted.checked_next_multiple_of(BLOCK).unwrap_or(wanted)
        };
        let (wanted, least) = (self.capacities(&needs, roomy), self.capacities(&needs, |need, _| need));
        self.lay_out(wanted).or_else(|_| self.lay_out(least))
    }

    /// The room of each slot where those that need more than they have get `grown(need, held)`.
    fn capacities(&self, needs: &[usize], grown: impl Fn(usize, usize) -> usize) -> Vec<usize> {
        let of_slot = |(slot, &need): (usize, &usize)| match self.places[slot].capacity {
            held if need > held => grown(need, held),
            // What an empty slot had goes back.
            _ if need == 0 && self.lens[slot] == 0 => 0,
            held => held,
        };
        needs.iter().enumerate().map(of_slot).collect()
    }

    /// Gives the memory of empty slots back, where that is worth moving the others.
    pub(super) fn give_back(&mut self) -> Result<()> {
        let held: usize = self.places.iter().map(|place| place.capacity).sum();
        let capacities: Vec<usize> = self
            .places
            .iter()
            .zip(&self.lens)
            .map(|(place, len)| if *len == 0 { 0 } else { place.capacity })
            .collect();
        match capacities.iter().sum::<usize>() {
            0 => {
                (self.k, self.v, self.k_t, self.quantized) = (None, None, None, None);
                self.places.fill(Place::default());
                Ok(())
            }
            used if 2 * used <= held => self.lay_out(capacities),
            _ => Ok(()),
        }
    }

    /// Bytes held on the device.
    pub fn bytes(&self) -> usize {
        let AttentionShape { kv_heads, head_dim, .. } = self.config.layer.shape;
        let (vector, size) = (kv_heads * head_dim, self.config.dtype.size());
        let values = kv_heads * self.config.layer.value_dim();
        let of_slot = |place: &Place| {
            let plain = if self.kept.plain { vector * place.capacity * size } else { 0 };
            let capacity = place.capacity.next_multiple_of(k_t::BLOCK);
            let codes = self
                .kept
                .codes
                .map_or(0, |bits| vector * (capacity * bits / 8 + capacity / k_t::BLOCK * DType::F32.size()));
            (vector + values) * place.capacity * size + plain + codes
        };
        self.places.iter().map(of_slot).sum()
    }

    /// Whether all slots have the same room, so that the tensors have an axis of slots.
    fn is_rectangle(&self) -> bool {
        self.places.iter().enumerate().all(|(slot, place)| {
            place.capacity == self.places[0].capacity && place.first == slot * place.capacity
        })
    }

    /// `plan` with the places of its slots, where they have to be said.
    pub(super) fn located(&self, plan: &AppendPlan) -> AppendPlan {
        match self.is_rectangle() {
            true => plan.clone(),
            false => plan.located(&self.places),
        }
    }

    /// A plan that names a slot alone, for its place.
    fn plan_of(&self, slot: usize) -> AppendPlan {
        self.located(&AppendPlan::of_slot(slot))
    }

    /// The rows of one slot, `[1, kv_heads, capacity, size]`, or its columns, `[1, kv_heads, size, capacity]`.
    pub(super) fn of_slot(&self, x: Tensor<4>, slot: usize, axis: Axis) -> Tensor<4> {
        if self.config.batch == 1 {
            return x;
        }
        let x = x.into_dispatch();
        let part = axis.part(&x, &self.plan_of(slot));
        Tensor::from_dispatch(part.get::<Dispatch>(x))
    }

    /// The codes of one slot.
    pub(super) fn codes_of(&self, codes: QuantizedKt, slot: usize) -> QuantizedKt {
        if self.config.batch == 1 {
            return codes;
        }
        let [_, _, _, blocks] = codes.scales.dims();
        let (words, scales) = (codes.words.into_dispatch(), codes.scales.into_dispatch());
        let plan = self.plan_of(slot);
        let in_words = Part::of_codes(&words, blocks, &plan, 0);
        let in_scales = Part::of_codes(&scales, blocks, &plan, 0);
        QuantizedKt {
            words: Tensor::from_dispatch(in_words.get_int::<Dispatch>(words)),
            scales: Tensor::from_dispatch(in_scales.get::<Dispatch>(scales)),
        }
    }

    /// Moves what is there into memory of these sizes.
    fn lay_out(&mut self, mut capacities: Vec<usize>) -> Result<()> {
        let largest = capacities.iter().copied().max().unwrap_or(0).max(1);
        let sum = |capacities: &[usize]| capacities.iter().fold(0usize, |sum, one| sum.saturating_add(*one));
        let total = sum(&capacities);
        // Slots of about the same size are made alike: most operations are simpler then. The kernels of GPUs take
        // nothing else.
        let alike = largest.saturating_mul(capacities.len());
        match alike <= total.saturating_add(total / 4) || total == 0 || kind(&self.device) != Kind::Cpu {
            true => capacities.fill(largest.min(self.config.max_len)),
            // A block of codes has no part in two slots.
            false => capacities.iter_mut().for_each(|capacity| {
                *capacity = capacity.checked_next_multiple_of(BLOCK).unwrap_or(*capacity);
            }),
        }
        let total = sum(&capacities);
        let is_rectangle = capacities.iter().all(|capacity| *capacity == capacities[0]);
        let AttentionShape { kv_heads, head_dim, .. } = self.config.layer.shape;
        let (batch, capacity) = if is_rectangle { (capacities.len(), capacities[0]) } else { (1, total) };
        let (rows, values) = (|size| [batch, kv_heads, capacity, size], self.config.layer.value_dim());
        self.limits.check("the key cache", &rows(head_dim), self.config.dtype)?;
        self.limits.check("the value cache", &rows(values), self.config.dtype)?;
        self.drop_copies();
        let mut first = 0;
        let place = |capacity: usize| {
            let place = Place { first, capacity };
            first += capacity;
            place
        };
        let places: Vec<Place> = capacities.into_iter().map(place).collect();
        let k = self.moved(self.k.clone(), rows(head_dim), &places, Axis::Rows);
        self.k = None;
        let v = self.moved(self.v.clone(), rows(values), &places, Axis::Rows);
        self.v = None;
        if self.kept.plain {
            let columns = [batch, kv_heads, head_dim, capacity];
            self.k_t = Some(self.moved(self.k_t.clone(), columns, &places, Axis::Columns));
        }
        (self.k, self.v, self.places) = (Some(k), Some(v), places);
        self.make_sums();
        match self.kept.codes {
            Some(bits) => self.make_codes(bits),
            None => Ok(()),
        }
    }

    /// New memory of `shape` with what the slots hold in `old`.
    fn moved(&self, old: Option<Tensor<4>>, shape: [usize; 4], places: &[Place], axis: Axis) -> Tensor<4> {
        let new = Tensor::zeros(shape, (&self.device, self.config.dtype));
        let Some(old) = old else { return new };
        let used = self.lens.iter().copied().max().unwrap_or(0);
        if used == 0 {
            return new;
        }
        if shape[0] == places.len() && self.is_rectangle() {
            let live = axis.live(shape, used);
            return new.slice_assign(live.clone(), old.slice(live));
        }
        let mut new = new.into_dispatch();
        for (slot, &len) in self.lens.iter().enumerate().filter(|(_, len)| **len > 0) {
            let part = axis.part(&new, &AppendPlan::of_slot(slot).located(places));
            new = self.filled(new, part, self.of_slot(old.clone(), slot, axis), len, axis);
        }
        Tensor::from_dispatch(new)
    }

    /// `x` with the first `len` positions of `from: [1, kv_heads, …]` in one of its parts, and zeros behind them.
    pub(super) fn filled(
        &self,
        x: FloatTensor<Dispatch>,
        part: Part,
        from: Tensor<4>,
        len: usize,
        axis: Axis,
    ) -> FloatTensor<Dispatch> {
        let live = axis.live(part.shape(), len);
        let empty = Tensor::zeros(part.shape(), (&self.device, self.config.dtype));
        let filled = empty.slice_assign(live.clone(), from.slice(live));
        part.set::<Dispatch>(x, filled.into_dispatch())
    }

    /// Makes the transposed keys of all slots from their keys.
    pub(super) fn make_columns(&mut self) {
        // Before the first append they grow with the keys.
        let Some(k) = self.k.clone() else { return };
        let [batch, kv_heads, capacity, head_dim] = k.dims();
        let columns = Tensor::zeros([batch, kv_heads, head_dim, capacity], (&self.device, self.config.dtype));
        if self.is_rectangle() {
            let all = columns.dims().map(|size| 0..size);
            self.k_t = Some(columns.slice_assign(all, k.swap_dims(2, 3)));
            return;
        }
        let mut columns = columns.into_dispatch();
        for slot in (0..self.config.batch).filter(|&slot| self.places[slot].capacity > 0) {
            let of_slot = self.of_slot(k.clone(), slot, Axis::Rows).swap_dims(2, 3);
            let part = Part::of_columns(&columns, &self.plan_of(slot), 0);
            columns = part.set::<Dispatch>(columns, of_slot.into_dispatch());
        }
        self.k_t = Some(Tensor::from_dispatch(columns));
    }

    /// Makes the codes of all slots from their keys: codes are a function of these alone.
    pub(super) fn make_codes(&mut self, bits: usize) -> Result<()> {
        let AttentionShape { kv_heads, head_dim, .. } = self.config.layer.shape;
        let Some(k) = self.k.clone() else { return Ok(()) };
        let [batch, _, capacity, _] = k.dims();
        let blocks = capacity.div_ceil(k_t::BLOCK);
        let words = [batch, kv_heads, head_dim, blocks * (k_t::BLOCK * bits / 32)];
        let codes = QuantizedKt {
            words: Tensor::zeros(words, (&self.device, DType::I32)),
            scales: Tensor::zeros([batch, kv_heads, head_dim, blocks], (&self.device, DType::F32)),
        };
        let width = self.lens.iter().copied().max().unwrap_or(0);
        let plan = AppendPlan::new(&NewTokens::ragged(width, &self.lens)?, &vec![0; self.config.batch]);
        self.quantized = Some(match width {
            0 => codes,
            _ => crate::ops::append_quantized(codes, k, &self.located(&plan)),
        });
        Ok(())
    }

    /// Gives copies of the keys back that nobody asks for any more.
    pub(crate) fn drop_copies(&mut self) {
        if !self.kept.plain {
            self.k_t = None;
        }
        if self.kept.codes.is_none() {
            self.quantized = None;
        }
    }
}

/// Which axis counts positions.
#[derive(Debug, Clone, Copy)]
pub(super) enum Axis {
    /// The third: keys and values.
    Rows,
    /// The fourth: transposed keys.
    Columns,
}

impl Axis {
    /// Where the slot of a plan that names it alone lies.
    pub(super) fn part(self, x: &FloatTensor<Dispatch>, plan: &AppendPlan) -> Part {
        match self {
            Self::Rows => Part::of_rows(x, plan, 0),
            Self::Columns => Part::of_columns(x, plan, 0),
        }
    }

    /// The first `len` positions of a tensor of this shape.
    fn live(self, [batch, kv_heads, rows, columns]: [usize; 4], len: usize) -> [Range<usize>; 4] {
        match self {
            Self::Rows => [0..batch, 0..kv_heads, 0..len, 0..columns],
            Self::Columns => [0..batch, 0..kv_heads, 0..rows, 0..len],
        }
    }
}
