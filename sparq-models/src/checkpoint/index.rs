//! The index of a sharded checkpoint: which file holds which tensor.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::error::{FileError, IndexProblem};
use super::json;
use super::names::Format;
use crate::config::ConfigFields;
use crate::error::Result;

/// An index that names files of its own folder, and of folders within, only.
#[derive(Debug)]
pub(crate) struct Index {
    path: PathBuf,
    /// Name of the shard by tensor.
    map: BTreeMap<String, String>,
    /// The format of each shard.
    shards: BTreeMap<String, Format>,
}

impl Index {
    /// Reads the index at `path`. What a shard's name ends with says what it is, whatever the index is called.
    ///
    /// A shard lies beside the index or further within: the name of a file elsewhere would be read as readily
    /// as one of the model. A link in the folder may lead anywhere, as those of the hub's cache do.
    ///
    /// # Errors
    ///
    /// [`FileError::Index`], and those of a JSON file.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let json = json::parse(path, &json::read_if_exists(path)?.unwrap_or_default())?;
        let map: BTreeMap<String, String> = ConfigFields::new(path, &json)?.required("weight_map")?;
        let mut index = Self { path: path.to_owned(), map, shards: BTreeMap::new() };
        if index.map.is_empty() {
            return Err(index.problem(IndexProblem::Empty));
        }
        for shard in index.map.values_mut() {
            match inside(shard) {
                Some(plain) => *shard = plain,
                None => {
                    let shard = shard.clone();
                    return Err(index.problem(IndexProblem::Outside { shard }));
                }
            }
        }
        for shard in index.map.values() {
            let Some(format) = Format::of(shard) else {
                return Err(index.problem(IndexProblem::Kind { shard: shard.clone() }));
            };
            index.shards.insert(shard.clone(), format);
        }
        Ok(index)
    }

    /// The shards by name, ascending, each with its format. A `/` divides folders.
    pub(crate) fn shards(&self) -> impl Iterator<Item = (&str, Format)> {
        self.shards.iter().map(|(shard, format)| (shard.as_str(), *format))
    }

    /// Whether the index knows a tensor of this name.
    pub(super) fn lists(&self, tensor: &str) -> bool {
        self.map.contains_key(tensor)
    }

    /// Checks that all shards are files of the folder `dir`.
    pub(super) fn check_files(&self, dir: &Path) -> Result<()> {
        let missing: Vec<&str> =
            self.shards.keys().map(String::as_str).filter(|shard| !dir.join(shard).is_file()).collect();
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

/// The path `name` without its `.`, where it leads to a file beside the one that names it or in a folder there,
/// on every system.
fn inside(name: &str) -> Option<String> {
    let is_plain = |part: &&str| {
        !part.is_empty() && *part != ".." && !part.contains(['\\', ':']) && !part.contains(char::is_control)
    };
    let parts: Vec<&str> = name.split('/').collect();
    let is_file = parts.iter().all(is_plain) && parts.last() != Some(&".");
    is_file.then(|| parts.into_iter().filter(|part| *part != ".").collect::<Vec<_>>().join("/"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(map: serde_json::Value) -> Result<Index> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors.index.json");
        std::fs::write(&path, json!({"metadata": {}, "weight_map": map}).to_string()).unwrap();
        Index::read(&path)
    }

    #[test]
    fn only_files_within_the_same_folder_are_shards() {
        let index = read(json!({"a": "2.safetensors", "b": "1.safetensors", "c": "2.safetensors"})).unwrap();
        assert_eq!(
            index.shards().map(|(name, _)| name).collect::<Vec<_>>(),
            ["1.safetensors", "2.safetensors"]
        );
        assert!(index.lists("c") && !index.lists("d"));
        for outside in [
            "/etc/passwd",
            "../1.safetensors",
            "sub/../../1.safetensors",
            "sub/..",
            "sub//1.safetensors",
            "sub/.",
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
            assert!(error.hint().unwrap().contains("or in folders there"), "{message}");
        }
        let within =
            json!({"a": "./1.safetensors", "b": "sub/./x/2.bin", "c": "1.safetensors", "d": ".a.pt"});
        let index = read(within).unwrap();
        let shards: Vec<_> = index.shards().collect();
        let expected = [
            (".a.pt", Format::Pytorch),
            ("1.safetensors", Format::Safetensors),
            ("sub/x/2.bin", Format::Pytorch),
        ];
        assert_eq!(shards, expected);
        for other in ["config.json", "model.safetensors.index.json", "sub/weights"] {
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
