//! Which files of a repository make a model folder.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::Value;

/// Small files that are read where they exist.
const SMALL: &[&str] = &[
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
];

/// Weights by preference: a single file, and the index of several.
const WEIGHTS: &[(&str, &str)] = &[
    ("model.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json"),
];

/// The small files among `listed`, `config.json` first.
pub(super) fn small<'a>(listed: &'a [String]) -> impl Iterator<Item = &'static str> + 'a {
    SMALL.iter().copied().filter(|name| has(listed, name))
}

/// The weights among `listed`: one file, or an index whose shards it names.
pub(super) fn weights(listed: &[String]) -> Option<Weights> {
    let choice = WEIGHTS.iter().find_map(|&(single, index)| {
        let single = has(listed, single).then(|| Weights::Single(single.to_owned()));
        single.or_else(|| has(listed, index).then_some(Weights::Index(index)))
    });
    // Some repositories call their only weight file by another name.
    choice.or_else(|| {
        let other = |suffix: &str| {
            let mut names = listed.iter().filter(|name| name.ends_with(suffix) && !name.contains('/'));
            names.next().filter(|_| names.next().is_none()).cloned()
        };
        [".safetensors", ".bin"].iter().find_map(|suffix| other(suffix)).map(Weights::Single)
    })
}

/// Where the weights are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Weights {
    Single(String),
    Index(&'static str),
}

/// The shards that an index file names, if it is one.
pub(super) fn shards(index: &Path) -> Option<BTreeSet<String>> {
    let json: Value = serde_json::from_slice(&fs::read(index).ok()?).ok()?;
    let map = json.get("weight_map")?.as_object()?;
    // Names become paths in the cache.
    let name = |value: &Value| value.as_str().filter(|name| !name.contains(['/', '\\'])).map(str::to_owned);
    map.values().map(name).collect()
}

/// The first thing that a folder of the cache lacks to be a model; `None` for a complete one.
pub(super) fn missing(folder: &Path) -> Option<String> {
    let names = fs::read_dir(folder).into_iter().flatten().filter_map(|entry| {
        let name = entry.ok()?.file_name().into_string().ok()?;
        // A link whose target is gone does not count.
        folder.join(&name).exists().then_some(name)
    });
    let listed: Vec<String> = names.collect();
    if !has(&listed, "config.json") {
        return Some("config.json".to_owned());
    }
    match weights(&listed) {
        None => Some("weights".to_owned()),
        Some(Weights::Single(_)) => None,
        Some(Weights::Index(index)) => match shards(&folder.join(index)) {
            None => Some(index.to_owned()),
            Some(shards) => shards.into_iter().find(|shard| !has(&listed, shard)),
        },
    }
}

fn has(listed: &[String], name: &str) -> bool {
    listed.iter().any(|listed| listed == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(listed: &[&str]) -> Option<Weights> {
        weights(&listed.iter().map(|&name| name.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn safetensors_are_preferred_and_copies_are_left() {
        let single = |name: &str| Some(Weights::Single(name.to_owned()));
        assert_eq!(choose(&["pytorch_model.bin", "model.safetensors"]), single("model.safetensors"));
        let sharded = ["consolidated.safetensors", "model-1.safetensors", "model.safetensors.index.json"];
        assert_eq!(choose(&sharded), Some(Weights::Index("model.safetensors.index.json")));
        assert_eq!(choose(&["flax_model.msgpack", "pytorch_model.bin"]), single("pytorch_model.bin"));
        assert_eq!(choose(&["weights.safetensors", "onnx/a.safetensors"]), single("weights.safetensors"));
        assert_eq!(choose(&["a.safetensors", "b.safetensors"]), None);
        assert_eq!(choose(&["config.json", "model.gguf"]), None);
    }

    #[test]
    fn a_folder_with_shards_is_complete_with_all_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        assert_eq!(missing(folder.path()).as_deref(), Some("config.json"));
        write("config.json", "{}");
        assert_eq!(missing(folder.path()).as_deref(), Some("weights"));
        write(
            "model.safetensors.index.json",
            r#"{"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}"#,
        );
        write("1.safetensors", "");
        assert_eq!(missing(folder.path()).as_deref(), Some("2.safetensors"));
        write("2.safetensors", "");
        assert_eq!(missing(folder.path()), None);
        write("model.safetensors.index.json", r#"{"weight_map": {"a": "../1.safetensors"}}"#);
        assert_eq!(missing(folder.path()).as_deref(), Some("model.safetensors.index.json"));
    }
}
