#!/usr/bin/env python3
"""Draws `decode.svg` and `speedup.svg` and prints tables from the results in a folder."""

import json
import sys
from pathlib import Path

WIDTH, BAR, GAP, LEFT, RIGHT, TOP = 760, 15, 14, 150, 90, 46
COLOURS = {"torch": "#9aa0a6", "dense": "#4878a8", "sparq": "#d9822b", "sparq buckets": "#e8b04a", "sparq int8": "#b3541e", "sparq int4": "#7f3b12"}


def load(folder: Path, name: str) -> list[dict]:
    path = folder / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else []


def heads(record: dict) -> str:
    same = record["heads"] == record["kv_heads"]
    return str(record["heads"]) if same else f"{record['heads']}/{record['kv_heads']}"


def kind(record: dict) -> str:
    if record["attention"].startswith("sdpa"):
        return "torch"
    index, choice = record.get("sparq_index") or "cache", record.get("sparq_choice") or "exact"
    return record["attention"] + ("" if index == "cache" else f" {index}") + ("" if choice == "exact" else f" {choice}")


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
    labels = {"torch": "PyTorch SDPA", "dense": "dense", "sparq": "SparQ r = 32, k = 128", "sparq buckets": "chosen from buckets", "sparq int8": "int8 index", "sparq int4": "int4 index"}
    x = 20
    for name, label in labels.items():
        rows.append(f'<rect x="{x:.0f}" y="26" width="11" height="11" fill="{COLOURS[name]}"/>')
        rows.append(f'<text x="{x + 17:.0f}" y="36">{label}</text>')
        x += 38 + 6.3 * len(label)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}" font-family="sans-serif" font-size="12">'
    background = f'<rect width="{WIDTH}" height="{y}" fill="white"/><text x="{LEFT}" y="17" font-weight="bold">{title}</text>'
    return "\n".join([head, background, *rows, "</svg>"]) + "\n"


LINES = {"sparq": "SparQ", "sparq buckets": "chosen from buckets", "sparq int8": "int8 index", "sparq int4": "int4 index"}


def speedups(folder: Path) -> str:
    """How many times faster than dense attention, against S: a panel for each dtype and heads."""
    records = [r for d in ("f32", "f16", "bf16") for r in load(folder, f"layer-{d}")]
    panels = sorted({(r["kv_heads"] != r["heads"], r["dtype"]) for r in records}, key=lambda p: (p[0], -ord(p[1][0]), p[1]))
    lengths = sorted({r["seq_len"] for r in records})
    most = max(r["speedup_over_dense"] for r in records)
    width, height, left, top = 215, 150, 45, 60
    parts = []
    for number, (grouped, dtype) in enumerate(panels):
        x0, y0 = left + (number % 3) * (width + 30), top + (number // 3) * (height + 55)
        x = lambda s: x0 + width * lengths.index(s) / max(len(lengths) - 1, 1)
        y = lambda v: y0 + height - height * v / most
        parts.append(f'<text x="{x0}" y="{y0 - 8}">{dtype}, {"32/8" if grouped else "32"} heads</text>')
        for v in range(0, int(most) + 1, 2):
            parts.append(f'<path d="M{x0} {y(v):.1f}h{width}" stroke="#dddddd"/><text x="{x0 - 6}" y="{y(v) + 4:.1f}" text-anchor="end" fill="#666666">{v}</text>')
        parts.append(f'<path d="M{x0} {y(1):.1f}h{width}" stroke="{COLOURS["dense"]}" stroke-dasharray="4 3"/>')
        for s in lengths:
            parts.append(f'<text x="{x(s):.1f}" y="{y0 + height + 15}" text-anchor="middle" fill="#666666" font-size="10">{s}</text>')
        for name in LINES:
            of_panel = [r for r in records if kind(r) == name and r["dtype"] == dtype and (r["kv_heads"] != r["heads"]) == grouped]
            points = [(x(r["seq_len"]), y(r["speedup_over_dense"])) for r in sorted(of_panel, key=lambda r: r["seq_len"])]
            path = "L".join(f"{a:.1f} {b:.1f}" for a, b in points)
            parts.append(f'<path d="M{path}" fill="none" stroke="{COLOURS[name]}" stroke-width="2"/>')
    for i, (name, label) in enumerate(LINES.items()):
        parts.append(f'<path d="M{left + 160 * i} 32h16" stroke="{COLOURS[name]}" stroke-width="2"/><text x="{left + 22 + 160 * i}" y="36">{label}</text>')
    rows = (len(panels) + 2) // 3
    size = (left + 3 * (width + 30), top + rows * (height + 55))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{size[0]}" height="{size[1]}" font-family="sans-serif" font-size="12">'
    title = "Times as fast as dense attention, one layer, B = 1, against the context length S"
    return "\n".join([head, f'<rect width="{size[0]}" height="{size[1]}" fill="white"/><text x="{left}" y="17" font-weight="bold">{title}</text>', *parts, "</svg>"]) + "\n"


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


def targets(folder: Path) -> list[str]:
    """The figures that the targets of docs/benchmarks.md are about."""
    lines = ["| what | dtype | heads | measured |", "|---|---|--:|---|"]
    long, short = groups(folder, 16384), groups(folder, 1024)
    for (dtype, shape), group in long.items():
        torch_ns = group.get("torch", {}).get("median_ns")
        for name in ("dense", "sparq", "sparq buckets", "sparq int8", "sparq int4"):
            r = group[name]
            over = f", {torch_ns / r['median_ns']:.1f} × PyTorch" if torch_ns else ""
            lines.append(
                f"| {name}, S = 16384 | {dtype} | {shape} | {r['median_ns'] / 1e6:.2f} ms, {percent(r['bandwidth_fraction'])} of read, "
                f"{r['speedup_over_dense']:.1f} × dense{over} |"
            )
    for (dtype, shape), group in short.items():
        lines.append(f"| sparq, S = 1024 | {dtype} | {shape} | {group['sparq']['speedup_over_dense']:.2f} × dense |")
    return lines


def main():
    folder = Path(sys.argv[1])
    found = groups(folder, 16384)
    title = "One decode step of one layer, B = 1, S = 16384, d = 128 (less is better)"
    (folder / "decode.svg").write_text(svg(found, title))
    print("\n".join(table(folder, found) + targets(folder)))
    (folder / "speedup.svg").write_text(speedups(folder))
    for r in (r for d in ("f32", "f16", "bf16") for r in load(folder, f"layer-{d}")):
        print(f"| {r['dtype']} | {heads(r)} | S = {r['seq_len']} | {kind(r)} | {r['median_ns'] / 1e6:.3f} ms | {r['speedup_over_dense']:.2f} |")
    for r in load(folder, "linear") + load(folder, "linear-int8"):
        print(f"| linear {r['inputs']} × {r['outputs']} | {r['dtype']} | {r['median_ns'] / 1e6:.2f} ms | {r['gb_per_s']:.1f} | {percent(r['bandwidth_fraction'])} |")
    for r in load(folder, "model") + load(folder, "model-int8"):
        print(f"| {r['model_type']} | {r['attention']} | {r['avg_ts']:.2f} ± {r['stddev_ts']:.2f} | {r['speedup_over_dense']:.2f} | {r['speedup_by_bytes']:.2f} |")


if __name__ == "__main__":
    main()
