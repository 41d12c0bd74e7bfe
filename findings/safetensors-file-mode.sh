#!/usr/bin/env bash
# safetensors (Python): `save_file` makes files that only their owner can read.
#
# The umask allows others to read. Files that Python's own `open` makes have mode 644, those of `save_file` 600:
# a model that one user converts cannot be loaded by another until its mode is changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet safetensors==0.8.0 numpy==2.3.3
cd "$folder"
umask 022
venv/bin/python - <<'PYTHON'
import os
import stat

import numpy as np
import safetensors
from safetensors.numpy import save_file

save_file({"x": np.zeros(4, np.float32)}, "model.safetensors")
with open("plain", "w"):
    pass
modes = {name: oct(stat.S_IMODE(os.stat(name).st_mode)) for name in ("plain", "model.safetensors")}
print(f"safetensors {safetensors.__version__}, umask 022: {modes}")
assert modes == {"plain": "0o644", "model.safetensors": "0o600"}, "changed"
PYTHON
