//! What must hold whatever the numbers are, on random problems (proptest).

use burn::tensor::{DType, Device};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use sparq_core::{
    AttentionShape, CacheConfig, GroupScores, LayerState, Method, NewTokens, SparqConfig,
    cache::CacheExtras,
    ops,
    transfer::{paper_dense, paper_sparq},
};

use crate::{
    problem::{Path, Problem, floats, sparq, tensor},
    suite::is_slow,
    tolerance::{assert_close, f32},
};

/// Both ways to solve a problem; the product's alone where a step takes seconds.
pub(crate) fn paths() -> Vec<Path> {
    match is_slow() {
        true => vec![Path::Product],
        false => vec![Path::Oracle, Path::Product],
    }
}

/// A shape, a width, and a seed.
pub(crate) fn sizes() -> impl Strategy<Value = (AttentionShape, usize, u64)> {
    (1usize..4, 1usize..4, 1usize..5, 2usize..80, any::<u64>()).prop_map(
        |(kv_heads, group, eighths, width, seed)| {
            let shape = AttentionShape { heads: kv_heads * group, kv_heads, head_dim: eighths * 8 };
            (shape, width, seed)
        },
    )
}

/// A batch with padding on the left: a problem of up to three sequences.
pub(crate) fn padded() -> impl Strategy<Value = Problem> {
    (sizes(), prop::collection::vec(0usize..1000, 1..4)).prop_map(|((shape, width, seed), pads)| {
        let pads: Vec<usize> = pads.iter().map(|pad| pad % width).collect();
        Problem::random(shape, NewTokens::left_padded(width, &pads).expect("below width"), seed)
    })
}

/// A configuration that fits `shape`, from three numbers.
pub(crate) fn config(shape: &AttentionShape, rank: usize, top_k: usize, local: usize) -> SparqConfig {
    let top_k = 1 + top_k % 40;
    SparqConfig {
        local_window: local % (top_k + 1),
        ..SparqConfig::new(shape, 1 + rank % shape.head_dim, top_k)
    }
}

/// Runs `test` on many random values; panics with the smallest failing one.
pub(crate) fn check<S: Strategy>(strategy: S, test: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    // A smaller failing input is not worth minutes.
    let (cases, max_shrink_iters) = if is_slow() { (2, 0) } else { (24, 100) };
    let config = Config { cases, max_shrink_iters, failure_persistence: None, ..Config::default() };
    // The default generator is seeded by chance; a failure prints its input, which is all it takes.
    if let Err(failure) = TestRunner::new(config).run(&strategy, test) {
        panic!("{failure}");
    }
}

/// With every component and every position kept, SparQ attention is dense attention: the masses
/// are one, so the mean value has no weight.
pub fn everything_kept_is_dense(device: &Device) {
    check((padded(), any::<bool>()), |(problem, mean_value)| {
        for path in paths() {
            for group_scores in [GroupScores::ScaledLogits, GroupScores::Softmax] {
                let all = SparqConfig {
                    mean_value,
                    group_scores,
                    ..SparqConfig::new(&problem.shape, problem.shape.head_dim, problem.tokens.width())
                };
                let sparse = problem.sparq(path, all, DType::F32, device).output;
                assert_close(
                    &sparse,
                    &problem.dense(Path::Oracle, DType::F32, device),
                    f32().oracle,
                    "all kept",
                );
            }
        }
        Ok(())
    });
}

/// Each sequence of a left-padded batch gives what it gives alone.
pub fn left_padding_changes_nothing(device: &Device) {
    check((padded(), 0usize..99, 0usize..99, 0usize..99), |(problem, r, k, l)| {
        equals_one_by_one(&problem, config(&problem.shape, r, k, l), device);
        Ok(())
    });
}

/// Each sequence of a batch with padding on the right gives what it gives alone.
pub fn a_ragged_batch_equals_one_by_one(device: &Device) {
    let lens = prop::collection::vec(0usize..1000, 1..4);
    check((sizes(), lens, 0usize..99, 0usize..99), |((shape, width, seed), lens, r, k)| {
        let lens: Vec<usize> = lens.iter().map(|len| 1 + len % width).collect();
        let problem = Problem::random(shape, NewTokens::ragged(width, &lens).expect("within width"), seed);
        equals_one_by_one(&problem, config(&shape, r, k, 2), device);
        Ok(())
    });
}

fn equals_one_by_one(problem: &Problem, config: SparqConfig, device: &Device) {
    for path in paths() {
        let together = problem.sparq(path, config, DType::F32, device);
        let dense = problem.dense(path, DType::F32, device);
        let per_sequence = problem.shape.heads * problem.shape.head_dim;
        for b in 0..problem.batch() {
            let alone = problem.sequence(b);
            let part = b * per_sequence..(b + 1) * per_sequence;
            let solution = alone.sparq(path, config, DType::F32, device);
            let heads = b * problem.shape.kv_heads..(b + 1) * problem.shape.kv_heads;
            assert_eq!(together.positions[heads], solution.positions, "sequence {b} of {path:?}");
            assert_close(&together.output[part.clone()], &solution.output, f32().oracle, "sparq");
            assert_close(&dense[part], &alone.dense(path, DType::F32, device), f32().oracle, "dense");
        }
    }
}

/// Padded keys of 1e9 and infinite padded values never reach an output.
pub fn poisoned_padding_leaves_outputs_finite(device: &Device) {
    check((padded(), 0usize..99, 0usize..99), |(problem, r, k)| {
        let config = SparqConfig { mean_value: true, ..config(&problem.shape, r, k, 1) };
        let mut poisoned = problem.clone();
        poisoned.poison_padding(1e9, f32::INFINITY);
        for path in paths() {
            let clean = problem.sparq(path, config, DType::F32, device).output;
            assert_close(&poisoned.sparq(path, config, DType::F32, device).output, &clean, 0.0, "sparq");
            let clean = problem.dense(path, DType::F32, device);
            assert_close(&poisoned.dense(path, DType::F32, device), &clean, 0.0, "dense");
        }
        let (shape, width) = (problem.shape, problem.tokens.width());
        let prefilled = |problem: &Problem| {
            let q = vec![0.1; problem.batch() * shape.heads * width * shape.head_dim];
            let q = tensor(q, [problem.batch(), shape.heads, width, shape.head_dim], device);
            let mut layer = layer(problem.batch(), width, shape, &Method::Dense, device);
            let (k, v) = (problem.rows(&problem.k, device), problem.rows(&problem.v, device));
            floats(layer.prefill(q, k, v, &problem.tokens).expect("it fits"))
        };
        assert_close(&prefilled(&poisoned), &prefilled(&problem), 0.0, "prefill");
        Ok(())
    });
}

/// `min(top_k, len)` different live positions per KV head, the local window among them.
pub fn kept_positions_are_counted(device: &Device) {
    check((padded(), 0usize..99, 0usize..99, 0usize..99), |(problem, r, k, l)| {
        let config = config(&problem.shape, r, k, l);
        for path in paths() {
            let solution = problem.sparq(path, config, DType::F32, device);
            for (head, positions) in solution.positions.iter().enumerate() {
                let len = problem.tokens.valid()[head / problem.shape.kv_heads].len();
                let mut unique = positions.clone();
                unique.dedup();
                prop_assert_eq!(unique.len(), config.top_k.min(len), "{:?}", positions);
                prop_assert!(positions.iter().all(|&p| p < len));
                let local = len.saturating_sub(config.local_window)..len;
                prop_assert!(local.clone().all(|p| positions.contains(&p)), "{:?} in {:?}", local, positions);
            }
            prop_assert!(solution.mass.iter().all(|mass| (-1e-5..=1.0 + 1e-5).contains(mass)));
        }
        Ok(())
    });
}

/// A query and its multiple by a power of two choose alike: τ and the order of scores scale along.
pub fn selection_ignores_the_scale_of_the_query(device: &Device) {
    check((padded(), 0usize..99, 0usize..99, -3i32..4), |(problem, r, k, power)| {
        let config = config(&problem.shape, r, k, 1);
        let mut scaled = problem.clone();
        scaled.q.iter_mut().for_each(|x| *x *= 2f32.powi(power));
        for path in paths() {
            let one = problem.sparq(path, config, DType::F32, device).positions;
            prop_assert_eq!(one, scaled.sparq(path, config, DType::F32, device).positions);
        }
        Ok(())
    });
}

/// A prompt in chunks of any size gives what it gives in one piece.
pub fn chunked_prefill_equals_whole_prefill(device: &Device) {
    check((padded(), 1usize..30), |(problem, chunk)| {
        let whole = prefill_in_chunks(&problem, problem.tokens.width(), device);
        let chunked = prefill_in_chunks(&problem, chunk, device);
        assert_close(&chunked, &whole, f32().oracle, "prefill");
        Ok(())
    });
}

/// Outputs `[width, batch, heads, d]` of a prefill, rows of padding set to zero.
fn prefill_in_chunks(problem: &Problem, chunk: usize, device: &Device) -> Vec<f32> {
    let AttentionShape { heads, head_dim, .. } = problem.shape;
    let (batch, width) = (problem.batch(), problem.tokens.width());
    let wide = AttentionShape { heads: heads * width, ..problem.shape };
    let q = Problem::random(AttentionShape { kv_heads: 1, ..wide }, NewTokens::all(batch, 1), 7).q;
    let q = tensor(q, [batch, heads, width, head_dim], device);
    let (k, v) = (problem.rows(&problem.k, device), problem.rows(&problem.v, device));
    let mut layer = layer(batch, width, problem.shape, &Method::Dense, device);
    let mut outputs = vec![];
    for first in (0..width).step_by(chunk) {
        let count = chunk.min(width - first);
        let columns = |x: &burn::tensor::Tensor<4>| x.clone().narrow(2, first, count);
        let new = problem.tokens.columns(first, count);
        let output = layer.prefill(columns(&q), columns(&k), columns(&v), &new).expect("it fits");
        let output = floats(output.permute([2, 0, 1, 3]));
        for (i, row) in output.chunks(head_dim).enumerate() {
            let (b, t) = (i / heads % batch, i / heads / batch);
            let real = new.valid()[b].contains(&t);
            outputs.extend(row.iter().map(|x| if real { *x } else { 0.0 }));
        }
    }
    outputs
}

/// Tokens decoded one at a time give what a prefill of all of them gives, across growths of the
/// cache.
pub fn decoding_continues_a_prefill(device: &Device) {
    let shape = AttentionShape { heads: 4, kv_heads: 2, head_dim: 16 };
    let width = 300;
    let problem = Problem::random(shape, NewTokens::all(1, width), 11);
    let q = Problem::random(AttentionShape { heads: 4 * width, ..shape }, NewTokens::all(1, 1), 12).q;
    let q = tensor(q, [1, 4, width, 16], device);
    let (k, v) = (problem.rows(&problem.k, device), problem.rows(&problem.v, device));
    let mut whole = layer(1, width, shape, &Method::Dense, device);
    let expected =
        whole.prefill(q.clone(), k.clone(), v.clone(), &NewTokens::all(1, width)).expect("it fits");
    // SparQ that keeps everything, through its own cache layout.
    let all = Method::Sparq(SparqConfig::new(&shape, 16, width));
    for method in [Method::Dense, all] {
        let mut layer = layer(1, width, shape, &method, device);
        let first = |x: &burn::tensor::Tensor<4>, count| x.clone().narrow(2, 0, count);
        layer
            .prefill(first(&q, 250), first(&k, 250), first(&v, 250), &NewTokens::all(1, 250))
            .expect("it fits");
        for t in 250..width {
            let token = |x: &burn::tensor::Tensor<4>| x.clone().narrow(2, t, 1);
            let output = layer.decode(token(&q), token(&k), token(&v)).expect("it fits");
            let what = format!("{method:?} at {t}");
            assert_close(&floats(output), &floats(token(&expected)), f32().oracle, &what);
        }
        let full = layer.decode(first(&q, 1), first(&k, 1), first(&v, 1));
        assert!(full.is_err_and(|error| error.to_string().contains("at most 300")), "the maximum holds");
    }
}

/// Several tokens in one step get what they get one after another, in every kind of method.
pub fn several_tokens_are_decoded_as_one_by_one(device: &Device) {
    let shape = AttentionShape { heads: 4, kv_heads: 2, head_dim: 16 };
    let (prompt, count) = (60, 5);
    let problem = Problem::random(shape, NewTokens::all(2, prompt + count), 13);
    let q =
        Problem::random(AttentionShape { heads: 4 * (prompt + count), ..shape }, NewTokens::all(2, 1), 14).q;
    let q = tensor(q, [2, 4, prompt + count, 16], device);
    let (k, v) = (problem.rows(&problem.k, device), problem.rows(&problem.v, device));
    let part = |first, count| [&q, &k, &v].map(|x| x.clone().narrow(2, first, count));
    let sparq = |top_k| SparqConfig { mean_value: true, ..SparqConfig::new(&shape, 8, top_k) };
    let methods = [
        Method::Dense,
        Method::Sparq(sparq(24)),
        // Dense at first, SparQ from the third token on.
        Method::Sparq(SparqConfig { dense_below: prompt + 3, ..sparq(24) }),
        Method::H2o(sparq_core::H2oConfig::new(32)),
        Method::Quest(sparq_core::QuestConfig::new(32)),
    ];
    for method in methods {
        let prefilled = || {
            let mut layer = layer(2, prompt + count, shape, &method, device);
            let [q, k, v] = part(0, prompt);
            layer.prefill(q, k, v, &NewTokens::all(2, prompt)).expect("it fits");
            layer
        };
        let (mut together, mut apart) = (prefilled(), prefilled());
        let [q, k, v] = part(prompt, count);
        let found = together.decode(q, k, v).expect("it fits");
        for t in 0..count {
            let [q, k, v] = part(prompt + t, 1);
            let expected = floats(apart.decode(q, k, v).expect("it fits"));
            let what = format!("{method:?}, token {t}");
            assert_close(&floats(found.clone().narrow(2, t, 1)), &expected, f32().oracle, &what);
        }
        assert_eq!(together.cache().lens(), apart.cache().lens());
        let bytes = |layer: &sparq_core::LayerState| layer.traffic().moved.append.bytes;
        assert_eq!(bytes(&together), bytes(&apart), "{method:?}: what is written");
    }
}

/// The sum that the cache keeps, over the length, is the mean of the values.
pub fn the_running_mean_is_the_mean(device: &Device) {
    check((padded(), 1usize..30), |(problem, chunk)| {
        let AttentionShape { kv_heads, head_dim, .. } = problem.shape;
        let (batch, width) = (problem.batch(), problem.tokens.width());
        let config = CacheConfig { layer: problem.shape.into(), batch, max_len: width, dtype: DType::F32 };
        let extras = CacheExtras { mean_value: true, ..CacheExtras::default() };
        let mut cache = sparq_core::LayerCache::new(&config, extras, device).expect("a valid cache");
        let (k, v) = (problem.rows(&problem.k, device), problem.rows(&problem.v, device));
        for first in (0..width).step_by(chunk) {
            let count = chunk.min(width - first);
            let plan = cache.plan(&problem.tokens.columns(first, count)).expect("it fits");
            let (k, v) = (k.clone().narrow(2, first, count), v.clone().narrow(2, first, count));
            cache.append(k, v, &plan).expect("shapes fit");
        }
        let sums = floats(cache.v_sum().expect("kept"));
        for (head, sum) in sums.chunks(head_dim).enumerate() {
            let valid = problem.tokens.valid()[head / kv_heads].clone();
            prop_assert_eq!(cache.lens()[head / kv_heads], valid.len());
            for (c, sum) in sum.iter().enumerate() {
                let value = |t: usize| f64::from(problem.v[(head * width + t) * head_dim + c]);
                let mean = valid.clone().map(value).sum::<f64>() / valid.len() as f64;
                let running = f64::from(*sum) / valid.len() as f64;
                prop_assert!((running - mean).abs() < 1e-5, "{} against {}", running, mean);
            }
        }
        Ok(())
    });
}

/// A cache that is cut back is one that never held the rest: what it keeps, and what is appended then.
pub fn cutting_back_forgets(device: &Device) {
    let lens = prop::collection::vec(1usize..400, 1..4);
    check((sizes(), lens, 0usize..400, 0usize..99), |((shape, _, seed), lens, cut, r)| {
        let width = lens.iter().copied().max().unwrap_or(1);
        let cut = cut % width;
        let ragged = |lens: &[usize]| NewTokens::ragged(width, lens).expect("within width");
        let problem = Problem::random(shape, ragged(&lens), seed);
        let shorter: Vec<usize> = lens.iter().map(|&len| len.min(cut)).collect();
        let expected = Problem { tokens: ragged(&shorter), ..problem.clone() };
        let config = SparqConfig { mean_value: true, ..config(&shape, r, 30, 2) };
        let mut cache = problem.cache(DType::F32, device);
        cache.truncate(cut).expect("it was filled");
        prop_assert_eq!(cache.lens(), &shorter[..]);
        let again = |cache: &mut sparq_core::LayerCache| {
            let plan = cache.plan(&NewTokens::all(lens.len(), width)).expect("it fits");
            let (k, v) = (problem.rows(&problem.v, device), problem.rows(&problem.k, device));
            cache.append(k, v, &plan).expect("shapes fit");
        };
        let mut fresh = expected.cache(DType::F32, device);
        for appended in [false, true] {
            if appended {
                again(&mut cache);
                again(&mut fresh);
            } else if cut == 0 {
                continue; // Nothing to attend to.
            }
            for path in paths() {
                let (found, expected) = (
                    sparq(path, problem.queries(device), &cache, config),
                    sparq(path, problem.queries(device), &fresh, config),
                );
                prop_assert_eq!(found.positions, expected.positions);
                assert_close(&found.output, &expected.output, f32().oracle, "after cutting back");
            }
        }
        Ok(())
    });
}

/// α grows with `top_k` and reaches one.
pub fn retained_mass_grows_with_k(device: &Device) {
    check((padded(), 0usize..99), |(problem, r)| {
        for path in paths() {
            let mut before = vec![0.0; problem.batch() * problem.shape.heads];
            for top_k in [1, 2, 4, 8, 16, 80] {
                let config = SparqConfig { local_window: 1, top_k, ..config(&problem.shape, r, 0, 0) };
                let mass = problem.sparq(path, config, DType::F32, device).mass;
                prop_assert!(mass.iter().zip(&before).all(|(now, before)| *now >= before - 1e-5));
                before = mass;
            }
            prop_assert!(before.iter().all(|mass| (mass - 1.0).abs() < 1e-5), "80 positions are all");
        }
        Ok(())
    });
}

/// Reversing the positions before the local window leaves the output as it was.
pub fn order_of_the_cache_does_not_matter(device: &Device) {
    check((sizes(), 0usize..99, 0usize..99), |((shape, width, seed), r, k)| {
        let problem = Problem::random(shape, NewTokens::all(1, width), seed);
        let config = SparqConfig { local_window: 1, ..config(&shape, r, k, 0) };
        let mut reversed = problem.clone();
        for rows in [&mut reversed.k, &mut reversed.v] {
            for head in rows.chunks_mut(width * shape.head_dim) {
                let before = head[..(width - 1) * shape.head_dim].to_vec();
                let backwards = before.chunks(shape.head_dim).rev().flatten();
                head.iter_mut().zip(backwards).for_each(|(x, y)| *x = *y);
            }
        }
        for path in paths() {
            let expected = problem.sparq(path, config, DType::F32, device).output;
            assert_close(
                &reversed.sparq(path, config, DType::F32, device).output,
                &expected,
                f32().oracle,
                "order",
            );
        }
        Ok(())
    });
}

/// The product reads no more than its transfer count says: with NaN in every row of the transposed keys, of
/// the keys and of the values that the count leaves out, the output does not change.
pub fn only_what_is_counted_is_read(device: &Device) {
    let shape = AttentionShape { heads: 4, kv_heads: 2, head_dim: 16 };
    let (width, rank) = (64, 4);
    let problem = Problem::random(shape, NewTokens::all(1, width), 21);
    let config = SparqConfig { mean_value: true, ..SparqConfig::new(&shape, rank, 8) };
    let cache = problem.cache(DType::F32, device);
    let clean = sparq(Path::Product, problem.queries(device), &cache, config);

    let mut poisoned = problem.clone();
    for head in 0..shape.kv_heads {
        for t in (0..width).filter(|t| !clean.positions[head].contains(t)) {
            let row = (head * width + t) * shape.head_dim;
            poisoned.k[row..row + shape.head_dim].fill(f32::NAN);
            poisoned.v[row..row + shape.head_dim].fill(f32::NAN);
        }
    }
    let rows = poisoned.cache(DType::F32, device);
    let mut k_t = floats(cache.k_t().expect("kept"));
    let capacity = cache.capacity();
    for head in 0..shape.kv_heads {
        let group = &problem.q[head * 2 * shape.head_dim..(head + 1) * 2 * shape.head_dim];
        let magnitude = |c: usize| group[c].abs() + group[shape.head_dim + c].abs();
        let mut components: Vec<usize> = (0..shape.head_dim).collect();
        components.sort_by(|&a, &b| magnitude(b).total_cmp(&magnitude(a)));
        for &c in &components[rank..] {
            k_t[(head * shape.head_dim + c) * capacity..][..capacity].fill(f32::NAN);
        }
    }
    let k_t = tensor(k_t, [1, shape.kv_heads, shape.head_dim, capacity], device);
    let params = ops::SparqParams { attend: cache.attend_params(1), config, retained_mass: true };
    let (k, v) = (rows.k().expect("filled"), rows.v().expect("filled"));
    let v_sum = cache.v_sum().expect("kept");
    let attended = ops::decode_sparq(problem.queries(device), k, k_t, v, v_sum, params).expect("shapes fit");
    assert_close(&floats(attended.output), &clean.output, 0.0, "poisoned");

    counts_match_the_paper(&problem, config, device);
}

/// The elements that a layer reports, against the paper's formulas.
fn counts_match_the_paper(problem: &Problem, config: SparqConfig, device: &Device) {
    let AttentionShape { kv_heads, head_dim, .. } = problem.shape;
    let width = problem.tokens.width();
    let mut layer = layer(1, width + 1, problem.shape, &Method::Sparq(config), device);
    let (k, v) = (problem.rows(&problem.k, device), problem.rows(&problem.v, device));
    let q = tensor(vec![0.1; 4 * width * head_dim], [1, 4, width, head_dim], device);
    layer.prefill(q, k.clone(), v.clone(), &problem.tokens).expect("it fits");
    let token = |x: burn::tensor::Tensor<4>| x.narrow(2, 0, 1);
    layer.decode(problem.queries(device), token(k), token(v)).expect("it fits");
    let traffic = layer.traffic();
    let len = width + 1;
    assert_eq!(traffic.dense.total().elements as usize, kv_heads * paper_dense(len, head_dim));
    // The paper leaves out the write of the transposed key.
    let paper = kv_heads * paper_sparq(len, head_dim, config.rank, config.top_k);
    assert_eq!(traffic.moved.total().elements as usize, paper + kv_heads * head_dim);
    assert_eq!(traffic.moved.k_t.bytes as usize, kv_heads * len * config.rank * 4);
}

/// An append in place does not show through a handle that was taken before it.
pub fn an_old_handle_keeps_its_values(device: &Device) {
    let shape = AttentionShape { heads: 2, kv_heads: 2, head_dim: 8 };
    let problem = Problem::random(shape, NewTokens::all(1, 5), 31);
    let mut cache = problem.cache(DType::F32, device);
    let handle = cache.k().expect("filled");
    let before = floats(handle.clone());
    let plan = cache.plan(&NewTokens::all(1, 5)).expect("it fits");
    cache
        .append(problem.rows(&problem.v, device), problem.rows(&problem.v, device), &plan)
        .expect("shapes fit");
    assert_eq!(floats(handle), before);
    assert_ne!(floats(cache.k().expect("filled")), before);
}

/// A layer without history.
fn layer(
    batch: usize,
    max_len: usize,
    shape: AttentionShape,
    method: &Method,
    device: &Device,
) -> LayerState {
    let config = CacheConfig { layer: shape.into(), batch, max_len, dtype: DType::F32 };
    LayerState::new(&config, method, device).expect("a valid layer")
}
