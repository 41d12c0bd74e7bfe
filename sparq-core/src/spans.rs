//! Which positions of a ragged batch are live, and where new tokens go.
//!
//! The cache never holds padding: each sequence's tokens lie at positions `0..len`. A left-padded
//! or ragged batch of new tokens says which of its rows are real ([`NewTokens`]); with the lengths
//! of the cache that becomes an [`AppendPlan`], which travels as data into the kernels.
//!
//! A batch holds any of the sequences of a cache, in any order. Each has a slot there, and [`Append`] and
//! [`Span`] name it; where its memory lies within the tensors of the cache is its [`Place`].

use std::{ops::Range, sync::Arc};

use crate::error::{Error, Result};

/// Where the memory of a sequence lies within the tensors of a cache.
///
/// These hold `kv_heads · head_dim` elements per position, those of a sequence together: its keys
/// `[kv_heads, capacity, head_dim]` begin at element `first · kv_heads · head_dim`, and so do its
/// transposed keys `[kv_heads, head_dim, capacity]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// Positions in the tensors before it.
    pub first: usize,
    /// Positions that it holds.
    pub capacity: usize,
}

/// Live positions `start..end` of one sequence in the cache's position axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The sequence's slot.
    pub slot: usize,
    /// First live position; above 0 under a sliding window.
    pub start: usize,
    /// One past the last live position.
    pub end: usize,
}

impl Span {
    /// Number of live positions.
    pub fn len(&self) -> usize {
        self.end.saturating_sub(self.start)
    }

    /// True when no position is live.
    pub fn is_empty(&self) -> bool {
        self.end <= self.start
    }
}

/// The first position that a window leaves of those before `end`.
fn start(end: usize, window: Option<usize>) -> usize {
    // No window is the largest one: memcheck takes a comparison with what `None` leaves out for one that counts.
    end.saturating_sub(window.unwrap_or(usize::MAX))
}

/// One [`Span`] per sequence of a batch. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spans(Arc<[Span]>);

impl Spans {
    /// Spans `0..len` of the slots in order, of which only the last `window` positions stay live where one is
    /// given.
    pub fn from_lens(lens: &[usize], window: Option<usize>) -> Self {
        Self::of(lens.iter().copied().enumerate(), window)
    }

    /// The same for slots and their lengths.
    pub(crate) fn of(lens: impl Iterator<Item = (usize, usize)>, window: Option<usize>) -> Self {
        Self(lens.map(|(slot, end)| Span { slot, start: start(end, window), end }).collect())
    }

    /// The spans, one per sequence.
    pub fn as_slice(&self) -> &[Span] {
        &self.0
    }

    /// One past the last live position of any sequence.
    pub fn max_end(&self) -> usize {
        self.0.iter().map(|span| span.end).max().unwrap_or(0)
    }

    /// The most live positions in any sequence.
    pub fn max_len(&self) -> usize {
        self.0.iter().map(Span::len).max().unwrap_or(0)
    }

    /// True when every position below [`Spans::max_end`] is live in every sequence.
    pub fn is_full(&self) -> bool {
        let end = self.max_end();
        self.0.iter().all(|span| span.start == 0 && span.end == end)
    }
}

/// A batch of new tokens `[batch, width]`, the slot of each row, and which of its columns are real.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTokens {
    width: usize,
    slots: Vec<usize>,
    valid: Vec<Range<usize>>,
}

impl NewTokens {
    /// Every token is real.
    pub fn all(batch: usize, width: usize) -> Self {
        Self { width, slots: (0..batch).collect(), valid: vec![0..width; batch] }
    }

    /// The first `padding[b]` tokens of sequence `b` are padding.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] where there is more padding than tokens.
    pub fn left_padded(width: usize, padding: &[usize]) -> Result<Self> {
        Self::new(width, padding.iter().map(|&skip| skip..width).collect())
    }

    /// Only the first `lens[b]` tokens of sequence `b` are real.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] where a length exceeds the width.
    pub fn ragged(width: usize, lens: &[usize]) -> Result<Self> {
        Self::new(width, lens.iter().map(|&len| 0..len).collect())
    }

    fn new(width: usize, valid: Vec<Range<usize>>) -> Result<Self> {
        match valid.iter().find(|range| range.start > range.end || range.end > width) {
            None => Ok(Self { width, slots: (0..valid.len()).collect(), valid }),
            Some(range) => Err(Error::InvalidConfig {
                field: "new tokens",
                value: format!("{range:?}"),
                reason: format!("each sequence's range must lie within 0..{width}"),
            }),
        }
    }

    /// The same tokens for other sequences: row `b` belongs to slot `slots[b]`. Without this, rows belong to
    /// the slots in order.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] for another number of slots than rows, or a slot twice.
    pub fn in_slots(self, slots: &[usize]) -> Result<Self> {
        let is_twice = |(i, slot): (usize, &usize)| slots[..i].contains(slot);
        if slots.len() != self.valid.len() || slots.iter().enumerate().any(is_twice) {
            return Err(Error::InvalidConfig {
                field: "slots",
                value: format!("{slots:?}"),
                reason: format!("each of the {} rows must have a slot of its own", self.valid.len()),
            });
        }
        Ok(Self { slots: slots.to_vec(), ..self })
    }

    /// Number of sequences.
    pub fn batch(&self) -> usize {
        self.valid.len()
    }

    /// The slot of each sequence.
    pub fn slots(&self) -> &[usize] {
        &self.slots
    }

    /// Number of columns, padding included.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The real columns of each sequence.
    pub fn valid(&self) -> &[Range<usize>] {
        &self.valid
    }

    /// Columns `start..start + width` of this batch, for prefill in chunks.
    pub fn columns(&self, start: usize, width: usize) -> Self {
        let last = start.saturating_add(width);
        let clip = |range: &Range<usize>| {
            let begin = range.start.clamp(start, last) - start;
            let end = range.end.clamp(start, last) - start;
            begin..end
        };
        Self { width, slots: self.slots.clone(), valid: self.valid.iter().map(clip).collect() }
    }
}

/// Where the real rows of one sequence go: rows `skip..skip + take` to positions `at..at + take`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Append {
    /// The sequence's slot.
    pub slot: usize,
    /// Rows of padding before the first real one.
    pub skip: usize,
    /// Number of real rows.
    pub take: usize,
    /// First position that they are written to: the sequence's length before the append.
    pub at: usize,
}

/// One [`Append`] per sequence of a batch. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppendPlan {
    width: usize,
    appends: Arc<[Append]>,
    /// Of each append; the slots lie one after another with the same capacity where there are none.
    places: Option<Arc<[Place]>>,
}

impl AppendPlan {
    /// Places `new` behind the `lens[slot]` tokens that each slot holds; a slot without a length is empty.
    pub fn new(new: &NewTokens, lens: &[usize]) -> Self {
        let place = |(range, &slot): (&Range<usize>, &usize)| Append {
            slot,
            skip: range.start,
            take: range.len(),
            at: lens.get(slot).copied().unwrap_or(0),
        };
        Self::of(new.width, new.valid.iter().zip(&new.slots).map(place))
    }

    /// Rows of `width` columns that are placed as told.
    pub(crate) fn of(width: usize, appends: impl Iterator<Item = Append>) -> Self {
        Self { width, appends: appends.collect(), places: None }
    }

    /// Slot `slot` without new tokens.
    pub(crate) fn of_slot(slot: usize) -> Self {
        Self::of(0, std::iter::once(Append { slot, skip: 0, take: 0, at: 0 }))
    }

    /// The same appends in memory where slot `s` lies at `places[s]`, for tensors of any layout.
    pub(crate) fn located(&self, places: &[Place]) -> Self {
        let of_slot = |append: &Append| places.get(append.slot).copied().unwrap_or_default();
        Self { places: Some(self.appends.iter().map(of_slot).collect()), ..self.clone() }
    }

    /// The same where appends are changed, in their order.
    fn with(&self, width: usize, change: impl Fn(&Append) -> Append) -> Self {
        Self { width, appends: self.appends.iter().map(change).collect(), places: self.places.clone() }
    }

    /// Where the memory of sequence `b` lies, in tensors of `capacity` positions per slot if nothing else is
    /// said.
    pub(crate) fn place(&self, b: usize, capacity: usize) -> Place {
        match &self.places {
            Some(places) => places[b],
            None => Place { first: self.appends[b].slot * capacity, capacity },
        }
    }

    /// Whether the sequences are those of a tensor `[batch, kv_heads, capacity, head_dim]`, in its order.
    pub(crate) fn is_rectangle(&self, batch: usize) -> bool {
        self.places.is_none()
            && self.appends.len() == batch
            && self.appends.iter().enumerate().all(|(b, append)| append.slot == b)
    }

    /// Whether the sequences are among those of a tensor `[slots, kv_heads, capacity, head_dim]`, in any order.
    #[cfg(any(feature = "cube", feature = "libtorch"))]
    pub(crate) fn is_of_slots(&self, slots: usize) -> bool {
        self.places.is_none() && self.appends.iter().all(|append| append.slot < slots)
    }

    /// Sequences `rows` alone, in this order.
    pub(crate) fn rows(&self, rows: &[usize]) -> Self {
        Self {
            width: self.width,
            appends: rows.iter().map(|&b| self.appends[b]).collect(),
            places: self.places.as_ref().map(|places| rows.iter().map(|&b| places[b]).collect()),
        }
    }

    /// Sequence `b` alone, as that of slot 0 in tensors of its own.
    pub(crate) fn alone(&self, b: usize) -> Self {
        Self::of(self.width, std::iter::once(Append { slot: 0, ..self.appends[b] }))
    }

    /// The appends, one per sequence.
    pub fn as_slice(&self) -> &[Append] {
        &self.appends
    }

    /// Number of rows per sequence, padding included.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Column `t` alone, behind those before it.
    pub fn column(&self, t: usize) -> Self {
        let place = |append: &Append| {
            let real = t >= append.skip && t < append.skip + append.take;
            let before = t.saturating_sub(append.skip).min(append.take);
            let (skip, take) = (usize::from(!real), usize::from(real));
            Append { slot: append.slot, skip, take, at: append.at + before }
        };
        self.with(1, place)
    }

    /// The rows that go to the positions `range`, in their columns.
    pub fn within(&self, range: Range<usize>) -> Self {
        let part = |append: &Append| {
            let end = append.at.saturating_add(append.take).min(range.end);
            let at = append.at.max(range.start).min(end.max(append.at));
            let (skip, take) = (append.skip + (at - append.at), end.saturating_sub(at));
            Append { slot: append.slot, skip, take, at }
        };
        self.with(self.width, part)
    }

    /// The one append that all sequences share, if they do: then whole-batch ops apply.
    pub fn uniform(&self) -> Option<Append> {
        let first = *self.appends.first()?;
        let is_same = |append: &Append| Append { slot: first.slot, ..*append } == first;
        self.appends.iter().all(is_same).then_some(first)
    }

    /// Lengths of the sequences after the append; the largest number where a sum is beyond it.
    pub fn lens_after(&self) -> Vec<usize> {
        self.appends.iter().map(|append| append.at.saturating_add(append.take)).collect()
    }

    /// Positions that column `t` of sequence `b` sees causally, its own included, of which a window
    /// leaves the last; padding sees nothing.
    pub fn visible(&self, b: usize, t: usize, window: Option<usize>) -> Span {
        let append = self.appends[b];
        let end = match t < append.skip || t >= append.skip + append.take {
            true => 0,
            false => append.at + t - append.skip + 1,
        };
        Span { slot: append.slot, start: start(end, window), end }
    }

    /// Positions that the last real column of each sequence sees.
    pub(crate) fn spans(&self, window: Option<usize>) -> Spans {
        let end = |append: &Append| (append.slot, append.at.saturating_add(append.take));
        Spans::of(self.appends.iter().map(end), window)
    }

    /// Rotary position of each column `[batch, width]`, row-major. Padding gets position 0.
    pub fn positions(&self) -> Vec<usize> {
        let column = |append: &Append, t: usize| {
            let real = t >= append.skip && t < append.skip + append.take;
            if real { append.at + t - append.skip } else { 0 }
        };
        let row = |append: &Append| (0..self.width).map(|t| column(append, t)).collect::<Vec<_>>();
        self.appends.iter().flat_map(row).collect()
    }
}

#[cfg(test)]
mod tests;
