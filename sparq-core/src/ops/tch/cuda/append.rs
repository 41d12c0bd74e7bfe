//! The append's arguments: checks tensors against what the kernel reads and writes, and launches it.
#![allow(unsafe_code)] // Each block says why it is sound.

use tch::{Kind, Tensor};

use super::{
    driver::{Failure, Gpu, Kernel},
    launch::{Heads, pointer, size, slot},
    memory::{Address, SEQUENCES, Sequences},
};
use crate::spans::Append as Place;

/// As in the source.
const APPEND_THREADS: u32 = 256;
const TOKENS: usize = 32;

/// New rows and the parts of a cache that take them: tensors of [`super::append`].
#[derive(Debug)]
pub(super) struct Append<'a> {
    pub(super) heads: Heads,
    pub(super) slots: usize,
    pub(super) capacity: usize,
    pub(super) width: usize,
    pub(super) k_rows: Option<&'a Tensor>,
    pub(super) v_rows: Option<&'a Tensor>,
    pub(super) k: Option<&'a Tensor>,
    pub(super) v: Option<&'a Tensor>,
    pub(super) k_t: Option<&'a Tensor>,
    pub(super) v_sum: Option<&'a Tensor>,
}

#[repr(C)]
struct AppendArgs {
    k_rows: Address,
    v_rows: Address,
    k: Address,
    v: Address,
    k_t: Address,
    v_sum: Address,
    width: i32,
    capacity: i32,
}

/// Rows to skip, rows to take, the position of the first and the slot, of each sequence.
#[repr(C, align(16))]
pub(super) struct Places([[i32; 4]; SEQUENCES]);

impl Places {
    /// Rows of `width` columns, for some of `slots`.
    pub(super) fn new(places: &[Place], width: usize, slots: usize) -> Result<Self, Failure> {
        let mut all = [[0; 4]; SEQUENCES];
        for (to, place) in all.iter_mut().zip(places) {
            if place.skip + place.take > width {
                return Err(format!("{place:?} lies outside of {width} rows"));
            }
            *to = [size(place.skip)?, size(place.take)?, size(place.at)?, slot(place.slot, slots)?];
        }
        Ok(Self(all))
    }
}

impl Append<'_> {
    /// Appends to the sequences of `part`, at `places`.
    pub(super) fn launch(&self, gpu: &Gpu, places: &[Place], part: Sequences) -> Result<(), Failure> {
        let Heads { kv_heads, head_dim, kind, .. } = self.heads;
        let [function] = gpu.functions([self.heads.variant(Kernel::Append, APPEND_THREADS)])?;
        let (rows, groups) = (kv_heads * self.width * head_dim, self.slots * kv_heads);
        let cached = groups * self.capacity * head_dim;
        let writes_rows = self.k.is_some() || self.v.is_some() || self.k_t.is_some();
        let past_end = |place: &Place| writes_rows && place.at + place.take > self.capacity;
        if let Some(place) = places.iter().find(|place| past_end(place)) {
            return Err(format!("{place:?} lies outside of a cache of {}", self.capacity));
        }
        let mut places_arg = Places::new(places, self.width, self.slots)?;
        if (self.k.is_some() || self.k_t.is_some()) && self.k_rows.is_none()
            || (self.v.is_some() || self.v_sum.is_some()) && self.v_rows.is_none()
        {
            return Err("rows are missing".into());
        }
        let of = |what, tensor| Address::of_any(gpu, what, tensor, Kind::Float, rows, part);
        let whole = |what, tensor, kind, numel| Address::whole_of_any(gpu, what, tensor, kind, numel);
        let mut args = AppendArgs {
            k_rows: of("the new keys", self.k_rows)?,
            v_rows: of("the new values", self.v_rows)?,
            k: whole("k", self.k, kind, cached)?,
            v: whole("v", self.v, kind, cached)?,
            k_t: whole("the transposed keys", self.k_t, kind, cached)?,
            v_sum: whole("the sum of values", self.v_sum, Kind::Float, groups * head_dim)?,
            width: size(self.width)?,
            capacity: size(self.capacity)?,
        };
        let tiles = places.iter().map(|place| place.take).max().unwrap_or(0).div_ceil(TOKENS);
        if tiles == 0 {
            return Ok(());
        }
        let arguments = &mut [pointer(&mut args), pointer(&mut places_arg)];
        // SAFETY: the types are those of `append`. Every tensor was checked for its size, and the places
        // lie within the rows and the cache, in slots that are there.
        unsafe { gpu.launch(function, [tiles, kv_heads, places.len()], APPEND_THREADS, arguments) }
    }
}
