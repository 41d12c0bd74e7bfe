"""Figures of a model on held-out books: bits per character, pass-key recall, sample text."""

import gzip
import math

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

from books import Stream
from documents import Documents, question, statement
from model import BOS, CONTEXT, EOS, Llama

DISTANCES = (100, 200, 400, 800, 1200, 1600, 1900)
PROMPTS = (
    "The old man walked slowly down to the sea,",
    '"I do not believe it," said',
    "It was late in the evening when the travellers came to the inn.",
    statement("red lantern", "48213").lstrip()
    + " It was a dark night and the rain fell."
    + question("red lantern"),
)


@torch.no_grad()
def bits_per_character(model: Llama, ids: np.ndarray, tokenizer: Tokenizer) -> float:
    """Over windows of CONTEXT tokens side by side: a token sees at most CONTEXT - 1 before it."""
    windows = torch.from_numpy(ids[: len(ids) // CONTEXT * CONTEXT].reshape(-1, CONTEXT))
    rows = F.pad(windows, (1, 0), value=BOS).long().to(model.cos.device)
    nats = sum(model.loss(part).item() * len(part) * CONTEXT for part in rows.split(16))
    return nats / math.log(2) / len(tokenizer.decode(windows.flatten().tolist()))


@torch.no_grad()
def recall(model: Llama, documents: Documents, distance: int, keys: int, trials: int) -> float:
    """The share of keys that greedy decoding gives back digit for digit.

    It does so exactly when every digit is the first choice behind the right digits before it, so
    one pass over prompt and answer tells.
    """
    rng, right = np.random.default_rng([distance, keys]), 0
    for _ in range(trials):
        prompt, answer = documents.probe(rng, distance, keys)
        ids = torch.tensor([prompt + answer], device=model.cos.device)
        choices = model(ids)[0, len(prompt) - 1 : -1].argmax(-1)
        right += choices.tolist() == answer
    return right / trials


@torch.no_grad()
def continuation(model: Llama, tokenizer: Tokenizer, prompt: str, temperature: float) -> str:
    """120 tokens behind the prompt, or fewer where the model ends the text."""
    ids = torch.tensor([tokenizer.encode(prompt).ids], device=model.cos.device)
    generator = torch.Generator(ids.device).manual_seed(1)
    begin = ids.shape[1]
    while ids.shape[1] < begin + 120 and ids[0, -1] != EOS:
        logits = model(ids)[0, -1].float()
        if temperature > 0:
            chosen = torch.multinomial(F.softmax(logits / temperature, -1), 1, generator=generator)
        else:
            chosen = logits.argmax(-1, keepdim=True)
        ids = torch.cat((ids, chosen[None]), 1)
    return tokenizer.decode(ids[0, begin:].tolist())


def measure(
    model: Llama, books: list[str], ids: np.ndarray, tokenizer: Tokenizer, trials: int
) -> dict:
    """All figures; `ids` are the tokens of `books`."""
    text = "\n\n".join(books)
    untrained = Llama().to(model.cos.device)
    documents = Documents(Stream(ids, tokenizer), tokenizer)
    return {
        "held_out_characters": len(text),
        "held_out_tokens": len(ids),
        "bits_per_character": bits_per_character(model, ids, tokenizer),
        "bits_per_character_untrained": bits_per_character(untrained, ids, tokenizer),
        "bits_per_character_gzip": 8 * len(gzip.compress(text.encode(), 9)) / len(text),
        "recall_trials": trials,
        "recall": {
            f"{keys} in the text": {d: recall(model, documents, d, keys, trials) for d in DISTANCES}
            for keys in (1, 4)
        },
        "samples": [
            {"prompt": prompt, "temperature": t, "text": continuation(model, tokenizer, prompt, t)}
            for prompt in PROMPTS
            for t in (0.0, 0.8)
        ],
    }
