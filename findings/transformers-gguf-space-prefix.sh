#!/usr/bin/env bash
# transformers: the tokenizer of a GGUF file puts a space before the text where the file says not to.
#
# `tokenizer.ggml.add_space_prefix` is false for models whose SentencePiece vocabulary was trained without that space.
# transformers reads the key and does not use it, so that the first word gets another id.
#
# `AutoTokenizer.from_pretrained(folder, gguf_file=...)` calls the function below with the values of the file. It is
# called here by itself, since to read the file takes torch.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet transformers==5.24.0 tokenizers==0.23.3
cd "$folder"
venv/bin/python - 2>/dev/null <<'PYTHON'
import transformers
from transformers.integrations.gguf import GGUF_TOKENIZER_MAPPING, convert_gguf_tokenizer

key = GGUF_TOKENIZER_MAPPING["tokenizer"]["ggml.add_space_prefix"]
tokens = ["<unk>", "<s>", "</s>", "\u2581", "a", "\u2581a"]
print(f"transformers {transformers.__version__}, text 'a'")
found = {}
for value in (True, False):
    tokenizer, _ = convert_gguf_tokenizer("llama", {
        "tokenizer_type": "llama",
        "tokens": tokens,
        "scores": [0.0, 0.0, 0.0, -3.0, -2.0, -1.0],
        "token_type": [2, 3, 3, 1, 1, 1],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "unk_token_id": 0,
        key: value,
    })
    found[value] = tokenizer.encode("a", add_special_tokens=False).tokens
    print(f"tokenizer.ggml.add_space_prefix {value!s:6} {found[value]}")
assert found == {True: ["\u2581a"], False: ["\u2581a"]}, "changed"
PYTHON
