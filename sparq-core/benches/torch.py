"""PyTorch's attention at one query, on the shapes of `attention.rs`, beside the machine's read bandwidth.

python torch.py [THREADS]; milliseconds are medians. Grouped queries are given as PyTorch takes them
(`enable_gqa`) and, faster, folded into the query axis.
"""

import sys
import time

import torch
from torch.nn.functional import linear, scaled_dot_product_attention


def median_ms(run, count=9):
    run()
    times = []
    for _ in range(count):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return sorted(times)[count // 2] * 1e3


torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
data = torch.ones(1 << 26)
print(f"torch {torch.__version__}, sum: {(1 << 28) / median_ms(data.sum) / 1e6:.1f} GB/s")
del data
D, S = 128, 16384
for dtype in (torch.float32, torch.float16, torch.bfloat16):
    for kv_heads in (32, 8):
        k, v = (torch.randn(1, kv_heads, S, D, dtype=dtype) for _ in range(2))
        q = torch.randn(1, 32, 1, D, dtype=dtype)
        folded = q.view(1, kv_heads, 32 // kv_heads, D)
        plain = median_ms(lambda: scaled_dot_product_attention(q, k, v, enable_gqa=True))
        fold = median_ms(lambda: scaled_dot_product_attention(folded, k, v))
        print(f"dense {dtype} 32/{kv_heads} S={S}: {plain:.2f} ms, folded {fold:.2f} ms", flush=True)
    for outputs in (4096, 14336):
        x, w = torch.randn(1, 4096, dtype=dtype), torch.randn(outputs, 4096, dtype=dtype)
        ms = median_ms(lambda: linear(x, w))
        print(f"linear {dtype} {outputs}x4096: {ms:.2f} ms, {w.nbytes / ms / 1e6:.1f} GB/s", flush=True)
