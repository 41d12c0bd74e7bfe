//! SparQ, step 1: approximate scores of all positions from `r` rows of the transposed keys.
//!
//! One cube takes a chunk of positions of one KV head. It chooses the `r` components by itself, reads
//! its part of their rows once for the whole group of query heads, and leaves scores, the best score
//! of every [`GROUP`] positions, and where α is wanted each head's maximum and sum of exponentials.

use burn::tensor::{DType, Shape};
use burn_cubecl::tensor::CubeTensor;
use cubecl::{cube, prelude::*};

use super::{
    bind,
    block::Block,
    elem, empties,
    limits::Limits,
    score::{self, SizesLaunch},
    spans::Table,
    states,
};
use crate::{
    config::GroupScores,
    k_t::{self, BLOCK},
    ops::{
        SparqParams,
        oracle::scale_beyond_usual,
        ran::{EMPTY, Reason, SHAPE},
    },
    spans::Spans,
};

/// Positions that share one entry of the table of best scores.
pub(super) const GROUP: usize = 32;
/// Bytes of the transposed keys that a unit loads at a time.
const IN_FLIGHT: usize = 128;
/// Words before the table of best scores: start and end of the live positions.
pub(super) const HEADER: usize = 2;

/// Where the scores of a step lie. Known when a kernel is compiled, but for the sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ScorePlan {
    pub(super) head_dim: usize,
    /// Query heads per KV head.
    pub(super) group: usize,
    pub(super) rank: usize,
    pub(super) units: usize,
    /// Units that exchange values directly.
    plane: usize,
    /// Positions of a unit in a chunk.
    pub(super) vector: usize,
    /// Bits of a code; 0 for keys as they are stored.
    pub(super) bits: usize,
    /// Rows of the transposed keys that a unit loads at a time.
    pub(super) loads: usize,
    /// The group's heads are scored one by one, for α or for the sum of softmax scores.
    pub(super) per_head: bool,
    /// The logits of each head are kept behind the scores.
    pub(super) keep_logits: bool,
    /// The scores select by sums of softmax scores.
    pub(super) softmax: bool,
    /// As [`Table::alike`]; else the last word of a KV head's statistics says where it lies in the cache.
    pub(super) alike: bool,
    /// There is a soft cap.
    pub(super) capped: bool,
}

impl ScorePlan {
    pub(super) const fn rows(&self) -> usize {
        if self.per_head { self.group } else { 1 }
    }

    pub(super) const fn block(&self) -> Block {
        Block::new(self.units, self.plane)
    }

    /// Positions of a load of the transposed keys.
    pub(super) const fn per_load(&self) -> usize {
        match self.bits {
            0 => self.vector,
            bits => 32 / bits,
        }
    }

    const fn chunk(&self) -> usize {
        self.units * self.vector
    }
}

/// Scores of a step on the device.
#[derive(Debug)]
pub(super) struct Scores {
    /// `[batch · kv_heads, stride]`, and behind it each query head's logits
    /// `[batch · heads, stride]` where they are kept.
    pub(super) scores: CubeTensor,
    /// Per KV head: start, end, best score of each [`GROUP`] positions, then each chunk's maximum and
    /// sum of exponentials per query head; and where the sequences are not alike, which KV head of the cache it is.
    pub(super) stats: CubeTensor,
    /// Positions per row of scores, counted from the start of a group of positions.
    pub(super) stride: usize,
    /// Words per KV head in `stats`.
    pub(super) words: usize,
    /// Chunks of positions per KV head.
    pub(super) chunks: usize,
    /// What is there.
    pub(super) plan: ScorePlan,
}

/// The transposed keys that step 1 reads.
#[derive(Debug, Clone, Copy)]
pub(super) enum KeysByComponent<'a> {
    /// `[slots, kv_heads, head_dim, capacity]`, as they are.
    Stored(&'a CubeTensor),
    /// See [`crate::k_t::QuantizedKt`].
    Codes {
        /// Words of 32 bits.
        words: &'a CubeTensor,
        /// f32.
        scales: &'a CubeTensor,
    },
}

impl KeysByComponent<'_> {
    /// Bits of a code; 0 without codes.
    fn bits(&self) -> usize {
        match self {
            Self::Stored(_) => 0,
            Self::Codes { words, scales } => k_t::bits(words.meta.shape()[3], scales.meta.shape()[3]),
        }
    }

    fn tensor(&self) -> &CubeTensor {
        match self {
            Self::Stored(tensor) | Self::Codes { words: tensor, .. } => tensor,
        }
    }
}

/// Launches step 1, and makes the tensors that `beside` says, in the same allocation; the reason where the
/// kernel does not cover the problem.
pub(super) fn launch(
    q: &CubeTensor,
    k_t: KeysByComponent<'_>,
    params: &SparqParams,
    spans: &Spans,
    table: &Table,
    limits: &Limits,
    beside: [(Shape, DType); 3],
) -> Result<(Scores, [CubeTensor; 3]), Reason> {
    let [batch, heads, _, head_dim] = q.meta.shape().dims();
    let [_, kv_heads, _, row] = k_t.tensor().meta.shape().dims();
    let (config, attend, group) = (&params.config, &params.attend, heads / kv_heads);
    let softmax = config.group_scores == GroupScores::Softmax;
    let per_head = softmax || params.retained_mass || config.mean_value;
    let (kv_rows, bits) = (batch * kv_heads, k_t.bits());
    // Short rows are a matter of latency: narrower loads put more units to work.
    let positions = kv_rows * spans.max_len();
    let (vector, load_bytes) = match k_t {
        KeysByComponent::Stored(tensor) => {
            let mut vector = limits.vector(row, tensor.dtype).min(GROUP);
            while vector > 2 && positions / vector < limits.busy * 32 {
                vector /= 2;
            }
            (vector, vector * tensor.dtype.size())
        }
        // As many positions as the narrowest vectors of all devices take.
        KeysByComponent::Codes { .. } => (4, 4),
    };
    // Large cubes where they still fill the device.
    let wide = positions / vector >= limits.busy * limits.units / 2;
    let plan = ScorePlan {
        head_dim,
        group,
        rank: config.rank,
        units: if wide { limits.units } else { limits.units.min(128) },
        plane: limits.plane,
        vector,
        bits,
        loads: (IN_FLIGHT / load_bytes).min(16).min(1 << config.rank.max(1).ilog2()),
        per_head,
        keep_logits: per_head && (softmax || group > 1),
        softmax,
        alike: table.alike,
        capped: attend.softcap.is_some(),
    };
    let shared = 4 * (head_dim + config.rank * (1 + plan.rows()) + group + 2 * plan.units);
    let codes = bits > 0 && (!BLOCK.is_multiple_of(plan.per_load()) || plan.per_load() < vector);
    if kv_rows > limits.cubes_y || shared > 12 * 1024 || codes {
        return Err(SHAPE);
    }
    let longest = spans.as_slice().iter().map(|span| span.end - span.start / GROUP * GROUP);
    let longest = longest.max().ok_or(EMPTY)?;
    let chunks = longest.div_ceil(plan.chunk());
    let stride = chunks * plan.chunk();
    let states = if per_head { chunks * group * 2 } else { 0 };
    let words = HEADER + stride / GROUP + states + usize::from(!table.alike);
    let rows = kv_rows + if plan.keep_logits { batch * heads } else { 0 };
    let [first, second, third] = beside;
    let [scores, stats, first, second, third] = empties(
        q,
        [
            (Shape::new([rows, stride]), DType::F32),
            (Shape::new([kv_rows, words]), DType::F32),
            first,
            second,
            third,
        ],
    );
    let scores = Scores { scores, stats, stride, words, chunks, plan };
    // Every cube chooses components first: one that scores several chunks does so once.
    let runs = (chunks * kv_rows * plan.units).div_ceil(limits.busy * limits.units).min(chunks);
    let [reach, end, _] = table.words();
    let sizes = SizesLaunch::new(
        reach,
        end,
        config.local_window as u32,
        (row / if bits > 0 { 1 } else { vector }) as u32,
        (stride / vector) as u32,
        words as u32,
        kv_rows as u32,
        kv_heads as u32,
        chunks as u32,
        runs as u32,
        attend.softcap.unwrap_or(1.0),
        scale_beyond_usual(attend.scale, head_dim).unwrap_or(1.0),
    );
    let count = CubeCount::Static(chunks.div_ceil(runs) as u32, kv_rows as u32, 1);
    let units = CubeDim::new_1d(plan.units as u32);
    let (to_scores, to_stats) = (bind(&scores.scores), bind(&scores.stats));
    #[allow(unsafe_code)]
    // SAFETY: reads stay below the capacity, writes within the buffers made above.
    unsafe {
        match k_t {
            KeysByComponent::Stored(tensor) => score::score::launch_unchecked(
                &q.client,
                count,
                units,
                vector,
                bind(q),
                bind(tensor),
                table.argument(q),
                to_scores,
                to_stats,
                sizes,
                plan,
                elem(tensor.dtype),
            ),
            KeysByComponent::Codes { words, scales } => score::score_codes::launch_unchecked(
                &q.client,
                count,
                units,
                1,
                vector,
                bind(q),
                bind(words),
                bind(scales),
                table.argument(q),
                to_scores,
                to_stats,
                sizes,
                plan,
            ),
        }
        if softmax {
            states::softmax_scores::launch_unchecked(
                &q.client,
                CubeCount::Static(chunks as u32, kv_rows as u32, 1),
                units,
                vector,
                bind(&scores.scores),
                bind(&scores.stats),
                config.local_window as u32,
                (stride / vector) as u32,
                words as u32,
                kv_rows as u32,
                attend.softcap.unwrap_or(1.0),
                plan,
            );
        }
    }
    Ok((scores, [first, second, third]))
}

/// Where a cube's positions begin, from the start of the live ones.
#[cube]
pub(super) fn base_of(start: u32) -> u32 {
    start / comptime!(GROUP as u32) * comptime!(GROUP as u32)
}

/// End of the positions that are chosen among: the last `local` live ones are read in any case.
#[cube]
pub(super) fn candidates_end(start: u32, end: u32, local: u32) -> u32 {
    end - u32::min(local, end - start)
}
