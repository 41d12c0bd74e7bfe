//! Numbers that overflow: they must reach the output as NaN, so that no text comes of them.

use burn::tensor::{DType, Device, Tensor};
use sparq_core::{
    AttentionShape, CacheConfig, GroupScores, KtFormat, LayerCache, LayerState, Method, NewTokens,
    SparqConfig, TopkRule,
    device::require_kt,
    ops::{self, AttendParams, oracle},
};

use crate::{
    methods::{SHAPE, Text, methods},
    problem::{Path, Problem, dense, floats, sparq},
    properties::paths,
    tolerance::Tolerance,
};

/// Queries of one in keys of one: a score is `√d` before it is scaled.
const ONE: AttentionShape = AttentionShape { heads: 4, kv_heads: 2, head_dim: 32 };

/// Tokens: more than a block of scores, and no whole number of vectors.
const WIDTH: usize = 150;

/// SparQ of all kinds: both group rules, with and without the mean value, every form of the keys, both
/// choices.
fn configs(device: &Device) -> Vec<SparqConfig> {
    let plain = SparqConfig { mean_value: false, ..SparqConfig::new(&ONE, 8, 24) };
    let mut all = vec![
        plain,
        SparqConfig { mean_value: true, ..plain },
        SparqConfig { group_scores: GroupScores::Softmax, ..plain },
        SparqConfig { topk_rule: TopkRule::Buckets, ..plain },
        SparqConfig { top_k: 200, ..plain },
    ];
    if require_kt(device, KtFormat::Int8).is_ok() {
        all.push(SparqConfig { kt_format: KtFormat::Int8, ..plain });
        all.push(SparqConfig { kt_format: KtFormat::Int4, mean_value: true, ..plain });
    }
    all
}

/// Dense and SparQ decode by every path, each with what it is.
fn decoded(problem: &Problem, device: &Device) -> Vec<(String, Vec<f32>)> {
    let mut all = vec![];
    for path in paths() {
        let cache = problem.cache(DType::F32, device);
        all.push((format!("dense {path:?}"), dense(path, problem.queries(device), &cache)));
        for config in configs(device) {
            let cache = problem.cache_with(config.kt_format, DType::F32, device);
            let found = sparq(path, problem.queries(device), &cache, config);
            all.push((format!("{path:?} {config:?}"), found.output));
        }
    }
    // The method does not ask for the mass that the steps above ask for.
    let (k, v) = (problem.rows(&problem.k, device), problem.rows(&problem.v, device));
    for config in configs(device).into_iter().filter(|config| config.top_k < WIDTH) {
        let cache = CacheConfig { layer: problem.layer(), batch: 1, max_len: WIDTH, dtype: DType::F32 };
        let mut state = LayerState::new(&cache, &Method::Sparq(config), device).expect("a valid layer");
        let (first, last) = (NewTokens::all(1, WIDTH - 1), WIDTH - 1);
        let before = |x: &Tensor<4>| x.clone().narrow(2, 0, last);
        let q = Tensor::zeros([1, ONE.heads, last, ONE.head_dim], device);
        state.append(&q, before(&k), before(&v), &first).expect("it fits");
        let now = |x: &Tensor<4>| x.clone().narrow(2, last, 1);
        let output = state.decode(problem.queries(device), now(&k), now(&v)).expect("a step");
        all.push((format!("the method {config:?}"), floats(output)));
    }
    all
}

fn problem() -> Problem {
    Problem::random(ONE, NewTokens::all(1, WIDTH), 71)
}

/// The keys of head 0 at `positions`, each `factor` times the query that they meet.
fn aim(problem: &mut Problem, positions: impl Iterator<Item = usize>, factor: f32) {
    let AttentionShape { head_dim, .. } = problem.shape;
    for position in positions {
        for c in 0..head_dim {
            // The sign alone, that all products have one; of both query heads the same.
            let sign = if c % 2 == 0 { 1.0 } else { -1.0 };
            problem.q[c] = sign * 2.0;
            problem.q[head_dim + c] = sign;
            problem.k[position * head_dim + c] = sign * factor;
        }
    }
}

/// The group of head 0 is not a number, the other one is finite.
fn first_group_only(problem: &Problem, device: &Device, what: &str) {
    let group = problem.shape.group() * problem.shape.head_dim;
    for (path, output) in decoded(problem, device) {
        assert!(output[..group].iter().all(|x| x.is_nan()), "{what}, {path}: {:?}", &output[..4]);
        assert!(output[group..].iter().all(|x| x.is_finite()), "{what}, {path}: the other group");
    }
}

/// Queries and keys so large that every score overflows.
pub fn scores_that_overflow_are_not_hidden(device: &Device) {
    let mut problem = problem();
    problem.q.iter_mut().chain(&mut problem.k).for_each(|x| *x *= 1e20);
    for (path, output) in decoded(&problem, device) {
        assert!(output.iter().all(|x| x.is_nan()), "{path}: {:?}", &output[..4]);
    }
    let AttentionShape { heads, head_dim, .. } = ONE;
    let q = Tensor::<4>::full([1, heads, WIDTH, head_dim], 1e20, device);
    let cache = problem.cache(DType::F32, device);
    let (k, v) = (cache.k().expect("filled"), cache.v().expect("filled"));
    let empty = LayerCache::new(cache.config(), Default::default(), device).expect("a valid cache");
    let plan = empty.plan(&problem.tokens).expect("it fits");
    let params = AttendParams::new(plan, &problem.layer());
    for path in paths() {
        let (q, k, v) = (q.clone(), k.clone(), v.clone());
        let output = floats(match path {
            Path::Product => ops::prefill(q, k, v, params.clone()).expect("shapes fit").output,
            Path::Oracle => Tensor::from_dispatch(
                oracle::attend::<burn::backend::Dispatch>(
                    q.into_dispatch(),
                    k.into_dispatch(),
                    v.into_dispatch(),
                    &params,
                )
                .0,
            ),
        });
        assert!(output.iter().all(|x| x.is_nan()), "prefill {path:?}: {:?}", &output[..4]);
    }
}

/// One key of many: its score is infinite, or all are minus infinity, or it is not a number itself.
pub fn one_score_that_overflows_is_not_hidden(device: &Device) {
    for position in [0, 3, 70, WIDTH - 1] {
        let mut above = problem();
        aim(&mut above, std::iter::once(position), 3e38);
        first_group_only(&above, device, &format!("infinite at {position}"));
        let mut none = problem();
        none.k[position * ONE.head_dim..(position + 1) * ONE.head_dim].fill(f32::NAN);
        first_group_only(&none, device, &format!("not a number at {position}"));
    }
    let mut below = problem();
    aim(&mut below, 0..WIDTH, -3e38);
    first_group_only(&below, device, "minus infinity everywhere");
}

/// Large scores that do not overflow stay as they are.
pub fn large_scores_are_no_overflow(device: &Device) {
    let mut problem = problem();
    aim(&mut problem, std::iter::once(5), 1e20);
    for (path, output) in decoded(&problem, device) {
        assert!(output.iter().all(|x| x.is_finite()), "{path}");
        // All of the weight is on that position, but for the mean value.
        if !path.contains("mean_value: true") {
            let expected = &problem.v[5 * ONE.head_dim..6 * ONE.head_dim];
            for (x, y) in output[..ONE.head_dim].iter().zip(expected) {
                assert!((x - y).abs() < 1e-5, "{path}: {x} for {y}");
            }
        }
    }
}

/// A number beyond the dtype of the cache is stored as NaN, wherever it is stored, and nothing else is.
pub fn what_does_not_fit_is_stored_as_nan(device: &Device, row: Tolerance) {
    let beyond = match row.dtype {
        DType::F16 => 70_000.0,
        DType::BF16 => f32::MAX,
        _ => f32::INFINITY,
    };
    for (in_keys, sign) in [(true, 1.0), (true, -1.0), (false, 1.0)] {
        for tokens in [NewTokens::all(1, 1), NewTokens::all(1, WIDTH)] {
            let mut problem = Problem::random(ONE, tokens, 72);
            let width = problem.tokens.width();
            let at = (width - 1) * ONE.head_dim + 7;
            let rows = if in_keys { &mut problem.k } else { &mut problem.v };
            rows[at] = sign * beyond;
            let cache = problem.cache(row.dtype, device);
            let capacity = cache.capacity();
            let check = |stored: Vec<f32>, found: Option<usize>, what: &str| {
                let bad: Vec<usize> = (0..stored.len()).filter(|&i| !stored[i].is_finite()).collect();
                assert_eq!(bad, Vec::from_iter(found), "{what} in {:?} of {width}", row.dtype);
                assert!(bad.iter().all(|&i| stored[i].is_nan()), "{what}");
            };
            let of_keys = in_keys.then_some(at);
            check(floats(cache.k().expect("filled")), of_keys, "keys");
            check(floats(cache.v().expect("filled")), (!in_keys).then_some(at), "values");
            let column = of_keys.map(|_| 7 * capacity + width - 1);
            check(floats(cache.k_t().expect("kept")), column, "transposed keys");
            // The step that appended it shows it: dense attention and SparQ read the current token.
            let group = ONE.group() * ONE.head_dim;
            for path in paths() {
                let config = SparqConfig::new(&ONE, 8, 24);
                let output = dense(path, problem.queries(device), &cache);
                assert!(output[..group].iter().any(|x| x.is_nan()), "dense {path:?} {:?}", row.dtype);
                assert!(output[group..].iter().all(|x| x.is_finite()), "dense {path:?} {:?}", row.dtype);
                let output = sparq(path, problem.queries(device), &cache, config).output;
                assert!(output[..group].iter().any(|x| x.is_nan()), "sparq {path:?} {:?}", row.dtype);
                assert!(output[group..].iter().all(|x| x.is_finite()), "sparq {path:?} {:?}", row.dtype);
            }
        }
    }
}

/// Every method shows scores that overflow.
pub fn no_method_hides_an_overflow(device: &Device) {
    for method in methods(device, &SHAPE, 8) {
        let mut text = Text::random(SHAPE.into(), 30, &[0, 3], 3, 73);
        text.scale(1e20);
        for step in text.run(&method, 16, device) {
            assert!(step.output.iter().all(|x| x.is_nan()), "{method:?}: {:?}", &step.output[..4]);
        }
    }
}
