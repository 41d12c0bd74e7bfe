//! The index of a sharded checkpoint: which file holds which tensor.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::error::{FileError, IndexProblem};
use super::json;
use super::names::Format;
use crate::config::ConfigFields;
use crate::error::Result;

/// An index that names files of its own folder only.
#[derive(Debug)]
pub(crate) struct Index {
    path: PathBuf,
    /// Name of the shard by tensor.
    map: BTreeMap<String, String>,
}

impl Index {
    /// Reads the index at `path`, of shards in `format`.
    ///
    /// A shard is named without folders: the name of a file elsewhere would be read as readily as one of the
    /// model. A link in the folder may lead anywhere, as those of the hub's cache do.
    ///
    /// # Errors
    ///
    /// [`FileError::Index`], and those of a JSON file.
    pub(crate) fn read(path: &Path, format: Format) -> Result<Self> {
        let json = json::parse(path, &json::read_if_exists(path)?.unwrap_or_default())?;
        let map: BTreeMap<String, String> = ConfigFields::new(path, &json)?.required("weight_map")?;
        let index = Self { path: path.to_owned(), map };
        if index.map.is_empty() {
            return Err(index.problem(IndexProblem::Empty));
        }
        for shard in index.shards() {
            let shard = shard.to_owned();
            if !is_file_name(&shard) {
                return Err(index.problem(IndexProblem::Outside { shard }));
            }
            if Format::of(&shard) != Some(format) {
                return Err(index.problem(IndexProblem::Kind { shard }));
            }
        }
        Ok(index)
    }

    /// The names of the shards, ascending.
    pub(crate) fn shards(&self) -> BTreeSet<&str> {
        self.map.values().map(String::as_str).collect()
    }

    /// Whether the index knows a tensor of this name.
    pub(super) fn lists(&self, tensor: &str) -> bool {
        self.map.contains_key(tensor)
    }

    /// Checks that all shards are files of the folder `dir`.
    pub(super) fn check_files(&self, dir: &Path) -> Result<()> {
        let missing: Vec<&str> =
            self.shards().into_iter().filter(|shard| !dir.join(shard).is_file()).collect();
        if let Some(folder) = missing.iter().find(|shard| dir.join(shard).is_dir()) {
            return Err(self.problem(IndexProblem::Folder { shard: (*folder).to_owned() }));
        }
        match missing.is_empty() {
            true => Ok(()),
            false => Err(self
                .problem(IndexProblem::Missing { shards: missing.into_iter().map(str::to_owned).collect() })),
        }
    }

    /// Checks that `shard`, which holds the tensors that `holds` knows, has all that are promised of it.
    pub(super) fn check_tensors(&self, shard: &str, holds: impl Fn(&str) -> bool) -> Result<()> {
        let mut promised = self.map.iter().filter(|(_, file)| *file == shard).map(|(tensor, _)| tensor);
        match promised.find(|tensor| !holds(tensor)) {
            None => Ok(()),
            Some(tensor) => {
                Err(self.problem(IndexProblem::Lacks { shard: shard.to_owned(), tensor: tensor.clone() }))
            }
        }
    }

    fn problem(&self, problem: IndexProblem) -> crate::error::Error {
        FileError::Index { index: self.path.clone(), problem }.into()
    }
}

/// Whether a name is that of a file beside the one that names it, on every system.
fn is_file_name(name: &str) -> bool {
    !name.is_empty() && !matches!(name, "." | "..") && !name.contains(['/', '\\', '\0', ':'])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(map: serde_json::Value) -> Result<Index> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors.index.json");
        std::fs::write(&path, json!({"metadata": {}, "weight_map": map}).to_string()).unwrap();
        Index::read(&path, Format::Safetensors)
    }

    #[test]
    fn only_files_of_the_same_folder_are_shards() {
        let index = read(json!({"a": "2.safetensors", "b": "1.safetensors", "c": "2.safetensors"})).unwrap();
        assert_eq!(index.shards().into_iter().collect::<Vec<_>>(), ["1.safetensors", "2.safetensors"]);
        assert!(index.lists("c") && !index.lists("d"));
        for outside in [
            "/etc/passwd",
            "../1.safetensors",
            "sub/1.safetensors",
            "./1.safetensors",
            "..",
            ".",
            "",
            "a\0b",
            "c:\\1.safetensors",
            "sub\\1.safetensors",
            "\u{1b}[31m/x",
        ] {
            let error = read(json!({"a": outside})).unwrap_err();
            let message = error.to_string();
            assert!(message.contains("model.safetensors.index.json` names"), "{message}");
            assert!(
                message.contains("no file of its own folder") && !message.contains('\u{1b}'),
                "{message}"
            );
            assert!(error.hint().unwrap().contains("without folders"), "{message}");
        }
        for other in ["config.json", "model.safetensors.index.json", "pytorch_model.bin"] {
            let message = read(json!({"a": other})).unwrap_err().to_string();
            assert!(message.contains(&format!("names `{other}` as a shard")), "{message}");
        }
    }

    #[test]
    fn an_index_names_tensors() {
        let empty = read(json!({})).unwrap_err();
        assert!(empty.to_string().contains("names no tensors"), "{empty}");
        assert!(empty.hint().unwrap().contains("download it again"));
        for (map, words) in
            [(json!(null), "is missing"), (json!([]), "weight_map"), (json!({"a": 1}), "weight_map")]
        {
            let message = read(map).unwrap_err().to_string();
            assert!(message.contains(words), "{message}");
        }
    }
}
