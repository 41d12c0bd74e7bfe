#!/usr/bin/env bash
# transformers: Gemma 3 ignores a scaling of positions that is named by `type`.
#
# `type` is the older name of `rope_type` in `rope_scaling`; other models still read it. The configuration of Gemma 3
# sets `rope_type` to `default` before it adds `rope_scaling`, so that `type` has no effect: positions stay unscaled,
# with no more than a warning that the key `factor` is not recognized.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet transformers==5.24.0 tokenizers==0.23.3
cd "$folder"
venv/bin/python - 2>/dev/null <<'PYTHON'
import json

import transformers

print(f"transformers {transformers.__version__}, rope_scaling of factor 4")
results = {}
for model in ("llama", "gemma3_text"):
    for key in ("rope_type", "type"):
        with open("config.json", "w") as file:
            json.dump({"model_type": model, "rope_scaling": {key: "linear", "factor": 4.0}}, file)
        parameters = transformers.AutoConfig.from_pretrained(".").rope_parameters
        results[model, key] = parameters.get("full_attention", parameters)["rope_type"]
        print(f"{model:12} {key + ': linear':18} is read as {results[model, key]}")
assert results == {
    ("llama", "rope_type"): "linear",
    ("llama", "type"): "linear",
    ("gemma3_text", "rope_type"): "linear",
    ("gemma3_text", "type"): "default",
}, "changed"
PYTHON
