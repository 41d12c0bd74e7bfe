#!/usr/bin/env bash
# minijinja (Rust): `continue` inside of a `set` block loses the rest of the output, without an error.
#
# With the feature `loop_controls` a loop may be left from within `{% set x %}…{% endset %}`. The text that the block
# was collecting stays collected: all that the template writes afterwards goes there too, and never comes out. Jinja2
# drops the block and writes the rest. Templates of chat models have both statements.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet jinja2==3.1.6
cat >template.txt <<'TEMPLATE'
{% for n in [1, 2, 3] %}{% set x %}{% if n == 2 %}{% continue %}{% endif %}{% endset %}{{ n }};{% endfor %}end
TEMPLATE
mkdir -p src
cat >Cargo.toml <<'TOML'
[package]
name = "show"
version = "0.0.0"
edition = "2021"

[dependencies]
minijinja = { version = "=3.1.0", features = ["loop_controls"] }
TOML
cat >src/main.rs <<'RUST'
fn main() {
    let template = std::fs::read_to_string("template.txt").unwrap();
    println!("{}", minijinja::Environment::new().render_str(template.trim_end(), ()).unwrap());
}
RUST
CARGO_TARGET_DIR="$folder/target" cargo run --quiet >minijinja.txt
venv/bin/python - >jinja2.txt <<'PYTHON'
import jinja2

template = open("template.txt").read().rstrip()
print(jinja2.Environment(extensions=["jinja2.ext.loopcontrols"]).from_string(template).render())
PYTHON
echo "minijinja 3.1.0: $(cat minijinja.txt)"
echo "jinja2 3.1.6:    $(cat jinja2.txt)"
[ "$(cat minijinja.txt)" = "1;" ] && [ "$(cat jinja2.txt)" = "1;3;end" ] || { echo "changed"; exit 1; }
