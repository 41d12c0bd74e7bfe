//! Going back in a cache.

use burn::tensor::Device;
use sparq_core::{AttentionShape, CacheConfig, LayerCache, NewTokens, SparqConfig, cache::CacheExtras};

use crate::{
    problem::{Path, Problem, floats, sparq},
    tolerance::Tolerance,
};

const SHAPE: AttentionShape = AttentionShape { heads: 4, kv_heads: 2, head_dim: 32 };
const WIDTH: usize = 600;

/// One sequence that goes back leaves a cache that never held what went, to the bit and however its tokens
/// came: sums, what is appended behind, and what SparQ makes of it. The others stay as they are.
pub fn one_sequence_goes_back_to_the_bit(device: &Device, row: Tolerance) {
    let tokens = |lens: [usize; 3]| NewTokens::ragged(WIDTH, &lens).expect("within the width");
    let problem = Problem::random(SHAPE, tokens([WIDTH, 300, 512]), 5);
    let mut cache = filled(&problem, 97, row, device);
    let config = SparqConfig { mean_value: true, ..SparqConfig::new(&SHAPE, 16, 24) };
    for (len, chunk) in [(599, 150), (512, 600), (511, 64), (257, 33), (255, 600), (1, 600), (0, 600)] {
        cache.truncate_sequence(0, len).expect("it is there");
        let shorter = Problem { tokens: tokens([len, 300, 512]), ..problem.clone() };
        let fresh = filled(&shorter, chunk, row, device);
        assert_eq!(cache.lens(), fresh.lens());
        assert_eq!(bits(&cache), bits(&fresh), "sums with {len} tokens, in chunks of {chunk}");
        let [found, expected] =
            [&cache, &fresh].map(|cache| sparq(Path::Product, problem.queries(device), cache, config));
        assert_eq!(found.positions, expected.positions, "kept of {len} tokens");
        // A sequence without tokens has nothing to attend to.
        let known = if len == 0 { found.output.len() / 3.. } else { 0.. };
        assert_eq!(found.output[known.clone()], expected.output[known], "outputs with {len} tokens");
    }
    // It is filled again with other tokens.
    let mut fresh = filled(&Problem { tokens: tokens([0, 300, 512]), ..problem.clone() }, 97, row, device);
    for cache in [&mut cache, &mut fresh] {
        let plan = cache.plan(&tokens([280, 0, 1])).expect("it fits");
        cache
            .append(problem.rows(&problem.v, device), problem.rows(&problem.k, device), &plan)
            .expect("fits");
    }
    assert_eq!(bits(&cache), bits(&fresh), "sums after going on");
    assert!(cache.truncate_sequence(3, 0).is_err(), "there are three");
}

/// Memory that grew while no sum was kept has room for the sums that are kept again.
pub fn sums_are_kept_again_in_memory_that_grew_without(device: &Device, row: Tolerance) {
    let problem = Problem::random(SHAPE, NewTokens::all(1, WIDTH), 6);
    let config = CacheConfig { layer: problem.layer(), batch: 1, max_len: 2 * WIDTH, dtype: row.dtype };
    let sums = CacheExtras { k_t: true, mean_value: true, ..CacheExtras::default() };
    let mut cache = LayerCache::new(&config, sums, device).expect("a valid cache");
    let rows = |values: &[f32]| problem.rows(values, device);
    let append = |cache: &mut LayerCache, first: usize, count: usize| {
        let plan = cache.plan(&NewTokens::all(1, count)).expect("it fits");
        let [k, v] = [&problem.k, &problem.v].map(|values| rows(values).narrow(2, first, count));
        cache.append(k, v, &plan).expect("shapes fit");
    };
    for held in [0, 40] {
        if held > 0 {
            append(&mut cache, 0, held);
        }
        let mark = cache.mark();
        cache.rewind(&mark, &[]).expect("nothing is asked for");
        append(&mut cache, held, WIDTH - held);
        cache.rewind(&mark, &[sums]).expect("the sums were kept up to here");
        append(&mut cache, held, WIDTH - held);
        cache.truncate_sequence(0, 520).expect("it is there");
        let fresh = filled(
            &Problem { tokens: NewTokens::ragged(WIDTH, &[520]).expect("within"), ..problem.clone() },
            90,
            row,
            device,
        );
        assert_eq!(bits(&cache), bits(&fresh), "marked at {held}");
        cache.truncate_sequence(0, 0).expect("it is there");
    }
}

/// A cache that holds the problem's tokens, appended in chunks.
fn filled(problem: &Problem, chunk: usize, row: Tolerance, device: &Device) -> LayerCache {
    let config =
        CacheConfig { layer: problem.layer(), batch: problem.batch(), max_len: 2 * WIDTH, dtype: row.dtype };
    let extras = CacheExtras { k_t: true, mean_value: true, ..CacheExtras::default() };
    let mut cache = LayerCache::new(&config, extras, device).expect("a valid cache");
    let (k, v) = (problem.rows(&problem.k, device), problem.rows(&problem.v, device));
    for first in (0..WIDTH).step_by(chunk) {
        let count = chunk.min(WIDTH - first);
        let plan = cache.plan(&problem.tokens.columns(first, count)).expect("it fits");
        let [k, v] = [&k, &v].map(|rows| rows.clone().narrow(2, first, count));
        cache.append(k, v, &plan).expect("shapes fit");
    }
    cache
}

fn bits(cache: &LayerCache) -> Vec<u32> {
    floats(cache.v_sum().expect("it is kept")).into_iter().map(f32::to_bits).collect()
}
