#!/usr/bin/env bash
# tokenizers (Python): one incomplete character makes the decoder lose the complete ones beside it.
#
# `ByteFallback` turns tokens such as `<0xE2>` back into text. It takes each run of them as a whole: where the run is
# not valid UTF-8, every byte becomes a replacement character, even those of characters that are complete, while the
# documentation speaks of the bytes that cannot be converted. Python's `decode(errors="replace")` keeps the others. Ids
# end within a character whenever a text is cut or still being generated.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tokenizers==0.23.3
cd "$folder"
venv/bin/python - <<'PYTHON'
import tokenizers
from tokenizers import Tokenizer, decoders, models

data = "\u20ac\u20ac".encode()
vocab = {f"<0x{byte:02X}>": id for id, byte in enumerate(sorted(set(data)))}
tokenizer = Tokenizer(models.BPE(vocab, [], byte_fallback=True))
tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
ids = tokenizer.encode("\u20ac\u20ac").ids
print(f"tokenizers {tokenizers.__version__}, two euro signs of 3 tokens each")
found = {}
for count in range(3, 7):
    found[count] = tokenizer.decode(ids[:count])
    python = data[:count].decode(errors="replace")
    print(f"{count} tokens  tokenizers {ascii(found[count]):38}  Python {ascii(python)}")
assert found == {3: "\u20ac", 4: "\ufffd" * 4, 5: "\ufffd" * 5, 6: "\u20ac\u20ac"}, "changed"
PYTHON
