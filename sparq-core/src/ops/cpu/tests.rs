//! A sequence gives the same bits whoever runs beside it, however many threads there are, and however its prompt
//! comes.

use half::f16;

use super::*;
use crate::{
    config::{AttentionShape, GroupScores, SparqConfig, TopkRule},
    ops::{AttendParams, SparqParams},
    spans::{AppendPlan, NewTokens},
};

const KV_HEADS: usize = 2;
const HEAD_DIM: usize = 20;

fn numbers<E: Element>(count: usize, seed: f32) -> Vec<E> {
    (0..count).map(|i| E::narrow(((i as f32 + 1.0) * seed).sin() * 2.0)).collect()
}

/// A batch whose sequences have caches of one size.
struct Batch<E> {
    lens: Vec<usize>,
    k: Vec<E>,
    v: Vec<E>,
    sizes: Sizes,
    window: Option<usize>,
}

impl<E: Element> Batch<E> {
    fn new(lens: &[usize], group: usize, window: Option<usize>) -> Self {
        let capacity = lens.iter().max().unwrap().next_multiple_of(64);
        let count = lens.len() * KV_HEADS * capacity * HEAD_DIM;
        let sizes = Sizes { kv_heads: KV_HEADS, group, head_dim: HEAD_DIM, capacity };
        Self { lens: lens.to_vec(), k: numbers(count, 0.7), v: numbers(count, 1.3), sizes, window }
    }

    /// Elements of a sequence's cache.
    fn of_sequence(&self) -> usize {
        KV_HEADS * self.sizes.capacity * HEAD_DIM
    }

    /// Sequence `b` of its own.
    fn alone(&self, b: usize) -> Self {
        let range = b * self.of_sequence()..(b + 1) * self.of_sequence();
        let [k, v] = [&self.k, &self.v].map(|cache| cache[range.clone()].to_vec());
        Self { lens: vec![self.lens[b]], k, v, ..*self }
    }

    /// The queries of the last `take[b]` tokens.
    fn params(&self, take: &[usize]) -> AttendParams {
        let new = NewTokens::ragged(*take.iter().max().unwrap(), take).unwrap();
        let before: Vec<usize> = self.lens.iter().zip(take).map(|(len, take)| len - take).collect();
        let queries = AppendPlan::new(&new, &before);
        AttendParams { queries, window: self.window, softcap: Some(3.0), scale: 0.4 }
    }

    /// Elements of a query of all heads of a sequence.
    fn of_query(&self) -> usize {
        KV_HEADS * self.sizes.group * HEAD_DIM
    }

    fn decode(&self, q: &[f32]) -> Vec<f32> {
        let (output, log_sums) =
            decode_dense(q, &self.k, &self.v, &self.params(&vec![1; self.lens.len()]), self.sizes);
        output.into_iter().chain(log_sums).collect()
    }

    fn sparq(&self, q: &[f32], config: SparqConfig) -> (Vec<f32>, Vec<i32>) {
        let Sizes { capacity, .. } = self.sizes;
        let mut k_t = vec![E::narrow(0.0); self.k.len()];
        for (from, to) in self.k.chunks(capacity * HEAD_DIM).zip(k_t.chunks_mut(capacity * HEAD_DIM)) {
            for (i, x) in from.iter().enumerate() {
                to[i % HEAD_DIM * capacity + i / HEAD_DIM] = *x;
            }
        }
        let v_sum = numbers(self.lens.len() * KV_HEADS * HEAD_DIM, 0.0);
        let slices = SparqSlices { q, k: &self.k, k_t: &k_t[..], v: &self.v, v_sum: &v_sum };
        let attend = self.params(&vec![1; self.lens.len()]);
        let found = decode_sparq(&slices, &SparqParams { attend, config, retained_mass: true }, self.sizes);
        (found.output.into_iter().chain(found.masses).collect(), found.positions)
    }
}

/// Calls `check` on one thread and on five.
fn on_threads(check: impl Fn() + Sync) {
    for count in [1, 5] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(count).build().unwrap();
        pool.install(&check);
    }
}

/// The results of sequence `b` among those of all: `[batch, …]`, behind each other.
fn of(b: usize, together: &[f32], batch: usize, alone: &[f32], outputs: usize) -> Vec<f32> {
    let (output, others) = together.split_at(batch * outputs);
    let per_sequence = alone.len() - outputs;
    [&output[b * outputs..][..outputs], &others[b * per_sequence..][..per_sequence]].concat()
}

#[test]
fn a_dense_step_is_the_same_beside_others() {
    for (group, window) in [(1, None), (4, None), (2, Some(1300))] {
        let batch = Batch::<f16>::new(&[2700, 1, 700, 1500], group, window);
        let q: Vec<f32> = numbers(4 * batch.of_query(), 0.3);
        let alone: Vec<_> =
            (0..4).map(|b| batch.alone(b).decode(&q[b * batch.of_query()..][..batch.of_query()])).collect();
        on_threads(|| {
            let together = batch.decode(&q);
            for (b, alone) in alone.iter().enumerate() {
                assert_eq!(&of(b, &together, 4, alone, batch.of_query()), alone, "sequence {b}");
            }
        });
    }
}

#[test]
fn a_sparq_step_is_the_same_beside_others() {
    let shape = AttentionShape { heads: 2 * KV_HEADS, kv_heads: KV_HEADS, head_dim: HEAD_DIM };
    let config = SparqConfig { local_window: 16, ..SparqConfig::new(&shape, 8, 1100) };
    let configs = [
        config,
        SparqConfig { mean_value: true, top_k: 90, ..config },
        SparqConfig { group_scores: GroupScores::Softmax, top_k: 90, ..config },
        SparqConfig { topk_rule: TopkRule::Buckets, top_k: 90, ..config },
    ];
    for (config, window) in configs.into_iter().flat_map(|config| [(config, None), (config, Some(1300))]) {
        let batch = Batch::<f16>::new(&[6700, 1, 700, 3500], 2, window);
        let q: Vec<f32> = numbers(4 * batch.of_query(), 0.3);
        let per_query = batch.of_query();
        let alone: Vec<_> =
            (0..4).map(|b| batch.alone(b).sparq(&q[b * per_query..][..per_query], config)).collect();
        on_threads(|| {
            let (together, positions) = batch.sparq(&q, config);
            let kept = positions.len() / 4;
            let chosen =
                |positions: &[i32]| positions.iter().copied().filter(|p| *p >= 0).collect::<Vec<_>>();
            for (b, (alone, alone_positions)) in alone.iter().enumerate() {
                assert_eq!(&of(b, &together, 4, alone, per_query), alone, "sequence {b}, {config:?}");
                assert_eq!(chosen(&positions[b * kept..][..kept]), chosen(alone_positions), "sequence {b}");
            }
        });
    }
}

#[test]
fn a_sequence_that_is_kept_whole_is_attended_to_densely() {
    let batch = Batch::<f16>::new(&[1500, 2700], 2, None);
    let (q, per_query) = (numbers(2 * batch.of_query(), 0.3), batch.of_query());
    let shape = AttentionShape { heads: 2 * KV_HEADS, kv_heads: KV_HEADS, head_dim: HEAD_DIM };
    let config = SparqConfig { mean_value: true, ..SparqConfig::new(&shape, 8, 1500) };
    let dense = batch.decode(&q);
    on_threads(|| {
        let (sparq, _) = batch.sparq(&q, config);
        assert_eq!(sparq[..per_query], dense[..per_query]);
        assert_ne!(sparq[per_query..][..per_query], dense[per_query..][..per_query]);
    });
}

fn check_prefill<E: Element>(window: Option<usize>) {
    let batch = Batch::<E>::new(&[601, 37, 300], 2, window);
    let group = batch.sizes.group;
    // `[batch, heads, width, …]`: the rows of a sequence's tokens, those of all heads one after the other.
    let rows = |values: &[f32], b: usize, width: usize, t: usize, per_row: usize| {
        let head = |h: usize| &values[((b * KV_HEADS * group + h) * width + t) * per_row..][..per_row];
        (0..KV_HEADS * group).flat_map(head).copied().collect::<Vec<_>>()
    };
    let width = 601;
    let q: Vec<f32> = numbers(3 * KV_HEADS * group * width * HEAD_DIM, 0.3);
    let (together, log_sums) = prefill(&q, &batch.k, &batch.v, &batch.params(&batch.lens), batch.sizes);
    for b in 0..3 {
        for chunk in [1, 3, 7, 200, 601] {
            let mut alone = batch.alone(b);
            let len = alone.lens[0];
            // The last tokens, in some chunks: those before them would take long.
            let mut first = if chunk < 200 { len - len.min(3 * chunk) } else { 0 };
            while first < len {
                let count = chunk.min(len - first);
                alone.lens[0] = first + count;
                let q: Vec<f32> = (0..KV_HEADS * group)
                    .flat_map(|h| {
                        &q[((b * KV_HEADS * group + h) * width + first) * HEAD_DIM..][..count * HEAD_DIM]
                    })
                    .copied()
                    .collect();
                let (output, sums) = prefill(&q, &alone.k, &alone.v, &alone.params(&[count]), alone.sizes);
                for t in 0..count {
                    let expected = rows(&together, b, width, first + t, HEAD_DIM);
                    assert_eq!(
                        rows(&output, 0, count, t, HEAD_DIM),
                        expected,
                        "token {} of {b}, by {chunk}",
                        first + t
                    );
                    assert_eq!(rows(&sums, 0, count, t, 1), rows(&log_sums, b, width, first + t, 1));
                }
                first += count;
            }
        }
    }
}

#[test]
fn a_prompt_is_the_same_in_any_chunks() {
    for window in [None, Some(5), Some(290)] {
        check_prefill::<f32>(window);
        check_prefill::<f16>(window);
    }
}
