"""docs/results/fine-grained.md, from the results of bench/fine_grained.py."""

from collections.abc import Mapping
from statistics import mean, stdev
from typing import Any

from secateurs.measure.table import aligned

PAPER = {
    "han-lenet300": ("Han et al. 2015", "1.64", "1.59", "12x"),
    "han-lenet5": ("Han et al. 2015", "0.80", "0.77", "12x"),
    "dns-lenet300": ("Guo et al. 2016", "2.28", "1.99", "56x; 53x as released"),
    "dns-lenet5": ("Guo et al. 2016", "0.91", "0.91", "108x"),
    "static-lenet300": ("the same, cut once", "", "", ""),
    "static-lenet5": ("the same, cut once", "", "", ""),
}
"""Source, error % of the dense and of the pruned network, and how many times fewer numbers."""

NETS = {"lenet300": "LeNet-300-100", "lenet5": "LeNet-5"}

HEAD = """# Fine-grained methods on the LeNets of their papers

MNIST, 55,000 images to learn from and 5,000 to choose settings by; the test set was read once
per model, at the end. One standard error of an error rate of 1.7 % on 10,000 images is 0.13
points. Rates count weights and biases, and no indices, as the papers do. ± is the standard
deviation over seeds.
"""

WHY = {
    "": """Where the numbers differ, and why. The dense networks here are better than the
papers', because they learn at a higher rate that falls to zero by a cosine; the papers' rate
falls slowly. The distance between dense and pruned is what to compare.
""",
    "han": """`han` shares a twelfth of the weights among the layers by their sensitivity scans,
in two rounds of few epochs; the paper chose thresholds by hand and retrained for longer.
""",
    "dns": """`dns` runs by its target-density form, at the densities of the models its authors
released (53.5 and 108 times fewer), with about half of their steps.
""",
    "static": """`static` has the densities and the training of `dns`, but is cut once by magnitude
within each layer and keeps its mask, and its biases stay whole: what splicing gains lies
between the two.
""",
}


def page(results: Mapping[str, Mapping[int, Any]]) -> str:
    """Write what has been measured so far as one Markdown page."""
    parts = [HEAD]
    if any(results.get(name) for name in PAPER):
        shown = {"", *(name.partition("-")[0] for name in results if results[name])}
        parts += [aligned(_errors(results)), "", aligned(_layers(results)), ""]
        parts += [text for method, text in WHY.items() if method in shown]
    if runs := results.get("obd-lenet300"):
        parts.append(_curvature(runs))
    if absent := [name for name in PAPER if not results.get(name)]:
        parts.append(f"Not measured yet: {', '.join(absent)}.\n")
    parts.append(
        "Made by `python bench/fine_grained.py --data-dir DATA --out runs/fine-grained`.\n"
    )
    return "\n".join(parts)


def _errors(results: Mapping[str, Mapping[int, Any]]) -> list[tuple[str, ...]]:
    head = ("network", "method", "seeds", "dense error %", "pruned error %", "difference", "fewer")
    lines = [(*head, "paper: dense", "pruned", "fewer")]
    for name, paper in PAPER.items():
        runs = list(results.get(name, {}).values())
        if not runs:
            continue
        method, _, net = name.partition("-")
        rates = [run["total"] / run["kept"] for run in runs]
        lines.append(
            (
                NETS[net],
                method,
                str(len(runs)),
                spread([run["dense_test"] for run in runs]),
                spread([run["test"] for run in runs]),
                spread([run["test"] - run["dense_test"] for run in runs], "+.2f"),
                f"{mean(rates):.1f}x",
                *paper[1:],
            )
        )
    return lines


def _layers(results: Mapping[str, Mapping[int, Any]]) -> list[tuple[str, ...]]:
    lines = [("network", "method", "weights kept % by layer", "units without weights (seed 0)")]
    for name in PAPER:
        runs = results.get(name, {})
        if not runs:
            continue
        method, _, net = name.partition("-")
        first = runs[min(runs)]
        kept = {x: mean(run["layers"][x] for run in runs.values()) for x in first["layers"]}
        dead = {x: n for x, n in first["dead_units"].items() if n[0]}
        lines.append(
            (
                NETS[net],
                method,
                ", ".join(f"{x} {d:.2f}" for x, d in kept.items()),
                ", ".join(f"{x} {n} of {units}" for x, (n, units) in dead.items()),
            )
        )
    return lines


def _curvature(runs: Mapping[int, Any]) -> str:
    lines = [("removed", "by saliency", "by magnitude", "predicted")]
    for points in zip(*(run["points"] for run in runs.values()), strict=True):
        rises = [
            spread([p[key] for p in points], ".5f") for key in ("obd", "magnitude", "predicted")
        ]
        lines.append((f"{100 * points[0]['removed']:.0f} %", *rises))
    loss = spread([run["loss"] for run in runs.values()], ".4f")
    return (
        "## Optimal brain damage without retraining\n\n"
        f"LeNet-300-100, {len(runs)} seeds, training loss {loss}: how much it rises when weights\n"
        "are removed at once, all layers ranked together.\n\n"
        f"{aligned(lines)}\n\n"
        "The paper's claim, that saliency orders weights better than magnitude, holds. Its\n"
        "other claim, that the sum of saliencies predicts the rise, does not carry over: a\n"
        "network that classifies its training data without doubt has hardly any curvature left\n"
        "where it stands, and the rise comes from further away.\n"
    )


def spread(values: list[float], form: str = ".2f") -> str:
    """Write a mean and, of several values, their standard deviation."""
    own = format(mean(values), form)
    return f"{own} ± {stdev(values):{form.lstrip('+')}}" if len(values) > 1 else own
