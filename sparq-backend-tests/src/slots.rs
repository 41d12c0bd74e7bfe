//! Sequences that come, go on, are copied and leave, each without the others.

use std::ops::Range;

use burn::tensor::{Device, Tensor};
use sparq_core::{
    AttentionLayer, AttentionShape, CacheConfig, CachedSequence, DecodeMethod, Decoded, Error, H2oConfig,
    KtFormat, LayerCache, LayerState, Method, NewTokens, QuestConfig, Result, Sequences, SparqConfig,
    Traffic, Transfer, cache::CacheExtras, method::Dense,
};

use crate::{
    problem::{Problem, floats},
    tolerance::{Tolerance, assert_close, f32},
};

const SHAPE: AttentionShape = AttentionShape { heads: 4, kv_heads: 2, head_dim: 32 };
const SLOTS: usize = 4;
const MOST: usize = 800;

/// The queries, keys and values of texts of [`MOST`] tokens, one for each slot.
struct Texts {
    layer: AttentionLayer,
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
}

impl Texts {
    fn random(device: &Device) -> Self {
        let problem = Problem::random(SHAPE, NewTokens::all(SLOTS, MOST), 11);
        let wide = AttentionShape { heads: SHAPE.heads * MOST, kv_heads: 1, ..SHAPE };
        let queries = Problem::random(wide, NewTokens::all(SLOTS, 1), 12).queries(device);
        let q = queries.reshape([SLOTS, SHAPE.heads, MOST, SHAPE.head_dim]);
        let (k, v) = (problem.rows(&problem.k, device), problem.rows(&problem.v, device));
        Self { layer: problem.layer(), q, k, v }
    }

    /// Queries, keys and values of some tokens of the texts of some slots, of as many in each.
    fn part(&self, slots: &[usize], tokens: Range<usize>) -> [Tensor<4>; 3] {
        [&self.q, &self.k, &self.v].map(|x| {
            let rows =
                slots.iter().map(|&slot| x.clone().narrow(0, slot, 1).narrow(2, tokens.start, tokens.len()));
            Tensor::cat(rows.collect(), 0)
        })
    }

    fn config(&self, batch: usize, row: Tolerance) -> CacheConfig {
        CacheConfig { layer: self.layer, batch, max_len: MOST, dtype: row.dtype }
    }
}

/// Remembers how often it ran, and can neither forget that nor be copied.
#[derive(Debug)]
struct Counting(usize);

impl DecodeMethod for Counting {
    fn name(&self) -> &'static str {
        "counting"
    }

    fn decode(&mut self, q: Tensor<4>, sequence: &CachedSequence<'_>) -> Result<Decoded> {
        self.0 += 1;
        Dense.decode(q, sequence)
    }
}

fn new(slots: &[usize], width: usize) -> NewTokens {
    NewTokens::all(slots.len(), width).in_slots(slots).expect("each slot once")
}

/// What a cache with [`all_kept`] holds of a slot, as numbers: keys, values, transposed keys, codes and their
/// scales, sums.
fn contents(cache: &LayerCache, slot: usize) -> Vec<Vec<f32>> {
    let sequence = cache.sequence(slot).expect("it is there");
    let (len, k) = (sequence.len(), sequence.k().expect("keys"));
    let rows = |x: Tensor<4>| floats(x.narrow(2, 0, len).cast(burn::tensor::DType::F32));
    let columns = |x: Tensor<4>, len| floats(x.narrow(3, 0, len).cast(burn::tensor::DType::F32));
    // The last block also has codes of positions without a token.
    let blocks = len / 64;
    let device = k.device();
    let mut parts = vec![
        rows(k),
        rows(sequence.v().expect("values")),
        columns(sequence.k_t().expect("transposed keys"), len),
    ];
    if has_codes(&device) {
        let codes = sequence.quantized_kt().expect("codes");
        if blocks > 0 {
            parts.push(columns(codes.words.float(), blocks * 16));
        }
        parts.push(columns(codes.scales, len.div_ceil(64)));
    }
    parts.push(floats(sequence.v_sum().expect("sums")));
    parts
}

/// Whether the device takes transposed keys as codes: `layout` says what one that does not refuses.
pub(crate) fn has_codes(device: &Device) -> bool {
    sparq_core::device::require_kt(device, KtFormat::Int8).is_ok()
}

/// All that a cache can keep at a time on this device.
pub(crate) fn all_kept(device: &Device) -> Vec<CacheExtras> {
    let forms = [KtFormat::Cache, KtFormat::Int8].into_iter().take(1 + usize::from(has_codes(device)));
    forms.map(|kt_format| CacheExtras { k_t: true, kt_format, mean_value: true }).collect()
}

/// What a cache holds of a slot is what another holds of one of its slots, to the bit.
pub(crate) fn assert_same(found: (&LayerCache, usize), expected: (&LayerCache, usize)) {
    let ((cache, slot), (other, of_other)) = (found, expected);
    let len = cache.lens()[slot];
    assert_eq!(len, other.lens()[of_other], "slot {slot}");
    let [found, expected] = [contents(cache, slot), contents(other, of_other)];
    assert_eq!(found.len(), expected.len(), "slot {slot}");
    for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
        assert!(found == expected, "part {i} of slot {slot}");
    }
}

/// A slot holds what a cache of its own would hold, to the bit, however the others came, grew, were cut, copied
/// and released in between.
pub fn a_slot_holds_what_a_cache_of_its_own_holds(device: &Device, row: Tolerance) {
    let texts = Texts::random(device);
    let mut cache =
        LayerCache::new(&texts.config(SLOTS, row), CacheExtras::default(), device).expect("valid");
    cache.keep(&all_kept(device)).expect("both forms at a time");
    let append = |cache: &mut LayerCache, slots: &[usize], from: usize, tokens: Range<usize>| {
        let texts_of = [from; SLOTS];
        let of = if from < SLOTS { &texts_of[..slots.len()] } else { slots };
        let [_, k, v] = texts.part(of, tokens.clone());
        let plan = cache.plan(&new(slots, tokens.len())).expect("it fits");
        cache.append(k, v, &plan).expect("shapes fit");
    };
    let own = SLOTS; // Each slot has the text of its number.
    append(&mut cache, &[2], own, 0..300);
    append(&mut cache, &[3, 0], own, 0..40);
    append(&mut cache, &[2], own, 300..301);
    append(&mut cache, &[0], own, 40..700);
    append(&mut cache, &[3], own, 40..41);
    assert_eq!(cache.lens(), [700, 0, 301, 41]);
    cache.truncate_sequence(0, 515).expect("it is there");
    cache.copy(0, 1, 257).expect("it is longer");
    append(&mut cache, &[1], 0, 257..300);
    cache.release(2).expect("it is there");
    append(&mut cache, &[2], 2, 0..64);
    // No token for one of them.
    let idle = NewTokens::ragged(1, &[0, 1]).expect("within").in_slots(&[0, 3]).expect("each once");
    let [_, k, v] = texts.part(&[0, 3], 41..42);
    let plan = cache.plan(&idle).expect("it fits");
    cache.append(k, v, &plan).expect("shapes fit");
    // Text and length of each slot.
    for (slot, (text, len)) in [(0, 515), (0, 300), (2, 64), (3, 42)].into_iter().enumerate() {
        let mut alone =
            LayerCache::new(&texts.config(1, row), CacheExtras::default(), device).expect("valid");
        alone.keep(&all_kept(device)).expect("both forms at a time");
        let [_, k, v] = texts.part(&[text], 0..len);
        let plan = alone.plan(&NewTokens::all(1, len)).expect("it fits");
        alone.append(k, v, &plan).expect("shapes fit");
        assert_same((&cache, slot), (&alone, 0));
    }
    assert!(cache.truncate_sequence(SLOTS, 0).is_err() && cache.release(SLOTS).is_err());
    assert!(cache.copy(3, 0, 43).is_err(), "it has 42 tokens");
    let plan = cache.plan(&new(&[0], 1)).expect("it fits");
    append(&mut cache, &[0], 0, 515..516);
    let [_, k, v] = texts.part(&[0], 515..516);
    assert!(cache.append(k, v, &plan).is_err(), "the plan is of before");
}

/// Sequences with methods of their own give what each gives alone: outputs, traffic and what the methods remember,
/// with others idle, in any order, after copies and returns to marks.
pub fn each_sequence_decodes_as_alone(device: &Device, row: Tolerance) {
    let texts = Texts::random(device);
    let sparq = SparqConfig { mean_value: true, ..SparqConfig::new(&SHAPE, 16, 24) };
    let methods = [
        Method::Sparq(sparq),
        Method::H2o(H2oConfig::new(24)),
        Method::Sparq(SparqConfig { dense_below: 100, ..sparq }),
        Method::Quest(QuestConfig::new(48)),
    ];
    let prompts = [90, 70, 98, 300];
    let of = |slot: usize| methods[slot].for_layer(&SHAPE);
    let mut together = LayerState::with_methods(&texts.config(SLOTS, row), of, device).expect("valid");
    let mut alone: Vec<LayerState> = methods
        .iter()
        .map(|method| LayerState::new(&texts.config(1, row), method, device).expect("valid"))
        .collect();
    let prefill = |state: &mut LayerState, slot: usize, text: usize, len: usize| {
        let [q, k, v] = texts.part(&[text], 0..len);
        state.prefill(q, k, v, &new(&[slot], len)).expect("it fits")
    };
    for slot in [2, 0, 3, 1] {
        let found = prefill(&mut together, slot, slot, prompts[slot]);
        let expected = prefill(&mut alone[slot], 0, slot, prompts[slot]);
        assert_close(&floats(found), &floats(expected), row.oracle, &format!("prompt of slot {slot}"));
    }
    let step = |together: &mut LayerState, alone: &mut [LayerState], slots: &[usize], what: &str| {
        // Each row is that of its sequence's next token.
        let at: Vec<usize> = slots.iter().map(|&slot| together.cache().lens()[slot]).collect();
        let rows = |i: usize| texts.part(&[slots[i]], at[i]..at[i] + 1);
        let parts: Vec<[Tensor<4>; 3]> = (0..slots.len()).map(rows).collect();
        let [q, k, v] = [0, 1, 2].map(|i| Tensor::cat(parts.iter().map(|part| part[i].clone()).collect(), 0));
        let plan = together.cache().plan(&new(slots, 1)).expect("it fits");
        let found = floats(together.decode_planned(q, k, v, &plan).expect("a step").output);
        for ((slot, [q, k, v]), found) in
            slots.iter().zip(parts).zip(found.chunks(SHAPE.heads * SHAPE.head_dim))
        {
            let expected = floats(alone[*slot].decode(q, k, v).expect("a step"));
            assert_close(found, &expected, row.oracle, &format!("{what}: slot {slot}"));
        }
    };
    step(&mut together, &mut alone, &[0, 1, 2, 3], "all");
    step(&mut together, &mut alone, &[3, 1], "two, the last first");
    step(&mut together, &mut alone, &[2], "one");
    let marks: Vec<_> =
        [1, 3].map(|slot| together.snapshot(slot).expect("it is there").expect("it can be copied")).into();
    let alone_marks: Vec<_> = [1, 3].map(|slot| alone[slot].mark().expect("it can be copied")).into();
    step(&mut together, &mut alone, &[1, 2, 3], "behind the marks");
    for (i, slot) in [1, 3].into_iter().enumerate() {
        together.restore(slot, &marks[i]).expect("its tokens are there");
        alone[slot].go_back(&alone_marks[i]).expect("its tokens are there");
    }
    step(&mut together, &mut alone, &[2, 1, 0, 3], "after the return");
    for (slot, alone) in alone.iter().enumerate() {
        // What is appended and summed is what any of the sequences asks for.
        let read = |traffic: Traffic| {
            let Transfer { k_t, k, v, state, .. } = traffic.moved;
            (traffic.steps, k_t, k, v, state, traffic.dense)
        };
        let found = read(together.sequences().traffic_of(slot));
        assert_eq!(found, read(alone.traffic()), "traffic of slot {slot}");
    }
    // A copy goes on as the one that it is of.
    together.copy(1, 0, together.cache().lens()[1]).expect("H2O can be copied as it is");
    let at = together.cache().lens()[1];
    let [q, k, v] = texts.part(&[1, 1], at..at + 1);
    let plan = together.cache().plan(&new(&[0, 1], 1)).expect("it fits");
    let found = floats(together.decode_planned(q, k, v, &plan).expect("a step").output);
    let (copy, original) = found.split_at(found.len() / 2);
    assert_eq!(copy, original);
    assert!(together.copy(1, 2, 30).is_err(), "H2O cannot be cut");
    assert_eq!(together.cache().lens()[2], alone[2].cache().lens()[0], "nothing was changed");
    // A method that cannot begin anew is not taken for one that has.
    together.put_method(2, Box::new(Counting(0))).expect("it needs nothing");
    for _ in 0..2 {
        assert!(matches!(together.release(2), Err(Error::CannotGoBack { method: "counting" })));
    }
    assert!(matches!(together.copy(2, 3, 0), Err(Error::CannotCopy { .. })));
    let before = together.put_method(2, Box::new(Dense)).expect("it needs nothing");
    assert_eq!(before.name(), "counting");
    together.release(2).expect("it remembers nothing");
    // A layer without a cache of its own reads that of another, and leaves it as it is.
    let dense = |slots: usize| {
        Sequences::new((0..slots).map(|_| Method::Dense.for_layer(&SHAPE).expect("valid")).collect())
    };
    let lens = together.cache().lens().to_vec();
    let [q, _, _] = texts.part(&[3, 2, 1, 0], 0..1);
    let last = together.cache().attend_params(1).queries;
    let found = dense(SLOTS).attend(q.clone(), together.cache(), &last).expect("nothing is appended").output;
    let last = alone[3].cache().attend_params(1).queries;
    let expected = dense(1).attend(q.narrow(0, 3, 1), alone[3].cache(), &last).expect("as above").output;
    assert_close(&floats(found.narrow(0, 3, 1)), &floats(expected), row.oracle, "a cache of another layer");
    assert_eq!(together.cache().lens(), lens);
}

/// Slots that are made alike by growing are as good as those that were born so.
pub fn slots_may_become_alike_again(device: &Device) {
    let texts = Texts::random(device);
    let config = CacheConfig { batch: 2, ..texts.config(2, f32()) };
    let mut cache = LayerCache::new(&config, CacheExtras::default(), device).expect("valid");
    // None, one, then both: of one block each, in the end.
    for lens in [[0, 0], [0, 1], [1, 12], [7, 7]] {
        let tokens = NewTokens::ragged(12, &lens).expect("within");
        let plan = cache.plan(&tokens).expect("it fits");
        let at = cache.lens().to_vec();
        let rows = [0, 1].map(|slot| texts.part(&[slot], at[slot]..at[slot] + 12));
        let [k, v] = [1, 2].map(|i| Tensor::cat(rows.iter().map(|parts| parts[i].clone()).collect(), 0));
        cache.append(k, v, &plan).expect("shapes fit");
    }
    for (slot, &len) in [8, 20].iter().enumerate() {
        let [_, k, _] = texts.part(&[slot], 0..len);
        let held = cache.sequence(slot).expect("it is there").k().expect("keys").narrow(2, 0, len);
        assert_eq!((cache.lens()[slot], floats(held)), (len, floats(k)), "slot {slot}");
    }
}
