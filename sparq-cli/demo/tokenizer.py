"""Train the tokenizer of the demonstration model: byte-level BPE with 4096 entries.

    pip install tokenizers
    python tokenizer.py --books books-train.txt.xz --out tokenizer.json

The books are one xz-compressed UTF-8 file, separated by NUL characters. About 24 million characters
of them are used, which takes half a minute on two CPU cores.
"""

import argparse
import lzma
import random
from collections.abc import Iterator

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

VOCABULARY = 4096
SPECIAL = ["<|begin_of_text|>", "<|end_of_text|>", "<|pad|>"]  # ids 0, 1 and 2
EXCERPT = 60_000  # characters taken from one book, so that no author dominates
SAMPLE = 24_000_000  # characters in all


def read_books(path: str) -> list[str]:
    """The books of a NUL-separated, xz-compressed file."""
    with lzma.open(path, "rt", encoding="utf-8") as file:
        return file.read().split("\0")


def sample_paragraphs(books: list[str], rng: random.Random) -> Iterator[str]:
    """Paragraphs of one excerpt per book, in random order of books, up to `SAMPLE` characters."""
    size = 0
    for book in rng.sample(books, len(books)):
        start = rng.randrange(max(1, len(book) - EXCERPT))
        excerpt = book[start : start + EXCERPT]
        yield from excerpt.split("\n\n")
        size += len(excerpt)
        if size > SAMPLE:
            return


def untrained_tokenizer() -> Tokenizer:
    """A tokenizer with every stage set up except the merges."""
    tokenizer = Tokenizer(models.BPE())
    # One token per digit: a number is then copied digit by digit, whatever its neighbours are.
    digits = pre_tokenizers.Split(pattern=Regex(r"\d"), behavior="isolated")
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, words])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def train(books: list[str]) -> Tokenizer:
    """Learn the merges, then let `encode` put the begin-of-text token in front."""
    tokenizer = untrained_tokenizer()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(sample_paragraphs(books, random.Random(1)), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{SPECIAL[0]} $A", special_tokens=[(SPECIAL[0], 0)]
    )
    return tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--books", required=True, help="NUL-separated books, .txt.xz")
    parser.add_argument("--out", required=True, help="the tokenizer.json to write")
    args = parser.parse_args()
    train(read_books(args.books)).save(args.out)


if __name__ == "__main__":
    main()
