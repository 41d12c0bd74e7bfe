#!/usr/bin/env python3
"""Draws `decode.svg` and prints the table of docs/benchmarks.md from the results in a folder."""

import json
import sys
from pathlib import Path

WIDTH, BAR, GAP, LEFT, RIGHT, TOP = 760, 15, 14, 150, 90, 46
COLOURS = {"torch": "#9aa0a6", "dense": "#4878a8", "sparq": "#d9822b", "sparq int8": "#b3541e", "sparq int4": "#7f3b12"}


def load(folder: Path, name: str) -> list[dict]:
    path = folder / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else []


def heads(record: dict) -> str:
    same = record["heads"] == record["kv_heads"]
    return str(record["heads"]) if same else f"{record['heads']}/{record['kv_heads']}"


def kind(record: dict) -> str:
    if record["attention"].startswith("sdpa"):
        return "torch"
    index = record.get("sparq_index") or "cache"
    return record["attention"] + ("" if index == "cache" else f" {index}")


def groups(folder: Path, seq_len: int) -> dict[tuple[str, str], dict[str, dict]]:
    """By dtype and heads: the fastest record of each kind."""
    records = [r for d in ("f32", "f16", "bf16") for r in load(folder, f"layer-{d}")] + load(folder, "pytorch")
    found: dict[tuple[str, str], dict[str, dict]] = {}
    for record in records:
        if record["seq_len"] == seq_len:
            group = found.setdefault((record["dtype"], heads(record)), {})
            best = group.get(kind(record))
            if best is None or record["median_ns"] < best["median_ns"]:
                group[kind(record)] = record
    return found


def svg(found: dict, title: str) -> str:
    longest = max(r["median_ns"] for group in found.values() for r in group.values())
    scale = (WIDTH - LEFT - RIGHT) / longest
    rows, y = [], TOP
    for (dtype, shape), group in found.items():
        kinds = [kind for kind in COLOURS if kind in group]
        middle = y + len(kinds) * BAR / 2 + 4
        rows.append(f'<text x="{LEFT - 10}" y="{middle:.0f}" text-anchor="end">{dtype}, {shape} heads</text>')
        for name in kinds:
            time = group[name]["median_ns"]
            rows.append(f'<rect x="{LEFT}" y="{y}" width="{time * scale:.1f}" height="{BAR - 2}" fill="{COLOURS[name]}"/>')
            rows.append(f'<text x="{LEFT + time * scale + 6:.1f}" y="{y + 11}">{time / 1e6:.2f} ms</text>')
            y += BAR
        y += GAP
    labels = {"torch": "PyTorch SDPA", "dense": "dense", "sparq": "SparQ r = 32, k = 128", "sparq int8": "int8 index", "sparq int4": "int4 index"}
    for i, (name, label) in enumerate(labels.items()):
        x = 20 + 150 * i
        rows.append(f'<rect x="{x}" y="26" width="11" height="11" fill="{COLOURS[name]}"/>')
        rows.append(f'<text x="{x + 17}" y="36">{label}</text>')
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}" font-family="sans-serif" font-size="12">'
    background = f'<rect width="{WIDTH}" height="{y}" fill="white"/><text x="{LEFT}" y="17" font-weight="bold">{title}</text>'
    return "\n".join([head, background, *rows, "</svg>"]) + "\n"


def percent(x: float) -> str:
    return f"{100 * x:.0f} %"


def table(folder: Path, found: dict) -> list[str]:
    lines = ["| dtype | heads | what | time | GB/s | of read | × dense | bytes predict | × PyTorch |", "|---|--:|---|--:|--:|--:|--:|--:|--:|"]
    for (dtype, shape), group in found.items():
        torch_ns = group.get("torch", {}).get("median_ns")
        for name in COLOURS:
            if (r := group.get(name)) is None:
                continue
            speedup = f"{torch_ns / r['median_ns']:.2f}" if torch_ns else "–"
            over = lambda key, form: form(r[key]) if r.get(key) is not None else "–"
            lines.append(
                f"| {dtype} | {shape} | {r['attention'] if name == 'torch' else name} | {r['median_ns'] / 1e6:.2f} ms | {r['gb_per_s']:.1f} | "
                f"{over('bandwidth_fraction', percent)} | {over('speedup_over_dense', '{:.2f}'.format)} | "
                f"{over('speedup_by_bytes', '{:.2f}'.format)} | "
                f"{speedup} |"
            )
    return lines


def main():
    folder = Path(sys.argv[1])
    found = groups(folder, 16384)
    title = "One decode step of one layer, B = 1, S = 16384, d = 128 (less is better)"
    (folder / "decode.svg").write_text(svg(found, title))
    print("\n".join(table(folder, found)))
    for r in load(folder, "short"):
        print(f"| {r['dtype']} | {heads(r)} | S = {r['seq_len']} | {r['attention']} | {r['median_ns'] / 1e6:.3f} ms | {r['speedup_over_dense']:.2f} |")
    for r in load(folder, "linear"):
        print(f"| linear {r['inputs']} × {r['outputs']} | {r['dtype']} | {r['median_ns'] / 1e6:.2f} ms | {r['gb_per_s']:.1f} | {percent(r['bandwidth_fraction'])} |")
    for r in load(folder, "model"):
        print(f"| {r['model_type']} | {r['attention']} | {r['avg_ts']:.2f} ± {r['stddev_ts']:.2f} | {r['speedup_over_dense']:.2f} | {r['speedup_by_bytes']:.2f} |")


if __name__ == "__main__":
    main()
