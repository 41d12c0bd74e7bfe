"""Compares `sparq chat` with transformers over three turns, answer by answer and token by token.

    pip install torch transformers
    python talk.py SPARQ FOLDER

SPARQ is the program, FOLDER what convert.py wrote. Both sides decode in f32, densely, and take the likeliest
token. Exit code 1 where they differ.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

SYSTEM = "You answer in one or two short sentences."
MESSAGES = [
    "What is the capital of France?",
    "Name 3 things that I should see there in 2024.",
    "Which of them is the oldest? Say why.",
]
NEW_TOKENS = 80


def reference(folder: Path) -> tuple[list[dict], list[list[int]]]:
    """The conversation, and the prompt of each turn as token ids."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    tokenizer.chat_template = config["chat_template"]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    messages = [{"role": "system", "content": SYSTEM}]
    prompts = []
    for text in MESSAGES:
        messages.append({"role": "user", "content": text})
        rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(rendered, return_tensors="pt", add_special_tokens=False).input_ids
        mask = torch.ones_like(ids)
        output = model.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=NEW_TOKENS)
        prompts.append(ids[0].tolist())
        answer = tokenizer.decode(output[0, ids.shape[1]:], skip_special_tokens=True)
        messages.append({"role": "assistant", "content": answer})
    return messages, prompts


def ours(sparq: str, folder: Path) -> tuple[list[dict], list[list[int]]]:
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "talk.json"
        lines = [line for text in MESSAGES for line in (f"/prompt {text}", text)]
        command = [sparq, "chat", "-m", folder, "--dtype", "f32", "--attention", "dense", "--temperature", "0",
                   "-n", str(NEW_TOKENS), "--system", SYSTEM]
        run = subprocess.run(command, input="\n".join([*lines, f"/save {file}", ""]), text=True,
                             stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, check=True)
        prompts = [[int(token) for token in ids.split()] for ids in re.findall(r"^\d+ tokens: (.*)$", run.stderr, re.M)]
        return json.loads(file.read_text()), prompts


def main() -> None:
    sparq, folder = sys.argv[1], Path(sys.argv[2])
    (messages, prompts), (our_messages, our_prompts) = reference(folder), ours(sparq, folder)
    same = messages == our_messages and prompts == our_prompts
    for turn, (theirs, here) in enumerate(zip(messages[2::2], our_messages[2::2])):
        print(f"turn {turn + 1}: prompt of {len(prompts[turn])} tokens", end=" ")
        print("equal," if prompts[turn] == our_prompts[turn] else f"differs: {our_prompts[turn]},", end=" ")
        print("answer equal:" if theirs == here else f"answer differs:\n  {here['content']!r}\n ", repr(theirs["content"]))
    sys.exit(not same)


if __name__ == "__main__":
    main()
