//! Which files of a repository make a model folder.

use std::{fs, path::Path};

use super::{HubError, ModelName, Result, mark};
use crate::checkpoint::{
    Lack,
    index::Index,
    names::{self, Layout},
};

/// Small files that are read where they exist, `config.json` first.
const SMALL: &[&str] = &[
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
];

/// The folder of further chat templates.
const TEMPLATES: &str = "additional_chat_templates/";

/// A file that only a copy of the whole repository has.
const WHOLE: &str = ".gitattributes";

/// The small files among `listed`.
pub(super) fn small(listed: &[String]) -> impl Iterator<Item = &str> {
    let known = SMALL.iter().copied().filter(|name| has(listed, name));
    let templates = listed.iter().map(String::as_str).filter(|name| is_template(name));
    known.chain(templates)
}

/// The small files that are not among `listed`.
pub(super) fn absent(listed: &[String]) -> impl Iterator<Item = &'static str> + '_ {
    SMALL.iter().copied().filter(|name| !has(listed, name))
}

fn is_template(name: &str) -> bool {
    let inside = name.strip_prefix(TEMPLATES).and_then(|name| name.strip_suffix(".jinja"));
    inside.is_some_and(|name| !name.is_empty() && !name.contains(['/', '\\']) && !name.starts_with('.'))
}

/// Where the weights are: in a file, or in the shards that it names as their index.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Weights {
    pub(super) file: String,
    pub(super) is_index: bool,
}

/// The weights among `listed`, if that is a model.
///
/// # Errors
///
/// What the repository lacks, before anything of it is fetched.
pub(super) fn required(name: &ModelName, listed: &[String]) -> Result<Weights> {
    let model = || name.to_string();
    let weights = weights(listed);
    if let Err(lack @ Lack::Other { .. }) = weights {
        return Err(HubError::NoWeights { model: model(), lack });
    }
    if !has(listed, "config.json") {
        return Err(HubError::NoFile { model: model(), file: "config.json".to_owned() });
    }
    let weights = weights.map_err(|lack| HubError::NoWeights { model: model(), lack })?;
    if !has(listed, "tokenizer.json") {
        let found = names::OTHER_TOKENIZERS
            .iter()
            .filter(|name| has(listed, name))
            .map(|&name| name.to_owned())
            .collect();
        return Err(HubError::NoTokenizer { model: model(), found });
    }
    Ok(weights)
}

fn weights(listed: &[String]) -> std::result::Result<Weights, Lack> {
    let of_the_top: Vec<String> = listed.iter().filter(|name| !name.contains('/')).cloned().collect();
    match names::choose(&of_the_top) {
        Ok((file, layout)) => Ok(Weights { file, is_index: layout == Layout::Sharded }),
        // Files of other programs often lie in folders.
        Err(Lack::Nothing) => match names::choose(listed) {
            Err(lack) => Err(lack),
            Ok(_) => Err(Lack::Nothing),
        },
        Err(lack) => Err(lack),
    }
}

/// The files of a folder of the cache, without links whose target is gone.
fn listed(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).into_iter().flatten().filter_map(|entry| {
        let name = entry.ok()?.file_name().into_string().ok()?;
        folder.join(&name).exists().then_some(name)
    });
    names.collect()
}

/// The first thing that a folder of the cache lacks to be a model; `None` for a complete one.
pub(super) fn missing(folder: &Path) -> Option<String> {
    let listed = listed(folder);
    if let Some(file) = ["config.json", "tokenizer.json"].into_iter().find(|name| !has(&listed, name)) {
        return Some(file.to_owned());
    }
    match weights(&listed) {
        Err(Lack::NoIndex { index, .. }) => Some(index.to_owned()),
        Err(_) => Some("weights".to_owned()),
        Ok(Weights { is_index: false, .. }) => None,
        Ok(Weights { file, is_index: true }) => match Index::read(&folder.join(&file)) {
            Err(_) => Some(file),
            Ok(index) => {
                let mut shards = index.shards().map(|(shard, _)| shard);
                shards.find(|shard| !folder.join(shard).exists()).map(str::to_owned)
            }
        },
    }
}

/// The first file of a folder of the cache whose content is not what its mark says.
pub(super) fn damaged(folder: &Path) -> Option<String> {
    let is_damaged = |name: &String| {
        let path = folder.join(name);
        let blob = fs::canonicalize(&path).unwrap_or(path);
        let mark = blob.file_name().unwrap_or_default().to_string_lossy().into_owned();
        !blob.is_file()
            || mark::Kind::of(&mark) == mark::Kind::Sha256 && !mark::fits(&blob, &mark).unwrap_or(false)
    };
    let mut files = listed(folder);
    if let Ok(Weights { file, is_index: true }) = weights(&files)
        && let Ok(index) = Index::read(&folder.join(file))
    {
        // A folder that shards lie in stands for them.
        let inside =
            index.shards().filter_map(|(shard, _)| shard.split_once('/').map(|(top, _)| (top, shard)));
        for (top, shard) in inside {
            files.retain(|name| name != top);
            files.push(shard.to_owned());
        }
    }
    files.into_iter().filter(|name| name != TEMPLATES.trim_end_matches('/')).find(is_damaged)
}

/// The files that models often have, that this folder of the cache lacks, and that nobody asked for: nothing
/// tells whether the model has them.
pub(super) fn never_fetched(folder: &Path) -> Vec<&'static str> {
    let commit = folder.file_name().unwrap_or_default();
    let model = folder.parent().and_then(Path::parent).unwrap_or(folder);
    let is_known =
        |name: &str| folder.join(name).exists() || model.join(".no_exist").join(commit).join(name).exists();
    if folder.join(WHOLE).exists() {
        return Vec::new();
    }
    let mut files: Vec<&'static str> = ["generation_config.json", "tokenizer_config.json"]
        .into_iter()
        .filter(|name| !is_known(name))
        .collect();
    let config = fs::read_to_string(folder.join("tokenizer_config.json")).unwrap_or_default();
    if !config.contains("\"chat_template\"") && !is_known("chat_template.jinja") {
        files.push("chat_template.jinja");
    }
    files
}

fn has(listed: &[String], name: &str) -> bool {
    listed.iter().any(|listed| listed == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(listed: &[&str]) -> Result<Weights> {
        let listed: Vec<String> = listed.iter().map(|&name| name.to_owned()).collect();
        required(&"org/name".parse().unwrap(), &listed)
    }

    #[test]
    fn what_is_no_model_is_refused_before_anything_is_fetched() {
        let index = "model.safetensors.index.json";
        let weights = needs(&["config.json", "tokenizer.json", index, "onnx/model.onnx"]).unwrap();
        assert_eq!(weights, Weights { file: index.to_owned(), is_index: true });
        for (listed, words) in [
            (&["tokenizer.json", "model.safetensors"][..], "config.json"),
            (&["adapter_config.json", "adapter_model.safetensors", "tokenizer.json"], "adapter"),
            (&["config.json", "tokenizer.json", "onnx/model.onnx"], "ONNX"),
            (&["config.json", "tokenizer.json", "sub/model.safetensors"], "no weights"),
            (&["config.json", "tokenizer.model", "model.safetensors"], "tokenizer.model"),
            (&["config.json", "spiece.model", "model.safetensors"], "spiece.model"),
            (&["config.json", "tekken.json", "model.safetensors"], "tekken.json"),
            (&["config.json", "model.safetensors"], "no tokenizer.json"),
        ] {
            let error = needs(listed).unwrap_err();
            assert!(error.to_string().contains(words), "{listed:?}: {error}");
        }
    }

    #[test]
    fn small_files_and_templates_are_fetched() {
        let listed = [
            "README.md",
            "additional_chat_templates/rag.jinja",
            "additional_chat_templates/../x.jinja",
            "config.json",
        ];
        let listed: Vec<String> = listed.iter().map(|&name| name.to_owned()).collect();
        assert_eq!(
            small(&listed).collect::<Vec<_>>(),
            ["config.json", "additional_chat_templates/rag.jinja"]
        );
        assert!(absent(&listed).any(|name| name == "generation_config.json"));
    }

    #[test]
    fn a_folder_with_shards_is_complete_with_all_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        assert_eq!(missing(folder.path()).as_deref(), Some("config.json"));
        write("config.json", "{}");
        assert_eq!(missing(folder.path()).as_deref(), Some("tokenizer.json"));
        write("tokenizer.json", "{}");
        assert_eq!(missing(folder.path()).as_deref(), Some("weights"));
        write(
            "model.safetensors.index.json",
            r#"{"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}"#,
        );
        write("1.safetensors", "");
        assert_eq!(missing(folder.path()).as_deref(), Some("2.safetensors"));
        write("2.safetensors", "");
        assert_eq!(missing(folder.path()), None);
        write("model.safetensors.index.json", r#"{"weight_map": {"a": "./1.safetensors", "b": "s/3.bin"}}"#);
        assert_eq!(missing(folder.path()).as_deref(), Some("s/3.bin"));
        fs::create_dir(folder.path().join("s")).unwrap();
        assert_eq!(missing(folder.path()).as_deref(), Some("s/3.bin"));
        write("s/3.bin", "");
        assert_eq!((missing(folder.path()), damaged(folder.path())), (None, None));
        write("model.safetensors.index.json", r#"{"weight_map": {"a": "../1.safetensors"}}"#);
        assert_eq!(missing(folder.path()).as_deref(), Some("model.safetensors.index.json"));
    }

    #[test]
    fn what_was_never_asked_for_is_known() {
        let model = tempfile::tempdir().unwrap();
        let folder = model.path().join("snapshots/0123");
        let absent = model.path().join(".no_exist/0123");
        for folder in [&folder, &absent] {
            fs::create_dir_all(folder).unwrap();
        }
        assert_eq!(
            never_fetched(&folder),
            ["generation_config.json", "tokenizer_config.json", "chat_template.jinja"]
        );
        fs::write(absent.join("generation_config.json"), "").unwrap();
        assert_eq!(never_fetched(&folder), ["tokenizer_config.json", "chat_template.jinja"]);
        fs::write(folder.join("tokenizer_config.json"), r#"{"chat_template": ""}"#).unwrap();
        assert_eq!(never_fetched(&folder), [""; 0]);
        fs::remove_dir_all(&absent).unwrap();
        fs::write(folder.join(WHOLE), "").unwrap();
        assert_eq!(never_fetched(&folder), [""; 0]);
    }
}
