//! Transposed keys in few bits: a backend's own operations against the oracle, and what the bits cost.

use burn::{
    backend::Dispatch,
    tensor::{DType, Device, Tensor},
};
use sparq_core::{
    AppendPlan, AttentionShape, CacheConfig, GroupScores, KtFormat, LayerCache, LayerState, Method,
    NewTokens, SparqConfig,
    cache::CacheExtras,
    device::require_kt,
    k_t::QuantizedKt,
    ops::{self, oracle},
    weight::QuantizedWeight,
};

use crate::{
    overrides::{LIMITS, problems, sparq_agrees},
    problem::{Comparison, Path, Problem, dequantized, floats, tensor},
    reference::sparq_problems,
    suite::{every, not_run, note},
    tolerance::{Tolerance, assert_close, f32},
};

/// Leaves the check where the device cannot store keys in few bits.
pub(crate) fn require_few_bits(device: &Device) {
    if let Err(error) = require_kt(device, KtFormat::Int8) {
        not_run(&error.to_string());
    }
}

const DTYPES: [KtFormat; 2] = [KtFormat::Int8, KtFormat::Int4];

/// The keys that transposed keys stand for, as `[sequence and head][position][component]`, live ones only.
fn live_keys(k_t: &QuantizedKt, cache: &LayerCache) -> Vec<f32> {
    let keys = dequantized(k_t).swap_dims(2, 3);
    let [batch, kv_heads, _, head_dim] = keys.dims();
    let part =
        |b: usize| floats(keys.clone().slice([b..b + 1, 0..kv_heads, 0..cache.lens()[b], 0..head_dim]));
    (0..batch).flat_map(part).collect()
}

/// Codes and scales are those of the oracle, and half a step from the keys at most.
pub fn appends(device: &Device, row: Tolerance) {
    require_few_bits(device);
    for (problem, kt_format) in
        problems().iter().flat_map(|problem| DTYPES.map(|kt_format| (problem, kt_format)))
    {
        let bits = kt_format.bits().expect("codes");
        let cache = problem.cache_with(kt_format, row.dtype, device);
        let product = cache.quantized_kt().expect("kept");
        let plan = AppendPlan::new(&problem.tokens, &vec![0; problem.batch()]);
        let (words, scales) = (product.words.zeros_like(), product.scales.zeros_like());
        let k = cache.k().expect("filled");
        let (words, scales) = oracle::append_quantized::<Dispatch>(
            words.into_dispatch(),
            scales.into_dispatch(),
            k.clone().into_dispatch(),
            &plan,
        );
        let (words, scales) = (Tensor::from_dispatch(words), Tensor::from_dispatch(scales));
        let what = format!("{kt_format:?} {:?} {:?}", problem.shape, row.dtype);
        let found = live_keys(&product, &cache);
        assert_close(&found, &live_keys(&QuantizedKt { words, scales }, &cache), 1e-6, &what);

        let [batch, kv_heads, _, head_dim] = k.dims();
        let live =
            |b: usize| floats(k.clone().slice([b..b + 1, 0..kv_heads, 0..cache.lens()[b], 0..head_dim]));
        let keys: Vec<f32> = (0..batch).flat_map(live).collect();
        let largest = keys.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
        let half_a_step = largest / ((1 << (bits - 1)) - 1) as f32 * 0.51;
        assert_close(&found, &keys, half_a_step, &what);
    }
}

/// SparQ decode over codes: both group rules, with and without the mean value, with and without a
/// sliding window and a soft cap.
pub fn sparq_decode(device: &Device, row: Tolerance) {
    require_few_bits(device);
    let limited =
        |problem: &Problem| LIMITS.map(|(window, softcap)| problem.clone().limited(window, softcap));
    for (problem, kt_format) in
        problems().iter().flat_map(limited).flat_map(|p| DTYPES.map(|i| (p.clone(), i)))
    {
        let cache = problem.cache_with(kt_format, row.dtype, device);
        let d = problem.shape.head_dim;
        let sizes = [(d / 4, 12, 3), (1, 5, 5), (d, 5000, 1)];
        let rules = [GroupScores::ScaledLogits, GroupScores::Softmax];
        // Where time is short the first and the last, which differ in all.
        let cases = sizes.into_iter().flat_map(|size| rules.map(|rule| (size, rule)));
        for ((rank, top_k, local_window), group_scores) in every(5, cases) {
            let config = SparqConfig {
                local_window,
                mean_value: rank > 1,
                group_scores,
                kt_format,
                ..SparqConfig::new(&problem.shape, rank, top_k)
            };
            sparq_agrees(&problem, &cache, config, row, device);
        }
    }
}

/// Tokens one by one, through a cache that grows, give the codes of all tokens at once.
pub fn decoding_continues_a_prefill(device: &Device) {
    require_few_bits(device);
    let shape = AttentionShape { heads: 4, kv_heads: 2, head_dim: 16 };
    let (width, prompt) = (330, 200);
    let problem = Problem::random(shape, NewTokens::all(1, width), 61);
    let (k, v) = (problem.rows(&problem.k, device), problem.rows(&problem.v, device));
    for kt_format in DTYPES {
        let config = SparqConfig { kt_format, ..SparqConfig::new(&shape, 4, 9) };
        let cache = CacheConfig { layer: shape.into(), batch: 1, max_len: width, dtype: DType::F32 };
        let mut state = LayerState::new(&cache, &Method::Sparq(config), device).expect("a valid layer");
        let extras = CacheExtras { k_t: true, kt_format, mean_value: true };
        let mut at_once = LayerCache::new(&cache, extras, device).expect("a valid cache");
        let plan = at_once.plan(&problem.tokens).expect("it fits");
        at_once.append(k.clone(), v.clone(), &plan).expect("shapes fit");

        let part = |x: &Tensor<4>, first, count| x.clone().narrow(2, first, count);
        let q = tensor(vec![0.3; 4 * prompt * 16], [1, 4, prompt, 16], device);
        let (first_k, first_v) = (part(&k, 0, prompt), part(&v, 0, prompt));
        state.prefill(q, first_k, first_v, &NewTokens::all(1, prompt)).expect("it fits");
        for t in prompt..width {
            state.decode(problem.queries(device), part(&k, t, 1), part(&v, t, 1)).expect("it fits");
        }
        let keys = |cache: &LayerCache| live_keys(&cache.quantized_kt().expect("kept"), cache);
        assert_close(&keys(state.cache()), &keys(&at_once), 1e-6, &format!("{kt_format:?}"));
    }
}

/// What codes cost on the authors' vectors: the share of positions that are kept as well, the mass that
/// is lost and the distance of the output. Prints the figures that the documentation states.
pub fn quality_on_the_reference_vectors(device: &Device) {
    require_few_bits(device);
    for (kt_format, least_agreement, most_mass_lost, furthest) in
        [(KtFormat::Int8, 0.99, 0.005, 0.15), (KtFormat::Int4, 0.8, 0.1, 0.6)]
    {
        let mut comparison = Comparison::default();
        let (mut lost, mut masses) = (0.0f32, 0usize);
        for (_, problem, configs) in every(8, sparq_problems()) {
            for config in configs {
                let run = |kt_format| {
                    problem.sparq(Path::Product, SparqConfig { kt_format, ..config }, f32().dtype, device)
                };
                let (plain, coded) = (run(KtFormat::Cache), run(kt_format));
                comparison.add(&plain, &coded);
                // What the plain scores say of the positions that each choice keeps is not handed out;
                // the masses by their own scores come close to it.
                lost += plain.mass.iter().zip(&coded.mass).map(|(a, b)| (a - b).abs()).sum::<f32>();
                masses += plain.mass.len();
            }
        }
        let (agreement, distance) = (comparison.agreement(), comparison.distance());
        let lost = lost / masses as f32;
        note(&format!(
            "{kt_format:?}: {:.2}% of kept positions agree, mass differs by {lost:.5}, output by {distance:.4} of its norm",
            100.0 * agreement
        ));
        assert!(
            agreement >= least_agreement && lost <= most_mass_lost && distance <= furthest,
            "{kt_format:?}"
        );
    }
}

/// A linear layer with a weight of eight bits, on sizes that no block divides: against the definition, and
/// half a step of each row from the layer with the weight itself.
pub fn linear(device: &Device) {
    require_few_bits(device);
    for (tokens, inputs, outputs) in [(1, 96, 70), (3, 33, 129), (20, 66, 48)] {
        let shape = AttentionShape { heads: tokens, kv_heads: outputs, head_dim: inputs };
        let numbers = Problem::random(shape, NewTokens::all(1, 1), 7);
        let x = || tensor(numbers.q.clone(), [tokens, inputs], device);
        let weight = QuantizedWeight::new(&numbers.k, [outputs, inputs], device);
        let expected = oracle::linear_quantized::<Dispatch>(
            x().into_dispatch(),
            weight.words.clone().into_dispatch(),
            weight.scales.clone().into_dispatch(),
        );
        let found = floats(ops::linear_quantized(x(), weight));
        let what = format!("{tokens} × {inputs} × {outputs}");
        let norm = (inputs as f32).sqrt();
        assert_close(&found, &floats(Tensor::<2>::from_dispatch(expected)), f32().oracle * norm, &what);
        let exact = floats(ops::linear(x(), tensor(numbers.k.clone(), [outputs, inputs], device)));
        for (i, (a, b)) in found.iter().zip(&exact).enumerate() {
            let (x, w) =
                (&numbers.q[i / outputs * inputs..][..inputs], &numbers.k[i % outputs * inputs..][..inputs]);
            let half_a_step = w.iter().fold(0.0f32, |largest, w| largest.max(w.abs())) / 127.0 * 0.51;
            let bound = half_a_step * x.iter().map(|x| x.abs()).sum::<f32>();
            assert!((a - b).abs() <= bound + 1e-4, "{what}: {a} and {b}");
        }
    }
}
