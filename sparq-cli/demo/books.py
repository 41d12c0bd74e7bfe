"""Books as token ids, and how to cut passages out of them."""

import lzma
import multiprocessing
import os
import string
from collections.abc import Callable
from itertools import chain

import numpy as np
from tokenizers import Tokenizer

from model import BOS, EOS

PIECE = 200_000  # characters encoded at a time, so that long books are shared among processes

_inherited: Callable | None = None  # the function that forked processes call


def _call(item):
    return _inherited(item)


def parallel(function: Callable, items: list) -> list:
    """`function` of each item, on all cores. Forked processes inherit what the function refers to,
    so only items and results are copied."""
    global _inherited
    _inherited = function
    with multiprocessing.get_context("fork").Pool(os.cpu_count()) as pool:
        return pool.map(_call, items, chunksize=2)


def read_books(path: str) -> list[str]:
    """The books of a NUL-separated, xz-compressed file."""
    with lzma.open(path, "rt", encoding="utf-8") as file:
        return [book for book in file.read().split("\0") if book]


def split(book: str) -> list[str]:
    """The book in pieces that begin at paragraphs."""
    pieces, begin = [], 0
    while begin < len(book):
        end = book.find("\n\n", begin + PIECE)
        end = len(book) if end < 0 else end
        pieces.append(book[begin:end])
        begin = end
    return pieces


def tokenise(books: list[str], tokenizer: Tokenizer) -> np.ndarray:
    """All books in a row, with the end-of-text and the begin-of-text token behind each."""

    def encode(piece: str) -> np.ndarray:
        return np.array(tokenizer.encode(piece, add_special_tokens=False).ids, np.int16)

    pieces = [split(book) for book in books]
    encoded = iter(parallel(encode, list(chain.from_iterable(pieces))))
    border = np.array([EOS, BOS], np.int16)
    return np.concatenate([ids for p in pieces for ids in (*(next(encoded) for _ in p), border)])


class Stream:
    """Token ids of books, with the places where sentences and paragraphs begin."""

    def __init__(self, ids: np.ndarray, tokenizer: Tokenizer) -> None:
        starts_word = np.zeros(tokenizer.get_vocab_size(), bool)
        for token, number in tokenizer.get_vocab().items():
            starts_word[number] = token[0] == "Ġ" and token[1:2] in set(string.ascii_letters)
        full_stop = ids[:-1] == tokenizer.token_to_id(".")
        newline = ids == tokenizer.token_to_id("Ċ")
        self.ids = ids
        self.sentences = np.flatnonzero(full_stop & starts_word[ids[1:]]) + 1
        self.paragraphs = np.flatnonzero(newline[:-2] & newline[1:-1] & ~newline[2:]) + 2

    def place(self, rng: np.random.Generator, starts: np.ndarray, before: int, after: int) -> int:
        """One of `starts` with `before` tokens in front of it and `after` behind, evenly spread."""
        last = starts[np.searchsorted(starts, len(self.ids) - after) - 1]
        return int(starts[np.searchsorted(starts, rng.integers(before, last))])

    def passage(self, rng: np.random.Generator, length: int) -> list[int]:
        """`length` tokens from the beginning of a paragraph."""
        begin = self.place(rng, self.paragraphs, 0, length)
        return self.ids[begin : begin + length].tolist()

    def cut(self, rng: np.random.Generator, begin: int, end: int) -> int:
        """The beginning of a sentence in [begin, end], or `begin` where there is none."""
        low, high = np.searchsorted(self.sentences, (begin, end + 1))
        return int(self.sentences[rng.integers(low, high)]) if low < high else begin

    def insert(self, begin: int, end: int, pieces: list[tuple[int, list[int]]]) -> list[int]:
        """The tokens from `begin` to `end`, with each of the (place, tokens) pieces put in."""
        row: list[int] = []
        for place, tokens in sorted(pieces, key=lambda piece: piece[0]):
            row += self.ids[begin:place].tolist() + tokens
            begin = place
        return row + self.ids[begin:end].tolist()
