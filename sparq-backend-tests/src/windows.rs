//! Sliding windows and soft caps: what must hold whatever the numbers are.

use burn::tensor::{DType, Device, Tensor};
use proptest::prelude::*;
use sparq_core::{
    AttentionLayer, AttentionShape, CacheConfig, LayerState, Method, NewTokens, SparqConfig,
    transfer::paper_dense,
};

use crate::{
    harness::is_processor,
    problem::{Path, Problem, floats, tensor},
    properties::{check, config, padded, paths, sizes},
    tolerance::{assert_close, f32},
};

/// A window that no sequence fills gives exactly what no window gives, the mean value included.
pub fn a_window_beyond_the_text_changes_nothing(device: &Device) {
    check((padded(), 0usize..99, 0usize..99, 0usize..9), |(problem, r, k, more)| {
        let config = SparqConfig { mean_value: true, ..config(&problem.shape, r, k, 1) };
        let wide = problem.clone().limited(Some(problem.tokens.width() + more), None);
        for path in paths() {
            let dense = |problem: &Problem| problem.dense(path, DType::F32, device);
            assert_close(&dense(&wide), &dense(&problem), 0.0, "dense");
            let sparq = |problem: &Problem| problem.sparq(path, config, DType::F32, device);
            let (windowed, plain) = (sparq(&wide), sparq(&problem));
            prop_assert_eq!(windowed.positions, plain.positions);
            assert_close(&windowed.output, &plain.output, 0.0, "sparq");
        }
        Ok(())
    });
}

/// A window gives what its tokens give alone, and nothing outside of it shows. The mean
/// value is off there: it is a mean over all tokens.
pub fn a_window_is_the_text_cut_to_it(device: &Device) {
    check((sizes(), 0usize..99, 0usize..99, 0usize..99), |((shape, width, seed), window, r, k)| {
        let window = 1 + window % (width - 1);
        let problem = Problem::random(shape, NewTokens::all(1, width), seed);
        let cut = problem.sequence_from(0, width - window);
        // The kernels of the processor do not touch what lies outside; the definitions multiply it by 0.
        let outside = if is_processor(device) { f32::NAN } else { 1e30 };
        let without_mean = SparqConfig { mean_value: false, ..config(&shape, r, k, 1) };
        let with_mean = SparqConfig { mean_value: true, ..without_mean };
        for path in paths() {
            let mut windowed = problem.clone().limited(Some(window), None);
            if path == Path::Product {
                for rows in [&mut windowed.k, &mut windowed.v] {
                    for head in rows.chunks_mut(width * shape.head_dim) {
                        head[..(width - window) * shape.head_dim].fill(outside);
                    }
                }
            }
            let dense = windowed.dense(path, DType::F32, device);
            assert_close(&dense, &cut.dense(path, DType::F32, device), f32().oracle, "dense");
            let alone = cut.sparq(path, without_mean, DType::F32, device);
            let shifted: Vec<Vec<usize>> = alone
                .positions
                .iter()
                .map(|positions| positions.iter().map(|p| p + width - window).collect())
                .collect();
            for config in [without_mean, with_mean] {
                let solution = windowed.sparq(path, config, DType::F32, device);
                prop_assert_eq!(&solution.positions, &shifted);
                assert_close(&solution.output, &alone.output, f32().oracle, "sparq");
            }
        }
        Ok(())
    });
}

/// Tokens decoded one at a time behind a prompt in chunks give what one prefill of all gives, under a
/// window, under a soft cap, and under both.
pub fn decoding_continues_a_limited_prefill(device: &Device) {
    let shape = AttentionShape { heads: 4, kv_heads: 2, head_dim: 16 };
    let (width, prompt) = (60, 40);
    let problem = Problem::random(shape, NewTokens::all(1, width), 41);
    let wide = AttentionShape { heads: 4 * width, ..shape };
    let q = Problem::random(wide, NewTokens::all(1, 1), 42).q;
    let q = tensor(q, [1, 4, width, 16], device);
    let (k, v) = (problem.rows(&problem.k, device), problem.rows(&problem.v, device));
    let part = |x: &Tensor<4>, first, count| x.clone().narrow(2, first, count);
    for (window, softcap) in [(Some(9), None), (None, Some(1.5)), (Some(25), Some(0.7)), (Some(1), None)] {
        let layer = AttentionLayer { window, softcap, ..shape.into() };
        let all = NewTokens::all(1, width);
        let expected = state(layer, width, &Method::Dense, device)
            .prefill(q.clone(), k.clone(), v.clone(), &all)
            .expect("it fits");
        // SparQ that keeps every component, and every position that the window leaves.
        let every = Method::Sparq(SparqConfig::new(&shape, 16, window.unwrap_or(width)));
        for method in [Method::Dense, every] {
            let mut state = state(layer, width, &method, device);
            for first in (0..prompt).step_by(16) {
                let count = 16.min(prompt - first);
                let (q, k, v) = (part(&q, first, count), part(&k, first, count), part(&v, first, count));
                let output = state.prefill(q, k, v, &NewTokens::all(1, count)).expect("it fits");
                let expected = floats(part(&expected, first, count));
                assert_close(&floats(output), &expected, f32().oracle, &format!("{layer:?} prefill"));
            }
            for t in prompt..width {
                let output = state.decode(part(&q, t, 1), part(&k, t, 1), part(&v, t, 1)).expect("it fits");
                let what = format!("{layer:?} {method:?} at {t}");
                assert_close(&floats(output), &floats(part(&expected, t, 1)), f32().oracle, &what);
            }
        }
    }
}

/// A cap far above the logits changes next to nothing, and no cap changes what one head chooses.
pub fn a_soft_cap_keeps_the_choice_of_one_head(device: &Device) {
    check((sizes(), 0usize..99, 0usize..99), |((shape, width, seed), r, k)| {
        let shape = AttentionShape { heads: shape.kv_heads, ..shape };
        let problem = Problem::random(shape, NewTokens::all(1, width), seed);
        let config = config(&shape, r, k, 1);
        for path in paths() {
            let under = |cap| problem.clone().limited(None, cap).sparq(path, config, DType::F32, device);
            let (plain, low, high) = (under(None), under(Some(2.0)), under(Some(1e4)));
            prop_assert_eq!(&plain.positions, &low.positions);
            assert_close(&high.output, &plain.output, f32().reference, "a high cap");
            assert_close(&high.mass, &plain.mass, f32().reference, "a high cap's mass");
        }
        Ok(())
    });
}

/// A layer counts what it reads of its window, dense or sparse, and no more.
pub fn a_window_limits_what_is_counted(device: &Device) {
    let shape = AttentionShape { heads: 4, kv_heads: 2, head_dim: 16 };
    let (width, window) = (64, 20);
    let layer = AttentionLayer { window: Some(window), ..shape.into() };
    let problem = Problem::random(shape, NewTokens::all(1, width), 51);
    let step = |top_k: usize| {
        let config = SparqConfig { mean_value: false, ..SparqConfig::new(&shape, 4, top_k) };
        let mut state = state(layer, width + 1, &Method::Sparq(config), device);
        let (k, v) = (problem.rows(&problem.k, device), problem.rows(&problem.v, device));
        let q = tensor(vec![0.1; 4 * width * 16], [1, 4, width, 16], device);
        state.prefill(q, k.clone(), v.clone(), &problem.tokens).expect("it fits");
        let token = |x: Tensor<4>| x.narrow(2, 0, 1);
        state.decode(problem.queries(device), token(k), token(v)).expect("it fits");
        state.traffic()
    };
    let sparse = step(8);
    assert_eq!(sparse.dense.total().elements as usize, 2 * paper_dense(window, 16));
    assert_eq!(sparse.moved.k_t.elements as usize, 2 * window * 4);
    assert_eq!(sparse.moved.k.elements as usize, 2 * 8 * 16);
    let covered = step(window);
    assert_eq!(covered.moved.k_t.elements, 0, "a window that top-k covers is attended densely");
    assert_eq!(covered.moved.k.elements as usize, 2 * window * 16);
}

/// A layer without history.
fn state(layer: AttentionLayer, max_len: usize, method: &Method, device: &Device) -> LayerState {
    let config = CacheConfig { layer, batch: 1, max_len, dtype: DType::F32 };
    LayerState::new(&config, method, device).expect("a valid layer")
}
