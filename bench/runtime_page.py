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


def page(rows: Sequence[Row], path: Path) -> None:
    """Write the table of all cells, and the plot beside it."""
    facts = rows[0]["environment"]
    below = own_words(path, "\n## ", MADE)
    lines = [
        "# Sparse networks against dense engines\n",
        f"{facts['cpu']}, {facts['cores']} cores, torch {facts['torch']}, float32. Whole networks, "
        "random weights, dropped at random; the first layer stays dense in networks of more than "
        "eight. Milliseconds are medians; "
        "the ratio is over the fastest dense engine of the same run, taken round by round "
        "(quartiles in brackets); above 1 the sparse network is faster.\n",
        aligned([_HEAD, *map(_cells, rows)]),
        "",
        *_beside(rows),
        f"![Speed-up over the fastest dense engine]({path.stem}.svg)",
        "",
        *([f"## {below}\n"] if below else []),
        MADE,
    ]
    write_whole(path, "\n".join(lines) + "\n")
    plot(rows, path.with_suffix(".svg"))


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
    """Say what engines of other precisions took in the same runs."""
    found = [
        f"{row['network']} at batch {row['batch']} on {row['threads']} threads: {name} "
        f"{1e3 * seconds:.1f} ms, secateurs in float32 {1e3 * row['median_s']['secateurs']:.1f} ms"
        for row in rows
        for name, seconds in row["median_s"].items()
        if name not in (*ORDER, "secateurs")
    ]
    lines = [f"- {line}" for line in found]
    return (
        ["Other precisions, timed in the same runs and not counted above:\n", *lines, ""]
        if lines
        else []
    )


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
    axes.set_title("ResNet-50, float32, batch 1, one thread")
    axes.legend()
    figure.savefig(path, bbox_inches="tight")
    plt.close(figure)
