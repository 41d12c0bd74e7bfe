use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use clap::{Command, CommandFactory};

use super::Cli;

#[test]
fn the_definition_is_consistent() {
    Cli::command().debug_assert();
}

/// The flags of every command, by the words that run it: those that `--help` shows, and those that it hides.
fn flags(command: &Command, name: &str, all: &mut BTreeMap<String, [BTreeSet<String>; 2]>) {
    let [shown, hidden] = all.entry(name.to_owned()).or_default();
    for arg in command.get_arguments() {
        let visible = arg.get_long_and_visible_aliases().unwrap_or_default();
        let known = [visible.clone(), arg.get_all_aliases().unwrap_or_default()].concat();
        if !arg.is_hide_set() {
            shown.extend(visible.into_iter().map(str::to_owned));
        }
        hidden.extend(known.into_iter().filter(|&name| !shown.contains(name)).map(str::to_owned));
    }
    for command in command.get_subcommands() {
        flags(command, &format!("{name} {}", command.get_name()), all);
    }
}

fn files(folder: &Path, all: &mut Vec<PathBuf>) {
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        match path.is_dir() {
            true => files(&path, all),
            false => all.push(path),
        }
    }
}

/// What in `text` begins with two dashes, without them, beside the line that it is in.
fn flags_in(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let end = |c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    text.lines().flat_map(move |line| {
        let parts = line.split("--").skip(1);
        parts.map(move |part| (part.split(end).next().unwrap_or_default(), line))
    })
}

/// Flags of before still work, but nothing tells of them.
#[test]
fn pages_scripts_and_hints_name_the_flags_of_today() {
    let mut commands = BTreeMap::new();
    flags(&Cli::command(), "sparq", &mut commands);
    let is_hidden = |flag: &str| commands.values().any(|[_, hidden]| hidden.contains(flag));
    for known in ["sparq-rank", "k-index", "methods", "compression", "ranks", "top-ks"] {
        assert!(is_hidden(known), "{known} was hidden");
    }
    // A name that is another command's flag of today may stand beside that command.
    let shown_by = |flag: &str, line: &str| {
        commands.iter().any(|(name, [shown, _])| line.contains(name.as_str()) && shown.contains(flag))
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut pages = vec![root.join("README.md"), root.join("sparq-cli/src/hint.rs")];
    for folder in ["docs", ".ci", "sparq-cli/demo"] {
        files(&root.join(folder), &mut pages);
    }
    let mut wrong = vec![];
    for page in pages.iter().filter(|page| page.extension().is_none_or(|kind| kind != "json")) {
        // Models and other files of bytes name no flags.
        let Ok(text) = fs::read_to_string(page) else { continue };
        let old = flags_in(&text).filter(|(flag, line)| is_hidden(flag) && !shown_by(flag, line));
        wrong.extend(old.map(|(flag, line)| format!("{}: --{flag} in {line}", page.display())));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
