//! Inputs that are views of other tensors, caches that grow, and long ones.

use burn::tensor::{DType, Device, Tensor};
use sparq_core::{
    AttentionLayer, AttentionShape, CacheConfig, Error, KtFormat, LayerCache, LayerState, Method, NewTokens,
    SparqConfig,
    cache::CacheExtras,
    device::Limits,
    ops::{self, SparqParams},
};

use crate::{
    methods::methods,
    problem::{Path, Problem, dense, floats, ints, sparq, tensor},
    suite::not_run,
    tolerance::{Tolerance, assert_close},
};

/// A way to see a tensor as a part of another one.
type View<'a> = &'a dyn Fn(&Tensor<4>) -> Tensor<4>;

const ALL: CacheExtras = CacheExtras { k_t: true, kt_format: KtFormat::Cache, mean_value: true };

/// Queries, rows, caches and weights that are permuted, narrowed or transposed views give what
/// contiguous ones give.
pub fn views_of_other_tensors(device: &Device, row: Tolerance) {
    let shape = AttentionShape { heads: 6, kv_heads: 2, head_dim: 32 };
    let width = 200;
    let problem = Problem::random(shape, NewTokens::all(2, width), 91);
    let cache = problem.cache(row.dtype, device);
    let config = SparqConfig { mean_value: true, ..SparqConfig::new(&shape, 8, 24) };
    let (k, v) = (cache.k().expect("filled"), cache.v().expect("filled"));
    let expected = dense(Path::Product, problem.queries(device), &cache);
    let expected_sparq = sparq(Path::Product, problem.queries(device), &cache, config);

    // As a projection gives it: heads behind positions.
    let q = tensor(floats(problem.queries(device).permute([0, 2, 1, 3])), [2, 1, 6, 32], device);
    let q = || q.clone().permute([0, 2, 1, 3]);
    // The middle of a longer buffer, and a buffer with other axes first.
    let middle = |x: &Tensor<4>| {
        Tensor::cat(vec![x.clone(), x.clone(), x.clone()], 2).narrow(2, cache.capacity(), cache.capacity())
    };
    let permuted = |x: &Tensor<4>| contiguous(x.clone().permute([2, 1, 0, 3]), device).permute([2, 1, 0, 3]);
    let views: [(&str, View<'_>); 2] = [("middle", &middle), ("permuted", &permuted)];
    for (what, view) in views {
        let attend = cache.attend_params(1);
        let attended = ops::decode_dense(q(), view(&k), view(&v), attend.clone()).expect("shapes fit");
        assert_close(&floats(attended.output), &expected, row.oracle, &format!("dense, {what}"));
        let params = SparqParams { attend, config, retained_mass: true };
        // The transposed keys as a view of the keys.
        let k_t = view(&k).swap_dims(2, 3);
        let v_sum = cache.v_sum().expect("kept");
        let v_sum = contiguous(v_sum.permute([2, 0, 1]), device).permute([1, 2, 0]);
        let attended = ops::decode_sparq(q(), view(&k), k_t, view(&v), v_sum, params).expect("shapes fit");
        assert_close(&floats(attended.output), &expected_sparq.output, row.oracle, &format!("sparq, {what}"));
        let mut positions: Vec<Vec<i64>> = ints(attended.positions).chunks(24).map(<[i64]>::to_vec).collect();
        positions.iter_mut().for_each(|row| row.sort_unstable());
        let expected: Vec<Vec<i64>> =
            expected_sparq.positions.iter().map(|row| row.iter().map(|&p| p as i64).collect()).collect();
        assert_eq!(positions, expected, "positions, {what}");
    }

    let mut from_views = empty(shape, 2, width, row.dtype, device);
    let plan = from_views.plan(&problem.tokens).expect("it fits");
    let rows = |x: &[f32]| permuted_rows(problem.rows(x, device), device);
    from_views.append(rows(&problem.k), rows(&problem.v), &plan).expect("shapes fit");
    same_contents(&from_views, &cache, width, "appended from views");

    let x = tensor(problem.k[..40 * 32].to_vec(), [40, 32], device);
    let weight = tensor(problem.v[..64 * 32].to_vec(), [64, 32], device);
    let weight = weight.div_scalar(32f32.sqrt()).cast(row.dtype);
    for tokens in [1, 3, 20] {
        let part = || x.clone().narrow(0, 5, tokens);
        let expected = floats(ops::linear(contiguous(part(), device), weight.clone()));
        let transposed = contiguous(weight.clone().swap_dims(0, 1), device).swap_dims(0, 1);
        let output = floats(ops::linear(part(), transposed));
        // Outputs are up to four, and one of the two may be a product in the dtype.
        assert_close(&output, &expected, 4.0 * row.oracle, &format!("linear of {tokens}"));
    }
}

/// A copy whose memory has the order of its axes.
fn contiguous<const D: usize>(x: Tensor<D>, device: &Device) -> Tensor<D> {
    let dtype = x.dtype();
    tensor(floats(x.clone()), x.dims(), device).cast(dtype)
}

fn permuted_rows(x: Tensor<4>, device: &Device) -> Tensor<4> {
    contiguous(x.permute([0, 2, 1, 3]), device).permute([0, 2, 1, 3])
}

/// Appends of odd sizes through several growths leave what one append into a reserved cache leaves.
pub fn a_cache_grows_without_changing_its_contents(device: &Device, row: Tolerance) {
    let shape = AttentionShape { heads: 4, kv_heads: 2, head_dim: 24 };
    let width = 1100;
    let lens = [1100, 700];
    let problem = Problem::random(shape, NewTokens::ragged(width, &lens).expect("within the width"), 92);
    let mut whole = empty(shape, 2, width, row.dtype, device);
    whole.reserve(width).expect("within the maximum");
    let plan = whole.plan(&problem.tokens).expect("it fits");
    whole
        .append(problem.rows(&problem.k, device), problem.rows(&problem.v, device), &plan)
        .expect("shapes fit");

    let mut grown = empty(shape, 2, width, row.dtype, device);
    let (k, v) = (problem.rows(&problem.k, device), problem.rows(&problem.v, device));
    let mut capacities = vec![];
    let mut first = 0;
    for count in [1, 100, 154, 1, 1, 243, 1, 13, 300, 286] {
        let new = problem.tokens.columns(first, count);
        let plan = grown.plan(&new).expect("it fits");
        let part = |x: &Tensor<4>| x.clone().narrow(2, first, count);
        grown.append(part(&k), part(&v), &plan).expect("shapes fit");
        capacities.push(grown.capacity());
        first += count;
    }
    capacities.dedup();
    assert!(first == width && capacities.len() > 3, "it grew: {capacities:?}");
    assert_eq!(grown.lens(), lens);
    same_contents(&grown, &whole, lens[1], "grown");
}

/// The first `len` positions of two caches are equal, and their sums nearly.
fn same_contents(actual: &LayerCache, expected: &LayerCache, len: usize, what: &str) {
    let rows = |cache: &LayerCache| {
        let (k, v) = (cache.k().expect("filled"), cache.v().expect("filled"));
        (floats(k.narrow(2, 0, len)), floats(v.narrow(2, 0, len)))
    };
    assert_eq!(rows(actual), rows(expected), "{what}: rows");
    let columns = |cache: &LayerCache| floats(cache.k_t().expect("kept").narrow(3, 0, len));
    assert_eq!(columns(actual), columns(expected), "{what}: columns");
    let sums = |cache: &LayerCache| floats(cache.v_sum().expect("kept"));
    assert_close(&sums(actual), &sums(expected), 1e-3, what);
}

fn empty(shape: AttentionShape, batch: usize, max_len: usize, dtype: DType, device: &Device) -> LayerCache {
    let config = CacheConfig { layer: shape.into(), batch, max_len, dtype };
    LayerCache::new(&config, ALL, device).expect("a valid cache")
}

/// A cache of 65 thousand positions: dense and SparQ steps agree with the oracle, also behind a
/// further token, and what lies at its far end is found.
pub fn a_cache_of_65_thousand(device: &Device, row: Tolerance) {
    let shape = AttentionShape { heads: 4, kv_heads: 2, head_dim: 64 };
    let len = 65_536 + 17;
    let mut problem = Problem::random(shape, NewTokens::all(1, len), 93);
    // The last position of the prompt answers the query: α is near one.
    for head in 0..2 {
        let far = (head * len + len - 2) * 64;
        for c in 0..64 {
            problem.k[far + c] = (problem.q[2 * head * 64 + c] + problem.q[(2 * head + 1) * 64 + c]) / 2.0;
        }
    }
    let mut cache = empty(shape, 1, len + 1, row.dtype, device);
    cache.reserve(len + 1).expect("within the maximum");
    let plan = cache.plan(&problem.tokens).expect("it fits");
    cache
        .append(problem.rows(&problem.k, device), problem.rows(&problem.v, device), &plan)
        .expect("shapes fit");
    let config = SparqConfig { mean_value: true, ..SparqConfig::new(&shape, 16, 128) };
    for step in 0..2 {
        let run = |path| sparq(path, problem.queries(device), &cache, config);
        let (product, oracle) = (run(Path::Product), run(Path::Oracle));
        assert_eq!(product.positions, oracle.positions, "kept positions, step {step}");
        assert!(product.positions.iter().all(|kept| kept.contains(&(len - 2))), "the answer is kept");
        assert_close(&product.output, &oracle.output, row.oracle, "sparq");
        let run = |path| dense(path, problem.queries(device), &cache);
        assert_close(&run(Path::Product), &run(Path::Oracle), row.oracle, "dense");
        let one = Problem::random(shape, NewTokens::all(1, 1), 94);
        if step == 0 {
            let plan = cache.plan(&one.tokens).expect("it fits");
            cache.append(one.rows(&one.k, device), one.rows(&one.v, device), &plan).expect("shapes fit");
        }
    }
}

/// A cache whose buffers the device cannot hold is refused before anything is allocated.
pub fn a_cache_beyond_the_limit_is_refused(device: &Device) {
    let Some(limit) = Limits::of(device).largest_tensor else {
        not_run("this device holds whatever fits into memory");
    };
    let shape = AttentionShape { heads: 8, kv_heads: 8, head_dim: 128 };
    let len = limit as usize / (8 * 128 * 4) + 1;
    let mut cache = empty(shape, 1, len, DType::F32, device);
    match cache.reserve(len) {
        Err(Error::TooLarge { bytes, limit: stated, .. }) => assert!(bytes > limit && stated == limit),
        other => panic!("{len} positions: {other:?}"),
    }
    assert_eq!(cache.capacity(), 0, "nothing was allocated");
    cache.reserve(64).expect("a small one still fits");
}

/// Values that are wider or narrower than keys: outputs are those of two layers with a part of the values each,
/// whatever the method, in a prompt and in steps behind it.
pub fn values_of_another_width(device: &Device, row: Tolerance) {
    let shape = AttentionShape { heads: 4, kv_heads: 2, head_dim: 16 };
    let (len, steps) = (40, 3);
    let random = |heads: usize, size: usize, seed: u64| {
        let shape = AttentionShape { heads: 1, kv_heads: heads, head_dim: size };
        let problem = Problem::random(shape, NewTokens::all(1, len + steps), seed);
        problem.rows(&problem.k, device)
    };
    let (q, k, wide) = (random(4, 16, 71), random(2, 16, 72), random(2, 24, 73));
    let mut all = methods(device, &shape, 12);
    all.push(Method::Dense);
    all.push(Method::Sparq(SparqConfig { mean_value: true, ..SparqConfig::new(&shape, 8, 12) }));
    for method in all {
        let run = |layer: AttentionLayer, v: &Tensor<4>| {
            let config = CacheConfig { layer, batch: 1, max_len: len + steps, dtype: row.dtype };
            let mut state = LayerState::new(&config, &method, device).expect("valid");
            let part = |x: &Tensor<4>, at: usize, count: usize| x.clone().narrow(2, at, count);
            let [q_part, k_part, v_part] = [&q, &k, v].map(|x| part(x, 0, len));
            let mut outputs =
                vec![state.prefill(q_part, k_part, v_part, &NewTokens::all(1, len)).expect("it fits")];
            for at in len..len + steps {
                let [q_part, k_part, v_part] = [&q, &k, v].map(|x| part(x, at, 1));
                outputs.push(state.decode(q_part, k_part, v_part).expect("it fits"));
            }
            Tensor::cat(outputs, 2)
        };
        let plain = AttentionLayer::from(shape);
        let halves = [0, 8].map(|first| run(plain, &wide.clone().narrow(3, first, 16)));
        let [first, second] = halves;
        let expected = Tensor::cat(vec![first.clone().narrow(3, 0, 8), second], 3);
        for (width, expected) in [(24, expected), (8, first.narrow(3, 0, 8))] {
            let layer = AttentionLayer { value_dim: Some(width), ..plain };
            let found = run(layer, &wide.clone().narrow(3, 0, width));
            assert_eq!(found.dims(), [1, 4, len + steps, width]);
            assert_close(
                &floats(found),
                &floats(expected),
                row.oracle,
                &format!("{method:?}, {width} components"),
            );
        }
    }
}
