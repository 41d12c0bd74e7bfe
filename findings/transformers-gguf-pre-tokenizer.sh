#!/usr/bin/env bash
# transformers: the tokenizer of a GGUF file splits as GPT-2 does wherever its pre-tokenizer is unknown.
#
# `tokenizer.ggml.pre` names the pre-tokenizer. The list of transformers lacks many that llama.cpp writes, `smollm`
# among them, which splits digits; those files get the pre-tokenizer of GPT-2 without a warning, so that merges of
# digits apply and the ids differ. One would expect an error, as for an unknown `tokenizer.ggml.model`.
#
# `AutoTokenizer.from_pretrained(folder, gguf_file=...)` calls the function below with the values of the file. It is
# called here by itself, since to read the file takes torch.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet transformers==5.24.0 tokenizers==0.23.3
cd "$folder"
venv/bin/python - 2>log <<'PYTHON'
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers.integrations.gguf import convert_gguf_tokenizer

tokens = ["1", "2", "3", "12", "123"]
merges = ["1 2", "12 3"]
print(f"transformers {transformers.__version__}, text '123'")

# What tokenizer.json of such models says.
wanted = Tokenizer(models.BPE({token: id for id, token in enumerate(tokens)}, [tuple(m.split()) for m in merges]))
wanted.pre_tokenizer = pre_tokenizers.Sequence([
    pre_tokenizers.Digits(individual_digits=True),
    pre_tokenizers.ByteLevel(add_prefix_space=False),
])
ids = {"tokenizer.json": wanted.encode("123").ids}
for name in ("qwen2", "smollm", "gpt-2"):
    tokenizer, _ = convert_gguf_tokenizer("llama", {
        "tokenizer_type": "gpt2",
        "pre_tokenizer_type": name,
        "tokens": tokens,
        "token_type": [1] * len(tokens),
        "merges": merges,
    })
    ids[name] = tokenizer.encode("123").ids
for name, values in ids.items():
    print(f"{name:16} {values}")
assert ids == {"tokenizer.json": [0, 1, 2], "qwen2": [0, 1, 2], "smollm": [4], "gpt-2": [4]}, "changed"
try:
    convert_gguf_tokenizer("llama", {"tokenizer_type": "unknown", "tokens": tokens, "merges": merges})
except ValueError as error:
    print(f"unknown model: {error}")
else:
    raise AssertionError("changed")
PYTHON
if grep -i smollm "$folder/log"; then echo "changed: there is a warning"; exit 1; fi
