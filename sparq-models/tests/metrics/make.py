"""Writes `rouge.json` and `stems.txt`: what the Python packages make of some texts.

    pip install rouge-score
    python make.py SQUAD_DEV_V1.1.JSON

The words and sentences are those of the SQuAD development set (CC BY-SA 4.0), and a few that
reach the rarer rules of the stemmer.
"""

import json
import random
import re
import sys
from pathlib import Path

from nltk.stem.porter import PorterStemmer
from rouge_score.rouge_scorer import RougeScorer

RARE = """skies sky dying lying tying news innings outing cannings howe proceed exceed succeed dies
    died cried tried spied flies fly spy enjoy enjoyment happily vileli radically differently
    conditionally hopefully hopefulness callousness geology geologic archaeology theological
    electricity electrical formalize formative triplicate sensibility sensitivity feudalism
    vietnamization digitizer operator predication conformably analogously adoption communism
    homologous bowdlerize effective angularity replacement adjustment dependent irritant
    defensible adjustable gyroscopic airliner inference allowance revival probate rate cease
    controll roll hissing fizzed failing filing sized troubled conflated sing bled feed agreed
    yyyy syzygy toy boy2 4th ied eed ing eding aed oed uing ow ower abli fulli bli alli ly
    accompanied generalizations oscillators university relatively""".split()

PAIRS = [
    ("The quick brown fox jumps over the lazy dog", "The quick brown dog jumps on the log."),
    ("", "nothing to compare"),
    ("It's 24–10, naïve café", "its 24 10 naive cafe"),
    ("running runs runner", "run ran running"),
    ("same text", "same text"),
    ("A.B.C.", "a b c"),
]


def main() -> None:
    paragraphs = [
        paragraph["context"]
        for article in json.loads(Path(sys.argv[1]).read_text())["data"]
        for paragraph in article["paragraphs"]
    ]
    rng = random.Random(0)
    words = sorted({word for text in paragraphs for word in re.findall("[a-z]{4,}", text.lower())})
    words = sorted(set(rng.sample(words, min(len(words), 2500)) + RARE))
    stemmer = PorterStemmer()
    folder = Path(__file__).parent
    (folder / "stems.txt").write_text("".join(f"{word} {stemmer.stem(word)}\n" for word in words))

    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    pairs = list(PAIRS)
    for _ in range(34):
        sentences = re.split(r"(?<=\.) ", rng.choice(paragraphs))
        other = re.split(r"(?<=\.) ", rng.choice(paragraphs))
        pairs.append((sentences[0], rng.choice([sentences[-1], other[0], " ".join(sentences[:2])])))
    rows = [[r, o, scorer.score(r, o)["rougeL"].fmeasure] for r, o in pairs]
    text = json.dumps({"pairs": rows}, ensure_ascii=False, indent=1)
    (folder / "rouge.json").write_text(text + "\n")


main()
