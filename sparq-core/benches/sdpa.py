"""PyTorch's scaled_dot_product_attention at the shapes of device.rs: one line of JSON each.

    python3 sparq-core/benches/sdpa.py

The best of its backends, each of them with grouped queries as they are and folded into the query axis.
Calls are queued back to back and waited for once, as in device.rs; the figure is the median of runs.
"""

import json
import statistics
import time

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

SHAPES = [
    (16, 32, 16384),
    (8, 32, 16384),
    (1, 32, 2048),
    (1, 32, 16384),
    (1, 32, 65536),
    (1, 8, 2048),
    (1, 8, 32768),
    (1, 8, 131072),
]
HEADS, HEAD_DIM, CALLS, RUNS, WARM_UP = 32, 128, 100, 11, 0.3
BACKENDS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION]


def median(call):
    end = time.perf_counter() + WARM_UP
    while time.perf_counter() < end:
        call()
        torch.cuda.synchronize()
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        for _ in range(CALLS):
            call()
        torch.cuda.synchronize()
        times.append((time.perf_counter() - start) / CALLS)
    return statistics.median(times)


def main():
    print(json.dumps({"what": "device", "name": torch.cuda.get_device_name(), "torch": torch.__version__}))
    x = torch.empty(1 << 28, device="cuda")
    y = torch.empty_like(x)
    bandwidth = 8 * x.numel() / median(lambda: y.copy_(x)) / 1e9
    print(json.dumps({"what": "copy", "gb_s": round(bandwidth, 1)}))
    del x, y
    for batch, kv_heads, length in SHAPES:
        rows = lambda heads, width: torch.randn(batch, heads, width, HEAD_DIM, device="cuda", dtype=torch.float16)
        q, k, v = rows(HEADS, 1), rows(kv_heads, length), rows(kv_heads, length)
        folded = q.view(batch, kv_heads, HEADS // kv_heads, HEAD_DIM)
        best = None
        for backend in BACKENDS:
            for name, query in [("grouped", q), ("folded", folded)]:
                def call():
                    with sdpa_kernel(backend):
                        scaled_dot_product_attention(query, k, v, enable_gqa=query is q and kv_heads != HEADS)
                try:
                    seconds = median(call)
                except RuntimeError:
                    continue  # not every backend takes every shape
                if best is None or seconds < best[0]:
                    best = (seconds, backend.name, name)
        size = 2 * k.numel() * k.element_size()
        print(json.dumps({
            "what": "sdpa", "batch": batch, "heads": HEADS, "kv_heads": kv_heads, "len": length,
            "us": round(best[0] * 1e6, 2), "backend": best[1], "queries": best[2],
            "gb_s": round(size / best[0] / 1e9, 1), "of_copy": round(size / best[0] / 1e9 / bandwidth, 3),
        }), flush=True)


if __name__ == "__main__":
    main()
