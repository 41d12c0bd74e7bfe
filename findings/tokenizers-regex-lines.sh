#!/usr/bin/env bash
# tokenizers (Python): `^` and `$` match at every line, and `\h` is a hexadecimal digit.
#
# Patterns have the syntax of Ruby. The documentation of `Regex` does not say so, and those who write patterns for
# Python or PCRE expect `^` and `$` at the ends of the text, and `\h` (which `re` does not know) as horizontal space.
# `(?m)` lets the dot match line breaks, which is `(?s)` elsewhere. `\A` and `\z` are the ends of the text.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tokenizers==0.23.3
cd "$folder"
venv/bin/python - <<'PYTHON'
import re

import tokenizers
from tokenizers import Regex, normalizers

print(f"tokenizers {tokenizers.__version__}, each match replaced by '#'")
rows = [
    (r"^", "a\nb", "#a\n#b", "#a\nb"),
    (r"b$", "ab\nab", "a#\na#", "ab\na#"),
    (r"(?m)a.b", "a\nb", "#", "a\nb"),
    (r"\h", "a 1", "# #", None),
    (r"\A.", "a\nb", "#\nb", "#\nb"),
]
for pattern, text, expected, python in rows:
    found = normalizers.Replace(Regex(pattern), "#").normalize_str(text)
    try:
        other = re.sub(pattern, "#", text)
    except re.error:
        other = None
    print(f"{pattern:8} in {text!r:8}  tokenizers {found!r:8}  re {other!r}")
    assert (found, other) == (expected, python), "changed"
PYTHON
