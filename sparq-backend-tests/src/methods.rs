//! The decode methods beside dense attention and SparQ: reference vectors, and what must hold whatever
//! the numbers are. They are made of Burn ops, so a failure on one backend is a failure of an op there.

mod steps;

use std::fs;

use burn::tensor::Device;
use proptest::prelude::*;
use safetensors::SafeTensors;
use serde::Deserialize;
use sparq_core::{
    AttentionLayer, AttentionShape, DoubleSparsityConfig, Error, GroupScores, H2oConfig, KtFormat,
    LocalConfig, Method, NewTokens, QuestConfig, SparqConfig, SparqMassConfig, TopkConfig,
    device::require_kt, transfer,
};

use crate::{
    problem::Problem,
    properties::{check, config, padded, sizes},
    reference::{self, read_problem},
    tolerance::{assert_close, f32},
};

pub(crate) use steps::Text;
use steps::one_step;

/// A case of a reference file that is not SparQ's.
#[derive(Debug, Deserialize)]
struct Case {
    method: String,
    key: String,
    k: Option<usize>,
    initial_k: Option<usize>,
}

impl Case {
    fn method(&self) -> Option<Method> {
        match self.method.as_str() {
            "sparq" => None,
            "exact_topk" => Some(Method::ExactTopk(TopkConfig { top_k: self.k? })),
            "local" => Some(Method::Local(LocalConfig { top_k: self.k?, initial: self.initial_k? })),
            other => panic!("a case of an unknown method `{other}`"),
        }
    }
}

/// Every exact top-k and LM-Infinite case of the authors' vectors.
pub fn reference_vectors(device: &Device) {
    let folder = reference::folder().join("attention");
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut cases = 0;
    for file in entries.map(|entry| entry.expect("a readable folder").path()) {
        let bytes = fs::read(&file).expect("a readable file");
        let (_, header) = SafeTensors::read_metadata(&bytes).expect("a safetensors header");
        let metadata = header.metadata().as_ref().expect("metadata").clone();
        let tensors = SafeTensors::deserialize(&bytes).expect("a safetensors file");
        let problem = read_problem(&metadata, &tensors);
        let listed: Vec<Case> = serde_json::from_str(&metadata["cases"]).expect("a list of cases");
        for case in listed {
            let Some(method) = case.method() else { continue };
            let expected = reference::floats(&tensors, &format!("{}.output", case.key));
            let what = format!("{} {}", file.display(), case.key);
            assert_close(&one_step(&problem, &method, device).output, &expected, f32().reference, &what);
            cases += 1;
        }
    }
    assert!(cases >= 10, "{cases} cases in {}", folder.display());
}

/// Every method that the device can run, so sized that it keeps at most `top_k` positions.
pub(crate) fn methods(device: &Device, shape: &AttentionShape, top_k: usize) -> Vec<Method> {
    let rank = (shape.head_dim / 2).max(1);
    let sparq = SparqConfig { mean_value: false, ..SparqConfig::new(shape, rank, top_k) };
    let mut all = vec![
        Method::Sparq(sparq),
        Method::SparqMass(SparqMassConfig { sparq, mass: 0.9 }),
        Method::SparqMass(SparqMassConfig {
            sparq: SparqConfig { kt_format: KtFormat::Int8, ..sparq },
            mass: 0.7,
        }),
        Method::ExactTopk(TopkConfig { top_k }),
        Method::OracleTopk(TopkConfig { top_k }),
        Method::Local(LocalConfig::new(top_k)),
        Method::H2o(H2oConfig::new(top_k)),
        Method::Quest(QuestConfig { top_k, page: 4.min(top_k) }),
        Method::DoubleSparsity(DoubleSparsityConfig::new(rank, top_k)),
        Method::DoubleSparsity(DoubleSparsityConfig {
            channels: vec![(0..shape.head_dim).rev().collect(); shape.kv_heads],
            ..DoubleSparsityConfig::new(rank, top_k)
        }),
    ];
    if require_kt(device, KtFormat::Int8).is_err() {
        all.retain(|method| !matches!(method, Method::SparqMass(c) if c.sparq.kt_format != KtFormat::Cache));
    }
    all
}

pub(crate) const SHAPE: AttentionShape = AttentionShape { heads: 4, kv_heads: 2, head_dim: 16 };

/// Kept positions are different, live, no more than the budget, and hold the current token where the
/// method promises that; weights sum to one, or to at most one where they are not renormalised.
pub fn budgets_are_kept(device: &Device) {
    for (window, softcap) in [(None, None), (Some(13), None), (None, Some(2.0))] {
        let layer = AttentionLayer { window, softcap, ..SHAPE.into() };
        let text = Text::random(layer, 30, &[0, 11, 27], 6, 61);
        for method in methods(device, &SHAPE, 8) {
            for (t, step) in text.run(&method, 7, device).into_iter().enumerate() {
                for (row, positions) in step.positions.iter().enumerate() {
                    let what = format!("{method:?} {window:?} step {t} row {row}: {positions:?}");
                    let len = text.prompt - text.pads[row / SHAPE.kv_heads] + t + 1;
                    let start = window.map_or(0, |window| len.saturating_sub(window));
                    let live = len - start;
                    assert!(positions.windows(2).all(|pair| pair[0] < pair[1]), "{what}");
                    assert!(positions.iter().all(|&p| p >= start && p < len), "{what}");
                    // An evicted token or a page may leave the window; a mass may need fewer.
                    let exact = match &method {
                        Method::SparqMass(_) | Method::Quest(_) => false,
                        Method::H2o(_) => window.is_none(),
                        _ => true,
                    };
                    let most = live.min(8);
                    assert!(if exact { positions.len() == most } else { positions.len() <= most }, "{what}");
                    if !matches!(method, Method::ExactTopk(_) | Method::OracleTopk(_)) {
                        assert_eq!(positions.last(), Some(&(len - 1)), "{what}");
                    }
                }
                for weight in &step.weight {
                    let dropped = matches!(method, Method::ExactTopk(_));
                    assert!(
                        *weight < 1.0 + 1e-5 && (dropped || *weight > 1.0 - 1e-5),
                        "{method:?}: {weight}"
                    );
                }
                for mass in step.mass.iter().flatten() {
                    assert!((0.0..1.0 + 1e-5).contains(mass), "{method:?}: {mass}");
                }
                assert!(step.output.iter().all(|x| x.is_finite()), "{method:?}");
            }
        }
    }
}

/// A method that keeps everything is dense attention.
pub fn methods_that_keep_everything_are_dense(device: &Device) {
    for (window, softcap) in [(None, None), (Some(13), Some(2.0))] {
        let layer = AttentionLayer { window, softcap, ..SHAPE.into() };
        let text = Text::random(layer, 20, &[0, 9], 4, 62);
        let dense = text.run(&Method::Dense, 20, device);
        let mut all = methods(device, &SHAPE, 32);
        let sparq = SparqConfig { mean_value: true, ..SparqConfig::new(&SHAPE, 4, 32) };
        all.push(Method::SparqMass(SparqMassConfig { sparq, mass: 1.0 }));
        for method in all.iter().filter(|method| !matches!(method, Method::SparqMass(c) if c.mass < 1.0)) {
            for (step, dense) in text.run(method, 20, device).iter().zip(&dense) {
                assert_close(&step.output, &dense.output, f32().oracle, &format!("{method:?}"));
                assert_eq!(step.positions, dense.positions, "{method:?}");
            }
        }
    }
}

/// A padded batch gives each sequence what it gets alone, whatever the chunks of the prefill, and
/// whatever the padding holds: sums stay finite.
pub fn a_padded_batch_equals_one_by_one(device: &Device) {
    for window in [None, Some(13)] {
        let layer = AttentionLayer { window, ..SHAPE.into() };
        let mut text = Text::random(layer, 30, &[0, 11, 27], 6, 63);
        text.problem.poison_padding(1e9, f32::INFINITY);
        for method in methods(device, &SHAPE, 8) {
            let together = text.run(&method, 7, device);
            for b in 0..3 {
                for (t, step) in text.alone(b).run(&method, 30, device).iter().enumerate() {
                    let what = format!("{method:?} {window:?} sequence {b} step {t}");
                    let values = SHAPE.heads * SHAPE.head_dim;
                    assert_close(
                        &together[t].output[b * values..(b + 1) * values],
                        &step.output,
                        f32().oracle,
                        &what,
                    );
                    let rows = b * SHAPE.kv_heads..(b + 1) * SHAPE.kv_heads;
                    assert_eq!(together[t].positions[rows], step.positions, "{what}");
                }
            }
        }
    }
}

/// A text that is cut back and continued otherwise gives what the other text gives from the start: at
/// any position where the method needs no more than the cached tokens, and at a mark for all of them.
pub fn going_back_forgets(device: &Device) {
    let text = Text::random(SHAPE.into(), 30, &[0, 3], 6, 64);
    let mut other = Text::random(SHAPE.into(), 30, &[0, 3], 6, 65);
    let (common, head_dim) = (21, SHAPE.head_dim);
    let share = |to: &mut [f32], from: &[f32]| {
        for (to, from) in to.chunks_mut(36 * head_dim).zip(from.chunks(36 * head_dim)) {
            to[..common * head_dim].copy_from_slice(&from[..common * head_dim]);
        }
    };
    share(&mut other.q, &text.q);
    share(&mut other.problem.k, &text.problem.k);
    share(&mut other.problem.v, &text.problem.v);
    let back = common - 3;
    for method in methods(device, &SHAPE, 8) {
        // Both sequences end at the same position here: their padding is the same.
        let (one, two) = (text.alone(1), other.alone(1));
        let fresh = two.run(&method, 64, device);
        let mut state = one.state(&method, device);
        one.prefill(&mut state, 0..back, device);
        let mark = state.mark().expect("all methods can be copied");
        one.prefill(&mut state, back..one.prompt, device);
        for _ in 0..2 {
            one.decode(&mut state, device);
            state.go_back(&mark).expect("it goes back");
            for (again, fresh) in two.run_from(&mut state, back, 64, device).iter().zip(&fresh) {
                assert_close(&again.output, &fresh.output, f32().oracle, &format!("{method:?}"));
                assert_eq!(again.positions, fresh.positions, "{method:?}");
            }
        }
        match state.truncate(back) {
            Err(error) => {
                assert_eq!(error, Error::CannotGoBack { method: method.name() });
                assert!(method.watches_prefill(), "{method:?}");
            }
            Ok(()) => {
                assert!(!method.watches_prefill(), "{method:?}");
                let again = two.run_from(&mut state, back, 64, device);
                for (again, fresh) in again.iter().zip(&fresh) {
                    assert_close(&again.output, &fresh.output, f32().oracle, &format!("{method:?}"));
                    assert_eq!(again.positions, fresh.positions, "{method:?}");
                }
            }
        }
    }
}

/// With all components, Double Sparsity, SparQ, and Quest with pages of one position rank alike: by the
/// sum of the exact logits. A mass of one keeps what SparQ keeps.
pub fn methods_meet_at_their_limits(device: &Device) {
    check((padded(), 2usize..40), |(problem, top_k)| {
        let shape = problem.shape;
        let sparq = SparqConfig {
            local_window: 1,
            mean_value: false,
            ..SparqConfig::new(&shape, shape.head_dim, top_k)
        };
        let expected = one_step(&problem, &Method::Sparq(sparq), device);
        let channels = vec![(0..shape.head_dim).collect(); shape.kv_heads];
        let labels = DoubleSparsityConfig { channels, ..DoubleSparsityConfig::new(shape.head_dim, top_k) };
        for method in [
            Method::DoubleSparsity(labels),
            Method::Quest(QuestConfig { top_k, page: 1 }),
            Method::SparqMass(SparqMassConfig { sparq, mass: 1.0 }),
        ] {
            let step = one_step(&problem, &method, device);
            prop_assert_eq!(&step.positions, &expected.positions, "{:?}", method);
            assert_close(&step.output, &expected.output, f32().oracle, &format!("{method:?}"));
        }
        Ok(())
    });
}

/// With a mass of one, all of SparQ's settings give what SparQ gives.
pub fn a_mass_of_one_is_sparq(device: &Device) {
    check((padded(), 0usize..99, 0usize..99, 0usize..99, any::<bool>()), |(problem, r, k, l, softmax)| {
        let group_scores = if softmax { GroupScores::Softmax } else { GroupScores::ScaledLogits };
        let sparq = SparqConfig { group_scores, ..config(&problem.shape, r, k, l) };
        let expected = one_step(&problem, &Method::Sparq(sparq), device);
        let step = one_step(&problem, &Method::SparqMass(SparqMassConfig { sparq, mass: 1.0 }), device);
        prop_assert_eq!(&step.positions, &expected.positions);
        assert_close(&step.output, &expected.output, f32().oracle, "mass of one");
        Ok(())
    });
}

/// More mass keeps more positions, the mass is reached where the budget allows, no position too many is
/// kept, and what is counted is what is kept.
pub fn a_mass_budget_is_met(device: &Device) {
    check((padded(), 0usize..99, 1usize..80), |(problem, r, top_k)| {
        let shape = problem.shape;
        let sparq = SparqConfig { local_window: 1, mean_value: false, top_k, ..config(&shape, r, 0, 0) };
        let mut before = vec![vec![]; problem.batch() * shape.kv_heads];
        for mass in [0.05, 0.3, 0.6, 0.9, 0.99] {
            let step = one_step(&problem, &Method::SparqMass(SparqMassConfig { sparq, mass }), device);
            let alpha = step.mass.as_ref().expect("a mass");
            for (row, positions) in step.positions.iter().enumerate() {
                let live = problem.tokens.valid()[row / shape.kv_heads].len();
                prop_assert!(before[row].iter().all(|p| positions.contains(p)), "more mass keeps more");
                let group = &alpha[row * shape.group()..(row + 1) * shape.group()];
                let least = group.iter().copied().fold(f32::MAX, f32::min);
                prop_assert!(least >= mass - 1e-5 || positions.len() == live.min(top_k), "{least} of {mass}");
                prop_assert!(!positions.is_empty());
            }
            let kept: usize = step.positions.iter().map(Vec::len).sum();
            prop_assert!(step.dense || step.transfer.k.elements as usize == kept * shape.head_dim);
            before = step.positions;
        }
        Ok(())
    });
}

/// No method that keeps the same number of positions for one head loses less mass than the oracle.
pub fn the_oracle_is_a_bound(device: &Device) {
    check((sizes(), 2usize..20), |((shape, width, seed), top_k)| {
        let shape = AttentionShape { heads: shape.kv_heads, ..shape };
        let problem = Problem::random(shape, NewTokens::all(1, width), seed);
        let oracle = one_step(&problem, &Method::OracleTopk(TopkConfig { top_k }), device);
        let exact = one_step(&problem, &Method::ExactTopk(TopkConfig { top_k }), device);
        prop_assert_eq!(&oracle.positions, &exact.positions);
        let mass = oracle.mass.expect("a mass");
        assert_close(&mass, exact.mass.as_ref().expect("a mass"), 1e-6, "masses");
        assert_close(&mass, &exact.weight, 1e-5, "the kept weights are the mass");
        // The oracle's output, scaled by its mass, is the output that is not renormalised.
        let scaled: Vec<f32> =
            oracle.output.iter().enumerate().map(|(i, y)| y * mass[i / shape.head_dim]).collect();
        assert_close(&scaled, &exact.output, f32().oracle, "outputs");
        Ok(())
    });
}

/// What each method counts, against the formulas of the papers.
pub fn transfers_match_the_formulas(device: &Device) {
    let (len, d, k, r) = (64, SHAPE.head_dim, 16, 8);
    let text = Text::random(SHAPE.into(), len - 1, &[0], 1, 66);
    let per_head = |method: &Method| {
        let step = text.run(method, 64, device).remove(0);
        assert!(!step.dense);
        step.transfer.total().elements as usize / SHAPE.kv_heads
    };
    let topk = TopkConfig { top_k: k };
    assert_eq!(per_head(&Method::ExactTopk(topk)), transfer::paper_exact_topk(len, d, k));
    assert_eq!(per_head(&Method::OracleTopk(topk)), 2 * k * d + 2 * d);
    assert_eq!(per_head(&Method::Local(LocalConfig::new(k))), transfer::paper_local(d, k));
    // Only the living tokens' scores are kept.
    let h2o = transfer::paper_h2o(len, d, k) - 2 * len + 2 * k;
    assert_eq!(per_head(&Method::H2o(H2oConfig::new(k))), h2o);
    let quest = Method::Quest(QuestConfig { top_k: k, page: 4 });
    assert_eq!(
        per_head(&quest),
        transfer::paper_quest(len, d, k, 4) + 4 * d,
        "and the current page's bounds"
    );
    let labels = Method::DoubleSparsity(DoubleSparsityConfig::new(r, k));
    // The copy of the new key is written whole.
    assert_eq!(per_head(&labels), transfer::paper_double_sparsity(len, d, r, k) - r + d);
}

/// Configurations that cannot work are refused.
pub fn bad_sizes_are_refused(_device: &Device) {
    let refused =
        |method: Method| method.for_layer(&SHAPE).map(|_| ()).expect_err("it is refused").to_string();
    let topk = TopkConfig { top_k: 0 };
    assert!(refused(Method::ExactTopk(topk)).starts_with("top_k = 0"));
    assert!(refused(Method::OracleTopk(topk)).starts_with("top_k = 0"));
    assert!(refused(Method::Local(LocalConfig { top_k: 4, initial: 4 })).starts_with("initial = 4"));
    assert!(refused(Method::H2o(H2oConfig { top_k: 4, local_window: 0 })).starts_with("local_window = 0"));
    assert!(refused(Method::H2o(H2oConfig { top_k: 4, local_window: 5 })).contains("top_k = 4"));
    assert!(refused(Method::Quest(QuestConfig::new(15))).starts_with("top_k = 15"));
    assert!(refused(Method::Quest(QuestConfig { top_k: 4, page: 0 })).starts_with("page = 0"));
    assert!(refused(Method::DoubleSparsity(DoubleSparsityConfig::new(17, 4))).starts_with("rank = 17"));
    for channels in
        [vec![vec![0, 1]], vec![vec![0, 1], vec![0]], vec![vec![0, 0], vec![0, 1]], vec![vec![0, 16]; 2]]
    {
        let config = DoubleSparsityConfig { channels, ..DoubleSparsityConfig::new(2, 4) };
        assert!(refused(Method::DoubleSparsity(config)).starts_with("channels = "));
    }
    for mass in [0.0, 1.5, f32::NAN] {
        let sparq = SparqConfig::new(&SHAPE, 4, 4);
        assert!(refused(Method::SparqMass(SparqMassConfig { sparq, mass })).starts_with("mass = "));
    }
}
