"""Writes expected.json: what transformers makes of every template, conversation and snippet here.

    pip install transformers jinja2 && python make.py

Dates are written as {date} there, and failures as {"error": message}.
"""

import datetime
import json
from pathlib import Path

import jinja2
from transformers.utils.chat_template_utils import _compile_jinja_template

from snippets import MESSAGES, SNIPPETS

HERE = Path(__file__).parent
TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def say(*texts, roles=("user", "assistant")):
    return [{"role": roles[i % len(roles)], "content": text} for i, text in enumerate(texts)]


def system(text):
    return [{"role": "system", "content": text}]


CONVERSATIONS = {
    "one turn": say("Hello!"),
    "system": system("Be brief.") + say("Hello!"),
    "two turns": say("Hello!", "Hi, how can I help?", "Name a <b> \"colour\" & 日本 😀"),
    "space around": system("  Be brief.\n") + say("\n Hello! \n", " Hi.\n", "  And\n you?  "),
    "thoughts": say("Hello!", "<think>\nA greeting.\n</think>\n\nHi.", "Bye!"),
    "answered": say("Hello!", "Hi."),
    "out of turn": say("Hello!", "Anyone?", roles=("user",)),
}


def render(template, messages, add_generation_prompt):
    today = datetime.datetime.now().strftime("%d %b %Y")
    try:
        text = _compile_jinja_template(template).render(
            messages=messages, tools=None, documents=None, add_generation_prompt=add_generation_prompt, **TOKENS
        )
        return text.replace(today, "{date}")
    except jinja2.TemplateError as error:
        return {"error": str(error)}


cases = []
for path in sorted(HERE.glob("*.jinja")):
    template = path.read_text()
    for name, messages in CONVERSATIONS.items():
        prompt = messages[-1]["role"] != "assistant"
        cases.append({
            "template": path.name, "conversation": name, "messages": messages,
            "add_generation_prompt": prompt, "expected": render(template, messages, prompt),
        })
snippets = []
for snippet in SNIPPETS:
    try:
        expected = _compile_jinja_template(snippet).render(messages=MESSAGES, tools=None, **TOKENS)
        expected.encode()  # No tokenizer takes half of a surrogate pair.
    except Exception:  # noqa: BLE001 Whatever it is, it is refused.
        expected = None
    snippets.append([snippet, expected])
data = {"special_tokens": TOKENS, "messages": MESSAGES, "snippets": snippets, "cases": cases}
text = json.dumps(data, indent=1, ensure_ascii=False)
(HERE / "expected.json").write_text(text + "\n")
