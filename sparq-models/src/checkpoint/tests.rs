use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::json;
use tempfile::TempDir;

use std::fs;

use super::*;

/// A tensor to store: name, format, shape, values.
type Spec<'a> = (&'a str, Dtype, &'a [usize], &'a [f32]);

fn encode(dtype: Dtype, values: &[f32]) -> Vec<u8> {
    let bytes = |&value: &f32| match dtype {
        Dtype::F32 => value.to_le_bytes().to_vec(),
        Dtype::F16 => f16::from_f32(value).to_le_bytes().to_vec(),
        Dtype::BF16 => bf16::from_f32(value).to_le_bytes().to_vec(),
        _ => vec![value as u8],
    };
    values.iter().flat_map(bytes).collect()
}

fn safetensors(specs: &[Spec<'_>]) -> Vec<u8> {
    let data: Vec<_> = specs.iter().map(|spec| encode(spec.1, spec.3)).collect();
    let views = specs.iter().zip(&data).map(|(&(name, dtype, shape, _), data)| {
        (name, TensorView::new(dtype, shape.to_vec(), data).unwrap())
    });
    safetensors::serialize(views, None).unwrap()
}

/// A model folder with these files and a small `config.json`.
fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let config = json!({"architectures": ["LlamaForCausalLM"], "eos_token_id": 2});
    fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    for (name, content) in files {
        fs::write(dir.path().join(name), content).unwrap();
    }
    dir
}

fn single(specs: &[Spec<'_>]) -> TempDir {
    folder(&[("model.safetensors", &safetensors(specs))])
}

/// Every CPU device that is compiled in.
fn devices() -> Vec<Device> {
    vec![
        #[cfg(feature = "flex")]
        Device::flex(),
        #[cfg(feature = "ndarray")]
        #[allow(deprecated, reason = "the backend is kept as long as Burn has it")]
        Device::ndarray(),
    ]
}

fn values<const D: usize>(tensor: burn::tensor::Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec_as::<f32>().unwrap()
}

/// Loads a checkpoint in f32 on the first device and returns the report.
fn report(dir: &TempDir, load: impl FnOnce(&mut Loader<'_>)) -> WeightReport {
    report_as(dir, DType::F32, load)
}

fn report_as(dir: &TempDir, dtype: DType, load: impl FnOnce(&mut Loader<'_>)) -> WeightReport {
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let mut progress = |_, _| ();
    let mut loader = checkpoint.loader(&devices()[0], dtype, &mut progress).unwrap();
    load(&mut loader);
    match loader.finish() {
        Ok(()) => WeightReport::default(),
        Err(Error::Weights(report)) => *report,
        Err(error) => panic!("{error}"),
    }
}

const ONE: Spec<'static> = ("a", Dtype::F32, &[2], &[1.0, 2.0]);

#[test]
fn every_format_loads_as_every_format_on_every_device() {
    let numbers = [1.0, -2.5, 0.0, 4.0, 0.125, 96.0];
    for stored in [Dtype::F32, Dtype::F16, Dtype::BF16] {
        let dir = single(&[("w", stored, &[2, 3], &numbers)]);
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        for device in devices() {
            for target in [DType::F32, DType::F16, DType::BF16] {
                let mut progress = |_, _| ();
                let loader = checkpoint.loader(&device, target, &mut progress);
                if !device.supports_dtype(target) {
                    assert!(matches!(loader, Err(Error::UnsupportedDtype { .. })));
                    continue;
                }
                let mut loader = loader.unwrap();
                let tensor = loader.tensor("w", [2, 3]);
                loader.finish().unwrap();
                assert_eq!((tensor.dtype(), tensor.dims()), (target, [2, 3]));
                assert_eq!(values(tensor), numbers, "{stored} as {target:?} on {device:?}");
            }
        }
    }
}

#[test]
fn single_tensors_may_have_another_format() {
    let dir = single(&[("norm", Dtype::BF16, &[2], &[1.5, 2.5]), ("w", Dtype::BF16, &[1, 1], &[3.0])]);
    let report = report_as(&dir, DType::BF16, |loader| {
        assert_eq!(loader.tensor_as("norm", [2], DType::F32).dtype(), DType::F32);
        assert_eq!(loader.tensor("w", [1, 1]).dtype(), DType::BF16);
    });
    assert!(report.is_empty());
}

#[test]
fn progress_ends_at_the_total() {
    let dir = single(&[ONE, ("b", Dtype::F16, &[3], &[0.0; 3]), ("x.inv_freq", Dtype::F32, &[1], &[0.0])]);
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    assert_eq!(checkpoint.weight_bytes(), 18);
    let mut steps = Vec::new();
    let mut progress = |loaded, total| steps.push((loaded, total));
    let mut loader = checkpoint.loader(&devices()[0], DType::F32, &mut progress).unwrap();
    loader.ignore(|name| name.ends_with(".inv_freq"));
    loader.tensor("a", [2]);
    loader.tensor("b", [3]);
    loader.tensor("a", [2]);
    loader.finish().unwrap();
    assert_eq!(steps, [(8, 14), (14, 14), (14, 14)]);
}

#[test]
fn all_mismatches_are_reported_at_once() {
    let dir = single(&[
        ONE,
        ("module.model.layers.0.weight", Dtype::F32, &[1], &[0.0]),
        ("quantised", Dtype::I8, &[2], &[1.0, 2.0]),
        ("shape", Dtype::F32, &[2, 1], &[0.0; 2]),
    ]);
    let report = report(&dir, |loader| {
        assert_eq!(values(loader.tensor("a", [2])), [1.0, 2.0]);
        assert_eq!(loader.tensor("model.layers.0.weight", [1, 3]).dims(), [1, 3]);
        assert_eq!(loader.tensor("shape", [3, 2]).dims(), [3, 2]);
        assert_eq!(loader.tensor("quantised", [2]).dims(), [2]);
        // From the first problem on, placeholders take the place of the data.
        assert_eq!(values(loader.tensor("a", [2])), [0.0, 0.0]);
    });
    let text = report.to_string();
    let expected = [
        "tensor `model.layers.0.weight` is missing (the file has `module.model.layers.0.weight`)",
        "tensor `shape` has shape [2, 1], expected [3, 2]",
        "tensor `quantised` is stored as I8, not as F32, F16 or BF16",
        "tensor `module.model.layers.0.weight` is not used by the model",
    ];
    let lines: Vec<&str> = text.lines().skip(1).map(str::trim).collect();
    assert_eq!(lines, expected);
}

#[test]
fn unused_tensors_alone_are_an_error() {
    let dir = single(&[ONE, ("extra", Dtype::F32, &[1], &[0.0])]);
    let report = report(&dir, |loader| {
        loader.tensor("a", [2]);
    });
    assert_eq!(report.unused, ["extra"]);
    assert!(Error::Weights(Box::new(report)).hint().is_some());
}

#[test]
fn all_tensors_that_are_not_finite_are_named() {
    let dir = single(&[
        ("nan", Dtype::BF16, &[3], &[0.0, f32::NAN, 0.0]),
        ("large", Dtype::F32, &[2], &[0.0, 1e30]),
        ONE,
    ]);
    let load = |loader: &mut Loader<'_>| {
        loader.tensor("nan", [3]);
        assert_eq!(loader.tensor("large", [2]).dims(), [2]);
        loader.tensor("a", [2]);
    };
    let in_f32 = report(&dir, load);
    let names: Vec<_> = in_f32.non_finite.iter().map(|t| (t.name.as_str(), t.element)).collect();
    assert_eq!(names, [("nan", 1)]);
    let in_f16 = report_as(&dir, DType::F16, load);
    assert_eq!(in_f16.non_finite.len(), 2);
    let text = in_f16.to_string();
    let line = "tensor `large` holds NaN or infinity at element 1 (stored as F32, loaded as f16)";
    assert!(text.contains(line), "{text}");
    assert!(in_f16.hint().unwrap().contains("bf16"));
}

#[cfg(feature = "ndarray")]
#[test]
fn a_format_that_the_device_lacks_is_reported() {
    let dir = single(&[ONE]);
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let mut progress = |_, _| ();
    let device = devices().pop().unwrap();
    let mut loader = checkpoint.loader(&device, DType::F32, &mut progress).unwrap();
    loader.tensor_as("a", [2], DType::BF16);
    let error = loader.finish().unwrap_err().to_string();
    assert!(error.contains("tensor `a` cannot be bf16 on "), "{error}");
}

#[test]
fn tensors_beyond_the_limit_of_the_device_are_named_before_any_is_read() {
    let large: Spec<'_> = ("embed", Dtype::F32, &[3], &[1.0, 2.0, f32::NAN]);
    let report = report(&single(&[ONE, large]), |loader| {
        loader.limit(sparq_core::device::Limits { largest_tensor: Some(8) });
        loader.tensor("embed", [3]);
        loader.tensor("a", [2]);
    });
    let text = report.to_string();
    assert!(text.contains("\n  embed [3] takes 12 bytes, and this device holds at most 8"), "{text}");
    assert!(report.too_large.len() == 1 && report.non_finite.is_empty(), "{text}");
    assert!(report.hint().unwrap().contains("fewer bytes"), "{text}");
}

#[test]
fn headers_are_read_without_the_data() {
    let dir = single(&[ONE, ("b", Dtype::BF16, &[2, 3], &[0.0; 6])]);
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let names: Vec<&str> = checkpoint.tensors().map(|tensor| tensor.name).collect();
    assert_eq!(names, ["a", "b"]);
    let info = checkpoint.tensor_info("b").unwrap();
    assert_eq!((info.shape, info.dtype, info.bytes), (&[2, 3][..], Dtype::BF16, 12));
    assert!(checkpoint.tensor_info("c").is_none());
    assert_eq!(checkpoint.stored_dtype(), DType::BF16);
    assert_eq!(Checkpoint::open(single(&[]).path()).unwrap().stored_dtype(), DType::F32);
}

const SECOND: Spec<'static> = ("b", Dtype::F32, &[1], &[3.0]);

fn index(map: &Value) -> Vec<u8> {
    json!({"metadata": {"total_size": 12}, "weight_map": map}).to_string().into_bytes()
}

#[test]
fn shards_load_by_their_index() {
    let map = index(&json!({"a": "1.safetensors", "b": "2.safetensors"}));
    // The first shard holds a `b` too: the last one counts. Nobody needs `c`, which the index does not list.
    let first = safetensors(&[ONE, ("b", Dtype::F32, &[1], &[9.0]), ("c", Dtype::F32, &[1], &[0.0])]);
    let second = safetensors(&[SECOND]);
    let files: [(&str, &[u8]); 3] =
        [("model.safetensors.index.json", &map), ("1.safetensors", &first), ("2.safetensors", &second)];
    let report = report(&folder(&files), |loader| {
        assert_eq!(values(loader.tensor("a", [2])), [1.0, 2.0]);
        assert_eq!(values(loader.tensor("b", [1])), [3.0]);
    });
    assert!(report.is_empty());
}

#[test]
fn shards_and_index_must_agree() {
    let shard = safetensors(&[ONE]);
    let open = |map: &Value| {
        let map = index(map);
        let dir = folder(&[("model.safetensors.index.json", &map), ("1.safetensors", &shard)]);
        Checkpoint::open(dir.path()).unwrap_err().to_string()
    };
    let missing = open(&json!({"a": "1.safetensors", "b": "2.safetensors", "c": "3.safetensors"}));
    assert!(missing.ends_with("names shards that are missing: 2.safetensors, 3.safetensors"));
    let lacking = open(&json!({"a": "1.safetensors", "b": "1.safetensors"}));
    assert!(lacking.contains("places tensor `b` in shard `1.safetensors`, which does not"));
    let elsewhere = open(&json!({"a": "../1.safetensors"}));
    assert!(elsewhere.contains("index.json` names `../1.safetensors`, which is no file of its own folder"));
    let no_map = folder(&[("model.safetensors.index.json", b"{}")]);
    let error = Checkpoint::open(no_map.path()).unwrap_err().to_string();
    assert!(error.contains("field `weight_map` is missing"), "{error}");
}

#[test]
fn a_tensor_that_only_the_shards_know_is_loaded() {
    let map = index(&json!({"a": "1.safetensors"}));
    let shard = safetensors(&[ONE, SECOND]);
    let files: [(&str, &[u8]); 2] = [("model.safetensors.index.json", &map), ("1.safetensors", &shard)];
    let report = report(&folder(&files), |loader| {
        assert_eq!(values(loader.tensor("a", [2])), [1.0, 2.0]);
        assert_eq!(values(loader.tensor("b", [1])), [3.0]);
    });
    assert!(report.is_empty());
}

#[test]
fn what_a_shard_is_its_own_name_says() {
    let legacy = fs::read(fixture("pytorch/legacy.bin")).unwrap();
    for name in ["model.safetensors.index.json", "pytorch_model.bin.index.json"] {
        let map = index(&json!({"a": "./1.safetensors", "f32": "s/2.bin"}));
        let dir = folder(&[(name, &map), ("1.safetensors", &safetensors(&[ONE]))]);
        fs::create_dir(dir.path().join("s")).unwrap();
        fs::write(dir.path().join("s/2.bin"), &legacy).unwrap();
        let names: Vec<String> = all_tensors(dir.path()).into_iter().map(|(name, ..)| name).collect();
        assert_eq!(names, ["a", "bf16", "f16", "f32", "offset"]);
        fs::remove_file(dir.path().join("s/2.bin")).unwrap();
        let message = Checkpoint::open(dir.path()).unwrap_err().to_string();
        assert!(message.ends_with("names shards that are missing: s/2.bin"), "{message}");
    }
}

/// A copy of a fixture whose tensors have other names, or are left out, with this `architectures`.
fn with_names(family: &str, architecture: &str, renamed: impl Fn(&str) -> Option<String>) -> TempDir {
    let family = fixture("families").join(family);
    let bytes = fs::read(family.join("model.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let views = tensors.iter().filter_map(|(name, view)| Some((renamed(name)?, view)));
    let dir = folder(&[("model.safetensors", &safetensors::serialize(views, None).unwrap())]);
    let config = fs::read(family.join("config.json")).unwrap();
    let mut config: Value = serde_json::from_slice(&config).unwrap();
    config["architectures"] = json!([architecture]);
    fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    dir
}

fn load(dir: &Path) -> Result<()> {
    let checkpoint = Checkpoint::open(dir).unwrap();
    crate::text_model::load_model(&checkpoint, &devices()[0], DType::F32, &mut |_, _| ()).map(drop)
}

#[test]
fn a_checkpoint_of_the_base_model_loads() {
    let without = |prefix: &'static str| move |name: &str| Some(name.strip_prefix(prefix)?.to_owned());
    // Tied to the embeddings, it is the whole model.
    let expected = all_tensors(&fixture("families/llama3_2"));
    for architecture in ["LlamaForCausalLM", "LlamaModel"] {
        let dir = with_names("llama3_2", architecture, without("model."));
        assert_eq!(all_tensors(dir.path()), expected);
        load(dir.path()).unwrap();
    }
    // A name too many is as harmless.
    let twice = with_names("llama3_2", "LlamaForCausalLM", |name| Some(format!("model.{name}")));
    assert_eq!(all_tensors(twice.path()), expected);
    let neox = with_names("gpt_neox", "GPTNeoXModel", |name| {
        Some(name.strip_prefix("gpt_neox.").unwrap_or(name).to_owned())
    });
    assert_eq!(all_tensors(neox.path()), all_tensors(&fixture("families/gpt_neox")));
    load(neox.path()).unwrap();
    // Without its output layer, an untied model is not whole.
    for (family, architecture, prefix, head) in [
        ("llama2", "LlamaModel", "model.", "lm_head"),
        ("gpt_neox", "GPTNeoXModel", "gpt_neox.", "embed_out"),
    ] {
        let error = load(with_names(family, architecture, without(prefix)).path()).unwrap_err();
        assert!(error.to_string().contains(&format!("tensor `{head}.weight` is missing")), "{error}");
        assert!(error.hint().unwrap().contains("without an output layer"), "{:?}", error.hint());
    }
}

#[test]
fn a_prefix_that_does_not_belong_there_is_named() {
    for (family, architecture, prefix) in [
        ("llama3_2", "LlamaForCausalLM", "module."),
        ("gpt_neox", "GPTNeoXForCausalLM", "model."),
        ("llama2", "LlamaForCausalLM", "base_model.model."),
    ] {
        let dir = with_names(family, architecture, |name| Some(format!("{prefix}{name}")));
        let hint = load(dir.path()).unwrap_err().hint().unwrap();
        assert!(hint.contains(&format!("begins with `{prefix}`")), "{hint}");
    }
}

#[test]
fn texts_need_no_weights() {
    let dir = folder(&[]);
    assert!(Checkpoint::open(dir.path()).is_err());
    let checkpoint = Checkpoint::open_without_weights(dir.path()).unwrap();
    assert_eq!(checkpoint.tensors().count(), 0);
    assert!(matches!(checkpoint.tokenizer(), Err(Error::NoTokenizer { .. })));
}

#[test]
fn a_single_file_wins_over_shards_and_the_hint_says_so() {
    let map = index(&json!({"a": "1.safetensors", "b": "1.safetensors"}));
    let (whole, part) = (safetensors(&[ONE, SECOND]), safetensors(&[ONE]));
    let dir = folder(&[
        ("model.safetensors.index.json", &map),
        ("1.safetensors", &whole),
        ("model.safetensors", &part),
    ]);
    let report = report(&dir, |loader| {
        loader.tensor("a", [2]);
        loader.tensor("b", [1]);
    });
    assert_eq!(report.missing[0].name, "b");
    assert!(
        report.hint().unwrap().contains("model.safetensors.index.json` lies beside"),
        "{:?}",
        report.hint()
    );
}

/// What opening a folder with this file fails with, and the hint.
fn refused(name: &str, content: &[u8]) -> (String, String) {
    let error = Checkpoint::open(folder(&[(name, content)]).path()).unwrap_err();
    (error.to_string(), error.hint().unwrap())
}

#[test]
fn damaged_weight_files_are_told_apart() {
    let whole = safetensors(&[ONE]);
    let longer = [&whole[..], &[0; 5]].concat();
    let header = |length: u64, text: &[u8]| [&length.to_le_bytes()[..], text].concat();
    let of = |text: &[u8]| header(text.len() as u64, text);
    for (content, message, hint) in [
        (&whole[..whole.len() - 1], "is cut short: it has", "download it again"),
        (&whole[..20], "is cut short: its header takes", "download it again"),
        (&whole[..3], "is cut short: it has 3 bytes", "download it again"),
        (b"", "is empty", "download it again"),
        (&[0; 64], "nothing but zero bytes", "download it again"),
        (&longer, "goes on for 5 bytes behind its end", "download it again"),
        (&header(101_000_000, b"{}"), "its header would have 101000000 bytes", "download it again"),
        (&header(1_000_000, b"{}"), "is cut short", "download it again"),
        (&header(u64::MAX, b"{}"), "its header would have", "download it again"),
        (&of(b"{\"a\": 1}"), "its header: ", "download it again"),
        (
            &of(b"{\"a\": {\"dtype\": \"F2\", \"shape\": [], \"data_offsets\": [0, 0]}}"),
            "number format that is not known: unknown variant `F2`",
            "F32, F16 or BF16",
        ),
        (b"<!DOCTYPE html><html>", "web page", "download it again"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer", "git lfs pull"),
        (b"GGUF\x03\0\0\0", "GGUF", "GGUF is not read"),
        (b"PK\x03\x04", "as PyTorch saves it", "rename it to pytorch_model.bin"),
        (b"\x80\x02\x8a\x0a", "as PyTorch saves it", "rename it to pytorch_model.bin"),
        (b"{\"error\": \"not found\"}", "is a JSON file, not a safetensors file", "download it again"),
    ] {
        let (said, then) = refused("model.safetensors", content);
        assert!(said.contains("model.safetensors` ") && said.contains(message), "{message}: {said}");
        assert!(then.contains(hint), "{said}: {then}");
    }
}

#[test]
fn a_folder_or_a_link_to_nothing_in_place_of_a_file_is_named() {
    let (weights, small) = (safetensors(&[]), |name| folder(&[(name, b"{}")]));
    for name in ["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"] {
        let dir = small("notes.txt");
        fs::create_dir(dir.path().join(name)).unwrap();
        let message = Checkpoint::open(dir.path()).unwrap_err().to_string();
        assert!(message.ends_with(&format!("{name}` is a folder, not a file")), "{message}");
    }
    for name in ["config.json", "generation_config.json"] {
        let dir = folder(&[("model.safetensors", &weights)]);
        fs::remove_file(dir.path().join(name)).ok();
        fs::create_dir(dir.path().join(name)).unwrap();
        let message = Checkpoint::open(dir.path()).unwrap_err().to_string();
        assert!(message.ends_with(&format!("{name}` is a folder, not a file")), "{message}");
    }
    #[cfg(unix)]
    {
        let dir = small("notes.txt");
        std::os::unix::fs::symlink("../blobs/gone", dir.path().join("model.safetensors")).unwrap();
        let message = Checkpoint::open(dir.path()).unwrap_err().to_string();
        assert!(message.contains("link to a file that is not there"), "{message}");
    }
}

#[test]
fn weights_that_are_cut_while_they_are_loaded_are_an_error() {
    let dir = single(&[ONE, ("b", Dtype::BF16, &[3], &[0.5; 3])]);
    let path = dir.path().join("model.safetensors");
    let length = fs::metadata(&path).unwrap().len();
    let report = report(&dir, |loader| {
        assert_eq!(values(loader.tensor("a", [2])), [1.0, 2.0]);
        fs::File::options().write(true).open(&path).unwrap().set_len(length - 9).unwrap();
        loader.tensor("a", [2]);
        loader.tensor("b", [3]);
    });
    let names: Vec<&str> = report.unreadable.iter().map(|tensor| tensor.name.as_str()).collect();
    assert!(!names.is_empty(), "{report}");
    assert!(report.to_string().contains("the file was cut short while it was read"), "{report}");
    assert!(report.hint().unwrap().contains("download it again"));
}

#[test]
fn quantised_weights_are_named_before_anything_is_loaded() {
    let dir = single(&[("l.weight", Dtype::I8, &[1, 2], &[1.0, 2.0])]);
    let loader = |checkpoint: &Checkpoint| {
        let mut progress = |_, _| ();
        checkpoint.loader(&devices()[0], DType::F32, &mut progress).map(drop)
    };
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let error = loader(&checkpoint).unwrap_err();
    assert!(error.to_string().ends_with("are quantised: int8 (by tensor `l.weight`)"), "{error}");
    let config = json!({"quantization_config": {"quant_method": "gptq", "bits": 4}});
    fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    assert_eq!(checkpoint.quantisation().unwrap().scheme, "gptq");
    let error = loader(&checkpoint).unwrap_err();
    assert!(error.to_string().contains("are quantised: gptq, 4 bits"), "{error}");
    assert!(error.hint().unwrap().contains("use the model that was quantised"));
}

#[test]
fn formats_that_are_no_quantisation_have_hints_of_their_own() {
    let hint = |dtype| {
        let dir = single(&[("a", dtype, &[1], &[1.0])]);
        report(&dir, |loader| drop(loader.tensor("a", [1]))).hint().unwrap()
    };
    assert!(hint(Dtype::U8).contains("not quantised"));
    assert!(hint(Dtype::BOOL).contains("save the model in one of them"));
    let f64 = WeightReport {
        unsupported: vec![Unsupported {
            name: "a".into(),
            stored: Dtype::F64,
            wanted: DType::F32,
            device: None,
        }],
        ..WeightReport::default()
    };
    assert!(f64.hint().unwrap().contains("in F32"));
}

#[test]
fn missing_files_are_named() {
    let error = Checkpoint::open("/nowhere/model").unwrap_err();
    assert!(matches!(error, Error::FolderNotFound { .. }), "{error:?}");
    let dir = folder(&[("consolidated.00.pth", b""), ("notes.txt", b"")]);
    let error = Checkpoint::open(dir.path()).unwrap_err();
    assert!(
        error.to_string().contains("Meta's own layout, which is not read (consolidated.00.pth)"),
        "{error}"
    );
    let empty = folder(&[("notes.txt", b"")]);
    let message = Checkpoint::open(empty.path()).unwrap_err().to_string();
    assert!(message.contains("model.safetensors, ") && message.contains("pytorch_model.bin"), "{message}");
    fs::remove_file(empty.path().join("config.json")).unwrap();
    let error = Checkpoint::open(empty.path()).unwrap_err();
    assert!(
        matches!(error, Error::FileNotFound { .. }) && error.to_string().contains("config.json"),
        "{error}"
    );
    // Without a configuration, what is there says what it is.
    for (name, words) in [("model.gguf", "GGUF"), ("adapter_model.safetensors", "adapter")] {
        fs::write(empty.path().join(name), "").unwrap();
        let message = Checkpoint::open(empty.path()).unwrap_err().to_string();
        assert!(message.contains(words), "{message}");
    }
    let broken = folder(&[("config.json", b"{"), ("model.safetensors", &safetensors(&[]))]);
    let message = Checkpoint::open(broken.path()).unwrap_err().to_string();
    assert!(message.contains("config.json` is cut short"), "{message}");
}

#[test]
fn the_only_weight_file_may_have_any_name() {
    let dir = folder(&[("weights.safetensors", &safetensors(&[ONE])), ("training_args.bin", b"")]);
    let names: Vec<String> = all_tensors(dir.path()).into_iter().map(|(name, ..)| name).collect();
    assert_eq!(names, ["a"]);
}

#[test]
fn configuration_comes_from_both_files() {
    let generation = json!({"eos_token_id": [2, 5], "temperature": 0.5}).to_string();
    let weights = safetensors(&[]);
    let dir = folder(&[("model.safetensors", &weights), ("generation_config.json", generation.as_bytes())]);
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    assert_eq!(checkpoint.architecture().unwrap(), "LlamaForCausalLM");
    assert_eq!(checkpoint.config_json()["eos_token_id"], 2);
    assert_eq!(checkpoint.generation_config().eos_ids(), [2, 5]);
    assert_eq!(checkpoint.generation_config().temperature, Some(0.5));
    let error = checkpoint.tokenizer().unwrap_err();
    assert!(error.to_string().contains("tokenizer.json"), "{error}");
    fs::write(dir.path().join("tokenizer.json"), "{").unwrap();
    let message = checkpoint.tokenizer().unwrap_err().to_string();
    assert!(message.contains("tokenizer.json` is cut short"), "{message}");
}

#[test]
fn embedded_files_open_without_a_folder() {
    let files = StaticFiles {
        config: br#"{"model_type": "llama", "eos_token_id": 7}"#,
        generation_config: None,
        tokenizer: None,
        weights: safetensors(&[ONE]).leak(),
    };
    let checkpoint = Checkpoint::from_static(files).unwrap();
    assert_eq!(checkpoint.architecture().unwrap(), "LlamaForCausalLM");
    assert_eq!(checkpoint.generation_config().eos_ids(), [7]);
    let error = checkpoint.tokenizer().unwrap_err().to_string();
    assert!(error.contains("embedded model/tokenizer.json"), "{error}");
    let mut progress = |_, _| ();
    let mut loader = checkpoint.loader(&devices()[0], DType::F32, &mut progress).unwrap();
    assert_eq!(values(loader.tensor("a", [2])), [1.0, 2.0]);
    loader.finish().unwrap();
    let damaged = StaticFiles { weights: b"", ..files };
    assert!(matches!(Checkpoint::from_static(damaged), Err(Error::File(FileError::Damaged { .. }))));
}

/// The files of `sparq-backend-tests/fixtures`.
fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../sparq-backend-tests/fixtures").join(path)
}

/// A folder with this weight file and a small `config.json`.
fn folder_with(fixture_path: &str, name: &str) -> TempDir {
    folder(&[(name, &fs::read(fixture(fixture_path)).unwrap())])
}

/// Every tensor of `dir` in f32, by name: axes and values.
fn all_tensors(dir: &Path) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let checkpoint = Checkpoint::open(dir).unwrap();
    let read = |tensor: TensorInfo<'_>| {
        let (_, stored) = checkpoint.weights.get(tensor.name).unwrap();
        let format = convert::FloatFormat::of_stored(stored.dtype).unwrap();
        let bytes = checkpoint.weights.bytes(stored).unwrap();
        let to = convert::FloatFormat::F32;
        let data = convert::convert(format, &bytes, tensor.shape, to, &mut |_| ()).unwrap();
        (tensor.name.to_owned(), tensor.shape.to_vec(), data.try_into_vec_as::<f32>().unwrap())
    };
    checkpoint.tensors().map(read).collect()
}

#[test]
fn pytorch_formats_strides_and_offsets_are_those_of_safetensors() {
    let expected = folder_with("pytorch/layouts.safetensors", "model.safetensors");
    let nested = folder_with("pytorch/layouts.pt", "model.pt");
    let tensors = all_tensors(nested.path());
    assert_eq!(tensors.len(), 10);
    assert_eq!(tensors, all_tensors(expected.path()));
    let checkpoint = Checkpoint::open(nested.path()).unwrap();
    let info = |name| checkpoint.tensor_info(name).unwrap();
    assert_eq!((info("f16").dtype, info("bf16").dtype), (Dtype::F16, Dtype::BF16));
    // The optimiser's state beside it holds tensors too.
    assert!(checkpoint.tensors().all(|tensor| !tensor.name.contains("exp_avg")));
    assert_eq!(info("transposed").bytes, 24 * 4);

    let legacy = folder_with("pytorch/legacy.bin", "pytorch_model.bin");
    let names = ["bf16", "f16", "f32", "offset"];
    let expected: Vec<_> = tensors.into_iter().filter(|(name, ..)| names.contains(&name.as_str())).collect();
    assert_eq!(all_tensors(legacy.path()), expected);
}

#[test]
fn pytorch_models_load_like_their_safetensors() {
    let single = folder_with("pytorch/llama3_2.bin", "pytorch_model.bin");
    let mut expected = all_tensors(&fixture("families/llama3_2"));
    let embedding = expected.iter().find(|(name, ..)| name == "model.embed_tokens.weight").unwrap();
    // The tied head under its own name shares the storage of the embedding.
    expected.insert(0, ("lm_head.weight".to_owned(), embedding.1.clone(), embedding.2.clone()));
    assert_eq!(all_tensors(single.path()), expected);
    // The whole model loads: tied, with the head that the file repeats.
    fs::copy(fixture("families/llama3_2/config.json"), single.path().join("config.json")).unwrap();
    let checkpoint = Checkpoint::open(single.path()).unwrap();
    crate::text_model::load_model(&checkpoint, &devices()[0], DType::F32, &mut |_, _| ()).unwrap();

    let shards = all_tensors(shards_in_a_folder(&[]).path());
    assert_eq!(shards, all_tensors(&fixture("families/llama2_sharded")));
}

/// The sharded PyTorch checkpoint without the files named in `leave_out`.
fn shards_in_a_folder(leave_out: &[&str]) -> TempDir {
    let dir = folder(&[]);
    for entry in fs::read_dir(fixture("pytorch/shards")).unwrap() {
        let entry = entry.unwrap();
        if !leave_out.iter().any(|name| entry.file_name() == *name) {
            fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
        }
    }
    dir
}

#[test]
fn pytorch_shards_and_index_must_agree() {
    let dir = shards_in_a_folder(&["pytorch_model-00002-of-00002.bin"]);
    let error = Checkpoint::open(dir.path()).unwrap_err().to_string();
    assert!(error.ends_with("names shards that are missing: pytorch_model-00002-of-00002.bin"), "{error}");
    let dir = shards_in_a_folder(&["pytorch_model.bin.index.json"]);
    let error = Checkpoint::open(dir.path()).unwrap_err();
    assert!(error.hint().unwrap().contains("pytorch_model.bin.index.json"), "{error:?}");
}

#[test]
fn safetensors_win_over_pytorch() {
    let dir = folder_with("pytorch/legacy.bin", "pytorch_model.bin");
    fs::write(dir.path().join("model.safetensors"), safetensors(&[ONE])).unwrap();
    let names: Vec<String> = all_tensors(dir.path()).into_iter().map(|(name, ..)| name).collect();
    assert_eq!(names, ["a"]);
}

/// What the command in `hostile.bin` writes in the working directory of whoever runs it.
const HOSTILE_FILE: &str = "written-by-hostile-pickle";

#[test]
fn a_pickle_that_asks_for_a_call_is_refused_by_name_and_runs_nothing() {
    let dir = folder_with("pytorch/hostile.bin", "pytorch_model.bin");
    let error = Checkpoint::open(dir.path()).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("pytorch_model.bin` asks for `posix.system`"), "{message}");
    assert!(error.hint().unwrap().contains("weights_only=False"));
    assert!(!Path::new(HOSTILE_FILE).exists());
}

#[test]
fn damaged_pytorch_files_are_errors() {
    let whole = fs::read(fixture("pytorch/llama3_2.bin")).unwrap();
    let legacy = fs::read(fixture("pytorch/legacy.bin")).unwrap();
    let safetensors = safetensors(&[ONE]);
    for (damaged, hint) in [
        (&whole[..whole.len() / 2], "download it again"),
        (&whole[..10], "download it again"),
        (&legacy[..legacy.len() - 9], "download it again"),
        (&legacy[..40], "download it again"),
        (b"", "download it again"),
        (b"weights", "download it again"),
        (b"<html>", "download it again"),
        (b"GGUF\x03\0\0\0", "GGUF is not read"),
        (&safetensors, "rename it to model.safetensors"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    ] {
        let (message, then) = refused("pytorch_model.bin", damaged);
        assert!(message.contains("pytorch_model.bin` "), "{message}");
        assert!(then.contains(hint), "{message}: {then}");
        // Nothing is said twice.
        let half = message.len() / 3;
        assert!(!message[half..].contains(&message[..half]), "{message}");
    }
    // One byte of content differs: the archive's checksum tells, at the tensor that is hit.
    let mut flipped = whole.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let dir = folder(&[("pytorch_model.bin", &flipped)]);
    fs::copy(fixture("families/llama3_2/config.json"), dir.path().join("config.json")).unwrap();
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let error = crate::text_model::load_model(&checkpoint, &devices()[0], DType::F32, &mut |_, _| ());
    let error = error.unwrap_err();
    assert!(error.to_string().contains("cannot be read"), "{error}");
    assert!(error.hint().unwrap().contains("download it again"), "{error:?}");
}
