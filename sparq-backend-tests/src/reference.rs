//! The vectors of the authors' published code: one decode step each, in `attention/*.safetensors`.
//!
//! They lie in `fixtures/`; the environment variable `SPARQ_REFERENCE_DIR` names another folder of
//! the same form.

use std::{collections::HashMap, fs, path::PathBuf};

use burn::tensor::{DType, Device};
use safetensors::SafeTensors;
use serde::Deserialize;
use sparq_core::{AttentionShape, NewTokens, SparqConfig};

use crate::{
    problem::{Path, Problem},
    suite::every,
    tolerance::{Tolerance, assert_close},
};

/// Folder of reference files.
pub fn folder() -> PathBuf {
    match std::env::var_os("SPARQ_REFERENCE_DIR") {
        Some(folder) => folder.into(),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures"),
    }
}

/// One case of a file; other methods than SparQ carry other fields (see [`crate::methods`]).
#[derive(Debug, Deserialize)]
struct Case {
    method: String,
    key: String,
    rank: Option<usize>,
    k: Option<usize>,
    local_k: Option<usize>,
    reallocate_to_mean_value: Option<bool>,
}

impl Case {
    /// The authors' code counts the current token apart: one more everywhere.
    fn sparq(&self, shape: &AttentionShape) -> Option<SparqConfig> {
        Some(SparqConfig {
            local_window: self.local_k? + 1,
            mean_value: self.reallocate_to_mean_value?,
            ..SparqConfig::new(shape, self.rank?, self.k? + 1)
        })
    }
}

/// Every dense case through the default bodies, and in f32 every SparQ case, with the same kept
/// positions.
pub fn attention_through_the_oracle(device: &Device, row: Tolerance) {
    attention(Path::Oracle, device, row);
}

/// The same through the operations of the product.
pub fn attention_through_the_product(device: &Device, row: Tolerance) {
    attention(Path::Product, device, row);
}

/// The files of the authors' attention cases.
fn files() -> Vec<PathBuf> {
    let folder = folder().join("attention");
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("a readable folder").path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "safetensors"));
    files.sort();
    files
}

/// The problem of each file, with its SparQ configurations.
pub(crate) fn sparq_problems() -> Vec<(String, Problem, Vec<SparqConfig>)> {
    let read = |file: &PathBuf| {
        let bytes = fs::read(file).expect("a readable file");
        let (_, header) = SafeTensors::read_metadata(&bytes).expect("a safetensors header");
        let metadata = header.metadata().as_ref().expect("metadata").clone();
        let tensors = SafeTensors::deserialize(&bytes).expect("a safetensors file");
        let cases: Vec<Case> = serde_json::from_str(&metadata["cases"]).expect("a list of cases");
        let problem = read_problem(&metadata, &tensors);
        let of_sparq = cases.iter().filter(|case| case.method == "sparq");
        let configs = of_sparq.filter_map(|case| case.sparq(&problem.shape)).collect();
        let name = file.file_stem().expect("a file").to_string_lossy().into_owned();
        (name, problem, configs)
    };
    files().iter().map(read).collect()
}

fn attention(path: Path, device: &Device, row: Tolerance) {
    // The oracle is Burn's operations, many small ones; on a slow device the kernels get the time.
    let files: Vec<PathBuf> = every(if path == Path::Oracle { 8 } else { 1 }, files()).collect();
    let mut cases = 0;
    for file in &files {
        cases += run_file(file, path, device, row);
    }
    let least = files.len() * if row.dtype == DType::F32 { 2 } else { 1 };
    assert!(cases >= least, "{cases} cases in {} files of {}", files.len(), folder().display());
}

/// Runs the dense and SparQ cases of one file; returns their number.
fn run_file(file: &PathBuf, path: Path, device: &Device, row: Tolerance) -> usize {
    let name = file.file_stem().expect("a file").to_string_lossy().into_owned();
    let bytes = fs::read(file).expect("a readable file");
    let (_, header) = SafeTensors::read_metadata(&bytes).expect("a safetensors header");
    let metadata = header.metadata().as_ref().expect("metadata").clone();
    let tensors = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let problem = read_problem(&metadata, &tensors);
    let pads = ints(&tensors, "padding");

    let output = problem.dense(path, row.dtype, device);
    let what = format!("{name} dense {:?}", row.dtype);
    assert_close(&output, &floats(&tensors, "dense.output"), row.reference, &what);
    let mut done = 1;
    if row.dtype != DType::F32 {
        return done; // the rounding of stored keys may tip a selection
    }
    let cases: Vec<Case> = serde_json::from_str(&metadata["cases"]).expect("a list of cases");
    for case in cases.iter().filter(|case| case.method == "sparq") {
        let config = case.sparq(&problem.shape).expect("all fields of a SparQ case");
        let solution = problem.sparq(path, config, row.dtype, device);
        let what = format!("{name} {} {config:?}", case.key);
        assert_close(
            &solution.output,
            &floats(&tensors, &format!("{}.output", case.key)),
            row.reference,
            &what,
        );
        let expected = kept(&tensors, &case.key, &pads, problem.shape.kv_heads);
        assert_eq!(solution.positions, expected, "{what}: kept positions");
        done += 1;
    }
    done
}

pub(crate) fn read_problem(metadata: &HashMap<String, String>, tensors: &SafeTensors<'_>) -> Problem {
    let number = |key: &str| metadata[key].parse::<usize>().expect("a number");
    let pads: Vec<usize> = ints(tensors, "padding").iter().map(|&pad| pad as usize).collect();
    Problem {
        shape: AttentionShape {
            heads: number("heads"),
            kv_heads: number("kv_heads"),
            head_dim: number("head_dim"),
        },
        window: None,
        softcap: None,
        scale: None,
        tokens: NewTokens::left_padded(number("seq"), &pads).expect("padding within the sequence"),
        q: floats(tensors, "query"),
        k: floats(tensors, "key"),
        v: floats(tensors, "value"),
    }
}

/// Kept positions per sequence and KV head, ascending, counted from the first real token. Where a
/// sequence is shorter than `k + 1`, the files fill up with masked positions of no weight.
fn kept(tensors: &SafeTensors<'_>, key: &str, pads: &[i32], kv_heads: usize) -> Vec<Vec<usize>> {
    let name = format!("{key}.indices");
    let count = tensors.tensor(&name).expect("indices").shape()[2];
    let rows = ints(tensors, &name);
    let row = |(head, row): (usize, &[i32])| {
        let pad = pads[head / kv_heads];
        let mut live: Vec<usize> = row.iter().filter(|&&p| p >= pad).map(|&p| (p - pad) as usize).collect();
        live.sort_unstable();
        live
    };
    rows.chunks(count).enumerate().map(row).collect()
}

/// Values of an f32 tensor.
pub fn floats(tensors: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let view = tensors.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}"));
    view.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

/// Values of an i32 tensor.
pub fn ints(tensors: &SafeTensors<'_>, name: &str) -> Vec<i32> {
    let view = tensors.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}"));
    view.data().as_chunks::<4>().0.iter().map(|bytes| i32::from_le_bytes(*bytes)).collect()
}
