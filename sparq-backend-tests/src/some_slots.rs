//! Plans over some of a cache's slots, in another order than theirs: what is written, and what is read.

use burn::tensor::{DType, Device, Tensor};
use sparq_core::{
    AppendPlan, AttentionShape, CacheConfig, GroupScores, KtFormat, LayerCache, NewTokens, SparqConfig,
    cache::CacheExtras,
    ops::{AttendParams, SparqParams},
};

use crate::{
    overrides::agree,
    problem::{Path, Problem, attend_with, sparq_with, tensor},
    slots::{all_kept, assert_same, has_codes},
    suite::every,
    tolerance::{Tolerance, assert_close},
};

const SLOTS: usize = 4;
/// Slots that hold sequences, in the order in which they are filled, and how many tokens. Slot 1 holds none.
const HELD: [(usize, usize); 3] = [(3, 70), (0, 150), (2, 517)];
/// What is appended behind: in another order, and nothing for one of them.
const MORE: [(usize, usize); 3] = [(2, 1), (3, 3), (0, 0)];

/// Appends in any order of the slots leave what caches of one slot hold; dense and SparQ decode of some of them agree
/// with the definitions.
pub fn some_slots_are_written_and_read(device: &Device, row: Tolerance) {
    let grouped = AttentionShape { heads: 4, kv_heads: 2, head_dim: 32 };
    let single = AttentionShape { heads: 2, kv_heads: 2, head_dim: 32 };
    let sparq = |shape: &AttentionShape, top_k, mean_value| SparqConfig {
        mean_value,
        ..SparqConfig::new(shape, 8, top_k)
    };
    let coded = |config| SparqConfig { kt_format: KtFormat::Int8, ..config };
    // Scores by head and by group, one cube and several that share the positions, the sum of values in both.
    let of_grouped = vec![
        sparq(&grouped, 24, true),
        sparq(&grouped, 24, false),
        coded(sparq(&grouped, 24, true)),
        SparqConfig { group_scores: GroupScores::Softmax, ..sparq(&grouped, 300, true) },
    ];
    let of_single = vec![sparq(&single, 24, true), coded(sparq(&single, 24, false))];
    // Where time is short each kernel once, and other dtypes than f32 in groups alone.
    let nth = if row.dtype == DType::F32 { 1 } else { 2 };
    for (shape, window, configs) in every(nth, [(grouped, None, of_grouped), (single, Some(90), of_single)]) {
        let [first, more] =
            [HELD, MORE].map(|held| Problem::random(shape, tokens(&held), 41).limited(window, None));
        let mut cache = empty(&first, SLOTS, row.dtype, device);
        append(&mut cache, &first, device);
        append(&mut cache, &more, device);
        for (slot, _) in HELD {
            let mut alone = empty(&first, 1, row.dtype, device);
            for part in [&first, &more] {
                let b = part.tokens.slots().iter().position(|&other| other == slot).expect("in both");
                append(&mut alone, &part.sequence(b), device);
            }
            assert_same((&cache, slot), (&alone, 0));
        }
        // The first of the slots alone is as a cache of one; no other is.
        for slots in every(2, [&[2, 3, 0][..], &[0], &[3]]) {
            for width in [1, 5] {
                dense_agrees(&cache, slots, width, row);
            }
            // One of them is enough where one kernel has to find one slot.
            let few = if slots.len() == 1 { 1 } else { configs.len() };
            for config in configs.iter().take(few) {
                if config.kt_format == KtFormat::Cache || has_codes(device) {
                    sparq_agrees(&cache, slots, *config, row);
                }
            }
        }
    }
}

fn tokens(held: &[(usize, usize)]) -> NewTokens {
    let (slots, lens): (Vec<usize>, Vec<usize>) = held.iter().copied().unzip();
    let width = lens.iter().copied().max().unwrap_or(0);
    NewTokens::ragged(width, &lens).expect("within the width").in_slots(&slots).expect("each once")
}

/// A cache of so many slots that keeps all that it can.
fn empty(problem: &Problem, batch: usize, dtype: DType, device: &Device) -> LayerCache {
    let config = CacheConfig { layer: problem.layer(), batch, max_len: 600, dtype };
    let mut cache = LayerCache::new(&config, CacheExtras::default(), device).expect("a valid cache");
    cache.keep(&all_kept(device)).expect("both forms at a time");
    cache
}

fn append(cache: &mut LayerCache, problem: &Problem, device: &Device) {
    if problem.tokens.width() == 0 {
        return;
    }
    let plan = cache.plan(&problem.tokens).expect("it fits");
    let [k, v] = [&problem.k, &problem.v].map(|rows| problem.rows(rows, device));
    cache.append(k, v, &plan).expect("shapes fit");
}

/// Queries of the last tokens of some slots, and where they stand.
fn last(cache: &LayerCache, slots: &[usize], width: usize) -> (Tensor<4>, AttendParams) {
    let AttentionShape { heads, head_dim, .. } = cache.config().layer.shape;
    let ats: Vec<usize> = cache.lens().iter().map(|len| len.saturating_sub(width)).collect();
    let new = NewTokens::all(slots.len(), width).in_slots(slots).expect("each once");
    let params = cache.attend_params_of(&AppendPlan::new(&new, &ats));
    let wide = AttentionShape { heads: heads * width, kv_heads: 1, head_dim };
    let q = Problem::random(wide, NewTokens::all(slots.len(), 1), 42).q;
    let device = cache.k().expect("filled").device();
    (tensor(q, [slots.len(), heads, width, head_dim], &device), params)
}

fn dense_agrees(cache: &LayerCache, slots: &[usize], width: usize, row: Tolerance) {
    let (q, params) = last(cache, slots, width);
    let [product, expected] =
        [Path::Product, Path::Oracle].map(|path| attend_with(path, q.clone(), cache, params.clone()));
    agree(&product, &expected, row, &format!("{width} queries of slots {slots:?}, {:?}", row.dtype));
}

fn sparq_agrees(cache: &LayerCache, slots: &[usize], config: SparqConfig, row: Tolerance) {
    let (q, attend) = last(cache, slots, 1);
    let params = SparqParams { attend, config, retained_mass: false };
    let [product, expected] =
        [Path::Product, Path::Oracle].map(|path| sparq_with(path, q.clone(), cache, params.clone()));
    let what = format!("{config:?} of slots {slots:?}, {:?}", row.dtype);
    assert_eq!(product.positions, expected.positions, "{what}: kept positions");
    assert_close(&product.output, &expected.output, row.oracle, &what);
    if config.mean_value {
        assert_close(&product.mass, &expected.mass, row.oracle, &what);
    }
}
