#!/usr/bin/env bash
# transformers: the first configurations of Phi-3 with long contexts are refused.
#
# Those name their scaling `su`, later renamed to `longrope`, and hold `original_max_position_embeddings` outside
# `rope_scaling`. Phi3Config still renames `su`, but only after the place at which that value is moved to where the
# check of `longrope` looks for it: a KeyError. The same configuration is read where the type is `longrope`, and even
# where it is `yarn`, which is renamed as well.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet transformers==5.24.0 tokenizers==0.23.3
cd "$folder"
venv/bin/python - 2>/dev/null <<'PYTHON'
import json

import transformers

print(f"transformers {transformers.__version__}")
results = {}
for name in ("longrope", "yarn", "su"):
    with open("config.json", "w") as file:
        json.dump({
            "model_type": "phi3",
            "hidden_size": 3072,
            "num_attention_heads": 32,
            "max_position_embeddings": 131072,
            "original_max_position_embeddings": 4096,
            "rope_theta": 10000.0,
            "rope_scaling": {"type": name, "short_factor": [1.0] * 48, "long_factor": [2.0] * 48},
        }, file)
    try:
        results[name] = transformers.AutoConfig.from_pretrained(".").rope_parameters["rope_type"]
    except KeyError as error:
        results[name] = f"KeyError: {error.args[0]}"
for name, result in results.items():
    print(f"{name:8} {result}")
assert results["longrope"] == results["yarn"] == "longrope", "changed"
assert results["su"].startswith("KeyError") and "original_max_position_embeddings" in results["su"], "changed"
PYTHON
