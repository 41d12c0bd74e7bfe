//! The append's arguments: checks tensors against what the kernel reads and writes, and launches it.
#![allow(unsafe_code)] // Each block says why it is sound.

use tch::{Kind, Tensor};

use super::{
    driver::{Failure, Gpu, Kernel},
    launch::{Heads, pointer, size},
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

/// Rows to skip, rows to take and the position of the first, of each sequence.
#[repr(C, align(16))]
pub(super) struct Places([[i32; 4]; SEQUENCES]);

impl Places {
    /// Rows of `width` columns.
    pub(super) fn new(places: &[Place], width: usize) -> Result<Self, Failure> {
        let mut all = [[0; 4]; SEQUENCES];
        for (to, place) in all.iter_mut().zip(places) {
            if place.skip + place.take > width {
                return Err(format!("{place:?} lies outside of {width} rows"));
            }
            *to = [size(place.skip)?, size(place.take)?, size(place.at)?, 0];
        }
        Ok(Self(all))
    }
}

impl Append<'_> {
    /// Appends to the sequences of `part`, at `places`.
    pub(super) fn launch(&self, gpu: &Gpu, places: &[Place], part: Sequences) -> Result<(), Failure> {
        let Heads { kv_heads, head_dim, kind, .. } = self.heads;
        let [function] = gpu.functions([self.heads.variant(Kernel::Append, APPEND_THREADS)])?;
        let (rows, cached) = (kv_heads * self.width * head_dim, kv_heads * self.capacity * head_dim);
        let writes_rows = self.k.is_some() || self.v.is_some() || self.k_t.is_some();
        let past_end = |place: &Place| writes_rows && place.at + place.take > self.capacity;
        if let Some(place) = places.iter().find(|place| past_end(place)) {
            return Err(format!("{place:?} lies outside of a cache of {}", self.capacity));
        }
        let mut places_arg = Places::new(places, self.width)?;
        if (self.k.is_some() || self.k_t.is_some()) && self.k_rows.is_none()
            || (self.v.is_some() || self.v_sum.is_some()) && self.v_rows.is_none()
        {
            return Err("rows are missing".into());
        }
        let of = |what, tensor, kind, each| Address::of_any(gpu, what, tensor, kind, each, part);
        let mut args = AppendArgs {
            k_rows: of("the new keys", self.k_rows, Kind::Float, rows)?,
            v_rows: of("the new values", self.v_rows, Kind::Float, rows)?,
            k: of("k", self.k, kind, cached)?,
            v: of("v", self.v, kind, cached)?,
            k_t: of("the transposed keys", self.k_t, kind, cached)?,
            v_sum: of("the sum of values", self.v_sum, Kind::Float, kv_heads * head_dim)?,
            width: size(self.width)?,
            capacity: size(self.capacity)?,
        };
        let tiles = places.iter().map(|place| place.take).max().unwrap_or(0).div_ceil(TOKENS);
        if tiles == 0 {
            return Ok(());
        }
        let arguments = &mut [pointer(&mut args), pointer(&mut places_arg)];
        // SAFETY: the types are those of `append`. Every tensor was checked for its size, and the places
        // lie within the rows and the cache.
        unsafe { gpu.launch(function, [tiles, kv_heads, places.len()], APPEND_THREADS, arguments) }
    }
}
