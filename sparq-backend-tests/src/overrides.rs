//! A backend's own operations against the oracle, in a storage dtype.

use burn::{
    backend::Dispatch,
    tensor::{DType, Device, Tensor},
};
use sparq_core::{
    AppendPlan, AttentionShape, GroupScores, LayerCache, NewTokens, SparqConfig,
    ops::{self, AttendParams, oracle},
};

use crate::{
    problem::{Path, Problem, attend, dense, floats, sparq, tensor},
    suite::every,
    tolerance::{Tolerance, assert_close},
};

/// Shapes that reach every branch: no groups, groups, one KV head, sizes that no vector divides.
pub(crate) fn problems() -> Vec<Problem> {
    let ragged = |width, lens: &[usize]| NewTokens::ragged(width, lens).expect("lens within width");
    let padded = |width, pads: &[usize]| NewTokens::left_padded(width, pads).expect("pads within width");
    let shape = |heads, kv_heads, head_dim| AttentionShape { heads, kv_heads, head_dim };
    vec![
        Problem::random(shape(4, 4, 32), NewTokens::all(1, 70), 1),
        Problem::random(shape(8, 2, 64), ragged(130, &[130, 17, 1]), 2),
        Problem::random(shape(6, 1, 24), padded(37, &[5, 0]), 3),
        Problem::random(shape(2, 2, 128), NewTokens::all(1, 2500), 4),
    ]
}

/// Windows and soft caps to run the problems under: none, each alone, both. Logits are of order one.
pub(crate) const LIMITS: [(Option<usize>, Option<f32>); 4] =
    [(None, None), (Some(9), None), (None, Some(1.5)), (Some(40), Some(0.7))];

/// Rows, columns and sums land where the oracle puts them, behind what is there already.
pub fn appends(device: &Device, row: Tolerance) {
    for problem in problems() {
        let AttentionShape { kv_heads, head_dim, .. } = problem.shape;
        let batch = problem.batch();
        let lens: Vec<usize> = (0..batch).map(|b| 3 + 2 * b).collect();
        let plan = AppendPlan::new(&problem.tokens, &lens);
        let capacity = problem.tokens.width() + 16;
        let rows = || problem.rows(&problem.k, device);
        let old = |shape| tensor(vec![0.5; shape_len(shape)], shape, device).cast(row.dtype);
        let (by_row, by_column) =
            ([batch, kv_heads, capacity, head_dim], [batch, kv_heads, head_dim, capacity]);

        let oracle =
            oracle::append_rows::<Dispatch>(old(by_row).into_dispatch(), rows().into_dispatch(), &plan);
        let expected = floats(Tensor::<4>::from_dispatch(oracle));
        assert_eq!(floats(ops::append_rows(old(by_row), rows(), &plan)), expected, "rows {:?}", row.dtype);

        let oracle =
            oracle::append_columns::<Dispatch>(old(by_column).into_dispatch(), rows().into_dispatch(), &plan);
        let expected = floats(Tensor::<4>::from_dispatch(oracle));
        assert_eq!(
            floats(ops::append_columns(old(by_column), rows(), &plan)),
            expected,
            "columns {:?}",
            row.dtype
        );

        let sum = || tensor(vec![0.5; batch * kv_heads * head_dim], [batch, kv_heads, head_dim], device);
        let oracle = oracle::accumulate::<Dispatch>(sum().into_dispatch(), rows().into_dispatch(), &plan);
        let expected = floats(Tensor::<3>::from_dispatch(oracle));
        assert_close(&floats(ops::accumulate(sum(), rows(), &plan)), &expected, 1e-3, "sums");
        let stored = rows().cast(row.dtype);
        let expected = floats(ops::accumulate(sum(), stored.clone().cast(DType::F32), &plan));
        assert_eq!(floats(ops::accumulate(sum(), stored, &plan)), expected, "sums of stored rows");

        for mean_value in [false, true] {
            let cache = || [old(by_row), old(by_row), old(by_column)];
            let (of_product, sum_of_product) =
                ops::append_with_kt(cache(), sum(), [rows(), rows()], &plan, mean_value);
            let [k, v, k_t] = cache().map(Tensor::into_dispatch);
            let expected = [
                oracle::append_rows::<Dispatch>(k, rows().into_dispatch(), &plan),
                oracle::append_rows::<Dispatch>(v, rows().into_dispatch(), &plan),
                oracle::append_columns::<Dispatch>(k_t, rows().into_dispatch(), &plan),
            ];
            for (of_product, expected) in of_product.into_iter().zip(expected) {
                assert_eq!(
                    floats(of_product),
                    floats(Tensor::<4>::from_dispatch(expected)),
                    "{:?}",
                    row.dtype
                );
            }
            let stored = rows().cast(row.dtype).cast(DType::F32).into_dispatch();
            let expected = match mean_value {
                true => Tensor::from_dispatch(oracle::accumulate::<Dispatch>(
                    sum().into_dispatch(),
                    stored,
                    &plan,
                )),
                false => sum(),
            };
            assert_close(&floats(sum_of_product), &floats(expected), 1e-3, "sums of stored values");
        }
    }
}

fn shape_len(shape: [usize; 4]) -> usize {
    shape.iter().product()
}

/// Dense decode, with and without a sliding window and a soft cap, with the usual and another scale: output
/// and log-sum-exp.
pub fn dense_decode(device: &Device, row: Tolerance) {
    for problem in problems() {
        for (window, softcap) in LIMITS {
            let problem = problem.clone().limited(window, softcap);
            for problem in [problem.clone(), problem.scaled(0.3)] {
                let cache = problem.cache(row.dtype, device);
                let run = |path| attend(path, problem.queries(device), &cache);
                let what = format!("dense {:?} {:?}", problem.layer(), row.dtype);
                agree(&run(Path::Product), &run(Path::Oracle), row, &what);
            }
        }
    }
}

/// Outputs and log-sum-exps agree; the latter are of order ten.
pub(crate) fn agree(
    product: &(Vec<f32>, Vec<f32>),
    expected: &(Vec<f32>, Vec<f32>),
    row: Tolerance,
    what: &str,
) {
    assert_close(&product.0, &expected.0, row.oracle, what);
    assert_close(&product.1, &expected.1, 10.0 * row.oracle, what);
}

/// Dense decode with several queries per sequence, up to the most that it takes: each sees what lies before
/// it, as it would alone.
pub fn dense_decode_of_several_queries(device: &Device, row: Tolerance) {
    let widths = [2, 5, ops::MOST_QUERIES];
    let cases = problems().into_iter().flat_map(|problem| {
        widths.into_iter().flat_map(move |width| LIMITS.map(|limits| (problem.clone(), width, limits)))
    });
    // Where time is short one case of each problem, each with another width or another limit.
    for (problem, width, (window, softcap)) in every(13, cases) {
        let problem = problem.limited(window, softcap);
        let cache = problem.cache(row.dtype, device);
        let AttentionShape { heads, kv_heads, head_dim } = problem.shape;
        let wide = AttentionShape { heads: heads * width, kv_heads, head_dim };
        let batch = problem.batch();
        let q = Problem::random(wide, NewTokens::all(batch, 1), 20).q;
        let q = || tensor(q.clone(), [batch, heads, width, head_dim], device);
        let (product, expected) = (attend(Path::Product, q(), &cache), attend(Path::Oracle, q(), &cache));
        // Sequences shorter than the queries: columns behind their last token are padding.
        let real = |row: usize| row % width < problem.tokens.valid()[row / width / heads].len();
        for i in (0..batch * heads * width).filter(|&i| real(i)) {
            let of = |(output, log_sums): &(Vec<f32>, Vec<f32>)| {
                (output[i * head_dim..(i + 1) * head_dim].to_vec(), log_sums[i..=i].to_vec())
            };
            let what = format!("{width} queries, {:?} {:?}, row {i}", problem.layer(), row.dtype);
            agree(&of(&product), &of(&expected), row, &what);
        }
    }
}

/// SparQ decode: both group rules, with and without the mean value, several sizes of the choice, with
/// and without a sliding window and a soft cap.
pub fn sparq_decode(device: &Device, row: Tolerance) {
    let limited =
        |problem: &Problem| LIMITS.map(|(window, softcap)| problem.clone().limited(window, softcap));
    // Where time is short f32 has every limit on every problem, other dtypes one on each.
    let few = if row.dtype == DType::F32 { 1 } else { 5 };
    for problem in every(few, problems().iter().flat_map(limited)) {
        let cache = problem.cache(row.dtype, device);
        let d = problem.shape.head_dim;
        let sizes = [(d / 4, 12, 3), (d / 2, 64, 0), (1, 5, 5), (d, 5000, 1)];
        let rules = [GroupScores::ScaledLogits, GroupScores::Softmax];
        let cases = sizes.into_iter().flat_map(|size| rules.map(|rule| (size, rule)));
        let cases = cases.flat_map(|(size, rule)| [false, true].map(|mean| (size, rule, mean)));
        // Where time is short each size once, with every pair of a rule and the mean value.
        for ((rank, top_k, local_window), group_scores, mean_value) in every(5, cases) {
            let config = SparqConfig {
                local_window,
                mean_value,
                group_scores,
                ..SparqConfig::new(&problem.shape, rank, top_k)
            };
            sparq_agrees(&problem, &cache, config, row, device);
        }
    }
}

/// A step of the product against the same step of the oracle: the same positions, output and mass close.
pub(crate) fn sparq_agrees(
    problem: &Problem,
    cache: &LayerCache,
    config: SparqConfig,
    row: Tolerance,
    device: &Device,
) {
    let run = |path| sparq(path, problem.queries(device), cache, config);
    let (product, expected) = (run(Path::Product), run(Path::Oracle));
    let what = format!("{config:?} {:?} {:?}", problem.layer(), row.dtype);
    assert_eq!(product.positions, expected.positions, "{what}: kept positions");
    assert_close(&product.output, &expected.output, row.oracle, &what);
    assert_close(&product.mass, &expected.mass, row.oracle, &what);
    assert_close(&product.log_sums, &expected.log_sums, 10.0 * row.oracle, &what);
}

/// Causal attention over a cache with history, real columns only.
pub fn prefill(device: &Device, row: Tolerance) {
    for (problem, limits) in problems().into_iter().take(3).flat_map(|p| LIMITS.map(|l| (p.clone(), l))) {
        let problem = problem.limited(limits.0, limits.1);
        let AttentionShape { heads, kv_heads, head_dim } = problem.shape;
        let (batch, width) = (problem.batch(), problem.tokens.width());
        let cache = problem.cache(row.dtype, device);
        let wide = AttentionShape { heads: heads * width, kv_heads, head_dim };
        let q = Problem::random(wide, NewTokens::all(batch, 1), 9).q;
        let q = || tensor(q.clone(), [batch, heads, width, head_dim], device);
        let plan = AppendPlan::new(&problem.tokens, &vec![0; batch]);
        let params = AttendParams::new(plan, &problem.layer());
        let (k, v) = (cache.k().expect("filled"), cache.v().expect("filled"));
        let product = ops::prefill(q(), k.clone(), v.clone(), params.clone()).expect("shapes fit");
        let log_sums = floats(product.log_sum_exp);
        let product = floats(product.output);
        let (expected, expected_log_sums) =
            oracle::attend::<Dispatch>(q().into_dispatch(), k.into_dispatch(), v.into_dispatch(), &params);
        let expected = floats(Tensor::<4>::from_dispatch(expected));
        let expected_log_sums = floats(Tensor::<3>::from_dispatch(expected_log_sums));
        for (i, (a, e)) in product.chunks(head_dim).zip(expected.chunks(head_dim)).enumerate() {
            let (b, t) = (i / width / heads, i % width);
            assert!(a.iter().all(|x| x.is_finite()), "padding stays finite");
            if problem.tokens.valid()[b].contains(&t) {
                let what = format!("prefill {:?} row {i}", row.dtype);
                assert_close(a, e, row.oracle, &what);
                // A rounding of its size: it is of order ten.
                let tolerance = 10.0 * row.oracle;
                assert_close(&log_sums[i..=i], &expected_log_sums[i..=i], tolerance, &what);
            }
        }
        // The last real column sees everything: it must agree with a decode step as well.
        let last: Vec<f32> = (0..batch * heads)
            .flat_map(|head| {
                let t = problem.tokens.valid()[head / heads].end - 1;
                product[(head * width + t) * head_dim..][..head_dim].to_vec()
            })
            .collect();
        let q = q().into_data().try_to_vec::<f32>().expect("f32 data");
        let q_last: Vec<f32> = (0..batch * heads)
            .flat_map(|head| {
                let t = problem.tokens.valid()[head / heads].end - 1;
                q[(head * width + t) * head_dim..][..head_dim].to_vec()
            })
            .collect();
        let decoded = dense(Path::Oracle, tensor(q_last, [batch, heads, 1, head_dim], device), &cache);
        assert_close(&last, &decoded, row.oracle, "prefill against decode");
    }
}

/// A linear layer for one token, few tokens and many, on sizes that no block divides.
pub fn linear(device: &Device, row: Tolerance) {
    for (tokens, inputs, outputs) in [(1, 96, 70), (3, 33, 129), (20, 64, 48)] {
        let shape = AttentionShape { heads: tokens, kv_heads: outputs, head_dim: inputs };
        let numbers = Problem::random(shape, NewTokens::all(1, 1), 5);
        let scale = 1.0 / (inputs as f32).sqrt();
        // So that outputs are of order one, as the tolerances assume.
        let x = || tensor(numbers.q.clone(), [tokens, inputs], device).mul_scalar(0.25);
        let weight =
            || tensor(numbers.k.clone(), [outputs, inputs], device).mul_scalar(scale).cast(row.dtype);
        // Against f32 arithmetic on the stored weights: the oracle itself may round to them.
        let wide = weight().cast(DType::F32).into_dispatch();
        let expected = oracle::linear::<Dispatch>(x().into_dispatch(), wide);
        let expected = floats(Tensor::<2>::from_dispatch(expected));
        let what = format!("linear {tokens} × {inputs} × {outputs} {:?}", row.dtype);
        assert_close(&floats(ops::linear(x(), weight())), &expected, row.oracle, &what);
    }
}
