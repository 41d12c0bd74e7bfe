"""Documents that reward a long memory: pass keys hidden in prose, repeated passages, lookups."""

import numpy as np
from tokenizers import Tokenizer

from books import Stream
from model import BOS, CONTEXT, EOS

ADJECTIVES = """red blue green silver golden old broken quiet distant hidden iron wooden little great
    dark bright lost secret white black narrow ancient heavy empty""".split()
NOUNS = """lantern garden harbor castle river mountain letter window bridge forest island tower ship
    mirror clock road well village door table horse book field church wagon lamp box house ring
    station kitchen cave market chair""".split()
NAMES = [f"{adjective} {noun}" for adjective in ADJECTIVES for noun in NOUNS]


def digits(rng: np.random.Generator) -> str:
    return f"{rng.integers(100_000):05d}"


def statement(name: str, key: str) -> str:
    return f" The pass key for the {name} is {key}."


def question(name: str) -> str:
    return f"\n\nWhat is the pass key for the {name}? The pass key for the {name} is"


class Documents:
    """Makes documents out of passages of books. Each is a list of ids without special tokens."""

    def __init__(self, stream: Stream, tokenizer: Tokenizer) -> None:
        self.stream, self.tokenizer = stream, tokenizer

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def pass_keys(self, rng: np.random.Generator) -> list[int]:
        """One to six keys planted between sentences, and a question for each at the end."""
        # Half of the documents fill the context; the others make short distances common too.
        length = CONTEXT - 8 if rng.random() < 0.5 else int(np.exp(rng.uniform(4.5, 7.6)))
        count = min(rng.integers(1, 7), 1 + length // 150)
        keys = {str(name): digits(rng) for name in rng.choice(NAMES, count, replace=False)}
        told = [self.encode(statement(name, key)) for name, key in keys.items()]
        asked = [self.encode(f"{question(name)} {key}.") for name, key in keys.items()]

        room = max(0, length - sum(map(len, told + asked)))
        begin = self.stream.place(rng, self.stream.sentences, 0, room)
        end = begin + room
        if rng.random() < 0.5:  # the other half breaks off in the middle of a sentence
            end = self.stream.cut(rng, max(begin, end - 60), end)
        places = [self.stream.cut(rng, begin, end) for _ in told]
        if rng.random() < 0.3:  # the document opens with a key, so without the space in front
            places[0] = begin
            told[0] = self.encode(statement(*next(iter(keys.items()))).lstrip())
        row = self.stream.insert(begin, end, list(zip(places, told)))
        return row + [i for number in rng.permutation(count) for i in asked[number]]

    def repetition(self, rng: np.random.Generator) -> list[int]:
        """A passage, another one, and the first again."""
        first = self.stream.passage(rng, int(rng.integers(30, 900)))
        other = self.stream.passage(rng, int(rng.integers(10, CONTEXT - 8 - 2 * len(first))))
        gap = self.encode("\n\n")
        return first + gap + other + gap + first

    def lookup(self, rng: np.random.Generator) -> list[int]:
        """A list of names with numbers, and some of its lines again."""
        size = int(rng.integers(8, 110))
        lines = [f"{rng.choice(ADJECTIVES)}-{digits(rng)}: {digits(rng)}" for _ in range(size)]
        again = rng.choice(lines, min(size, 12))
        return self.encode("\n".join(lines) + "\n\n" + "\n".join(again))

    def row(self, rng: np.random.Generator) -> np.ndarray:
        """A document of a random kind, filled up with book text to CONTEXT + 1 ids."""
        kinds = (self.pass_keys, self.repetition, self.lookup)
        document = kinds[rng.choice(3, p=(0.6, 0.25, 0.15))](rng)
        ids = [BOS, *document, EOS, BOS, *self.stream.passage(rng, CONTEXT)]
        return np.array(ids[: CONTEXT + 1], np.int16)

    def probe(
        self, rng: np.random.Generator, distance: int, keys: int
    ) -> tuple[list[int], list[int]]:
        """A prompt that asks for one of `keys` pass keys, and the answer.

        `distance` counts tokens from the first digit of the key to the first digit of the answer.
        The other keys lie anywhere, and a random amount of text stands in front.
        """
        names = [str(name) for name in rng.choice(NAMES, keys, replace=False)]
        told = [self.encode(statement(name, digits(rng))) for name in names]
        ask, answer = self.encode(question(names[0])), told[0][-7:-1]  # a space and five digits
        gap = distance - len(ask) - len(answer) - 1
        lead = int(rng.integers(CONTEXT - distance - sum(map(len, told)) - 8))
        later = [piece for piece in told[1:] if rng.random() < gap / (gap + lead)]
        later = later if sum(map(len, later)) < gap else []
        earlier = [piece for piece in told[1:] if piece not in later]

        gap -= sum(map(len, later))
        place = self.stream.place(rng, self.stream.sentences, lead, gap)
        begin, end = place - lead, place + gap
        before = [(self.stream.cut(rng, begin, place), piece) for piece in earlier]
        after = [(self.stream.cut(rng, place, end), piece) for piece in later]
        row = self.stream.insert(begin, end, [*before, (place, told[0]), *after])
        return [BOS, *row, *ask], answer
