#!/usr/bin/env bash
# tokenizers (Python): `\w` and `[\w]` are not the same class in a `Regex`.
#
# Alone, `\w` matches digits like ² and fractions like ½; within brackets it does not. So `\w+` and `[\w]+` cut a
# text into other words. One would expect both to be the same class, as in `re`, where both match.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tokenizers==0.23.3
"$folder/venv/bin/python" - <<'PYTHON'
import re

import tokenizers
from tokenizers import Regex, normalizers

print(f"tokenizers {tokenizers.__version__}, each match replaced by '#'")
for text in "²³¹¼½¾":
    alone, within = (normalizers.Replace(Regex(p), "#").normalize_str(text) for p in (r"\w", r"[\w]"))
    python = re.sub(r"[\w]", "#", text)
    print(f"{text}  \\w {alone}  [\\w] {within}  re {python}")
    assert (alone, within, python) == ("#", text, "#"), "changed"
assert normalizers.Replace(Regex(r"[\w]"), "#").normalize_str("é1_") == "###", "changed"
PYTHON
