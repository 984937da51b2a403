"""The page and plot of bench/runtime.py's results."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from own_words import own_words

from secateurs.measure.report import write_whole
from secateurs.measure.table import aligned

Row = dict[str, Any]
ORDER = ("torch", "torch, channels last", "inductor", "ONNX Runtime", "OpenVINO")


MADE = "Made by `python bench/runtime.py --out runs/runtime --page docs/results/runtime.md`."
WORDS = "\n## What to make of it\n"


def page(rows: Sequence[Row], path: Path) -> None:
    """Write a table for every kind of processor, and the plot beside it."""
    below = own_words(path, WORDS, MADE)
    lines = [
        "# Sparse networks against dense engines\n",
        "Whole networks in float32, random weights, dropped at random; the first layer stays dense "
        "in networks of more than eight. Milliseconds are medians; the ratio is over the fastest "
        "dense engine of the same run, taken round by round (quartiles in brackets); above 1 the "
        "sparse network is faster.\n",
    ]
    kinds = dict.fromkeys(r["instructions"] for r in rows)
    for kind in kinds:
        some = [r for r in rows if r["instructions"] == kind]
        facts = some[0]["environment"]
        lines += [
            f"## {kind.upper()}\n",
            f"{facts['cpu']}, {facts['cores']} cores, torch {facts['torch']}.\n",
            aligned([_HEAD, *map(_cells, some)]),
            "",
            *_beside(some),
        ]
    lines += [
        f"![Speed-up over the fastest dense engine]({path.stem}.svg)",
        *([f"{WORDS}\n{below}\n"] if below else [""]),
        MADE,
    ]
    write_whole(path, "\n".join(lines) + "\n")
    plot([r for r in rows if r["instructions"] == next(iter(kinds))], path.with_suffix(".svg"))


_HEAD = (
    "network", "pattern", "zeros", "batch", "threads", *ORDER, "secateurs", "ratio", "compiled",
)  # fmt: skip


def _cells(row: Row) -> tuple[str, ...]:
    ms = {name: f"{1e3 * s:.1f}" for name, s in row["median_s"].items()}
    ratio, low, high = row["speedup"]
    return (
        row["network"],
        row["pattern"],
        f"{100 * (1 - row['density']):.0f} %",
        str(row["batch"]),
        str(row["threads"]),
        *(f"**{ms[n]}**" if n == row["best"] else ms[n] for n in ORDER),
        ms["secateurs"],
        f"{ratio:.2f} ({low:.2f} to {high:.2f})",
        f"{row['compiled_s']:.0f} s",
    )


def _beside(rows: Sequence[Row]) -> list[str]:
    """Lay out what engines of other precisions took in the same runs, in milliseconds."""
    others = dict.fromkeys(n for r in rows for n in r["median_s"] if n not in (*ORDER, "secateurs"))
    if not others:
        return []
    lines = [("network", "pattern", "zeros", "batch", "threads", "secateurs", *others)]
    for row in rows:
        ms = {name: f"{1e3 * s:.1f}" for name, s in row["median_s"].items()}
        if others.keys() & ms.keys():
            lines.append((*_cells(row)[:5], ms["secateurs"], *(ms.get(n, "") for n in others)))
    return ["Other precisions, timed in the same runs and not counted above:\n", aligned(lines), ""]


def plot(rows: Sequence[Row], path: Path) -> None:
    """Draw the ratio of ResNet-50 over its zeros, one line a pattern."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4))
    chosen = [r for r in rows if (r["network"], r["threads"], r["batch"]) == ("resnet50", 1, 1)]
    for pattern in dict.fromkeys(r["pattern"] for r in chosen):
        points = sorted(
            (1 - r["density"], *r["speedup"]) for r in chosen if r["pattern"] == pattern
        )
        zeros, ratio, low, high = zip(*points, strict=True)
        bars = [
            [r - x for r, x in zip(ratio, low, strict=True)],
            [x - r for r, x in zip(ratio, high, strict=True)],
        ]
        axes.errorbar([100 * z for z in zeros], ratio, bars, marker="o", label=pattern)
    axes.axhline(1, color="grey", linewidth=1)
    axes.set(xlabel="zeros, %", ylabel="times faster than the fastest dense engine")
    kind = rows[0]["instructions"].upper()
    axes.set_title(f"ResNet-50, float32, batch 1, one thread, {kind}")
    axes.legend()
    figure.savefig(path, bbox_inches="tight")
    plt.close(figure)
