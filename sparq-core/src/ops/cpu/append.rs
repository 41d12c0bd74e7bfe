//! In-place writes of new tokens: `O(d)` per token and head.

use std::ops::Range;

use rayon::prelude::*;

use super::{
    Element, Sizes, regions,
    simd::{LANES, Simd, with_simd},
};
use crate::{
    k_t::{self, BLOCK},
    spans::{Append, AppendPlan},
};

/// See [`crate::ops::append_rows`].
pub(in crate::ops) fn append_rows<E: Element>(
    cache: &mut [E],
    rows: &[f32],
    plan: &AppendPlan,
    sizes: Sizes,
) {
    let heads = Heads { plan, sizes };
    let mut parts = regions(cache, &heads.memory());
    heads.each(&mut parts, |head, part| {
        E::store_cached(heads.rows(rows, head), &mut part[heads.append(head).at * sizes.head_dim..]);
    });
}

/// See [`crate::ops::append_columns`].
pub(in crate::ops) fn append_columns<E: Element>(
    k_t: &mut [E],
    rows: &[f32],
    plan: &AppendPlan,
    sizes: Sizes,
) {
    let heads = Heads { plan, sizes };
    let mut parts = regions(k_t, &heads.memory());
    heads.each(&mut parts, |head, k_t| {
        let rows = heads.rows(rows, head);
        let mut stored = vec![E::zeroed(); rows.len()];
        E::store_cached(rows, &mut stored);
        write_columns(k_t, &stored, heads.append(head).at, sizes.head_dim);
    });
}

/// Keys, values and transposed keys of a cache, `[batch, kv_heads, …]` each, and where it takes part the sum of
/// values.
pub(in crate::ops) struct Parts<'a, E> {
    pub(in crate::ops) k: &'a mut [E],
    pub(in crate::ops) v: &'a mut [E],
    pub(in crate::ops) k_t: &'a mut [E],
    pub(in crate::ops) v_sum: Option<&'a mut [f32]>,
}

/// See [`crate::ops::append_with_kt`]: what is stored of a row is made once, and copied to the columns and
/// added to the sum. Values are `value_dim` wide.
pub(in crate::ops) fn append_with_kt<E: Element>(
    parts: Parts<'_, E>,
    [k_rows, v_rows]: [&[f32]; 2],
    plan: &AppendPlan,
    sizes: Sizes,
    value_dim: usize,
) {
    let Sizes { kv_heads, head_dim, .. } = sizes;
    let heads = Heads { plan, sizes };
    let values = Heads { plan, sizes: Sizes { head_dim: value_dim, ..sizes } };
    let memory = heads.memory();
    let of_sum = |head| (heads.append(head).slot * kv_heads + head % kv_heads) * value_dim;
    let of_sums: Vec<_> = (0..heads.count()).map(|head| of_sum(head)..of_sum(head) + value_dim).collect();
    let sums: Vec<Option<&mut [f32]>> = match parts.v_sum {
        Some(v_sum) => regions(v_sum, &of_sums).into_iter().map(Some).collect(),
        None => of_sums.iter().map(|_| None).collect(),
    };
    let keys = regions(parts.k, &memory).into_iter().zip(regions(parts.k_t, &memory));
    let mut parts: Vec<_> = keys.zip(regions(parts.v, &values.memory()).into_iter().zip(sums)).collect();
    heads.each(&mut parts, |head, ((k, k_t), (v, v_sum))| {
        let Append { at, take, .. } = heads.append(head);
        let k = &mut k[at * head_dim..][..take * head_dim];
        E::store_cached(heads.rows(k_rows, head), k);
        write_columns(k_t, k, at, head_dim);
        let v = &mut v[at * value_dim..][..take * value_dim];
        E::store_cached(values.rows(v_rows, head), v);
        if let Some(v_sum) = v_sum {
            v.chunks_exact(value_dim).for_each(|row| add_row(v_sum, row));
        }
    });
}

/// Adds a stored row to a sum.
fn add_row<E: Element>(sum: &mut [f32], row: &[E]) {
    let (sums, sums_rest) = sum.as_chunks_mut::<LANES>();
    let (rows, rest) = row.as_chunks::<LANES>();
    with_simd!(s => for (sum, row) in sums.iter_mut().zip(rows) {
        s.store(s.add(s.load(sum), E::load(s, row)), sum);
    });
    sums_rest.iter_mut().zip(rest).for_each(|(sum, x)| *sum += x.wide());
}

/// The KV heads of the sequences of a plan, one after another.
#[derive(Clone, Copy)]
struct Heads<'a> {
    plan: &'a AppendPlan,
    sizes: Sizes,
}

impl Heads<'_> {
    fn count(&self) -> usize {
        self.plan.as_slice().len() * self.sizes.kv_heads
    }

    fn append(&self, head: usize) -> Append {
        self.plan.as_slice()[head / self.sizes.kv_heads]
    }

    /// Where each of them lies in keys, values or transposed keys.
    fn memory(&self) -> Vec<Range<usize>> {
        let Sizes { kv_heads, capacity, .. } = self.sizes;
        let memory = |head| self.sizes.of_head(self.plan.place(head / kv_heads, capacity), head % kv_heads);
        (0..self.count()).map(memory).collect()
    }

    /// The real rows of a head in `rows: [batch, kv_heads, width, head_dim]`.
    fn rows<'r, T>(&self, rows: &'r [T], head: usize) -> &'r [T] {
        let (Append { skip, take, .. }, head_dim) = (self.append(head), self.sizes.head_dim);
        &rows[(head * self.plan.width() + skip) * head_dim..][..take * head_dim]
    }

    /// Writes to what each head has, several at a time where that is worth more than one thread.
    fn each<T: Send>(&self, parts: &mut [T], write: impl Fn(usize, &mut T) + Sync) {
        let heads = self.count();
        match is_parallel(heads * self.sizes.head_dim * self.plan.width()) {
            true => parts
                .par_iter_mut()
                .enumerate()
                .with_min_len(heads_per_task(heads))
                .for_each(|(head, part)| write(head, part)),
            false => parts.iter_mut().enumerate().for_each(|(head, part)| write(head, part)),
        }
    }
}

/// Writes `rows: [count, head_dim]` as columns from position `at` on into `k_t: [head_dim, capacity]`, a
/// block of positions at a time, so that what is read stays in the cache and what is written lies together.
fn write_columns<E: Element>(k_t: &mut [E], rows: &[E], at: usize, head_dim: usize) {
    let capacity = k_t.len() / head_dim;
    for (block, rows) in rows.chunks(BLOCK * head_dim).enumerate() {
        let (first, count) = (at + block * BLOCK, rows.len() / head_dim);
        for (c, channel) in k_t.chunks_exact_mut(capacity.max(1)).enumerate() {
            for (t, stored) in channel[first..first + count].iter_mut().enumerate() {
                *stored = rows[t * head_dim + c];
            }
        }
    }
}

/// Whether writing so many elements, each into a line of its own, is worth more than one thread.
fn is_parallel(elements: usize) -> bool {
    elements >= 1 << 12 && rayon::current_num_threads() > 1
}

/// Heads of a task: two tasks for each thread, for threads that are held up.
fn heads_per_task(heads: usize) -> usize {
    heads.div_ceil(2 * rayon::current_num_threads()).max(1)
}

/// See [`crate::ops::accumulate`].
pub(in crate::ops) fn accumulate<E: Element>(sum: &mut [f32], rows: &[E], plan: &AppendPlan, sizes: Sizes) {
    let Sizes { kv_heads, head_dim, .. } = sizes;
    let heads = Heads { plan, sizes };
    for head in 0..heads.count() {
        let of_slot = heads.append(head).slot * kv_heads + head % kv_heads;
        let sum = &mut sum[of_slot * head_dim..][..head_dim];
        heads.rows(rows, head).chunks_exact(head_dim).for_each(|row| add_row(sum, row));
    }
}

/// Codes of transposed keys and their scales, see [`crate::k_t::QuantizedKt`].
pub(in crate::ops) struct Codes<'a> {
    /// `[batch, kv_heads, head_dim, capacity]`, `bits` each.
    pub(in crate::ops) words: &'a mut [i32],
    /// `[batch, kv_heads, head_dim, capacity / BLOCK]`
    pub(in crate::ops) scales: &'a mut [f32],
}

/// See [`crate::ops::append_quantized`]; `k` are the keys of the cache, with the new rows.
pub(in crate::ops) fn append_quantized<E: Element>(
    codes: Codes<'_>,
    k: &[E],
    plan: &AppendPlan,
    sizes: Sizes,
) {
    let Sizes { kv_heads, head_dim, capacity, .. } = sizes;
    let Codes { words, scales } = codes;
    let bits = k_t::bits(words.len(), scales.len());
    let heads = Heads { plan, sizes };
    let codes = Heads { plan, sizes: Sizes { capacity: capacity.next_multiple_of(BLOCK), ..sizes } };
    let of_heads = |per: usize, of: usize| -> Vec<_> {
        codes.memory().into_iter().map(|part| part.start / of * per..part.end / of * per).collect()
    };
    let words = regions(words, &of_heads(bits, u32::BITS as usize));
    let scales = regions(scales, &of_heads(1, BLOCK));
    let mut parts: Vec<_> = words.into_iter().zip(scales).collect();
    heads.each(&mut parts, |head, (words, scales)| {
        let k = &k[sizes.of_head(plan.place(head / kv_heads, capacity), head % kv_heads)];
        let mut head_codes = HeadCodes { bytes: bytemuck::cast_slice_mut(words), scales, bits, k, head_dim };
        let append = heads.append(head);
        match append.take {
            1 => head_codes.append(append.at),
            _ => head_codes.quantize(append.at / BLOCK * BLOCK, append.at + append.take),
        }
    });
}

/// Adding 1.5 · 2²³ and taking it away again rounds to the nearest whole number, ties to even: a call of
/// `round_ties_even` is a call of the C library on processors of the baseline.
const ROUND: f32 = 12_582_912.0;

/// The larger magnitude; not a number where one of them is none, so that a block with such a key has no
/// scale either, and none of its scores is a number.
fn larger(a: f32, b: f32) -> f32 {
    if a > b || a.is_nan() { a } else { b }
}

/// Codes of one KV head.
struct HeadCodes<'a, E> {
    /// `[head_dim, capacity · bits / 8]`
    bytes: &'a mut [u8],
    /// `[head_dim, capacity / BLOCK]`
    scales: &'a mut [f32],
    bits: usize,
    /// `[capacity, head_dim]`
    k: &'a [E],
    head_dim: usize,
}

impl<E: Element> HeadCodes<'_, E> {
    /// One new row. Codes are a function of the rows of their block alone, so a channel whose largest
    /// magnitude grows is quantised again, for the positions of its block; the others get one code.
    fn append(&mut self, at: usize) {
        let (block, first) = (at / BLOCK, at / BLOCK * BLOCK);
        let blocks = self.scales.len() / self.head_dim;
        for channel in 0..self.head_dim {
            let wanted = self.k[at * self.head_dim + channel].wide().abs() / self.largest();
            let scale = &mut self.scales[channel * blocks + block];
            let before = if at == first { 0.0 } else { *scale };
            *scale = larger(before, wanted);
            let from = if *scale > before { first } else { at };
            self.quantize_channel(channel, from, at + 1);
        }
    }

    /// All blocks from the one that starts at `first` up to position `end`.
    fn quantize(&mut self, first: usize, end: usize) {
        let blocks = self.scales.len() / self.head_dim;
        for first in (first..end).step_by(BLOCK) {
            let end = end.min(first + BLOCK);
            for channel in 0..self.head_dim {
                let column = (first..end).map(|p| self.k[p * self.head_dim + channel].wide().abs());
                self.scales[channel * blocks + first / BLOCK] = column.fold(0.0, larger) / self.largest();
            }
            for channel in 0..self.head_dim {
                self.quantize_channel(channel, first, end);
            }
        }
    }

    /// Codes of a channel for positions `from..to` of one block.
    fn quantize_channel(&mut self, channel: usize, from: usize, to: usize) {
        let per_channel = self.bytes.len() / self.head_dim;
        let blocks = self.scales.len() / self.head_dim;
        let largest = self.largest();
        let scale = self.scales[channel * blocks + from / BLOCK].max(f32::MIN_POSITIVE);
        let bytes = &mut self.bytes[channel * per_channel..(channel + 1) * per_channel];
        for position in from..to {
            let x = self.k[position * self.head_dim + channel].wide() / scale;
            let code = (x.clamp(-largest, largest) + ROUND - ROUND) as i8;
            if self.bits == 8 {
                bytes[position] = code as u8;
            } else {
                let (byte, shift) = (&mut bytes[position / 2], position % 2 * 4);
                *byte = *byte & !(0xf << shift) | (code as u8 & 0xf) << shift;
            }
        }
    }

    /// The largest code.
    fn largest(&self) -> f32 {
        if self.bits == 8 { 127.0 } else { 7.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spans::NewTokens;

    /// Rows one by one give the codes and scales of all rows at once.
    #[test]
    fn codes_do_not_depend_on_how_rows_came() {
        let (head_dim, capacity, len) = (3, 192, 150);
        let k: Vec<f32> =
            (0..2 * capacity * head_dim).map(|i| (i as f32 * 0.37).sin() * (i % 7) as f32).collect();
        let sizes = Sizes { kv_heads: 2, group: 1, head_dim, capacity };
        for bits in [8, 4] {
            let words = 2 * head_dim * capacity * bits / 32;
            let run = |appends: &[usize]| {
                let (mut words, mut scales) =
                    (vec![-1i32; words], vec![9.0; 2 * head_dim * capacity / BLOCK]);
                let mut at = 0;
                for &count in appends {
                    let plan = AppendPlan::new(&NewTokens::all(1, count), &[at]);
                    append_quantized(Codes { words: &mut words, scales: &mut scales }, &k, &plan, sizes);
                    at += count;
                }
                let bytes: Vec<u8> = bytemuck::cast_slice(&words).to_vec();
                let live = |row: &[u8]| row[..len * bits / 8].to_vec();
                (bytes.chunks(capacity * bits / 8).map(live).collect::<Vec<_>>(), scales)
            };
            let at_once = run(&[len]);
            assert_eq!(run(&vec![1; len]), at_once);
            assert_eq!(run(&[70, 1, 1, 30, 48]), at_once);
            if bits == 8 {
                assert_eq!(f32::from(at_once.0[1][2] as i8), (k[2 * head_dim + 1] / at_once.1[3]).round());
            }
        }
    }
}
