#!/usr/bin/env python3
"""Compares two builds of the program on the model inside of it: does the new one write and load as fast?

    docs/results/compare.py OLD NEW               # paths of two programs
    docs/results/compare.py OLD NEW --runs 21 --tokens 300 --attention dense --attention sparq

The programs take turns, so that whatever else the machine does weighs on both; figures are medians over the
runs. `tokens/s` is what the program states, `load` the time of a run that writes one token, from start to end.
Exit code 1 where the new one writes more than 3 % slower or takes more than 10 ms longer to load. Standard
library only. Nothing else should run on the machine meanwhile."""

import argparse
import re
import statistics
import subprocess
import sys
import time

SLOWER = 0.97
LATER_MS = 10.0


def run(program, *args):
    """What a run says on standard error, and its milliseconds."""
    start = time.perf_counter()
    done = subprocess.run([program, "generate", "Once upon a time", "--no-progress", "--temperature", "0",
                           "--ignore-eos", *args], capture_output=True, text=True)
    took = 1000 * (time.perf_counter() - start)
    if done.returncode != 0:
        sys.exit(f"{program} failed: {done.stderr}")
    return done.stderr, took


def speed(program, attention, tokens):
    said, _ = run(program, "--attention", attention, "-n", str(tokens))
    found = re.search(r"^decode .* ([\d.]+) tokens/s", said, re.M)
    if not found:
        sys.exit(f"{program} states no speed: {said}")
    return float(found[1])


def load(program):
    return run(program, "-n", "1", "-q")[1]


def medians(measure, programs, runs):
    samples = {program: [] for program in programs}
    for number in range(runs + 1):
        # The order turns with each round; the first round only warms up.
        for program in programs if number % 2 else reversed(programs):
            figure = measure(program)
            if number > 0:
                samples[program].append(figure)
    return [statistics.median(samples[program]) for program in programs]


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("old")
parser.add_argument("new")
parser.add_argument("--runs", type=int, default=21)
parser.add_argument("--tokens", type=int, default=300)
parser.add_argument("--attention", action="append", help="default: dense and sparq")
args = parser.parse_args()
programs = [args.old, args.new]
if args.old == args.new:
    sys.exit("give two programs")

passed = True
for attention in args.attention or ["dense", "sparq"]:
    old, new = medians(lambda program: speed(program, attention, args.tokens), programs, args.runs)
    ok = new >= SLOWER * old
    passed &= ok
    print(f"{attention:8} {old:9.1f} → {new:9.1f} tokens/s  {100 * (new / old - 1):+5.1f} %  {'ok' if ok else 'SLOWER'}")
old, new = medians(load, programs, args.runs)
ok = new <= old + LATER_MS
passed &= ok
print(f"{'load':8} {old:9.1f} → {new:9.1f} ms        {new - old:+5.1f} ms {'ok' if ok else 'LATER'}")
sys.exit(0 if passed else 1)
