//! Tables of the documentation that follow from the code.
//!
//! `SPARQ_UPDATE_DOCS=1 cargo test …` writes them instead of comparing.

use std::{
    collections::BTreeSet,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use safetensors::SafeTensors;
use sparq_models::{
    checkpoint::Checkpoint,
    config::KeyUse,
    inspect::Inspection,
    models::{architectures, config_keys},
};

#[test]
fn the_table_of_architectures_is_up_to_date() {
    let mut table = "| family | architecture | examples |\n|---|---|---|\n".to_owned();
    for architecture in architectures() {
        let examples: Vec<String> = architecture.examples.iter().map(|name| format!("`{name}`")).collect();
        let (family, name) = (architecture.family, architecture.name);
        writeln!(table, "| {family} | `{name}` | {} |", examples.join(", ")).unwrap();
    }
    compare("models.md", "architectures", &table);
}

#[test]
fn the_table_of_checked_checkpoints_is_up_to_date() {
    let mut table =
        "| checkpoint | architecture | query heads × size, key/value heads | window | rotary scaling |\n\
                     |---|---|---|---|---|\n"
            .to_owned();
    for folder in checkpoints_with_greedy_tokens() {
        let model = Inspection::new(&Checkpoint::open(&folder).unwrap()).unwrap();
        let shape = model.sizes.attention_shape().unwrap();
        let window = model.sizes.sliding_window_tokens.map_or("–".into(), |tokens| tokens.to_string());
        let scaling: Vec<&str> = model.rope.iter().map(|rope| rope.scaling.as_str()).collect();
        let scaling = match scaling.is_empty() {
            true => "none".to_owned(),
            false => scaling.join(", ").replace("default", "none"),
        };
        writeln!(
            table,
            "| `{}` | `{}` | {} × {}, {} | {window} | {scaling} |",
            folder.file_name().unwrap().to_string_lossy(),
            model.architecture,
            shape.heads,
            shape.head_dim,
            shape.kv_heads,
        )
        .unwrap();
    }
    compare("models.md", "checked", &table);
}

#[test]
fn the_table_of_fields_is_up_to_date() {
    let uses = [KeyUse::Used, KeyUse::Refused, KeyUse::Harmless];
    let sets = |name: &str| {
        let keys = config_keys(name).unwrap();
        uses.map(|wanted| {
            let names = keys.iter().filter(|(_, key_use)| *key_use == wanted);
            names.map(|(name, _)| *name).collect::<BTreeSet<_>>()
        })
    };
    let mut common = sets(architectures()[0].name);
    for architecture in architectures() {
        for (common, own) in common.iter_mut().zip(sets(architecture.name)) {
            common.retain(|name| own.contains(name));
        }
    }
    let mut table = "| architecture | used | refused | harmless |\n|---|---|---|---|\n".to_owned();
    let mut row = |name: &str, sets: [BTreeSet<&str>; 3]| {
        let cell =
            |set: BTreeSet<&str>| set.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let [used, refused, harmless] = sets.map(cell);
        writeln!(table, "| {name} | {used} | {refused} | {harmless} |").unwrap();
    };
    row("all", common.clone());
    for architecture in architectures() {
        let mut own = sets(architecture.name);
        for (own, common) in own.iter_mut().zip(&common) {
            own.retain(|name| !common.contains(name));
        }
        row(&format!("`{}`", architecture.name), own);
    }
    compare("models.md", "fields", &table);
}

#[test]
fn the_library_example_of_the_readme_is_one_that_runs() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap();
    let (readme, example) = (read("README.md"), read("sparq-models/examples/complete.rs"));
    let (_, block) = readme.split_once("```rust\n").unwrap();
    let (block, _) = block.split_once("```").unwrap();
    let block = block.replace("\"path/to/model\"", "folder").replace("\"Once upon a time\"", "prompt");
    let example: String = example.lines().map(|line| format!("{}\n", line.trim_start())).collect();
    assert!(
        block.contains("TextModel::open") && example.contains(&block),
        "examples/complete.rs lacks:\n{block}"
    );
}

/// The folders that `fixtures/make.py` wrote, by name.
fn checkpoints_with_greedy_tokens() -> Vec<PathBuf> {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sparq-backend-tests/fixtures/families");
    let folders = fs::read_dir(models).unwrap().map(|entry| entry.unwrap().path());
    let has_greedy_tokens = |folder: &PathBuf| {
        let bytes = fs::read(folder.join("expected.safetensors")).unwrap_or_default();
        SafeTensors::deserialize(&bytes).is_ok_and(|tensors| tensors.tensor("greedy_ids").is_ok())
    };
    let mut folders: Vec<PathBuf> = folders.filter(has_greedy_tokens).collect();
    folders.sort();
    folders
}

/// Compares what stands between `<!-- begin: NAME -->` and `<!-- end: NAME -->` of a page.
fn compare(page: &str, name: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(page);
    let text = fs::read_to_string(&path).unwrap();
    let (begin, end) = (format!("<!-- begin: {name} -->\n\n"), format!("\n<!-- end: {name} -->"));
    let start = text.find(&begin).unwrap_or_else(|| panic!("{page} lacks {begin}")) + begin.len();
    let stop = text[start..].find(&end).unwrap_or_else(|| panic!("{page} lacks {end}")) + start;
    if std::env::var_os("SPARQ_UPDATE_DOCS").is_some() {
        fs::write(&path, [&text[..start], expected, &text[stop..]].concat()).unwrap();
        return;
    }
    assert_eq!(&text[start..stop], expected, "docs/{page} is out of date: SPARQ_UPDATE_DOCS=1 rewrites it");
}
