//! Positions chosen from interleaved buckets: the definition spelled out, a backend's own operations against
//! the oracle, and how much of the exact choice they keep.

use burn::{
    backend::Dispatch,
    tensor::{Device, Tensor},
};
use sparq_core::{AttentionShape, GroupScores, KtFormat, SparqConfig, TopkRule, ops::oracle};

use crate::{
    overrides::{LIMITS, problems, sparq_agrees},
    problem::{Comparison, Path, Problem, floats},
    reference::sparq_problems,
    suite::{every, note},
    tolerance::{Tolerance, f32},
};

fn config(shape: &AttentionShape, (rank, top_k, local_window): (usize, usize, usize)) -> SparqConfig {
    SparqConfig { local_window, topk_rule: TopkRule::Buckets, ..SparqConfig::new(shape, rank, top_k) }
}

/// Sizes of the choice whose buckets are too many for it, just enough, and full of few positions.
fn sizes(head_dim: usize) -> [(usize, usize, usize); 3] {
    [(head_dim / 4, 12, 3), (head_dim / 2, 40, 8), (1, 64, 0)]
}

/// The oracle keeps what sorting each bucket by itself gives.
pub fn the_best_two_of_each_bucket(device: &Device) {
    for problem in problems() {
        for size in sizes(problem.shape.head_dim) {
            let config = config(&problem.shape, size);
            let solution = problem.sparq(Path::Oracle, config, f32().dtype, device);
            let expected = by_sorting(&problem, &config, device);
            assert_eq!(solution.positions, expected, "{config:?} {:?}", problem.shape);
        }
    }
}

/// Kept positions per sequence and KV head, from the approximate scores, without any tensor.
fn by_sorting(problem: &Problem, config: &SparqConfig, device: &Device) -> Vec<Vec<usize>> {
    let AttentionShape { kv_heads, head_dim, .. } = problem.shape;
    let (batch, group) = (problem.batch(), problem.shape.group());
    let cache = problem.cache(f32().dtype, device);
    let spans = cache.spans();
    let logits: Tensor<4> = Tensor::from_dispatch(oracle::approximate_scores::<Dispatch>(
        problem.queries(device).reshape([batch, kv_heads, group, head_dim]).into_dispatch(),
        cache.k_t().expect("kept").into_dispatch(),
        &spans,
        config.rank,
        cache.config().layer.scale(),
    ));
    let [_, _, _, len] = logits.dims();
    let logits = floats(logits);
    let of_head = |head: usize| {
        let span = spans.as_slice()[head / kv_heads];
        if span.len() <= config.top_k {
            return (span.start..span.end).collect();
        }
        let score =
            |p: usize| -> f32 { (0..group).map(|query| logits[(head * group + query) * len + p]).sum() };
        let best_first = |positions: &mut Vec<usize>| {
            positions.sort_by(|&a, &b| score(b).total_cmp(&score(a)));
        };
        let local = span.end - config.local_window;
        let wanted = config.top_k - config.local_window;
        let buckets = wanted.div_ceil(2).next_multiple_of(16);
        let mut kept = vec![];
        for bucket in 0..buckets {
            let mut here: Vec<usize> = (span.start..local).filter(|p| p % buckets == bucket).collect();
            best_first(&mut here);
            kept.extend(here.into_iter().take(2));
        }
        best_first(&mut kept);
        kept.truncate(wanted);
        kept.extend(local..span.end);
        kept.sort_unstable();
        kept
    };
    (0..batch * kv_heads).map(of_head).collect()
}

/// SparQ decode against the oracle: both group rules, keys as they are and as codes, with and without a
/// sliding window and a soft cap.
pub fn sparq_decode(device: &Device, row: Tolerance) {
    let has_codes = sparq_core::device::require_kt(device, KtFormat::Int8).is_ok();
    let indices = [KtFormat::Cache, KtFormat::Int8].into_iter().take(if has_codes { 2 } else { 1 });
    let limited =
        |problem: &Problem| LIMITS.map(|(window, softcap)| problem.clone().limited(window, softcap));
    let cases = problems().iter().flat_map(limited).collect::<Vec<_>>();
    for (kt_format, problem) in
        indices.flat_map(|kt_format| every(5, cases.clone()).map(move |p| (kt_format, p)))
    {
        let cache = problem.cache_with(kt_format, row.dtype, device);
        for (size, group_scores) in every(5, sizes(problem.shape.head_dim).into_iter().flat_map(both_rules)) {
            let config = SparqConfig { group_scores, kt_format, ..config(&problem.shape, size) };
            sparq_agrees(&problem, &cache, config, row, device);
        }
    }
}

fn both_rules(size: (usize, usize, usize)) -> [((usize, usize, usize), GroupScores); 2] {
    [GroupScores::ScaledLogits, GroupScores::Softmax].map(|rule| (size, rule))
}

/// How much of the exact choice buckets keep on the authors' vectors, and how far the output moves. Prints
/// the figures that the documentation states.
pub fn agreement_on_the_reference_vectors(device: &Device) {
    let mut comparison = Comparison::default();
    let (mut mass, mut exact_mass) = (0.0f64, 0.0f64);
    for (_, problem, configs) in every(8, sparq_problems()) {
        for config in configs {
            let run = |topk_rule| {
                problem.sparq(Path::Product, SparqConfig { topk_rule, ..config }, f32().dtype, device)
            };
            let (exact, buckets) = (run(TopkRule::Exact), run(TopkRule::Buckets));
            for (exact, buckets) in exact.positions.iter().zip(&buckets.positions) {
                assert_eq!(exact.len(), buckets.len(), "as many positions");
            }
            comparison.add(&exact, &buckets);
            mass += buckets.mass.iter().map(|&mass| f64::from(mass)).sum::<f64>();
            exact_mass += exact.mass.iter().map(|&mass| f64::from(mass)).sum::<f64>();
        }
    }
    let (agreement, distance, of_mass) = (comparison.agreement(), comparison.distance(), mass / exact_mass);
    note(&format!(
        "buckets: {:.1}% of kept positions agree, α is {:.1}% of the exact choice's, the output differs by {:.1}%",
        100.0 * agreement,
        100.0 * of_mass,
        100.0 * distance
    ));
    // The exact choice has the largest sum of scores, so for single heads the largest mass too.
    assert!(agreement >= 0.7 && (0.8..=1.001).contains(&of_mass) && distance <= 0.6);
}
