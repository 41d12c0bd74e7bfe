"""Writes expected.json: what the logits processors of transformers make of logits under every setting here.

    pip install torch transformers && python make.py

A case is a generation_config.json, a prompt, what was generated so far and logits; expected are the scores that
transformers takes its choice from (null for minus infinity), and their probabilities where it samples.
"""

import json
from pathlib import Path
from types import SimpleNamespace

import torch
from transformers import GenerationConfig, GenerationMixin

HERE = Path(__file__).parent
VOCAB = 24
EOS = [1, 23]
torch.manual_seed(0)
LOGITS = [[round(x, 3) for x in (3 * torch.randn(VOCAB)).tolist()] for _ in range(3)]
LOGITS.append([0.0] * VOCAB)
SAMPLE = {"do_sample": True, "temperature": 0.7}
WARM = {"do_sample": True}

# Settings, prompt, answer so far.
CASES = [
    ({}, [5, 6], [7]),
    ({"repetition_penalty": 1.7}, [5, 6, 5], [7, 2]),
    ({"repetition_penalty": 0.6}, [5, 6, 5], [7, 2]),
    ({"no_repeat_ngram_size": 1}, [5, 6], [7]),
    ({"no_repeat_ngram_size": 2}, [5, 6, 9], [5]),
    ({"no_repeat_ngram_size": 3}, [5, 6, 9, 4], [5, 6]),
    ({"no_repeat_ngram_size": 9}, [5, 6, 9, 4], [5, 6]),
    ({"bad_words_ids": [[3], [1], [5, 6], [5, 9, 7], [4, 8]]}, [5], [5]),
    ({"bad_words_ids": [[3], [1], [5, 6], [5, 9, 7], [4, 8]]}, [5], [9]),
    ({"sequence_bias": [[[3], 4.0], [[5, 6], -2.5], [[9, 5, 6], 1.5], [[9], -100.0]]}, [2, 9], [5]),
    ({"sequence_bias": [[[3], 4.0], [[3], 1.0]], "repetition_penalty": 2.0}, [3], [5]),
    ({"suppress_tokens": [3, 4, 99]}, [5], [6]),
    ({"begin_suppress_tokens": [0, 8, 12]}, [5, 6], []),
    ({"begin_suppress_tokens": [0, 8, 12]}, [5, 6], [7]),
    ({"begin_suppress_tokens": [0, 8], "forced_bos_token_id": 4}, [5], []),
    ({"begin_suppress_tokens": [0, 8], "forced_bos_token_id": 4}, [5], [4]),
    ({"forced_bos_token_id": 4}, [5, 6], []),
    ({"forced_eos_token_id": 1, "max_new_tokens": 3}, [5, 6], [7]),
    ({"forced_eos_token_id": 1, "max_new_tokens": 3}, [5, 6], [7, 8]),
    ({"forced_eos_token_id": [1, 23], "max_new_tokens": 3}, [5, 6], [7, 8]),
    ({"min_length": 4}, [5, 6], [7]),
    ({"min_length": 4}, [5, 6], [7, 8]),
    ({"min_new_tokens": 2}, [5, 6], [7]),
    ({"min_new_tokens": 2}, [5, 6], [7, 8]),
    ({"exponential_decay_length_penalty": [2, 1.5]}, [5, 6], [7, 8]),
    ({"exponential_decay_length_penalty": [2, 1.5]}, [5, 6], [7, 8, 9, 10, 11]),
    ({"exponential_decay_length_penalty": [0, 1.1], "min_new_tokens": 9}, [5, 6], [7, 8]),
    ({"repetition_penalty": 1.3, "no_repeat_ngram_size": 2, "suppress_tokens": [8], "min_new_tokens": 4}, [5, 6], [9, 5]),
    ({"renormalize_logits": True}, [5], [6]),
    (SAMPLE, [5], [6]),
    ({**SAMPLE, "top_k": 5}, [5], [6]),
    ({**SAMPLE, "top_k": 5, "top_p": 0.8, "min_p": 0.1}, [5], [6]),
    ({**WARM, "top_p": 0.5}, [5], [6]),
    ({**WARM, "top_p": 0.0}, [5], [6]),
    ({**WARM, "min_p": 0.05}, [5], [6]),
    ({**WARM, "min_p": 1.0}, [5], [6]),
    ({**WARM, "typical_p": 0.2}, [5], [6]),
    ({**WARM, "typical_p": 0.9}, [5], [6]),
    ({**SAMPLE, "typical_p": 0.6, "top_k": 9}, [5], [6]),
    ({**WARM, "epsilon_cutoff": 0.05}, [5], [6]),
    ({**WARM, "epsilon_cutoff": 0.9}, [5], [6]),
    ({**WARM, "eta_cutoff": 0.05}, [5], [6]),
    ({**WARM, "eta_cutoff": 0.6}, [5], [6]),
    ({**WARM, "top_h": 0.4}, [5], [6]),
    ({**WARM, "top_h": 0.9}, [5], [6]),
    ({**SAMPLE, "top_h": 0.8, "top_k": 3}, [5], [6]),
    ({**SAMPLE, "top_k": 12, "top_p": 0.95, "min_p": 0.02, "typical_p": 0.9, "epsilon_cutoff": 0.03, "eta_cutoff": 0.02}, [5], [6]),
    ({**SAMPLE, "renormalize_logits": True, "repetition_penalty": 1.2, "suppress_tokens": [2]}, [5], [6]),
]


class Model(GenerationMixin):
    config = SimpleNamespace(is_encoder_decoder=False)


def tensor(logits):
    return torch.tensor([[float("-inf") if x is None else x for x in logits]])


def processed(settings, prompt, answer, logits):
    config = GenerationConfig(eos_token_id=EOS, **settings)
    # What `generate` fills in before it makes processors.
    config._eos_token_tensor = torch.tensor(EOS)
    if config.max_new_tokens is not None:
        config.max_length = config.max_new_tokens + len(prompt)
    config.num_beams, config.num_return_sequences = 1, 1
    processors = Model()._get_logits_processor(config, input_ids_seq_length=len(prompt), device="cpu", model_kwargs={})
    return processors(torch.tensor([prompt + answer]), tensor(logits))


def rounded(x):
    return None if x == float("-inf") else float(f"{x:.7g}")


found = []
for settings, prompt, answer in CASES:
    for index, logits in enumerate(LOGITS):
        # Equal logits have no order that all programs share.
        if logits == [0.0] * VOCAB and settings.get("do_sample") and {"top_p", "typical_p", "top_h"} & set(settings):
            continue
        scores = processed(settings, prompt, answer, logits)[0]
        case = {"settings": settings, "prompt": prompt, "answer": answer, "logits": index, "scores": [rounded(x) for x in scores.tolist()]}
        if settings.get("do_sample"):
            case["probabilities"] = [rounded(x) for x in scores.softmax(-1).tolist()]
        found.append(case)

# Numbers that are none: numbers in the file, by name.
invalid = [0.5, float("nan"), float("inf"), float("-inf")]
scores = processed({"remove_invalid_values": True}, [5], [6], invalid)[0].tolist()
text = json.dumps({"eos": EOS, "logits": LOGITS, "cases": found, "invalid": [float(x) for x in scores]})
(HERE / "expected.json").write_text(text.replace("}, {\"settings", "},\n{\"settings") + "\n")
print(len(found), "cases,", len(text), "bytes")
