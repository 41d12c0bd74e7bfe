#!/usr/bin/env bash
# tokenizers (Python): BPE without an unknown token drops what it does not know.
#
# The characters are missing from the ids, without an error or a warning; a word of them alone gives none. WordLevel
# and Unigram report the missing token in the same place.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tokenizers==0.23.3
cd "$folder"
venv/bin/python - <<'PYTHON'
import tokenizers
from tokenizers import Tokenizer, models, pre_tokenizers

kinds = {
    "BPE": models.BPE({"a": 0, "b": 1}, []),
    "WordLevel": models.WordLevel({"a": 0, "b": 1}),
    "Unigram": models.Unigram([("a", -1.0), ("b", -1.0)]),
}
print(f"tokenizers {tokenizers.__version__}, vocabulary of 'a' and 'b', text 'a x b'")
found = {}
for name, model in kinds.items():
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    try:
        found[name] = tokenizer.encode("a x b").tokens
    except Exception as error:
        found[name] = f"error: {error}"
    print(f"{name:10} {found[name]}")
assert found["BPE"] == ["a", "b"], "changed"
assert all(found[name].startswith("error") for name in ("WordLevel", "Unigram")), "changed"
PYTHON
