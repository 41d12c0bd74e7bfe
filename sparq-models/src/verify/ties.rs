//! SparQ attention that settles ties as a reference run of PyTorch settled them.
//!
//! Which of several positions with the same score are kept carries no meaning, but it moves logits:
//! a reference file holds one of the possible outcomes. The method here runs the method under test,
//! recomputes its approximate scores on the host, and compares the selection with the one that
//! `torch.topk` makes of them. Where the two differ in positions whose scores equal the score at
//! the cut, and in nothing else, the step goes on with PyTorch's positions, and is counted. Where
//! they differ in anything else, the step stays as the method computed it, and so does its error.
//!
//! Equal means within the rounding of f32: the key of a token that came once in the prompt and once
//! in a decode step went through two matrix products that add up in different orders.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use burn::tensor::{Tensor, TensorData};
use sparq_core::{
    AttentionShape, CachedSequence, GroupScores, SparqConfig,
    cache::CacheExtras,
    method::{DecodeMethod, Decoded, Sparq},
};

use super::torch_order;

/// Scores this close, relative to the largest, are the same number computed in two ways.
const ROUNDING: f32 = 32.0 * f32::EPSILON;

/// See the module.
#[derive(Debug)]
pub(super) struct TiesAsPytorch {
    inner: Sparq,
    config: SparqConfig,
    shape: AttentionShape,
    /// Selections that were settled, over all layers of a run.
    settled: Arc<AtomicUsize>,
}

/// One sequence's KV head and its query heads on the host.
struct Head<'a> {
    /// `[g][head_dim]`
    queries: Vec<&'a [f32]>,
    /// `[len][head_dim]`
    keys: Vec<&'a [f32]>,
    values: Vec<&'a [f32]>,
    /// `[head_dim]`
    value_sum: &'a [f32],
}

impl TiesAsPytorch {
    pub(super) fn new(
        config: SparqConfig,
        shape: AttentionShape,
        settled: &Arc<AtomicUsize>,
    ) -> sparq_core::Result<Self> {
        Ok(Self { inner: Sparq::new(config, &shape)?, config, shape, settled: settled.clone() })
    }

    /// Scaled logits of step 1: `[g][len]`.
    fn logits(&self, head: &Head<'_>) -> Vec<Vec<f32>> {
        let dim = self.shape.head_dim;
        let magnitude = |i: usize| head.queries.iter().map(|q| q[i].abs()).sum::<f32>();
        let mut components: Vec<usize> = (0..dim).collect();
        components.sort_by(|&a, &b| magnitude(b).total_cmp(&magnitude(a)));
        components.truncate(self.config.rank);
        let of_query = |q: &&[f32]| {
            let all: f32 = q.iter().map(|x| x.abs()).sum();
            let kept: f32 = components.iter().map(|&i| q[i].abs()).sum();
            let tau = (dim as f32 * kept / all.max(f32::MIN_POSITIVE)).max(1.0).sqrt();
            let score = |k: &&[f32]| components.iter().map(|&i| q[i] / tau * k[i]).sum();
            head.keys.iter().map(score).collect()
        };
        head.queries.iter().map(of_query).collect()
    }

    /// PyTorch's selection, if it differs from `kept` in ties alone.
    fn other_choice(&self, logits: &[Vec<f32>], kept: &[usize]) -> Option<Vec<usize>> {
        let len = logits[0].len();
        let score = |s: usize| match len - s <= self.config.local_window {
            true => f32::MAX,
            false => logits.iter().map(|of_query| of_query[s]).sum(),
        };
        let scores = merge_equal((0..len).map(score).collect());
        let chosen = torch_order::topk(&scores, self.config.top_k);
        let cut = chosen.iter().map(|&s| scores[s]).fold(f32::INFINITY, f32::min);
        let differs = |a: &[usize], b: &[usize]| -> Vec<usize> {
            a.iter().filter(|s| !b.contains(s)).copied().collect()
        };
        let differences = [differs(&chosen, kept), differs(kept, &chosen)].concat();
        let ties_alone = differences.iter().all(|&s| scores[s] == cut);
        (!differences.is_empty() && ties_alone).then_some(chosen)
    }

    /// Steps 2 and 3 over `chosen`: `[g · head_dim]`.
    fn attend(&self, head: &Head<'_>, logits: &[Vec<f32>], chosen: &[usize]) -> Vec<f32> {
        let (dim, len) = (self.shape.head_dim, head.keys.len());
        let scale = 1.0 / (dim as f32).sqrt();
        let output = |(q, approximate): (&&[f32], &Vec<f32>)| {
            let dot = |s: usize| q.iter().zip(head.keys[s]).map(|(q, k)| q * scale * k).sum::<f32>();
            let weights = softmax(&chosen.iter().map(|&s| dot(s)).collect::<Vec<_>>());
            let mass = softmax(approximate);
            let alpha: f32 = match self.config.mean_value {
                true => chosen.iter().map(|&s| mass[s]).sum(),
                false => 1.0,
            };
            let component = |i: usize| {
                let sum: f32 = chosen.iter().zip(&weights).map(|(&s, w)| w * head.values[s][i]).sum();
                alpha * sum + (1.0 - alpha) * head.value_sum[i] / len as f32
            };
            (0..dim).map(component).collect::<Vec<f32>>()
        };
        head.queries.iter().zip(logits).flat_map(output).collect()
    }
}

impl DecodeMethod for TiesAsPytorch {
    fn name(&self) -> &'static str {
        "sparq with ties as PyTorch"
    }

    fn cache_extras(&self) -> CacheExtras {
        self.inner.cache_extras()
    }

    fn decode(&mut self, q: Tensor<4>, sequence: &CachedSequence<'_>) -> sparq_core::Result<Decoded> {
        let mut decoded = self.inner.decode(q.clone(), sequence)?;
        let spans = sequence.spans();
        let whole = spans.as_slice().iter().all(|span| span.start == 0);
        // The rules below are those of the reference runs: the sum of scaled logits, no window.
        let is_reference = whole
            && self.config.group_scores == GroupScores::ScaledLogits
            && sequence.layer().softcap.is_none();
        let (Some(selection), true) = (&decoded.selection, is_reference) else {
            return Ok(decoded);
        };
        let AttentionShape { kv_heads, head_dim: dim, .. } = self.shape;
        let group = self.shape.group();
        // What is computed below scales by 1 / √d.
        let layer = sequence.layer();
        let host = (
            floats(q * (layer.scale() * (dim as f32).sqrt())),
            floats(sequence.k()?),
            floats(sequence.v()?),
            floats(sequence.v_sum()?),
            selection.positions.clone().into_data().try_into_vec_as::<i64>().ok(),
            floats(decoded.output.clone()),
        );
        // Where the device fails, the caller's own read of the output reports it.
        let (Some(q), Some(keys), Some(values), Some(sum), Some(positions), Some(mut output)) = host else {
            return Ok(decoded);
        };
        let [.., kept] = selection.positions.dims();
        let mut changed = 0;
        for (b, span) in spans.as_slice().iter().enumerate() {
            for h in b * kv_heads..(b + 1) * kv_heads {
                let rows = h * sequence.capacity() * dim..(h * sequence.capacity() + span.end) * dim;
                let head = Head {
                    queries: q[h * group * dim..(h + 1) * group * dim].chunks(dim).collect(),
                    keys: keys[rows.clone()].chunks(dim).collect(),
                    values: values[rows].chunks(dim).collect(),
                    value_sum: &sum[h * dim..(h + 1) * dim],
                };
                let logits = self.logits(&head);
                let live = positions[h * kept..(h + 1) * kept].iter();
                let live: Vec<usize> = live.filter_map(|&s| usize::try_from(s).ok()).collect();
                if let Some(chosen) = self.other_choice(&logits, &live) {
                    let replaced = self.attend(&head, &logits, &chosen);
                    output[h * group * dim..(h + 1) * group * dim].copy_from_slice(&replaced);
                    changed += 1;
                }
            }
        }
        if changed > 0 {
            self.settled.fetch_add(changed, Ordering::Relaxed);
            let data = TensorData::new(output, decoded.output.dims());
            decoded.output = Tensor::from_data(data, &decoded.output.device());
        }
        Ok(decoded)
    }
}

/// Gives scores that differ by no more than rounding the same value.
fn merge_equal(mut scores: Vec<f32>) -> Vec<f32> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    let finite = scores.iter().filter(|&&score| score < f32::MAX);
    let close = ROUNDING * finite.fold(0.0, |max: f32, score| max.max(score.abs()));
    for (&below, &above) in order.iter().zip(&order[1..]) {
        if scores[above] - scores[below] <= close {
            scores[above] = scores[below];
        }
    }
    scores
}

fn softmax(logits: &[f32]) -> Vec<f32> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f32> = logits.iter().map(|x| (x - max).exp()).collect();
    let sum: f32 = weights.iter().sum();
    weights.iter().map(|weight| weight / sum).collect()
}

/// The elements on the host.
fn floats<const D: usize>(tensor: Tensor<D>) -> Option<Vec<f32>> {
    tensor.into_data().try_into_vec_as::<f32>().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rounding_is_merged() {
        let scores = vec![1.0, 0.5, 1.0 + f32::EPSILON, f32::MAX, 0.5001, -2.0, f32::MAX, 0.5 - f32::EPSILON];
        let merged = merge_equal(scores.clone());
        assert_eq!(merged[2], merged[0]);
        assert_eq!(merged[1], merged[7]);
        assert_eq!([merged[3], merged[4], merged[5]], [f32::MAX, 0.5001, -2.0]);
        assert!(merged.iter().zip(&scores).all(|(a, b)| (a - b).abs() < 1e-6));
    }
}
