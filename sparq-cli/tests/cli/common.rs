//! Helpers of the command line tests.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use assert_cmd::Command;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use tempfile::TempDir;

/// The program, away from the settings of whoever runs the tests.
pub(crate) fn sparq() -> Command {
    let mut command = Command::cargo_bin("sparq").unwrap();
    command.env_remove("RUST_LOG").env("NO_COLOR", "1").env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
    command
}

/// The small random Llama of the reference files: three layers, head_dim 16, vocabulary 128.
pub(crate) fn reference_llama() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../sparq-backend-tests/fixtures/models/llama")
}

/// A copy of that model which a test may damage.
pub(crate) fn copy_of_llama() -> TempDir {
    let folder = TempDir::new().unwrap();
    for entry in fs::read_dir(reference_llama()).unwrap() {
        let entry = entry.unwrap();
        fs::write(folder.path().join(entry.file_name()), fs::read(entry.path()).unwrap()).unwrap();
    }
    folder
}

/// The model inside the program as a folder.
pub(crate) fn demo_folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo");
    for name in ["config.json", "generation_config.json", "tokenizer.json", "model.safetensors"] {
        fs::copy(demo.join(name), folder.path().join(name)).unwrap();
    }
    folder
}

/// Rewrites one string of the model's `config.json`.
pub(crate) fn edit_config(folder: &Path, from: &str, to: &str) {
    let path = folder.join("config.json");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{from} in {text}");
    fs::write(path, text.replace(from, to)).unwrap();
}

/// A tensor of a weight file: shape and f32 data.
pub(crate) type Tensors = HashMap<String, (Vec<usize>, Vec<u8>)>;

/// Rewrites the model's weights.
pub(crate) fn edit_weights(folder: &Path, edit: impl FnOnce(&mut Tensors)) {
    let path = folder.join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: Tensors = file
        .iter()
        .map(|(name, view)| (name.to_owned(), (view.shape().to_vec(), view.data().to_vec())))
        .collect();
    edit(&mut tensors);
    let views = tensors
        .iter()
        .map(|(name, (shape, data))| (name, TensorView::new(Dtype::F32, shape.clone(), data).unwrap()));
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}
