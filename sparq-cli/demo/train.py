"""Train the demonstration model, a Llama of seven million parameters, from scratch on one GPU.

    pip install torch numpy tokenizers safetensors
    python train.py --books books-train.txt.xz --held-out books-heldout.txt.xz \
        --tokenizer tokenizer.json --out demo --seconds 540

The books are xz-compressed UTF-8 text, separated by NUL characters. The output folder receives
`model.safetensors` (bfloat16, Hugging Face names), `config.json`, `generation_config.json`, a copy
of `tokenizer.json` and `figures.json`, the measurements. `--seconds` is wall time from the start of
the program to the end of training, so it includes tokenisation and compilation.

Most rows of a batch are windows of books. Every sixth holds a document in which something has to be
looked up far back (see documents.py), so that the model learns to use its whole context.
"""

import argparse
import functools
import json
import math
import os
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from books import Stream, parallel, read_books, tokenise
from documents import Documents
from measure import measure
from model import BOS, CONTEXT, Llama, save
from muon import Muon

DOCUMENT_SHARE = 1 / 6
DOCUMENTS_PER_TASK = 256
UNTIMED_STEPS = 10  # they compile the model
WARMUP_STEPS = 200
DECAY_SHARE = 0.6  # of the time, at the end, in which the learning rate falls to zero
# cuDNN's attention, forward and backward, takes two thirds of flash attention's time on an H200.
ATTENTION = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]


class Batches:
    """Endless batches of rows of CONTEXT + 1 ids: windows of books, then documents."""

    def __init__(self, stream: Stream, documents: np.ndarray, size: int, device: str) -> None:
        self.ids = torch.from_numpy(stream.ids).to(device)
        fits = stream.paragraphs <= len(stream.ids) - CONTEXT
        self.starts = torch.from_numpy(stream.paragraphs[fits]).to(device)
        self.last_start = int(self.starts[-1])
        self.documents = torch.from_numpy(documents).to(device)
        self.documents_taken = 0
        self.documents_per_batch = round(size * DOCUMENT_SHARE)
        self.windows_per_batch = size - self.documents_per_batch
        self.tokens_per_batch = size * CONTEXT
        self.offsets = torch.arange(CONTEXT, device=device)

    def windows(self) -> Tensor:
        """Windows that begin at a paragraph, behind the begin-of-text token, as a prompt does."""
        device = self.ids.device
        places = torch.randint(self.last_start, (self.windows_per_batch,), device=device)
        starts = self.starts[torch.searchsorted(self.starts, places)]
        return F.pad(self.ids[starts[:, None] + self.offsets], (1, 0), value=BOS)

    def next(self) -> Tensor:
        numbers = self.documents_taken + self.offsets[: self.documents_per_batch]
        self.documents_taken += self.documents_per_batch
        return torch.cat((self.windows(), self.documents[numbers % len(self.documents)])).long()


def make_documents(stream: Stream, tokenizer: Tokenizer, count: int) -> np.ndarray:
    """At least `count` rows with documents, the same ones on every run."""
    documents = Documents(stream, tokenizer)

    def task(seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        return np.stack([documents.row(rng) for _ in range(DOCUMENTS_PER_TASK)])

    return np.concatenate(parallel(task, list(range(math.ceil(count / DOCUMENTS_PER_TASK)))))


class Optimiser:
    """Muon for the matrices of the layers, AdamW for the embedding and the norms."""

    def __init__(self, model: Llama, compiler: Callable) -> None:
        self.model = model
        matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
        others = [p for p in model.parameters() if all(p is not matrix for matrix in matrices)]
        self.muon = Muon(matrices, compiler)
        fused = others[0].is_cuda
        self.adam = torch.optim.AdamW(others, betas=(0.9, 0.95), weight_decay=0.0, fused=fused)

    def step(self, rate: float) -> None:
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.muon.step(rate)
        self.adam.param_groups[0]["lr"] = rate
        self.adam.step()
        self.model.zero_grad(set_to_none=True)


def train(
    model: Llama, batches: Batches, deadline: float, peak_rate: float, compiled: bool
) -> dict:
    """Train until `deadline` on the monotonic clock, by which the learning rate also goes."""
    # One graph per shape: the shapes are few and never change.
    fast = functools.partial(torch.compile, dynamic=False)
    compiler = fast if compiled else lambda function: function
    loss_of, optimiser = compiler(Llama.loss), Optimiser(model, compiler)
    step, began, progress = 0, time.monotonic(), 0.0
    while progress < 1:
        if step == UNTIMED_STEPS:
            began = time.monotonic()
        elif step > UNTIMED_STEPS:
            passed = time.monotonic() - began
            progress = min(1.0, passed / max(deadline - began, 1e-3))
        rate = peak_rate * min(1.0, (step + 1) / WARMUP_STEPS, (1 - progress) / DECAY_SHARE)
        with sdpa_kernel(ATTENTION, set_priority=True):
            loss = loss_of(model, batches.next())
        loss.backward()
        optimiser.step(rate)
        step += 1
        if step % 250 == 0:  # not more often: reading the loss waits for the device
            print(f"{step=} loss={loss.item():.4f} {rate=:.5f} {progress=:.3f}", flush=True)
    print(f"{step=} loss={loss.item():.4f}", flush=True)
    seconds = time.monotonic() - began
    return {
        "steps": step,
        "tokens_seen": step * batches.tokens_per_batch,
        "seconds_after_compilation": seconds,
        "tokens_per_second": (step - UNTIMED_STEPS) * batches.tokens_per_batch / seconds,
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--books", required=True, help="books to train on, .txt.xz")
    parser.add_argument("--held-out", required=True, help="other books, to measure on, .txt.xz")
    parser.add_argument("--tokenizer", required=True, help="tokenizer.json, see tokenizer.py")
    parser.add_argument("--out", required=True, help="folder for the model, made if missing")
    parser.add_argument("--seconds", type=float, default=540, help="wall time until training ends")
    parser.add_argument("--batch", type=int, default=48, help="rows per step")
    parser.add_argument("--rate", type=float, default=6e-3, help="peak learning rate")
    parser.add_argument("--documents", type=int, default=65_536, help="made before training")
    parser.add_argument("--trials", type=int, default=100, help="pass keys asked per distance")
    parser.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="compile the model, which takes half a minute",
    )
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    return parser.parse_args()


def main() -> None:
    began, args = time.monotonic(), arguments()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # forked processes share the work already
    os.makedirs(args.out, exist_ok=True)
    torch.manual_seed(0)

    # All that forks processes comes before the first use of the GPU.
    tokenizer = Tokenizer.from_file(args.tokenizer)
    held_out = read_books(args.held_out)
    held_out_ids = tokenise(held_out, tokenizer)
    stream = Stream(tokenise(read_books(args.books), tokenizer), tokenizer)
    documents = make_documents(stream, tokenizer, args.documents)
    print(f"{len(stream.ids)} tokens after {time.monotonic() - began:.1f} s", flush=True)

    model = Llama().to(args.device)
    batches = Batches(stream, documents, args.batch, args.device)
    figures = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "device": torch.cuda.get_device_name() if args.device == "cuda" else "CPU",
        "training_tokens": len(stream.ids),
        **train(model, batches, began + args.seconds, args.rate, args.compile),
        "seconds": time.monotonic() - began,
    }
    save(model, args.out)
    tokenizer.save(f"{args.out}/tokenizer.json")

    for parameter in model.parameters():  # measure the weights as they were saved
        parameter.data = parameter.data.bfloat16().float()
    figures |= measure(model, held_out, held_out_ids, tokenizer, args.trials)
    with open(f"{args.out}/figures.json", "w", encoding="utf-8") as file:
        file.write(json.dumps(figures, indent=2, ensure_ascii=False) + "\n")
    print(json.dumps(figures, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
