//! The kernels' arguments: checks tensors against what a kernel reads and writes, and launches it.
#![allow(unsafe_code)] // Each block says why it is sound.

use std::ffi::c_void;

use burn::tensor::DType;
use tch::{Kind, Tensor};

use super::{
    append::Places,
    driver::{COUNTERS, Failure, Function, Gpu, Kernel, Variant},
    memory::{Address, SEQUENCES, Scratch, Sequences},
};
use crate::{
    ops::{
        AttendParams,
        oracle::scale_beyond_usual,
        ran::{Reason, SHAPE, STORAGE},
    },
    spans::Span,
};

/// Selected rows that one block attends over at most.
pub(super) const MOST_ROWS: usize = 1024;

/// As in the sources.
const SCORE_THREADS: u32 = 128;
const BUCKET: usize = 8;
/// Buckets, selected positions and components of the queries that one block takes through all steps.
const SHORT_BUCKETS: usize = 512;
const SHORT_KEPT: usize = 256;
const SHORT_QUERIES: usize = 1024;
const CHUNK: usize = SCORE_THREADS as usize * BUCKET;

/// Heads of a layer and how the cache stores them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heads {
    pub(super) kv_heads: usize,
    /// Query heads per KV head, each counted once for every query of a sequence.
    group: usize,
    width: usize,
    pub(super) head_dim: usize,
    scalar: u8,
    pub(super) kind: Kind,
}

impl Heads {
    /// The reason for a dtype or sizes that the kernels do not take: what a block keeps of the queries must
    /// fit in its shared memory.
    pub(super) fn new(
        stored: DType,
        heads: usize,
        kv_heads: usize,
        head_dim: usize,
        width: usize,
    ) -> Result<Self, Reason> {
        let (scalar, kind) = match stored {
            DType::F32 => (0, Kind::Float),
            DType::F16 => (1, Kind::Half),
            DType::BF16 => (2, Kind::BFloat16),
            _ => return Err(STORAGE),
        };
        let group = heads / kv_heads * width;
        let fits = head_dim <= 256 && group * head_dim <= 4096;
        fits.then_some(Self { kv_heads, group, width, head_dim, scalar, kind }).ok_or(SHAPE)
    }

    /// Query heads, times the queries of a sequence.
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

    /// What `kernel` is compiled for.
    pub(super) fn variant(&self, kernel: Kernel, threads: u32) -> Variant {
        // The append knows no groups.
        let group = if kernel == Kernel::Append { 1 } else { self.group };
        Variant { kernel, scalar: self.scalar, head_dim: self.head_dim, group, width: self.width, threads }
    }
}

/// What SparQ leaves for each query head: α and the log-sum-exp of both steps.
pub(super) const MASSES: usize = 3;

/// First live position and one past the last, and the slot, of each sequence.
#[repr(C, align(8))]
struct Spans {
    of: [[i32; 2]; SEQUENCES],
    slots: [i32; SEQUENCES],
}

impl Spans {
    /// Of some of `slots` that hold `capacity` positions each.
    fn new(spans: &[Span], slots: usize, capacity: usize) -> Result<Self, Failure> {
        let mut all = Self { of: [[0; 2]; SEQUENCES], slots: [0; SEQUENCES] };
        for ((of, to), span) in all.of.iter_mut().zip(&mut all.slots).zip(spans) {
            if span.start > span.end || span.end > capacity {
                return Err(format!("{span:?} lies outside of a cache of {capacity}"));
            }
            *of = [span.start as i32, span.end as i32];
            *to = slot(span.slot, slots)?;
        }
        Ok(all)
    }
}

/// Attention over rows of K and V: tensors of [`super::decode_dense`].
#[derive(Debug)]
pub(super) struct Attend<'a> {
    pub(super) heads: Heads,
    pub(super) slots: usize,
    pub(super) capacity: usize,
    pub(super) threads: u32,
    pub(super) splits: usize,
    pub(super) params: &'a AttendParams,
    pub(super) q: &'a Tensor,
    pub(super) k: &'a Tensor,
    pub(super) v: &'a Tensor,
    pub(super) out: &'a Tensor,
    /// Of dense decode; SparQ has masses.
    pub(super) log_sums: Option<&'a Tensor>,
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
    log_sums: Address,
    log_stride: i32,
    capacity: i32,
    softcap: f32,
    scale: f32,
    window: i32,
}

impl Attend<'_> {
    /// Bytes of the sums and of the values that splits leave for the last block.
    fn part_bytes(&self, batch: usize) -> [usize; 2] {
        let parts = if self.splits > 1 { batch * self.heads.heads() * self.splits } else { 0 };
        [parts * 16, parts * self.heads.head_dim * 4]
    }

    fn grid(&self, batch: usize) -> [usize; 3] {
        [self.splits, self.heads.kv_heads * self.heads.tiles(), batch]
    }

    /// Elements of the keys in all slots, of the values and of the transposed keys.
    fn cached(&self) -> usize {
        self.slots * self.heads.kv_heads * self.capacity * self.heads.head_dim
    }

    fn spans(&self, spans: &[Span]) -> Result<Spans, Failure> {
        Spans::new(spans, self.slots, self.capacity)
    }

    fn args(&self, gpu: &Gpu, scratch: &mut Scratch<'_>, part: Sequences) -> Result<AttendArgs, Failure> {
        let Heads { kv_heads, head_dim, kind, .. } = self.heads;
        let queries = self.heads.heads() * head_dim;
        if part.count * kv_heads * self.heads.tiles() > COUNTERS || self.splits == 0 {
            return Err(format!("{} sequences of {kv_heads} heads are too many for one launch", part.count));
        }
        let [sums, values] = self.part_bytes(part.count);
        Ok(AttendArgs {
            q: Address::of(gpu, "q", self.q, Kind::Float, queries, part)?,
            k: Address::whole(gpu, "k", self.k, kind, self.cached())?,
            v: Address::whole(gpu, "v", self.v, kind, self.cached())?,
            out: Address::of(gpu, "the output", self.out, Kind::Float, queries, part)?,
            part_sums: scratch.take(sums)?,
            part_values: scratch.take(values)?,
            done: Address::of_counters(gpu),
            log_sums: Address::of_any(
                gpu,
                "the log-sum-exp",
                self.log_sums,
                Kind::Float,
                self.heads.heads(),
                part,
            )?,
            log_stride: 1,
            capacity: size(self.capacity)?,
            softcap: self.params.softcap.unwrap_or(0.0),
            scale: self.params.scale,
            window: self.params.window.map_or(i32::MAX, |window| i32::try_from(window).unwrap_or(i32::MAX)),
        })
    }

    /// Dense decode of `part`, whose live positions are `spans`.
    pub(super) fn dense(&self, gpu: &Gpu, spans: &[Span], part: Sequences) -> Result<(), Failure> {
        let [function] = gpu.functions([self.heads.variant(Kernel::AttendDense, self.threads)])?;
        let mut scratch = Scratch::new(gpu, self.part_bytes(part.count));
        let mut args = self.args(gpu, &mut scratch, part)?;
        let mut spans_arg = self.spans(spans)?;
        let queries = part.slice(self.params.queries.as_slice());
        let mut places_arg = Places::new(queries, self.heads.width, self.slots)?;
        let which = match self.heads.width {
            1 => pointer(&mut spans_arg),
            _ => pointer(&mut places_arg),
        };
        let arguments = &mut [pointer(&mut args), which];
        // SAFETY: the types are those of `attend_dense`, which takes spans for one query per sequence and
        // places for several. `args` checked the size of every tensor and the spans, which end where the places
        // do, lie within slots that are there; the parts have room for `splits` of every head, and nobody else
        // has the scratch memory before this is queued.
        unsafe { gpu.launch(function, self.grid(part.count), self.threads, arguments) }
    }
}

/// Step 1 of SparQ.
#[derive(Debug)]
pub(super) struct Score<'a> {
    pub(super) k_t: &'a Tensor,
    pub(super) rank: usize,
    pub(super) local_window: usize,
    pub(super) by_softmax: bool,
    pub(super) mass: bool,
}

/// All steps of SparQ: tensors of [`super::decode_sparq`].
#[derive(Debug)]
pub(super) struct Select<'a> {
    pub(super) score: Score<'a>,
    pub(super) attend: Attend<'a>,
    pub(super) kept: usize,
    pub(super) mean_value: bool,
    pub(super) v_sum: &'a Tensor,
    pub(super) positions: &'a Tensor,
    /// Only where the score asks for it.
    pub(super) masses: Option<&'a Tensor>,
}

#[repr(C)]
struct ScoreArgs {
    q: Address,
    k_t: Address,
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
    factor: f32,
}

#[repr(C)]
struct SelectArgs {
    keys: Address,
    maxima: Address,
    stats: Address,
    approx: Address,
    v_sum: Address,
    positions: Address,
    masses: Address,
    stride: i32,
    chunks: i32,
    kept: i32,
    local_window: i32,
    mean_value: i32,
}

impl Select<'_> {
    /// Scores, selects and attends, for `part`, whose live positions are `spans`: two launches, three under
    /// the softmax rule of grouped queries, and one for few groups of few positions.
    pub(super) fn launch(&self, gpu: &Gpu, spans: &[Span], part: Sequences) -> Result<(), Failure> {
        let (score, attend) = (&self.score, &self.attend);
        let (heads, batch) = (attend.heads, part.count);
        if score.rank == 0 || score.rank > heads.head_dim || self.kept == 0 {
            return Err(format!("rank {} or {} positions are out of range", score.rank, self.kept));
        }
        if score.mass && self.masses.is_none() {
            return Err("there is no room for the mass".into());
        }
        if self.kept.div_ceil(attend.splits) > MOST_ROWS {
            return Err(format!("{} positions are too many for {} splits", self.kept, attend.splits));
        }
        // With one head per group both rules rank alike.
        let by_softmax = score.by_softmax && heads.group > 1;
        let longest = spans.iter().map(Span::len).max().unwrap_or(0);
        if !by_softmax && self.is_short(gpu, longest, batch) {
            return self.launch_short(gpu, spans, part);
        }
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

        let stride = spans.iter().map(|span| span.end).max().unwrap_or(0).next_multiple_of(BUCKET);
        let chunks = (longest + BUCKET - 1).div_ceil(CHUNK).max(1);
        let (groups, queries) = (batch * heads.kv_heads, batch * heads.heads());
        let per_head = by_softmax || score.mass;
        let bytes = [
            groups * stride * 4,
            groups * (stride / BUCKET).next_multiple_of(4) * 4,
            if per_head { queries * chunks * 8 } else { 0 },
            if score.mass { queries * heads.head_dim * 4 } else { 0 },
            if by_softmax { queries * stride * 4 } else { 0 },
        ];
        let mut scratch = Scratch::new(gpu, bytes.into_iter().chain(attend.part_bytes(batch)));
        let rooms = Rooms { of: take(&mut scratch, bytes)?, stride, chunks };
        let mut attend_args = attend.args(gpu, &mut scratch, part)?;
        let mut score_args = self.score_args(gpu, &attend_args, rooms)?;
        let mut select_args = self.select_args(gpu, rooms, part)?;
        let mut spans_arg = attend.spans(spans)?;

        let score_grid = [chunks, heads.kv_heads, batch];
        let mut launch_score = |function: Function| {
            let arguments = &mut [pointer(&mut score_args), pointer(&mut spans_arg)];
            // SAFETY: the types are those of the score kernels. Every tensor was checked for its size, the
            // scratch parts are as large as the source says and nobody else's before the last launch is
            // queued, and the spans lie within the cache.
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

    /// Whether one block per group takes its positions through all steps, and all blocks run at once.
    fn is_short(&self, gpu: &Gpu, longest: usize, batch: usize) -> bool {
        let heads = self.attend.heads;
        longest + BUCKET <= SHORT_BUCKETS * BUCKET
            && self.kept <= SHORT_KEPT
            && self.attend.splits == 1
            && heads.tiles() == 1
            && heads.group * heads.head_dim <= SHORT_QUERIES
            && batch * heads.kv_heads <= gpu.multiprocessors
    }

    fn launch_short(&self, gpu: &Gpu, spans: &[Span], part: Sequences) -> Result<(), Failure> {
        let attend = &self.attend;
        let kernel = if self.score.mass { Kernel::SparqShortMass } else { Kernel::SparqShort };
        let [function] = gpu.functions([attend.heads.variant(kernel, attend.threads)])?;
        let mut scratch = Scratch::new(gpu, []);
        let rooms = Rooms { of: [Address::NONE; 5], stride: 0, chunks: 0 };
        let mut attend_args = attend.args(gpu, &mut scratch, part)?;
        let mut score_args = self.score_args(gpu, &attend_args, rooms)?;
        let mut select_args = self.select_args(gpu, rooms, part)?;
        let mut spans_arg = attend.spans(spans)?;
        let arguments = &mut [
            pointer(&mut score_args),
            pointer(&mut attend_args),
            pointer(&mut select_args),
            pointer(&mut spans_arg),
        ];
        // SAFETY: the types are those of the short kernels, which use none of the rooms. Every tensor was
        // checked for its size, and the spans lie within the cache and fit a block.
        unsafe { gpu.launch(function, attend.grid(part.count), attend.threads, arguments) }
    }

    fn score_args(&self, gpu: &Gpu, attend: &AttendArgs, rooms: Rooms) -> Result<ScoreArgs, Failure> {
        let Heads { head_dim, kind, .. } = self.attend.heads;
        let [keys, maxima, stats, approx, logits] = rooms.of;
        Ok(ScoreArgs {
            q: attend.q,
            k_t: Address::whole(gpu, "the transposed keys", self.score.k_t, kind, self.attend.cached())?,
            keys,
            maxima,
            stats,
            approx,
            logits,
            capacity: attend.capacity,
            stride: size(rooms.stride)?,
            chunks: size(rooms.chunks)?,
            rank: size(self.score.rank)?,
            local_window: size(self.score.local_window)?,
            softcap: attend.softcap,
            factor: scale_beyond_usual(attend.scale, head_dim).unwrap_or(1.0),
        })
    }

    fn select_args(&self, gpu: &Gpu, rooms: Rooms, part: Sequences) -> Result<SelectArgs, Failure> {
        let Heads { kv_heads, head_dim, .. } = self.attend.heads;
        let [keys, maxima, stats, approx, _] = rooms.of;
        let (queries, chosen) = (self.attend.heads.heads(), kv_heads * self.kept);
        let summed = self.attend.slots * kv_heads * head_dim;
        Ok(SelectArgs {
            keys,
            maxima,
            stats,
            approx,
            v_sum: Address::whole(gpu, "the sum of values", self.v_sum, Kind::Float, summed)?,
            positions: Address::of(gpu, "the positions", self.positions, Kind::Int64, chosen, part)?,
            masses: Address::of_any(gpu, "the masses", self.masses, Kind::Float, MASSES * queries, part)?,
            stride: size(rooms.stride)?,
            chunks: size(rooms.chunks)?,
            kept: size(self.kept)?,
            local_window: size(self.score.local_window)?,
            mean_value: i32::from(self.mean_value),
        })
    }
}

/// Bytes of arguments that every GPU takes.
const PARAMETERS: usize = 4096;
const _: () = {
    let attend = size_of::<AttendArgs>();
    assert!(attend + size_of::<Places>() <= PARAMETERS);
    assert!(size_of::<ScoreArgs>() + attend + size_of::<SelectArgs>() + size_of::<Spans>() <= PARAMETERS);
};

/// Where step 1 leaves keys, maxima, sums of exponentials, approximate queries and logits.
#[derive(Debug, Clone, Copy)]
struct Rooms {
    of: [Address; 5],
    /// Positions per row of keys.
    stride: usize,
    /// Blocks of positions per group.
    chunks: usize,
}

fn take<const N: usize>(scratch: &mut Scratch<'_>, bytes: [usize; N]) -> Result<[Address; N], Failure> {
    let mut addresses = [Address::NONE; N];
    for (address, bytes) in addresses.iter_mut().zip(bytes) {
        *address = scratch.take(bytes)?;
    }
    Ok(addresses)
}

/// A value as an argument of a launch.
pub(super) fn pointer<T>(value: &mut T) -> *mut c_void {
    (&raw mut *value).cast()
}

/// A slot as the kernels count, where it is one of `slots`.
pub(super) fn slot(slot: usize, slots: usize) -> Result<i32, Failure> {
    match slot < slots {
        true => size(slot),
        false => Err(format!("slot {slot} lies outside of a cache of {slots}")),
    }
}

/// A size as the kernels count.
pub(super) fn size(n: usize) -> Result<i32, Failure> {
    i32::try_from(n).map_err(|_| format!("{n} is more than a kernel counts"))
}
