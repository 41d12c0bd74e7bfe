#!/usr/bin/env bash
# transformers: the class name `GPT2Tokenizer` replaces the pre-tokenizer of tokenizer.json.
#
# Models whose tokenizer.json splits numbers into digits name that class in tokenizer_config.json. The library
# `tokenizers` reads the file as it is; AutoTokenizer builds the class's own pre-tokenizer instead, so that merges of
# digits apply and the ids differ.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet transformers==5.24.0 tokenizers==0.23.3
cd "$folder"
venv/bin/python - 2>/dev/null <<'PYTHON'
import json

import tokenizers
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

tokenizer = Tokenizer(models.BPE({"1": 0, "2": 1, "12": 2}, [("1", "2")]))
tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
    pre_tokenizers.Digits(individual_digits=True),
    pre_tokenizers.ByteLevel(add_prefix_space=False),
])
tokenizer.decoder = decoders.ByteLevel()
tokenizer.save("tokenizer.json")
print(f"transformers {transformers.__version__}, tokenizers {tokenizers.__version__}, text '12'")

ids = {"tokenizer.json": tokenizer.encode("12").ids}
for name in ("PreTrainedTokenizerFast", "GPT2Tokenizer"):
    with open("tokenizer_config.json", "w") as file:
        json.dump({"tokenizer_class": name}, file)
    ids[name] = transformers.AutoTokenizer.from_pretrained(".")("12")["input_ids"]
for name, values in ids.items():
    print(f"{name:24} {values}")
assert ids == {"tokenizer.json": [0, 1], "PreTrainedTokenizerFast": [0, 1], "GPT2Tokenizer": [2]}, "changed"
PYTHON
