//! The kernels' arguments: checks tensors against what a kernel reads and writes, and launches it.
#![allow(unsafe_code)] // Each block says why it is sound.

use std::ffi::c_void;

use burn::tensor::DType;
use tch::{Device, Kind, Tensor};

use super::driver::{COUNTERS, Failure, Function, Gpu, Kernel, Variant};
use crate::spans::{Append as Place, Span};

/// Sequences of one launch: their spans travel with the launch, without a copy to the device.
pub(super) const SEQUENCES: usize = 128;
/// Selected rows that one block attends over at most.
pub(super) const MOST_ROWS: usize = 1024;

/// As in the sources.
const SCORE_THREADS: u32 = 128;
const APPEND_THREADS: u32 = 256;
const BUCKET: usize = 8;
const CHUNK: usize = SCORE_THREADS as usize * BUCKET;
const TOKENS: usize = 32;

/// Heads of a layer and how the cache stores them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heads {
    pub(super) kv_heads: usize,
    group: usize,
    head_dim: usize,
    scalar: u8,
    kind: Kind,
}

impl Heads {
    /// `None` for a dtype or sizes that the kernels do not take: what a block keeps of the queries must
    /// fit in its shared memory.
    pub(super) fn new(stored: DType, heads: usize, kv_heads: usize, head_dim: usize) -> Option<Self> {
        let (scalar, kind) = match stored {
            DType::F32 => (0, Kind::Float),
            DType::F16 => (1, Kind::Half),
            DType::BF16 => (2, Kind::BFloat16),
            _ => return None,
        };
        let group = heads / kv_heads;
        let fits = head_dim <= 256 && group * head_dim <= 4096;
        fits.then_some(Self { kv_heads, group, head_dim, scalar, kind })
    }

    /// Query heads.
    pub(super) fn heads(&self) -> usize {
        self.kv_heads * self.group
    }

    /// Query heads of a group that one block works on.
    fn together(&self) -> usize {
        (1..=8.min(self.group)).rev().find(|&heads| self.group.is_multiple_of(heads)).unwrap_or(1)
    }

    /// Blocks that share a group.
    pub(super) fn tiles(&self) -> usize {
        self.group / self.together()
    }

    /// Values that a thread adds up: what its registers must hold.
    pub(super) fn accumulators(&self) -> usize {
        let per_load = if self.kind == Kind::Float { 4 } else { 8 };
        let loads = self.head_dim.div_ceil(per_load).next_power_of_two().div_ceil(32).max(1);
        self.together() * loads * per_load
    }

    fn variant(&self, kernel: Kernel, threads: u32) -> Variant {
        // The append knows no groups.
        let group = if kernel == Kernel::Append { 1 } else { self.group };
        Variant { kernel, scalar: self.scalar, head_dim: self.head_dim, group, threads }
    }
}

/// Address of a tensor that a kernel takes for `numel` elements of `kind` in order; 0 for none.
#[derive(Debug, Clone, Copy)]
#[repr(transparent)]
struct Address(u64);

impl Address {
    const NONE: Self = Self(0);

    fn of(gpu: &Gpu, what: &str, tensor: &Tensor, kind: Kind, numel: usize) -> Result<Self, Failure> {
        let found = (tensor.device(), tensor.kind(), tensor.numel());
        if found != (gpu.counters.device(), kind, numel) || !tensor.is_contiguous() {
            return Err(format!("{what} is {found:?}, not {numel} of {kind:?} in order"));
        }
        let address = tensor.data_ptr() as u64;
        if !address.is_multiple_of(16) {
            return Err(format!("{what} is not aligned to 16 bytes"));
        }
        Ok(Self(address))
    }

    fn of_any(
        gpu: &Gpu,
        what: &str,
        tensor: Option<&Tensor>,
        kind: Kind,
        numel: usize,
    ) -> Result<Self, Failure> {
        tensor.map_or(Ok(Self::NONE), |tensor| Self::of(gpu, what, tensor, kind, numel))
    }
}

/// One allocation that a step's intermediate results share.
struct Scratch {
    tensor: Tensor,
    used: usize,
}

impl Scratch {
    fn new(bytes: impl IntoIterator<Item = usize>, device: Device) -> Self {
        let bytes: usize = bytes.into_iter().map(|bytes| bytes.next_multiple_of(256)).sum();
        Self { tensor: Tensor::empty([bytes.max(1) as i64], (Kind::Uint8, device)), used: 0 }
    }

    /// The next `bytes`, aligned; [`Address::NONE`] for none.
    fn take(&mut self, bytes: usize) -> Result<Address, Failure> {
        if bytes == 0 {
            return Ok(Address::NONE);
        }
        let at = self.used;
        self.used += bytes.next_multiple_of(256);
        match self.used <= self.tensor.numel() {
            true => Ok(Address(self.tensor.data_ptr() as u64 + at as u64)),
            false => Err("scratch memory is too small".into()),
        }
    }
}

#[repr(C, align(8))]
struct Spans([[i32; 2]; SEQUENCES]);

impl Spans {
    fn new(spans: &[Span], capacity: usize) -> Result<Self, Failure> {
        let mut all = [[0; 2]; SEQUENCES];
        for (to, span) in all.iter_mut().zip(spans) {
            if span.start > span.end || span.end > capacity {
                return Err(format!("{span:?} lies outside of a cache of {capacity}"));
            }
            *to = [span.start as i32, span.end as i32];
        }
        Ok(Self(all))
    }
}

/// Attention over rows of K and V: tensors of [`super::decode_dense`].
#[derive(Debug)]
pub(super) struct Attend {
    pub(super) heads: Heads,
    pub(super) threads: u32,
    pub(super) splits: usize,
    pub(super) softcap: Option<f32>,
    pub(super) q: Tensor,
    pub(super) k: Tensor,
    pub(super) v: Tensor,
    pub(super) out: Tensor,
}

#[repr(C)]
struct AttendArgs {
    q: Address,
    k: Address,
    v: Address,
    out: Address,
    part_sums: Address,
    part_values: Address,
    done: Address,
    capacity: i32,
    softcap: f32,
}

impl Attend {
    /// Bytes of the sums and of the values that splits leave for the last block.
    fn part_bytes(&self, batch: usize) -> [usize; 2] {
        let parts = if self.splits > 1 { batch * self.heads.heads() * self.splits } else { 0 };
        [parts * 16, parts * self.heads.head_dim * 4]
    }

    fn capacity(&self) -> usize {
        self.k.size().get(2).map_or(0, |&capacity| capacity as usize)
    }

    fn grid(&self, batch: usize) -> [usize; 3] {
        [self.splits, self.heads.kv_heads * self.heads.tiles(), batch]
    }

    fn args(&self, gpu: &Gpu, scratch: &mut Scratch, batch: usize) -> Result<AttendArgs, Failure> {
        let Heads { kv_heads, head_dim, kind, .. } = self.heads;
        let (capacity, queries) = (self.capacity(), batch * self.heads.heads() * head_dim);
        let cached = batch * kv_heads * capacity * head_dim;
        if batch * kv_heads * self.heads.tiles() > COUNTERS || self.splits == 0 {
            return Err(format!("{batch} sequences of {kv_heads} heads are too many for one launch"));
        }
        let [sums, values] = self.part_bytes(batch);
        Ok(AttendArgs {
            q: Address::of(gpu, "q", &self.q, Kind::Float, queries)?,
            k: Address::of(gpu, "k", &self.k, kind, cached)?,
            v: Address::of(gpu, "v", &self.v, kind, cached)?,
            out: Address::of(gpu, "the output", &self.out, Kind::Float, queries)?,
            part_sums: scratch.take(sums)?,
            part_values: scratch.take(values)?,
            done: Address::of(gpu, "the counters", &gpu.counters, Kind::Int, COUNTERS)?,
            capacity: size(capacity)?,
            softcap: self.softcap.unwrap_or(0.0),
        })
    }

    /// Dense decode.
    pub(super) fn dense(&self, gpu: &Gpu, spans: &[Span]) -> Result<(), Failure> {
        let [function] = gpu.functions([self.heads.variant(Kernel::AttendDense, self.threads)])?;
        let mut scratch = Scratch::new(self.part_bytes(spans.len()), self.q.device());
        let mut args = self.args(gpu, &mut scratch, spans.len())?;
        let mut spans_arg = Spans::new(spans, self.capacity())?;
        let arguments = &mut [pointer(&mut args), pointer(&mut spans_arg)];
        // SAFETY: the types are those of `attend_dense`. `args` checked the size of every tensor and the
        // spans lie within them; the parts have room for `splits` of every head.
        unsafe { gpu.launch(function, self.grid(spans.len()), self.threads, arguments) }
    }
}

/// Step 1 of SparQ.
#[derive(Debug)]
pub(super) struct Score {
    pub(super) k_index: Tensor,
    pub(super) rank: usize,
    pub(super) local_window: usize,
    pub(super) by_softmax: bool,
    pub(super) mass: bool,
}

/// All steps of SparQ: tensors of [`super::decode_sparq`].
#[derive(Debug)]
pub(super) struct Select {
    pub(super) score: Score,
    pub(super) attend: Attend,
    pub(super) kept: usize,
    pub(super) mean_value: bool,
    pub(super) v_sum: Tensor,
    pub(super) positions: Tensor,
    pub(super) mass: Tensor,
}

#[repr(C)]
struct ScoreArgs {
    q: Address,
    index: Address,
    keys: Address,
    maxima: Address,
    stats: Address,
    approx: Address,
    logits: Address,
    capacity: i32,
    stride: i32,
    chunks: i32,
    rank: i32,
    local_window: i32,
    softcap: f32,
}

#[repr(C)]
struct SelectArgs {
    keys: Address,
    maxima: Address,
    stats: Address,
    approx: Address,
    v_sum: Address,
    positions: Address,
    mass: Address,
    stride: i32,
    chunks: i32,
    kept: i32,
    local_window: i32,
    mean_value: i32,
}

impl Select {
    /// Scores, then selects and attends: two launches, three under the softmax rule of grouped queries.
    pub(super) fn launch(&self, gpu: &Gpu, spans: &[Span]) -> Result<(), Failure> {
        let Self { score, attend, .. } = self;
        let heads = attend.heads;
        let Heads { kv_heads, head_dim, kind, .. } = heads;
        // With one head per group both rules rank alike.
        let by_softmax = score.by_softmax && heads.group > 1;
        let score_kernel = match (by_softmax, score.mass) {
            (true, _) => Kernel::ScoreHeads,
            (false, true) => Kernel::ScoreStats,
            (false, false) => Kernel::ScoreSum,
        };
        let attend_kernel = if score.mass { Kernel::AttendSelectedMass } else { Kernel::AttendSelected };
        let [score_function, attend_function] = gpu.functions([
            heads.variant(score_kernel, attend.threads),
            heads.variant(attend_kernel, attend.threads),
        ])?;

        let batch = spans.len();
        let longest = spans.iter().map(Span::len).max().unwrap_or(0);
        let stride = spans.iter().map(|span| span.end).max().unwrap_or(0).next_multiple_of(BUCKET);
        let chunks = (longest + BUCKET - 1).div_ceil(CHUNK).max(1);
        let (groups, queries) = (batch * kv_heads, batch * heads.heads());
        let per_head = by_softmax || score.mass;
        let bytes = [
            groups * stride * 4,
            groups * (stride / BUCKET).next_multiple_of(4) * 4,
            if per_head { queries * chunks * 8 } else { 0 },
            if score.mass { queries * head_dim * 4 } else { 0 },
            if by_softmax { queries * stride * 4 } else { 0 },
        ];
        let mut scratch = Scratch::new(bytes.into_iter().chain(attend.part_bytes(batch)), attend.q.device());
        let [keys, maxima, stats, approx, logits] = take(&mut scratch, bytes)?;
        let mut attend_args = attend.args(gpu, &mut scratch, batch)?;
        let mut spans_arg = Spans::new(spans, attend.capacity())?;
        if score.rank == 0 || score.rank > head_dim || self.kept == 0 {
            return Err(format!("rank {} or {} positions are out of range", score.rank, self.kept));
        }
        let cached = groups * attend.capacity() * head_dim;
        let mut score_args = ScoreArgs {
            q: attend_args.q,
            index: Address::of(gpu, "the transposed keys", &score.k_index, kind, cached)?,
            keys,
            maxima,
            stats,
            approx,
            logits,
            capacity: attend_args.capacity,
            stride: size(stride)?,
            chunks: size(chunks)?,
            rank: size(score.rank)?,
            local_window: size(score.local_window)?,
            softcap: attend_args.softcap,
        };
        let mut select_args = SelectArgs {
            keys,
            maxima,
            stats,
            approx,
            v_sum: Address::of(gpu, "the sum of values", &self.v_sum, Kind::Float, groups * head_dim)?,
            positions: Address::of(gpu, "the positions", &self.positions, Kind::Int64, groups * self.kept)?,
            mass: Address::of(gpu, "the mass", &self.mass, Kind::Float, queries)?,
            stride: score_args.stride,
            chunks: score_args.chunks,
            kept: size(self.kept)?,
            local_window: score_args.local_window,
            mean_value: i32::from(self.mean_value),
        };
        if self.kept.div_ceil(attend.splits) > MOST_ROWS {
            return Err(format!("{} positions are too many for {} splits", self.kept, attend.splits));
        }

        let score_grid = [chunks, kv_heads, batch];
        let mut launch_score = |function: Function| {
            let arguments = &mut [pointer(&mut score_args), pointer(&mut spans_arg)];
            // SAFETY: the types are those of the score kernels. Every tensor was checked for its size, the
            // scratch parts are as large as the source says, and the spans lie within the cache.
            unsafe { gpu.launch(function, score_grid, SCORE_THREADS, arguments) }
        };
        launch_score(score_function)?;
        if by_softmax {
            let [function] = gpu.functions([heads.variant(Kernel::SumSoftmax, attend.threads)])?;
            launch_score(function)?;
        }
        let arguments = &mut [pointer(&mut attend_args), pointer(&mut select_args), pointer(&mut spans_arg)];
        // SAFETY: as above, of the selecting kernels; a block's share of the positions fits its list.
        unsafe { gpu.launch(attend_function, attend.grid(batch), attend.threads, arguments) }
    }
}

/// New rows and the parts of a cache that take them: tensors of [`super::append`].
#[derive(Debug)]
pub(super) struct Append {
    pub(super) heads: Heads,
    pub(super) capacity: usize,
    pub(super) width: usize,
    pub(super) k_rows: Option<Tensor>,
    pub(super) v_rows: Option<Tensor>,
    pub(super) k: Option<Tensor>,
    pub(super) v: Option<Tensor>,
    pub(super) k_index: Option<Tensor>,
    pub(super) v_sum: Option<Tensor>,
}

#[repr(C)]
struct AppendArgs {
    k_rows: Address,
    v_rows: Address,
    k: Address,
    v: Address,
    index: Address,
    v_sum: Address,
    width: i32,
    capacity: i32,
}

#[repr(C, align(16))]
struct Places([[i32; 4]; SEQUENCES]);

impl Append {
    pub(super) fn launch(&self, gpu: &Gpu, places: &[Place]) -> Result<(), Failure> {
        let Heads { kv_heads, head_dim, kind, .. } = self.heads;
        let [function] = gpu.functions([self.heads.variant(Kernel::Append, APPEND_THREADS)])?;
        let groups = places.len() * kv_heads;
        let (rows, cached) = (groups * self.width * head_dim, groups * self.capacity * head_dim);
        let writes_rows = self.k.is_some() || self.v.is_some() || self.k_index.is_some();
        let mut places_arg = Places([[0; 4]; SEQUENCES]);
        for (to, place) in places_arg.0.iter_mut().zip(places) {
            let past_end = writes_rows && place.at + place.take > self.capacity;
            if place.skip + place.take > self.width || past_end {
                return Err(format!("{place:?} lies outside of {} rows or {}", self.width, self.capacity));
            }
            *to = [size(place.skip)?, size(place.take)?, size(place.at)?, 0];
        }
        if (self.k.is_some() || self.k_index.is_some()) && self.k_rows.is_none()
            || (self.v.is_some() || self.v_sum.is_some()) && self.v_rows.is_none()
        {
            return Err("rows are missing".into());
        }
        let of = |what, tensor: &Option<Tensor>, kind, numel| {
            Address::of_any(gpu, what, tensor.as_ref(), kind, numel)
        };
        let mut args = AppendArgs {
            k_rows: of("the new keys", &self.k_rows, Kind::Float, rows)?,
            v_rows: of("the new values", &self.v_rows, Kind::Float, rows)?,
            k: of("k", &self.k, kind, cached)?,
            v: of("v", &self.v, kind, cached)?,
            index: of("the transposed keys", &self.k_index, kind, cached)?,
            v_sum: of("the sum of values", &self.v_sum, Kind::Float, groups * head_dim)?,
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

fn take<const N: usize>(scratch: &mut Scratch, bytes: [usize; N]) -> Result<[Address; N], Failure> {
    let mut addresses = [Address::NONE; N];
    for (address, bytes) in addresses.iter_mut().zip(bytes) {
        *address = scratch.take(bytes)?;
    }
    Ok(addresses)
}

fn pointer<T>(value: &mut T) -> *mut c_void {
    (&raw mut *value).cast()
}

/// A size as the kernels count.
fn size(n: usize) -> Result<i32, Failure> {
    i32::try_from(n).map_err(|_| format!("{n} is more than a kernel counts"))
}
