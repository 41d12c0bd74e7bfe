//! SparQ decode over slices: the three steps of [`crate::ops::oracle`] for one KV head at a time.

use rayon::prelude::*;

use super::{
    Element, Sizes,
    attend::Attend,
    element::{axpy, max, soft_cap, vectorised},
};
use crate::{
    config::{GroupScores, SparqConfig},
    ops::SparqStep,
    spans::Span,
};

/// Positions scored at a time, so that the running scores stay in the first-level cache while the
/// `r` rows of the index pass by.
const BLOCK: usize = 2048;

/// Inputs of a SparQ step, in the layouts of [`crate::LayerCache`].
pub(in crate::ops) struct SparqSlices<'a, E> {
    pub(in crate::ops) q: &'a [f32],
    pub(in crate::ops) k: &'a [E],
    pub(in crate::ops) k_index: &'a [E],
    pub(in crate::ops) v: &'a [E],
    pub(in crate::ops) v_sum: &'a [f32],
}

/// Outputs of a SparQ step.
pub(in crate::ops) struct SparqOutput {
    /// `[batch, heads, 1, head_dim]`
    pub(in crate::ops) output: Vec<f32>,
    /// `[batch, kv_heads, kept]`, -1 where a sequence is shorter.
    pub(in crate::ops) positions: Vec<i32>,
    /// Length of the last axis of `positions`.
    pub(in crate::ops) kept: usize,
    /// `[batch, heads]`; 1 where it was not asked for.
    pub(in crate::ops) retained_mass: Vec<f32>,
}

/// Output, positions and masses of one KV head.
type HeadOutput<'a> = ((&'a mut [f32], &'a mut [i32]), &'a mut [f32]);

/// See [`crate::ops::decode_sparq`].
pub(in crate::ops) fn decode_sparq<E: Element>(
    x: &SparqSlices<'_, E>,
    step: &SparqStep,
    sizes: Sizes,
) -> SparqOutput {
    let Sizes { kv_heads, group, head_dim, capacity } = sizes;
    let kept = step.config.top_k.min(step.spans.max_end());
    let per_group = group * head_dim;
    let per_head = capacity * head_dim;
    let mut output = vec![0.0; x.q.len()];
    let mut positions = vec![-1; x.q.len() / per_group * kept];
    let mut retained_mass = vec![1.0; x.q.len() / head_dim];
    let attend = |(head, ((out, positions), mass)): (usize, HeadOutput<'_>)| {
        let span = step.spans.as_slice()[head / kv_heads];
        let q = &x.q[head * per_group..][..per_group];
        let of_head = head * per_head..(head + 1) * per_head;
        let index = &x.k_index[of_head.clone()];
        let selected = score_and_select(q, index, span, step, sizes, mass);
        for (slot, &position) in positions.iter_mut().zip(&selected) {
            *slot = position as i32;
        }
        let mut attend = Attend::new(q, head_dim, step.softcap, out);
        attend.feed(&x.k[of_head.clone()], &x.v[of_head], selected.iter().copied());
        attend.finish();
        // The sum is over all values: it says nothing about those that a window leaves.
        if step.config.mean_value && span.start == 0 {
            let v_sum = &x.v_sum[head * head_dim..][..head_dim];
            reallocate_to_mean(out, v_sum, span.len(), mass);
        }
    };
    let heads = x.q.len() / per_group;
    let read = step.spans.max_len() * step.config.rank / head_dim + 2 * kept;
    match sizes.is_parallel(read, heads) {
        true => output
            .par_chunks_mut(per_group)
            .zip(positions.par_chunks_mut(kept))
            .zip(retained_mass.par_chunks_mut(group))
            .enumerate()
            .for_each(attend),
        false => output
            .chunks_mut(per_group)
            .zip(positions.chunks_mut(kept))
            .zip(retained_mass.chunks_mut(group))
            .enumerate()
            .for_each(attend),
    }
    SparqOutput { output, positions, kept, retained_mass }
}

/// Steps 1 and 2 up to the choice of positions; `mass` receives α of each query head.
fn score_and_select<E: Element>(
    q: &[f32],
    index: &[E],
    span: Span,
    step: &SparqStep,
    sizes: Sizes,
    mass: &mut [f32],
) -> Vec<usize> {
    let config = &step.config;
    let per_head = step.retained_mass || config.mean_value || config.group_scores == GroupScores::Softmax;
    let i1 = largest_components(q, sizes.head_dim, config.rank);
    let mut weights = scaled_queries(q, sizes.head_dim, &i1);
    if !per_head {
        weights = sum_rows(&weights, config.rank);
    }
    // `[rows of weights, live positions]`
    let mut logits = approximate_scores(index, &i1, &weights, span, sizes.capacity);
    let selected = match (per_head, config.group_scores) {
        (false, _) => select(&logits, config),
        (true, GroupScores::ScaledLogits) => select(&sum_rows(&logits, span.len()), config),
        (true, GroupScores::Softmax) => {
            logits.chunks_exact_mut(span.len()).for_each(|row| softmax(row, step.softcap));
            select(&sum_rows(&logits, span.len()), config)
        }
    };
    if per_head {
        if config.group_scores == GroupScores::ScaledLogits {
            logits.chunks_exact_mut(span.len()).for_each(|row| softmax(row, step.softcap));
        }
        for (mass, s_hat) in mass.iter_mut().zip(logits.chunks_exact(span.len())) {
            *mass = selected.iter().map(|&s| s_hat[s]).sum();
        }
    }
    selected.into_iter().map(|s| s + span.start).collect()
}

/// `i1`: the `rank` components where `Σ|q|` over the group is largest.
fn largest_components(q: &[f32], head_dim: usize, rank: usize) -> Vec<usize> {
    let mut magnitude = vec![0.0f32; head_dim];
    for row in q.chunks_exact(head_dim) {
        for (sum, x) in magnitude.iter_mut().zip(row) {
            *sum += x.abs();
        }
    }
    let mut components: Vec<usize> = (0..head_dim).collect();
    if rank < head_dim {
        components.select_nth_unstable_by(rank - 1, |&a, &b| magnitude[b].total_cmp(&magnitude[a]));
        components.truncate(rank);
        components.sort_unstable(); // rows of the index in the order of memory
    }
    components
}

/// `q[i1] / τ` for each head of the group: `[group, rank]`.
fn scaled_queries(q: &[f32], head_dim: usize, i1: &[usize]) -> Vec<f32> {
    let norm = |row: &mut dyn Iterator<Item = f32>| row.map(f32::abs).sum::<f32>();
    q.chunks_exact(head_dim)
        .flat_map(|row| {
            let kept = norm(&mut i1.iter().map(|&c| row[c]));
            let all = norm(&mut row.iter().copied()).max(f32::MIN_POSITIVE);
            let tau = (head_dim as f32 * kept / all).max(1.0).sqrt();
            i1.iter().map(move |&c| row[c] / tau)
        })
        .collect()
}

/// Sum of the rows, each `len` long.
fn sum_rows(rows: &[f32], len: usize) -> Vec<f32> {
    let mut sum = rows[..len].to_vec();
    for row in rows[len..].chunks_exact(len) {
        axpy(&mut sum, 1.0, row);
    }
    sum
}

/// `weights · K[:, i1]ᵀ` over the live positions: `[rows of weights, live]`.
fn approximate_scores<E: Element>(
    index: &[E],
    i1: &[usize],
    weights: &[f32],
    span: Span,
    capacity: usize,
) -> Vec<f32> {
    let len = span.len();
    let mut scores = vec![0.0; weights.len() / i1.len() * len];
    let mut buffer = vec![0.0; BLOCK.min(len)];
    vectorised(|| {
        for first in (0..len).step_by(BLOCK) {
            let count = BLOCK.min(len - first);
            for (j, &component) in i1.iter().enumerate() {
                let row = &index[component * capacity + span.start + first..][..count];
                let row = E::widen(row, &mut buffer);
                for (head, weights) in weights.chunks_exact(i1.len()).enumerate() {
                    axpy(&mut scores[head * len + first..][..count], weights[j], row);
                }
            }
        }
    });
    scores
}

/// `i2`: the `top_k` best of the scores in ascending order, the last `local_window` always there.
fn select(scores: &[f32], config: &SparqConfig) -> Vec<usize> {
    let len = scores.len();
    if config.top_k >= len {
        return (0..len).collect();
    }
    let candidates = &scores[..len - config.local_window];
    let wanted = config.top_k - config.local_window;
    let mut selected = Vec::with_capacity(config.top_k);
    if wanted > 0 {
        let mut values = candidates.to_vec();
        let (above, threshold, _) = values.select_nth_unstable_by(wanted - 1, |a, b| b.total_cmp(a));
        let threshold = *threshold;
        let mut ties = wanted - above.iter().filter(|x| x.total_cmp(&threshold).is_gt()).count();
        for (s, score) in candidates.iter().enumerate() {
            match score.total_cmp(&threshold) {
                std::cmp::Ordering::Greater => selected.push(s),
                std::cmp::Ordering::Equal if ties > 0 => {
                    ties -= 1;
                    selected.push(s);
                }
                _ => {}
            }
        }
    }
    selected.extend(candidates.len()..len);
    selected
}

/// Softmax of the logits, capped first where there is a cap.
fn softmax(row: &mut [f32], softcap: Option<f32>) {
    soft_cap(row, softcap);
    let maximum = max(row);
    let mut sum = 0.0;
    for x in &mut *row {
        *x = (*x - maximum).exp();
        sum += *x;
    }
    row.iter_mut().for_each(|x| *x /= sum);
}

/// Step 3: `α · y + (1 − α) · v̄` for each head of the group.
fn reallocate_to_mean(out: &mut [f32], v_sum: &[f32], len: usize, mass: &[f32]) {
    for (out, &alpha) in out.chunks_exact_mut(v_sum.len()).zip(mass) {
        for (y, sum) in out.iter_mut().zip(v_sum) {
            *y = alpha * *y + (1.0 - alpha) * sum / len as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::AttentionShape;

    #[test]
    fn the_group_picks_components_by_summed_magnitude() {
        // The authors' example: two KV heads with two query heads each.
        assert_eq!(largest_components(&[1.0, 10.0, -20.0, 2.0], 2, 1), [0]);
        assert_eq!(largest_components(&[30.0, 3.0, 4.0, 40.0], 2, 1), [1]);
    }

    #[test]
    fn ties_never_change_the_count() {
        let shape = AttentionShape { heads: 1, kv_heads: 1, head_dim: 2 };
        let config = SparqConfig { local_window: 2, ..SparqConfig::new(&shape, 1, 5) };
        assert_eq!(select(&[0.0; 10], &config), [0, 1, 2, 8, 9]);
        assert_eq!(select(&[0.0, 3.0, 0.0, 1.0, 2.0, 9.0, 9.0], &config), [1, 3, 4, 5, 6]);
        assert_eq!(select(&[0.0; 4], &config), [0, 1, 2, 3]);
    }

    #[test]
    fn a_zero_query_scores_all_positions_alike() {
        let weights = scaled_queries(&[0.0; 4], 4, &[0, 1]);
        assert_eq!(weights, [0.0, 0.0]);
    }
}
