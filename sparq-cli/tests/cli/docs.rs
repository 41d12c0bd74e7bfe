//! Tables of the documentation that follow from the code.
//!
//! `SPARQ_UPDATE_DOCS=1 cargo test …` writes them instead of comparing.

use std::{
    collections::BTreeSet,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use crate::common::sparq;
use safetensors::SafeTensors;
use sparq_models::{
    attention::{CLASHES, KEYS, MethodSpec, RATIO},
    checkpoint::Checkpoint,
    config::KeyUse,
    core::MethodKind,
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

#[test]
fn the_table_of_keys_is_up_to_date() {
    let code = |names: &[&str]| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let sparse = &MethodKind::ALL[1..];
    let names = |methods: &[MethodKind]| match methods == sparse {
        true => "all but `dense`".to_owned(),
        false => code(&methods.iter().map(|kind| kind.name()).collect::<Vec<_>>()),
    };
    let vain = |option: &str| {
        let clashes = CLASHES.iter().filter(|clash| clash.option == option);
        let clashes: Vec<String> = clashes.map(|clash| code(clash.beside).replace(", ", " and ")).collect();
        if clashes.is_empty() { "–".to_owned() } else { clashes.join("; ") }
    };
    let mut table =
        "| key | values | meaning | methods | refused beside |\n|---|---|---|---|---|\n".to_owned();
    let mut row = |key: &str, values: &str, doc: &str, methods: &[MethodKind], option: &str| {
        let (methods, vain) = (names(methods), vain(option));
        writeln!(table, "| `{key}` | {values} | {doc} | {methods} | {vain} |").unwrap();
    };
    let ratio = "dense elements over elements moved; 8 by default";
    row("@RATIO", "a number of at least 1", ratio, sparse, RATIO);
    for key in KEYS {
        row(key.name(), &key.values(), key.doc(), key.methods(), key.name());
    }
    compare("methods.md", "keys", &table);
}

/// `--help` of each command that takes a method has a line for each key, as the page has a row.
#[test]
fn the_help_of_attention_has_every_key() {
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    for command in [&["generate"][..], &["chat"], &["eval"], &["bench"], &["bench", "attention"]] {
        let output = sparq().args(command).arg("--help").output().unwrap();
        let help = words(&String::from_utf8(output.stdout).unwrap());
        for kind in MethodKind::ALL {
            assert!(help.contains(kind.name()), "{kind} in {help}");
        }
        for key in KEYS {
            let doc = words(&key.doc().replace('`', ""));
            let value = if key.words().is_empty() { "N".to_owned() } else { key.words().join("|") };
            let line = format!("- {}={value}: {doc}", key.name());
            assert!(help.contains(&line), "{line} in {help}");
        }
        for shown in ["--attention <METHOD", "--profile <FILE>"] {
            assert!(help.contains(shown) || command == ["bench", "attention"], "{shown} in {help}");
        }
    }
}

/// The examples of the page are notations, and it names every method.
#[test]
fn the_page_on_methods_names_them_all() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/methods.md")).unwrap();
    for kind in MethodKind::ALL {
        assert!(page.contains(&format!("| `{kind}` |")), "a row for {kind}");
    }
    let quoted = page.split('`').skip(1).step_by(2);
    let is_notation = |text: &&str| {
        let name = text.split(['@', ':']).next().unwrap_or_default();
        text.len() > name.len() && MethodKind::ALL.iter().any(|kind| kind.name() == name)
    };
    let notations: Vec<&str> = quoted.filter(is_notation).collect();
    assert!(notations.len() >= 3, "{notations:?}");
    let wrong: Vec<_> = notations.into_iter().filter(|text| MethodSpec::parse(text).is_err()).collect();
    assert_eq!(wrong, [""; 0]);
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
