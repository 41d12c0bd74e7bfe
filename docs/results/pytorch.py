#!/usr/bin/env python3
"""Times PyTorch's scaled_dot_product_attention for one query on the CPU, as JSON.

The same sizes as `sparq bench attention` in `cpu.sh`, on the same number of threads. Grouped queries
are timed in PyTorch's two forms: `enable_gqa`, and with the group folded into the query axis, which
reads each key once and is the faster one.
"""

import argparse
import json
import statistics
import sys
import time

import torch
from torch.nn.functional import scaled_dot_product_attention as sdpa

HEAD_DIM = 128
DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


def timed(run, repetitions: int, other: torch.Tensor) -> list[float]:
    """Nanoseconds of `run`, `other` memory read before each, as `sparq bench` does."""
    for _ in range(3):
        run()
    samples = []
    for _ in range(repetitions):
        other.sum()
        start = time.perf_counter_ns()
        run()
        samples.append(time.perf_counter_ns() - start)
    return samples


def forms(q, k, v, heads: int, kv_heads: int):
    """Names and calls of the ways to attend."""
    if heads == kv_heads:
        yield "sdpa", lambda: sdpa(q, k, v)
        return
    folded = q.reshape(1, kv_heads, heads // kv_heads, HEAD_DIM)
    yield "sdpa enable_gqa", lambda: sdpa(q, k, v, enable_gqa=True)
    yield "sdpa folded", lambda: sdpa(folded, k, v)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seq-len", type=int, nargs="+", default=[1024, 16384])
    parser.add_argument("--repetitions", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    other = torch.ones(1 << 27)  # 512 MiB: keys and values do not stay in the processor's caches
    records = []
    for seq_len in arguments.seq_len:
        for dtype, torch_dtype in DTYPES.items():
            for heads, kv_heads in [(32, 32), (32, 8)]:
                q = torch.rand(1, heads, 1, HEAD_DIM).to(torch_dtype)
                k, v = (torch.rand(1, kv_heads, seq_len, HEAD_DIM).to(torch_dtype) for _ in "kv")
                size = 2 * kv_heads * seq_len * HEAD_DIM * k.element_size()
                for name, run in forms(q, k, v, heads, kv_heads):
                    samples = timed(run, arguments.repetitions, other)
                    median = statistics.median(samples)
                    records.append(
                        {
                            "attention": name,
                            "backend_version": f"torch {torch.__version__}",
                            "n_threads": torch.get_num_threads(),
                            "dtype": dtype,
                            "batch": 1,
                            "heads": heads,
                            "kv_heads": kv_heads,
                            "head_dim": HEAD_DIM,
                            "seq_len": seq_len,
                            "bytes_per_step": size,
                            "median_ns": median,
                            "samples_ns": samples,
                            "gb_per_s": size / median,
                        }
                    )
                    print(f"{dtype} {heads}/{kv_heads} S={seq_len} {name}: {median / 1e6:.2f} ms", file=sys.stderr)
    json.dump(records, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    with torch.no_grad():
        main()
