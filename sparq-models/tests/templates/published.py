"""Writes published.md: how the chat templates that llama.cpp ships render here and in transformers.

    pip install transformers jinja2
    pip download --no-deps --no-binary llama-cpp-python llama-cpp-python   # its sources hold the templates
    cargo build --release --example render_templates
    python published.py llama_cpp_python-*.tar.gz target/release/examples/render_templates

Exits with 1 where a template renders otherwise here, or fails here alone.
"""

import json
import subprocess
import sys
import tarfile
from pathlib import Path

from transformers.utils.chat_template_utils import _alias_reasoning_fields, render_jinja_template

HERE = Path(__file__).parent
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}

SYSTEM = [{"role": "system", "content": "Be brief."}]
USER = [{"role": "user", "content": 'Hi <b> "x" & é 日 😀\n  two lines'}]
ANSWER = [{"role": "assistant", "content": "<think>\nHm.\n</think>\n\nHello!"}]
REASONED = [{"role": "assistant", "content": "Fine.", "reasoning_content": "Let me think."}]
PARAMETERS = {
    "type": "object",
    "properties": {
        "place": {"type": "string", "description": "A town"},
        "unit": {"type": "string", "enum": ["c", "f"], "default": "c"},
        "days": {"type": "array", "items": {"type": "integer"}},
        "deep": {"type": ["object", "null"], "properties": {"x": {"type": "number", "minimum": 1e-7}}},
    },
    "required": ["place"],
}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "description": 'Of a "place".\nNow.', "parameters": PARAMETERS}},
    {"type": "function", "function": {"name": "stop", "description": "Stop.", "parameters": {"type": "object", "properties": {}}}},
]
ARGUMENTS = {"place": "Ulm", "days": [1, 2], "deep": {"x": 0.5, "y": None, "z": True}}


def call(number, name, arguments):
    return {"id": f"call{number:05}", "type": "function", "function": {"name": name, "arguments": arguments}}


def calls(*items):
    return [{"role": "assistant", "content": "", "tool_calls": [call(i, *item) for i, item in enumerate(items)]}]


def result(number, name, content):
    return {"role": "tool", "tool_call_id": f"call{number:05}", "name": name, "content": content}


WEATHER = [result(0, "weather", '{"t": 21.5}')]
CONVERSATIONS = {
    "user": (USER, {}),
    "system": (SYSTEM + USER, {}),
    "turns": (SYSTEM + USER + ANSWER + USER, {}),
    "answered": (USER + ANSWER, {}),
    "reasoning": (USER + REASONED + USER, {}),
    "thinking on": (USER, {"enable_thinking": True, "thinking": True}),
    "thinking off": (SYSTEM + USER, {"enable_thinking": False, "thinking": False}),
    "tools": (SYSTEM + USER, {"tools": TOOLS}),
    "tools, no system": (USER, {"tools": TOOLS}),
    "a call": (SYSTEM + USER + calls(("weather", ARGUMENTS)) + WEATHER, {"tools": TOOLS}),
    "a call as text": (USER + calls(("weather", json.dumps(ARGUMENTS))) + WEATHER + REASONED + USER, {"tools": TOOLS}),
    "a call, no tools": (USER + calls(("weather", ARGUMENTS)) + WEATHER, {}),
    "two calls": (USER + calls(("weather", ARGUMENTS), ("stop", {})) + WEATHER + [result(1, "stop", "ok")] + USER,
                  {"tools": TOOLS, "enable_thinking": False}),
    "no user": (SYSTEM, {}),
    "parts": ([{"role": "user", "content": [{"type": "text", "text": "Hi"}, {"type": "text", "text": "you"}]}], {}),
}


def theirs(case):
    variables = dict(case["variables"])
    tools = variables.pop("tools", None)
    try:
        (text,), _ = render_jinja_template(
            [case["messages"]], tools=tools, chat_template=case["template"], add_generation_prompt=case["prompt"], **variables
        )
        return text
    except Exception:  # noqa: BLE001 Whatever it is, it is refused.
        return None


archive, program = sys.argv[1:]
with tarfile.open(archive) as tar:
    members = [member for member in tar if "/models/templates/" in member.name and member.name.endswith(".jinja")]
    templates = {Path(member.name).name: tar.extractfile(member).read().decode() for member in members}
cases = []
for name, source in sorted(templates.items()):
    for messages, variables in CONVERSATIONS.values():
        for prompt in (True, False):
            cases.append({"name": name, "template": source, "messages": _alias_reasoning_fields(messages),
                          "variables": {**TOKENS, **variables}, "prompt": prompt})
lines = "".join(json.dumps(case) + "\n" for case in cases)
done = subprocess.run([program], input=lines.encode(), capture_output=True, check=True)
ours = [json.loads(line).get("text") for line in done.stdout.decode().split("\n") if line]

KINDS = ["equal", "refused by both", "refused by transformers alone", "refused here alone", "different"]
counts = {name: dict.fromkeys(KINDS, 0) for name in sorted(templates)}
for case, got in zip(cases, ours, strict=True):
    want = theirs(case)
    if want is None:
        kind = "refused by both" if got is None else "refused by transformers alone"
    else:
        kind = "refused here alone" if got is None else "equal" if got == want else "different"
    counts[case["name"]][kind] += 1
table = [
    f"# {len(templates)} published chat templates",
    "",
    f"The templates in `{Path(archive).name}`, each with {len(CONVERSATIONS)} conversations, with and without the",
    "beginning of an answer: how many texts are those of transformers. Written by `published.py`.",
    "",
    "| template | " + " | ".join(KINDS) + " |",
    "|---|" + "---|" * len(KINDS),
    *("| " + " | ".join([name, *map(str, row.values())]) + " |" for name, row in counts.items()),
    "| **all** | " + " | ".join(str(sum(row[kind] for row in counts.values())) for kind in KINDS) + " |",
]
(HERE / "published.md").write_text("\n".join(table) + "\n")
print(table[-1])
sys.exit(any(row["different"] + row["refused here alone"] for row in counts.values()))
