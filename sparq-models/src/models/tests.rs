use super::*;

/// The table of the documentation has a line for every architecture.
#[test]
fn the_documentation_lists_every_architecture() {
    let page = include_str!("../../../docs/models.md");
    for Architecture { name, family, examples, .. } in architectures() {
        let examples: Vec<String> = examples.iter().map(|example| format!("`{example}`")).collect();
        let line = format!("| {family} | `{name}` | {} |\n", examples.join(", "));
        assert!(page.contains(&line), "docs/models.md lacks the line\n{line}");
    }
}
