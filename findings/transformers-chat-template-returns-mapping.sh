#!/usr/bin/env bash
# transformers: `apply_chat_template` returns a mapping, not ids.
#
# Up to version 4 the call returned a list of token ids. Since version 5 it returns what the tokenizer itself
# returns, so that code that counts or slices the ids works on the keys `input_ids` and `attention_mask`.
# `return_dict=False` gives the list.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet transformers==5.24.0 tokenizers==0.23.3 jinja2==3.1.6
cd "$folder"
venv/bin/python - 2>/dev/null <<'PYTHON'
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

inner = Tokenizer(models.WordLevel({"a": 0, "b": 1, "c": 2}, unk_token="a"))
inner.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=inner)
tokenizer.chat_template = "{% for message in messages %}{{ message.content }} {% endfor %}"
messages = [{"role": "user", "content": "a b c a b"}]
default = tokenizer.apply_chat_template(messages)
plain = tokenizer.apply_chat_template(messages, return_dict=False)
print(f"transformers {transformers.__version__}, a conversation of 5 tokens")
print(f"apply_chat_template(messages)                     {type(default).__name__} of length {len(default)}")
print(f"apply_chat_template(messages, return_dict=False)  {plain}")
assert sorted(default) == ["attention_mask", "input_ids"] and len(default) == 2, "changed"
assert plain == default["input_ids"] == [0, 1, 2, 0, 1], "changed"
PYTHON
