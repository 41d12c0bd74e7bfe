//! Online softmax over rows of a cache: each team of units takes rows of its own and keeps a running
//! maximum, sum and output per query head; the teams of a cube merge at the end.

use cubecl::{cube, prelude::*};

use super::{block::across, limits::Team};

/// Rows that a team loads at a time, so that many loads are on their way at once.
pub(super) const ROWS: usize = 4;
/// Below any logit: stands for minus infinity, which WGSL does not promise to keep.
pub(super) const LOWEST: f32 = -1e30;

/// Running state of a unit: its lanes' part of the queries and outputs of each head.
#[derive(CubeType)]
pub(super) struct Online<N: Size> {
    queries: Array<Vector<f32, N>>,
    outputs: Array<Vector<f32, N>>,
    maxima: Array<f32>,
    sums: Array<f32>,
}

/// Which positions each head of a cube sees, where they differ: those of several queries of a sequence.
#[derive(CubeType)]
pub(super) struct Sight {
    /// First one that a head sees.
    pub(super) starts: Array<u32>,
    /// How many they are.
    pub(super) lens: Array<u32>,
    /// Position of the first row that is fed.
    pub(super) first: u32,
}

#[cube]
impl Sight {
    /// All that is live, for kernels with one query per sequence.
    pub(super) fn all() -> Sight {
        Sight { starts: Array::<u32>::new(1usize), lens: Array::<u32>::new(1usize), first: 0u32.runtime() }
    }
}

/// Starts with the queries `q` (in vectors) of the heads from `first_head` on, scaled.
#[cube]
pub(super) fn start<N: Size>(
    q: &[Vector<f32, N>],
    first_head: usize,
    scale: f32,
    #[comptime] team: Team,
) -> Online<N> {
    let lane = UNIT_POS as usize % team.lanes;
    let per_lane = comptime!(team.per_lane());
    let vectors = comptime!(team.vectors());
    let mut queries = Array::<Vector<f32, N>>::new(comptime!(team.heads * per_lane));
    let mut outputs = Array::<Vector<f32, N>>::new(comptime!(team.heads * per_lane));
    let mut maxima = Array::<f32>::new(team.heads);
    let mut sums = Array::<f32>::new(team.heads);
    #[unroll]
    for h in 0..team.heads {
        maxima[h] = LOWEST;
        sums[h] = 0.0f32;
        #[unroll]
        for i in 0..per_lane {
            let c = lane + comptime!(i * team.lanes);
            outputs[comptime!(h * per_lane + i)] = Vector::new(0.0f32);
            let mut query = Vector::<f32, N>::new(0.0f32);
            if c < vectors {
                query = q[(first_head + h) * vectors + c] * Vector::new(scale);
            }
            queries[comptime!(h * per_lane + i)] = query;
        }
    }
    Online::<N> { queries, outputs, maxima, sums }
}

/// The same value on all units of a team: the sum of theirs. All units of the cube must come here.
#[cube]
pub(super) fn team_sum(value: f32, exchange: &mut Shared<[f32]>, #[comptime] team: Team) -> f32 {
    let mut sum = value;
    if comptime!(team.planes()) {
        sum = across(sum, false, team.lanes);
    } else {
        let unit = UNIT_POS as usize;
        exchange[unit] = sum;
        sync_cube();
        let first = unit / team.lanes * team.lanes;
        sum = 0.0f32;
        #[unroll]
        for i in 0..team.lanes {
            sum += exchange[first + i];
        }
        sync_cube();
    }
    sum
}

/// Whether `x` is infinite or not a number. By its bits: compilers of shaders may take it that no number is.
#[cube]
pub(super) fn is_overflow(x: f32) -> bool {
    (u32::reinterpret(x) & 0x7fff_ffffu32) >= 0x7f80_0000u32
}

/// NaN where `overflowed`, else `x`.
#[cube]
pub(super) fn nan_where(overflowed: bool, x: f32) -> f32 {
    let bits = u32::reinterpret(x);
    f32::reinterpret(select(overflowed, bits | 0x7fff_ffffu32, bits))
}

/// `cap · tanh(x / cap)`. The form with eˣ never overflows; near zero it cancels, and the series
/// takes over, whose first term left out is below the rounding there.
#[cube]
pub(super) fn soft_cap(x: f32, cap: f32, #[comptime] capped: bool) -> f32 {
    let mut y = x;
    if comptime!(capped) {
        let t = x / cap;
        let t2 = t * t;
        let series = x * (1.0f32 - t2 * (0.333_333_34f32 - t2 * 0.133_333_34f32));
        let shrink = f32::exp(-2.0f32 * f32::abs(t));
        let size = cap * (1.0f32 - shrink) / (1.0f32 + shrink);
        let whole = select(x < 0.0f32, -size, size);
        y = select(t2 < 0.01f32, series, whole);
    }
    y
}

/// Attends to [`ROWS`] rows: `rows[u]` is the first vector of row `u` in `k` and `v`, and only the
/// first `live` of them count, for each head those in its `sight` where `apart` is set. Rows that do not count must still lie in the cache, on live positions
/// if there are any. A score that overflows makes the sum of weights NaN. All units of the cube must come
/// here.
#[cube]
pub(super) fn feed<F: Float, N: Size>(
    online: &mut Online<N>,
    k: &[Vector<F, N>],
    v: &[Vector<F, N>],
    rows: &Array<u32>,
    live: u32,
    cap: f32,
    exchange: &mut Shared<[f32]>,
    sight: &Sight,
    #[comptime] capped: bool,
    #[comptime] apart: bool,
    #[comptime] team: Team,
) {
    let lane = UNIT_POS as usize % team.lanes;
    let per_lane = comptime!(team.per_lane());
    let vectors = comptime!(team.vectors());
    let mut keys = Array::<Vector<F, N>>::new(comptime!(ROWS * per_lane));
    let mut values = Array::<Vector<F, N>>::new(comptime!(ROWS * per_lane));
    #[unroll]
    for u in 0..ROWS {
        #[unroll]
        for i in 0..per_lane {
            // A lane beyond the row reads its last vector again; its queries are zero.
            let c = lane + comptime!(i * team.lanes);
            let c = select(c < vectors, c, comptime!(vectors - 1).runtime());
            keys[comptime!(u * per_lane + i)] = k[rows[u] as usize + c];
            values[comptime!(u * per_lane + i)] = v[rows[u] as usize + c];
        }
    }
    #[unroll]
    for h in 0..team.heads {
        let mut logits = Array::<f32>::new(ROWS);
        let before = online.maxima[h];
        let mut maximum = before;
        #[unroll]
        for u in 0..ROWS {
            let mut partial = Vector::<f32, N>::new(0.0f32);
            #[unroll]
            for i in 0..per_lane {
                let key = Vector::<f32, N>::cast_from(keys[comptime!(u * per_lane + i)]);
                partial += online.queries[comptime!(h * per_lane + i)] * key;
            }
            let logit = team_sum(Vector::vector_sum(partial), exchange, team);
            let logit = soft_cap(logit, cap, capped);
            let seen = sees(sight, h, u as u32, live, apart);
            let logit = select(seen, logit, LOWEST);
            logits[u] = logit;
            maximum = f32::max(maximum, logit);
        }
        let shrink = f32::exp(before - maximum);
        let mut sum = online.sums[h] * shrink;
        #[unroll]
        for i in 0..per_lane {
            online.outputs[comptime!(h * per_lane + i)] =
                online.outputs[comptime!(h * per_lane + i)] * Vector::new(shrink);
        }
        #[unroll]
        for u in 0..ROWS {
            let seen = sees(sight, h, u as u32, live, apart);
            let weight = select(seen, f32::exp(logits[u] - maximum), 0.0f32);
            let weight = nan_where(is_overflow(logits[u]), weight);
            sum += weight;
            #[unroll]
            for i in 0..per_lane {
                let value = Vector::<f32, N>::cast_from(values[comptime!(u * per_lane + i)]);
                online.outputs[comptime!(h * per_lane + i)] += Vector::new(weight) * value;
            }
        }
        online.maxima[h] = maximum;
        online.sums[h] = sum;
    }
}

/// Whether row `u` of those that are fed counts for head `h`.
#[cube]
fn sees(sight: &Sight, #[comptime] h: usize, u: u32, live: u32, #[comptime] apart: bool) -> bool {
    // One comparison: what lies before the first is far behind the last, counted from it. Compilers of shaders
    // make branches of `&&`.
    let mut from = u;
    let mut len = live;
    if comptime!(apart) {
        from = sight.first + u - sight.starts[h];
        len = sight.lens[h];
    }
    from < len
}

/// Log-sum-exp of a head from its maximum and sum of weights: [`LOWEST`] where it saw nothing. NaN stays NaN.
#[cube]
pub(super) fn log_sum(maximum: f32, sum: f32) -> f32 {
    let log = select(sum > 0.0f32, maximum + f32::ln(f32::max(sum, 1e-37f32)), LOWEST);
    nan_where(is_overflow(sum), log)
}

/// Merges the teams' states: brings the outputs to the maximum of the cube, which [`merged_state`] gives
/// with the sum after the next barrier. All units of the cube must come here.
#[cube]
pub(super) fn merge_states<N: Size>(
    online: &mut Online<N>,
    states: &mut Shared<[f32]>,
    #[comptime] team: Team,
) {
    let unit = UNIT_POS as usize;
    let own = unit / team.lanes;
    let per_lane = comptime!(team.per_lane());
    if unit % team.lanes == 0 {
        #[unroll]
        for h in 0..team.heads {
            let state = comptime!(2 * h * team.teams) + 2 * own;
            states[state] = online.maxima[h];
            states[state + 1] = online.sums[h];
        }
    }
    sync_cube();
    #[unroll]
    for h in 0..team.heads {
        let first = comptime!(2 * h * team.teams);
        let mut maximum = LOWEST.runtime();
        let mut sum = 0.0f32;
        if comptime!(team.teams <= team.plane) {
            // Each unit looks at one team.
            let state = first + 2 * (unit % team.teams);
            maximum = across(states[state], true, team.teams);
            sum = across(states[state + 1] * f32::exp(states[state] - maximum), false, team.teams);
        } else {
            for t in 0..team.teams {
                maximum = f32::max(maximum, states[first + 2 * t]);
            }
            for t in 0..team.teams {
                sum += states[first + 2 * t + 1] * f32::exp(states[first + 2 * t] - maximum);
            }
        }
        let shrink = f32::exp(online.maxima[h] - maximum);
        #[unroll]
        for i in 0..per_lane {
            online.outputs[comptime!(h * per_lane + i)] =
                online.outputs[comptime!(h * per_lane + i)] * Vector::new(shrink);
        }
        if unit == 0 {
            states[comptime!(2 * team.heads * team.teams + 2 * h)] = maximum;
            states[comptime!(2 * team.heads * team.teams + 2 * h + 1)] = sum;
        }
    }
}

/// Maximum and sum of head `h` of the cube, once [`merge_states`] has been called.
#[cube]
pub(super) fn merged_state(states: &Shared<[f32]>, h: usize, #[comptime] team: Team) -> (f32, f32) {
    let state = comptime!(2 * team.heads * team.teams) + 2 * h;
    (states[state], states[state + 1])
}

/// Puts the outputs of [`Team::merged_heads`] heads from `first` on into `merge`, for [`merged`]. All units
/// of the cube must come here.
#[cube]
pub(super) fn merge_outputs<N: Size>(
    online: &Online<N>,
    merge: &mut Shared<[Vector<f32, N>]>,
    #[comptime] first: usize,
    #[comptime] team: Team,
) {
    let unit = UNIT_POS as usize;
    let own = unit / team.lanes;
    let per_lane = comptime!(team.per_lane());
    let vectors = comptime!(team.vectors());
    let neighbours = comptime!(team.neighbours());
    // What a former call left there has been read.
    sync_cube();
    #[unroll]
    for slot in 0..comptime!(team.merged_heads().min(team.heads - first)) {
        #[unroll]
        for i in 0..per_lane {
            let mut output = online.outputs[comptime!((first + slot) * per_lane + i)];
            #[unroll]
            for step in 0..comptime!(neighbours.ilog2()) {
                let apart = comptime!((team.lanes as u32) << step);
                let mut other = Vector::<f32, N>::new(0.0f32);
                #[unroll]
                for e in 0..team.vector {
                    other.insert(e, plane_shuffle_xor(output.extract(e), apart));
                }
                output += other;
            }
            let c = unit % team.lanes + comptime!(i * team.lanes);
            if own % neighbours == 0 && c < vectors {
                merge[(comptime!(slot * team.merged_rows()) + own / neighbours) * vectors + c] = output;
            }
        }
    }
    sync_cube();
}

/// Vector `c` of the cube's output for the head at `slot`, not yet divided by the sum of weights; after
/// [`merge_outputs`].
#[cube]
pub(super) fn merged<N: Size>(
    merge: &Shared<[Vector<f32, N>]>,
    slot: usize,
    c: usize,
    #[comptime] team: Team,
) -> Vector<f32, N> {
    let rows = comptime!(team.merged_rows());
    let at_once = comptime!(rows.min(8));
    let first = slot * comptime!(rows * team.vectors()) + c;
    let mut output = Vector::<f32, N>::new(0.0f32);
    for turn in 0..comptime!(rows / at_once) {
        #[unroll]
        for u in 0..at_once {
            output += merge[first + (turn * at_once + u) * comptime!(team.vectors())];
        }
    }
    output
}
