"""docs/results/fine-grained.md, from the results of bench/fine_grained.py."""

from collections.abc import Mapping
from statistics import mean, stdev
from typing import Any

from secateurs.measure.table import aligned

Runs = Mapping[str, Mapping[int, Any]]
"""Job → seed → what it measured."""

PAPER = {
    "han-lenet300": ("1.64", "1.59", "12x", "a"),
    "han-lenet5": ("0.80", "0.77", "12x", "a"),
    "dns-lenet300": ("2.28", "1.99", "53.5x", "a, b"),
    "dns-lenet5": ("0.91", "0.91", "108x", "a, b"),
    "static-lenet300": ("", "", "", "c"),
    "static-lenet5": ("", "", "", "c"),
    "strided-lenet5": ("", "", "", "d"),
}
"""Job → the paper's error % of the dense and of the pruned network, its rate, and our notes."""

NETS = {"lenet300": "LeNet-300-100", "lenet5": "LeNet-5"}

FRESH = (
    *("progressive", "ac_dc", "lottery", "snip", "grasp", "synflow"),
    *("rigl", "rigl-unscaled", "set"),
)
"""Baselines that begin with new weights."""

HEAD = """# Fine-grained methods on the LeNets of their papers

MNIST, 55,000 images to learn from and 5,000 to choose settings by; the test set was read once
per model, at the end. One standard error of an error rate of 1.7 % on 10,000 images is 0.13
points. Rates count weights and biases, and no indices, as the papers do. ± is the standard
deviation over seeds.
"""

WHY = """Why the numbers differ:

- **a** The dense networks here are better than the papers', because they learn at a higher rate
  that falls to zero by a cosine; the papers' rate falls slowly. The distance between dense and
  pruned is what to compare. Trainings are shorter: `han` has two rounds of 6 epochs (LeNet-5: of
  2) and shares the target by sensitivity scans, where the paper chose thresholds by hand; `dns`
  has 12,900 steps (LeNet-5: 6,880) for the paper's 25,000 (16,000).
- **b** By the target-density form, at the layers' densities of the models that the authors
  released: the first of them keeps 4,988 numbers, 53.5 times fewer, where the paper says 56. One
  standard error of 0.9 % on 10,000 images is 0.09 points, more than lies between `dns` on LeNet-5
  and the paper.
- **c** The control of `dns`: its densities and its training, but cut once by magnitude within each
  layer, the mask held, biases whole. What splicing gains lies between the two.
- **d** Only conv2 is cut, to every second position of each kernel, with an epoch of training.
  Anwar et al. report no such row; "fewer" counts the whole network.
"""


def page(results: Runs) -> str:
    """Write what has been measured so far as one Markdown page."""
    parts = [HEAD]
    if any(results.get(name) for name in PAPER):
        parts += [aligned(_errors(results)), "", WHY, aligned(_layers(results)), ""]
    if runs := results.get("strided-lenet5"):
        parts.append(_strided(runs))
    if runs := results.get("obd-lenet300"):
        parts.append(_curvature(runs))
    if any(name.startswith("base-") and runs for name, runs in results.items()):
        parts.append(_baselines(results))
    if absent := [name for name in (*PAPER, "obd-lenet300") if not results.get(name)]:
        parts.append(f"Not measured yet: {', '.join(absent)}.\n")
    parts.append(
        "Predicted parameters are in [denil.md](denil.md), the granularities compared in\n"
        "[regularity.md](regularity.md) and, on CIFAR-10, in\n"
        "[regularity-cifar10.md](regularity-cifar10.md).\n\n"
        "Made by `python bench/fine_grained.py --data-dir DATA --out runs/fine-grained`, which\n"
        f"goes on where it was{_cost(results)}.\n"
    )
    return "\n".join(parts)


def _errors(results: Runs) -> list[tuple[str, ...]]:
    head = ("network", "method", "seeds", "dense error %", "pruned error %", "difference", "fewer")
    lines = [(*head, "paper: dense", "pruned", "fewer", "why")]
    for name, paper in PAPER.items():
        runs = list(results.get(name, {}).values())
        if not runs:
            continue
        method, _, net = name.partition("-")
        lines.append((NETS[net], f"`{method}`", str(len(runs)), *_measured(runs), *paper))
    return lines


def _measured(runs: list[Any]) -> tuple[str, str, str, str]:
    rates = [run["total"] / run["kept"] for run in runs]
    return (
        spread([run["dense_test"] for run in runs]),
        spread([run["test"] for run in runs]),
        spread([run["test"] - run["dense_test"] for run in runs], "+.2f"),
        f"{mean(rates):.1f}x",
    )


def _layers(results: Runs) -> list[tuple[str, ...]]:
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
                f"`{method}`",
                ", ".join(f"{x} {d:.2f}" for x, d in kept.items()),
                ", ".join(f"{x} {n} of {units}" for x, (n, units) in dead.items()),
            )
        )
    return lines


def _strided(runs: Mapping[int, Any]) -> str:
    best = spread([run["best_of"] for run in runs.values()])
    return (
        f"`strided` chooses offsets by the particle filter, 20 masks five times. The best of\n"
        f"100 random masks, its control, ends at {best}.\n"
    )


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


def _baselines(results: Runs) -> str:
    lines = [("method", "begins with", "seeds", "dense error %", "pruned error %", "", "fewer")]
    known = {name: list(runs.values()) for name, runs in results.items() if runs}
    rows = [(name.removeprefix("base-"), known[name]) for name in known if name[:5] == "base-"]
    for name, runs in sorted(rows, key=lambda row: mean(run["test"] for run in row[1])):
        begins = "new weights" if name in FRESH else "the dense network"
        lines.append((f"`{name}`", begins, str(len(runs)), *_measured(runs)))
    return (
        "## The baselines, at a fiftieth of the weights\n\n"
        "A perceptron 64-300-100-10 on scikit-learn's digits (360 test images, one is 0.28\n"
        "points), 1,004 of 50,200 weights, each method with its own defaults and 20 epochs a\n"
        "training. Those that begin with the dense network follow its 20 epochs; those that begin\n"
        "with new weights have 20 alone (`lottery` six times).\n\n"
        f"{aligned(lines)}\n\n"
        "Methods that share uniformly leave the last layer 20 of its 1,000 weights, and one of\n"
        "the ten classes may end without any, which costs 10 points: `movement` loses none where\n"
        "all layers are ranked together. A sparse network with new weights begins with signals\n"
        "that die out unless they are scaled up: `rigl-unscaled` shows what that does. `rigl` and\n"
        "`set` have 820 steps here, in which they move their connections 6 times.\n"
        '"Fewer" is over weights and biases, and only `dns` cuts biases.\n'
    )


def _cost(results: Runs) -> str:
    spent = [run.get("cpu_seconds", 0.0) for runs in results.values() for run in runs.values()]
    return f"; {sum(spent) / 60:.0f} CPU-minutes" if any(spent) else ""


def spread(values: list[float], form: str = ".2f") -> str:
    """Write a mean and, of several values, their standard deviation."""
    own = format(mean(values), form)
    return f"{own} ± {stdev(values):{form.lstrip('+')}}" if len(values) > 1 else own
