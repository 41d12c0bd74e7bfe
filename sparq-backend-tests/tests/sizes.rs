//! Sizes of any magnitude through the public functions: an answer or an error, never a panic.
#![cfg(feature = "flex")]
#![allow(clippy::unwrap_used)]

use burn::tensor::{DType, Device, Distribution, Tensor};
use proptest::{prelude::*, sample::select};
use sparq_core::{
    AppendPlan, AttentionLayer, AttentionShape, CacheConfig, DoubleSparsityConfig, Error, GroupScores,
    H2oConfig, KtFormat, LayerState, LocalConfig, Method, NewTokens, QuestConfig, SparqConfig,
    SparqMassConfig, TopkConfig, TopkRule, transfer,
};

const SHAPE: AttentionShape = AttentionShape { heads: 4, kv_heads: 2, head_dim: 8 };

/// Small ones, those where 32 and 64 bits end, and their neighbours.
fn any_size() -> impl Strategy<Value = usize> {
    let edges = [1 << 31, 1 << 32, 1 << 62, 1 << 63, usize::MAX];
    let near = edges.into_iter().flat_map(|edge| [edge - 1, edge, usize::saturating_add(edge, 1)]);
    prop_oneof![0usize..70, select(near.collect::<Vec<_>>())]
}

/// Sizes of which no memory has room for one tensor.
fn absurd_size() -> impl Strategy<Value = usize> {
    select(vec![1 << 60, (1 << 60) + 1, 1 << 63, usize::MAX - 255, usize::MAX])
}

fn sparq() -> impl Strategy<Value = SparqConfig> {
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    (0usize..10, any_size(), any_size(), any_size(), flags).prop_map(|(rank, top_k, local, dense, flags)| {
        SparqConfig {
            local_window: local,
            mean_value: flags.0,
            group_scores: if flags.1 { GroupScores::Softmax } else { GroupScores::ScaledLogits },
            dense_below: dense,
            kt_format: if flags.2 { KtFormat::Int8 } else { KtFormat::Cache },
            topk_rule: if flags.3 { TopkRule::Buckets } else { TopkRule::Exact },
            ..SparqConfig::new(&SHAPE, rank, top_k)
        }
    })
}

fn any_method() -> impl Strategy<Value = Method> {
    prop_oneof![
        Just(Method::Dense),
        sparq().prop_map(Method::Sparq),
        (sparq(), 0.1f32..1.1).prop_map(|(sparq, mass)| Method::SparqMass(SparqMassConfig { sparq, mass })),
        any_size().prop_map(|top_k| Method::ExactTopk(TopkConfig { top_k })),
        any_size().prop_map(|top_k| Method::OracleTopk(TopkConfig { top_k })),
        (any_size(), any_size()).prop_map(|(top_k, initial)| Method::Local(LocalConfig { top_k, initial })),
        (any_size(), any_size())
            .prop_map(|(top_k, local_window)| Method::H2o(H2oConfig { top_k, local_window })),
        (any_size(), any_size()).prop_map(|(top_k, page)| Method::Quest(QuestConfig { top_k, page })),
        (any_size(), any_size(), any_size()).prop_map(|(rank, top_k, local_window)| {
            let config = DoubleSparsityConfig { local_window, ..DoubleSparsityConfig::new(rank, top_k) };
            Method::DoubleSparsity(config)
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    /// A method that is not refused runs, and keeps what it says.
    #[test]
    fn methods_of_any_size_run_or_are_refused(method in any_method(), max_len in 70usize..200, huge in any::<bool>()) {
        let device = Device::flex();
        let max_len = if huge { usize::MAX } else { max_len };
        let config = CacheConfig { layer: SHAPE.into(), batch: 1, max_len, dtype: DType::F32 };
        match LayerState::new(&config, &method, &device) {
            Err(error) => prop_assert!(matches!(error, Error::InvalidConfig { .. }), "{error}"),
            Ok(mut state) => {
                let random = |heads, tokens| {
                    Tensor::<4>::random([1, heads, tokens, SHAPE.head_dim], Distribution::Default, &device)
                };
                state.prefill(random(4, 40), random(2, 40), random(2, 40), &NewTokens::all(1, 40)).unwrap();
                for _ in 0..3 {
                    let output = state.decode(random(4, 1), random(2, 1), random(2, 1)).unwrap();
                    let values: Vec<f32> = output.into_data().try_to_vec().unwrap();
                    prop_assert!(values.iter().all(|x| x.is_finite()), "{method:?}");
                }
            }
        }
    }

    /// What no memory holds is refused before anything is reserved.
    #[test]
    fn absurd_sizes_of_a_layer_are_errors(size in absurd_size(), which in 0usize..5) {
        let mut shape = SHAPE;
        let (mut batch, mut window) = (1, None);
        match which {
            0 => (shape.heads, shape.kv_heads) = (size, size),
            1 => shape.heads = size,
            2 => shape.head_dim = size,
            3 => batch = size,
            _ => window = Some(size),
        }
        let layer = AttentionLayer { window, ..shape.into() };
        let config = CacheConfig { layer, batch, max_len: usize::MAX, dtype: DType::F32 };
        match LayerState::new(&config, &Method::Dense, &Device::flex()) {
            Err(_) => prop_assert!(which < 4),
            Ok(mut state) => {
                let error = state.reserve(size).unwrap_err();
                prop_assert!(matches!(error, Error::TooLarge { .. }), "{error}");
            }
        }
    }

    /// Plans beyond what a cache may hold are refused.
    #[test]
    fn plans_of_any_size_are_checked(width in any_size(), pad in any_size(), max_len in any_size(), at in any_size()) {
        let tokens = match NewTokens::left_padded(width, &[pad]) {
            Err(_) => {
                prop_assert!(pad > width);
                return Ok(());
            }
            Ok(tokens) => tokens,
        };
        let real = width - pad;
        let plan = AppendPlan::new(&tokens, &[at]);
        prop_assert_eq!(plan.lens_after(), vec![at.saturating_add(real)]);
        let columns = tokens.columns(at, width);
        prop_assert!(columns.valid()[0].end <= width);
        if max_len > 0 {
            let config = CacheConfig { layer: SHAPE.into(), batch: 1, max_len, dtype: DType::F32 };
            let state = LayerState::new(&config, &Method::Dense, &Device::flex()).unwrap();
            prop_assert_eq!(state.cache().plan(&tokens).is_ok(), real <= max_len);
        }
    }

    /// Sizes made of a ratio, and the formulas.
    #[test]
    fn formulas_take_any_size(sizes in prop::array::uniform4(any_size()), ratio in 0.5f64..1e6) {
        let [len, dim, rank, top_k] = sizes;
        transfer::paper_dense(len, dim);
        transfer::paper_sparq(len, dim, rank, top_k);
        transfer::paper_exact_topk(len, dim, top_k);
        transfer::paper_local(dim, top_k);
        transfer::paper_h2o(len, dim, top_k);
        transfer::paper_quest(len, dim, top_k, rank);
        transfer::paper_double_sparsity(len, dim, rank, top_k);
        transfer::Part::new(len, dim);
        if let Ok(config) = SparqConfig::from_compression_ratio(&SHAPE, ratio, len, top_k) {
            prop_assert!(config.top_k >= 1 && config.local_window <= config.top_k);
        }
    }
}
