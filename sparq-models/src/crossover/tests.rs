use sparq_core::{AttentionShape, MethodKind};

use super::{settle::settle_by, *};
use crate::{
    attention::{AttentionPlan, DenseBelow, widest},
    checkpoint::Checkpoint,
    text_model::TextModel,
};

const SHAPE: AttentionShape = AttentionShape { heads: 2, kv_heads: 2, head_dim: 16 };
const MEMORY: u64 = 64 << 20;

fn find(crossovers: &mut Crossovers, config: &SparqConfig) -> Crossover {
    crossovers.find(&SHAPE.into(), config, &Device::flex(), DType::F32, MEMORY).unwrap().unwrap()
}

#[test]
fn what_was_measured_is_kept_by_shape_and_size() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cache/crossover.json");
    let config = SparqConfig::new(&SHAPE, 4, 64);
    let mut crossovers = Crossovers::new(Some(file.clone()));
    let found = find(&mut crossovers, &config);
    assert!(found.tokens > config.top_k && found.measured_tokens >= 256, "{found:?}");
    // On a busy machine one length is all there is time for, and is not kept.
    assert_eq!(file.exists(), !crossovers.known.is_empty());

    // What the file holds is taken without measuring.
    let entries =
        || -> BTreeMap<String, Value> { serde_json::from_slice(&fs::read(&file).unwrap()).unwrap() };
    let key = key(&SHAPE.into(), &config, &Device::flex(), DType::F32);
    let crossover = Crossover { tokens: 4321, measured_tokens: 8192, estimated: false };
    let planted = Entry { crossover, longest_tokens: 256 };
    crossovers.keep(key.clone(), planted).unwrap();
    let mut other = Crossovers::new(Some(file.clone()));
    assert_eq!(find(&mut other, &config), crossover);
    find(&mut other, &SparqConfig { rank: 8, ..config });
    assert_eq!(entries().len(), other.known.len());

    // An entry of the old form does not say what was measured, and a damaged file counts as empty.
    fs::write(&file, format!(r#"{{"{key}": {{"tokens": null}}, "other": {{"tokens": 7}}}}"#)).unwrap();
    assert_eq!(Crossovers::new(Some(file.clone())).known.len(), 0);
    fs::write(&file, "{").unwrap();
    assert_eq!(Crossovers::new(Some(file)).known.len(), 0);
}

#[test]
fn what_is_not_sure_is_measured_anew() {
    let config = SparqConfig::new(&SHAPE, 4, 64);
    let key = key(&SHAPE.into(), &config, &Device::flex(), DType::F32);
    let crossover = Crossover { tokens: 4321, measured_tokens: 256, estimated: true };
    let longest = measure::longest(&SHAPE.into(), &config, DType::F32, MEMORY);
    let found = |longest_tokens| {
        let mut crossovers = Crossovers::new(None);
        crossovers.known.insert(key.clone(), Entry { crossover, longest_tokens });
        find(&mut crossovers, &config)
    };
    assert_eq!(found(longest), crossover);
    assert_ne!(found(longest / 2), crossover, "there is memory for longer contexts now");
    // Memory for one length alone, at which SparQ is not faster: an estimate that is not kept.
    let mut crossovers = Crossovers::new(None);
    let memory = (0..24).map(|bits| 1 << bits);
    let one_length = |&memory: &u64| measure::longest(&SHAPE.into(), &config, DType::F32, memory) == 256;
    let memory = memory.clone().find(one_length).unwrap();
    let only = crossovers.find(&SHAPE.into(), &config, &Device::flex(), DType::F32, memory).unwrap().unwrap();
    assert_eq!(crossovers.known.is_empty(), only.estimated, "{only:?}");
}

#[test]
fn those_who_write_at_once_keep_each_others_entries() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("crossover.json");
    let crossover = Crossover { tokens: 1, measured_tokens: 2, estimated: true };
    let entry = Entry { crossover, longest_tokens: 2 };
    // Each read the file before any of them wrote.
    let writers: Vec<Crossovers> = (0..8).map(|_| Crossovers::new(Some(file.clone()))).collect();
    for (number, writer) in writers.iter().enumerate() {
        writer.keep(format!("size {number}"), entry).unwrap();
    }
    assert_eq!(Crossovers::new(Some(file)).known.len(), 8);
}

#[test]
fn a_file_that_cannot_be_replaced_leaves_nothing_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("crossover.json");
    fs::create_dir(&file).unwrap();
    find(&mut Crossovers::new(Some(file)), &SparqConfig::new(&SHAPE, 4, 64));
    let names: Vec<String> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(names, ["crossover.json"]);
}

#[test]
fn large_sizes_have_a_crossover_and_too_little_memory_none() {
    let mut crossovers = Crossovers::new(None);
    let config = SparqConfig::new(&SHAPE, 4, 40_000);
    let found = find(&mut crossovers, &config);
    assert!(found.estimated && found.tokens > 40_000 && found.tokens < 400_000, "{found:?}");
    assert!(found.measured_tokens >= 256, "{found:?}");
    let other = SparqConfig { rank: 8, ..config };
    let none = crossovers.find(&SHAPE.into(), &other, &Device::flex(), DType::F32, 1000).unwrap();
    assert_eq!(none, None);
    assert_eq!(crossovers.known.len(), 1, "nothing is kept that was not measured");
}

#[test]
fn a_plan_gets_what_was_measured_for_its_sizes_and_keeps_what_it_states() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sparq-cli/demo");
    let model = Checkpoint::open(folder).unwrap();
    let model = TextModel::load(&model, &Device::flex(), DType::F32, &mut |_, _| ()).unwrap();
    let spec = |text: &str| MethodSpec::parse(text).unwrap();
    let untouched = || -> Crossovers { panic!("nothing to measure") };
    for text in ["sparq:dense-below=300", "sparq:dense-below=0", "sparq-mass", "h2o@4", "dense"] {
        let plan = AttentionPlan::from(spec(text));
        assert_eq!(settle_by(untouched, &plan, &model, 100, 0).unwrap(), (plan, Verdict::Stated), "{text}");
    }

    // Sizes are those of the next power of two, 512 tokens: an entry for them is taken.
    let layer = model.model().attention_layers()[widest(&model.model().attention_layers()).unwrap()];
    let Method::Sparq(config) = spec("sparq@4").resolve(&layer, 512).unwrap() else { panic!("sparq") };
    let crossover = Crossover { tokens: 4321, measured_tokens: 8192, estimated: false };
    let mut known = Crossovers::new(None);
    let entry = Entry { crossover, longest_tokens: 256 };
    known.known.insert(key(&layer, &config, model.model().device(), DType::F32), entry);
    for text in ["sparq@4", "sparq@4:dense-below=auto"] {
        let plan = AttentionPlan::Method { spec: spec(text), dense_layers: 2 };
        let (settled, verdict) = settle_by(|| known.clone(), &plan, &model, 300, 0).unwrap();
        let expected = AttentionPlan::Method { spec: spec("sparq@4:dense-below=4321"), dense_layers: 2 };
        assert_eq!((settled, verdict), (expected, Verdict::Found(crossover)), "{text}");
    }
    let unknown = AttentionPlan::from(MethodKind::Sparq);
    let (settled, verdict) = settle_by(|| known, &unknown, &model, 300, 0).unwrap();
    assert!(matches!(verdict, Verdict::NotMeasured(_)), "no memory: {verdict:?}");
    let AttentionPlan::Method { spec, .. } = settled else { panic!("{settled:?}") };
    assert_eq!(spec.keys.dense_below, Some(DenseBelow::Tokens(0)));
}
