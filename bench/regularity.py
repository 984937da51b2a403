"""How regular may sparsity be? Element, row, kernel and filter under one protocol, over seeds.

    python bench/regularity.py --data-dir DATA --out runs/regularity
    python bench/regularity.py cifar10 --data-dir DATA --out runs/regularity-cifar10 --seeds 0

Convolutions of one network are cut by magnitude at four granularities: once, without training;
and step by step, trained after each cut. On MNIST the second convolution of LeNet-5, about 25
CPU-minutes for three seeds; on CIFAR-10 the second and third of a small AlexNet, as long for
one. Killed, it goes on where it was. Writes docs/results/regularity.md (regularity-cifar10.md)
and the figure beside it.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import mean

import torch
from torch import nn

from secateurs.compare.cell import Point, dense_folder, read_point
from secateurs.compare.grid import Arm, Cell, Grid
from secateurs.compare.page import CURVES, sizes_of, write_report
from secateurs.compare.references import expected_ratio, inputs_of, references
from secateurs.compare.run import cell_model, claim, dense_error, plain_model, points
from secateurs.compare.summary import Mark, grid_table, table
from secateurs.data.load import load
from secateurs.measure.report import write_whole
from secateurs.measure.table import aligned
from secateurs.recovery.settings import Trainer
from secateurs.runs.job import Say

GRAINS = ("element", "row", "kernel", "filter")


@dataclass(frozen=True)
class Study:
    """One network, one data set, and the convolutions of it that are cut."""

    model: str
    title: str
    cut: str
    """What is cut, in words."""
    whole: tuple[str, ...]
    """Patterns of parameters that stay whole."""
    layer: str
    """Whose memory references are counted."""
    densities: tuple[float, ...]
    trained: tuple[float, ...]
    """Densities that are also reached with training in between."""
    dense: Trainer
    recover: Trainer
    batch_size: int
    own_words: str
    """What this study shows beside the paper's."""


STUDIES = {
    "mnist": Study(
        "lenet5",
        "LeNet-5 on MNIST",
        "The second convolution of LeNet-5, (50, 20, 5, 5), is cut",
        # conv1 has one input channel, so its kernels are its filters; in fc all grains coincide.
        ("conv1.weight", "fc*"),
        "conv2",
        (0.5, 0.2, 0.1, 0.05),
        (0.2, 0.1, 0.05),
        Trainer(epochs=3, lr=0.05, nesterov=False, schedule="one_cycle", channels_last=True),
        Trainer(epochs=1, lr=0.01, nesterov=False, weight_decay=5e-4, channels_last=True),
        64,
        "What does not transfer is the size of the gaps: MNIST leaves little error to lose, and\n"
        "one layer is cut.",
    ),
    "cifar10": Study(
        "alexnet_quick",
        "a small AlexNet on CIFAR-10",
        "The second and third convolution of a small AlexNet, (32, 32, 5, 5) and (64, 32, 5, 5),\n"
        "are cut, each to the same density,",
        ("conv1.weight", "fc*"),
        "conv2",
        (0.5, 0.3, 0.2, 0.1),
        (0.3, 0.2, 0.1),
        Trainer(epochs=8, lr=0.05, nesterov=False, schedule="one_cycle", channels_last=True),
        Trainer(epochs=1, lr=0.02, nesterov=False, weight_decay=5e-4, channels_last=True),
        128,
        "The network is small and shortly trained; its cut layers hold half of its weights.",
    ),
}


def command(data: str) -> str:
    """Return what makes the page of one data set."""
    named = "" if data == "mnist" else f" {data}"
    out = "runs/regularity" if data == "mnist" else f"runs/regularity-{data} --seeds 0"
    return f"python bench/regularity.py{named} --data-dir DATA --out {out}"


def grid(data: str, seeds: Sequence[int], data_dir: str | None) -> Grid:
    study = STUDIES[data]
    arms = [Arm(g, "magnitude", {"granularity": g, "exclude": study.whole}) for g in GRAINS]
    chance = {"search": "best_of", "masks": 1, "rounds": 1}
    arms += [
        Arm(f"random {g}", "particles", {"granularity": g, "exclude": study.whole, **chance}, False)
        for g in ("element", "filter")
    ]
    return Grid(
        study.model,
        data,
        tuple(arms),
        study.densities,
        tuple(seeds),
        study.dense,
        study.recover,
        data_dir,
        study.batch_size,
        study.trained,
    )


def order(densities: Sequence[float], found: Sequence[Mark]) -> tuple[bool, list[str]]:
    """Say whether errors rise strictly from element to filter at 20 % and less, untrained."""
    strict, lines = True, []
    for density in sorted({d for d in densities if d <= 0.3}, reverse=True):
        cut = {m.arm: m for m in found if m.phase == "cut" and abs(m.density - density) < 0.02}
        errors = [100 * cut[grain].error for grain in GRAINS]
        rising = all(a < b for a, b in pairwise(errors))
        strict &= rising
        lines.append(f"{100 * density:g} %: " + " < ".join(f"{e:.2f}" for e in errors))
    return strict, lines


def memory(some: Grid, done: Sequence[Point], out: Path) -> str:
    """Count memory references of one layer on 200 validation images, element against row."""
    layer = STUDIES[some.data].layer
    data = load(some.data, data_dir=some.data_dir, batch_size=200, seed=0)
    x = next(iter(data.valid))[0]
    wanted = [p for p in done if p.arm in ("element", "row") and p.phase == "cut"]
    plain = plain_model(some)
    lines = [("density", "element, millions", "row, millions", "row / element")]
    share = []
    for density in some.densities:
        counts: dict[str, list[int]] = {"element": [], "row": []}
        for p in (p for p in wanted if p.density == density):
            net = cell_model(plain, some, p, out)
            conv = net.get_submodule(layer)
            assert isinstance(conv, nn.Conv2d)
            into = inputs_of(net, conv, x)
            share.append(float((into != 0).float().mean()))
            kept = conv.weight != 0
            counts[p.arm].append(references(conv, kept, into, rows=p.arm == "row") // len(x))
        fine, row = mean(counts["element"]), mean(counts["row"])
        cells = (f"{100 * density:g} %", f"{fine / 1e6:.3f}", f"{row / 1e6:.3f}")
        lines.append((*cells, f"{row / fine:.2f}"))
    return (
        f"{aligned(lines)}\n\nOf the inputs {100 * mean(share):.0f} % are not zero; were they "
        "independent of each other, rows of 5\nwould take "
        f"{expected_ratio(5, mean(share)):.2f} of the elements' references. At the 35 to 40 % of "
        "the paper's networks and\nrows of 3 the same count gives its 0.65 to 0.69."
    )


def storage(some: Grid, done: Sequence[Point], out: Path) -> float:
    """Return the largest excess of the stored grains over the formula, as a fraction."""
    worst, plain = 0.0, plain_model(some)
    for p in done:
        if p.arm in GRAINS and (found := sizes_of(plain, some, p, out)) is not None:
            worst = max(worst, found.grains / found.formula - 1)
    return worst


def page(some: Grid, done: Sequence[Point], found: Sequence[Mark], out: Path, figure: str) -> str:
    study = STUDIES[some.data]
    strict, lines = order(some.densities, found)
    excess = 100 * storage(some, done, out)
    seeds = sorted({p.seed for p in done})
    trained = sorted({p.seed for p in done if p.phase == "recovered"})
    dense = ", ".join(f"{100 * dense_error(out, s):.2f}" for s in seeds)
    turn = ", then ".join(f"{100 * d:g} %" for d in study.trained)
    how, epochs = study.recover, study.recover.epochs
    parts = [
        f"# How regular may sparsity be? {study.title[0].upper()}{study.title[1:]}",
        f"{study.cut} at four grains under one\nprotocol: the sum of magnitudes ranks the "
        "grains of a layer, the lowest go. *Once*: from the\ndense model, no training. *In turn*: "
        f"{turn}, {epochs} epoch{'s' * (epochs > 1)} of training at {how.lr:g}\n(cosine) after "
        "each cut, the mask held. The other layers stay whole. *Random* draws the\ngrains, the "
        "control. Errors in percent of the 10,000 test images, mean and standard\ndeviation over "
        "seeds; nothing was chosen by them.",
        f"Dense, {study.dense.epochs} epochs: {dense} (seeds {', '.join(map(str, seeds))}). "
        f"Trained cells: seeds {', '.join(map(str, trained)) or 'none'}.",
        f"![accuracy against sparsity and bytes]({figure})",
        "## Once, without training",
        grid_table(found, "cut"),
        f"Element < row < kernel < filter, strictly, at every density up to 30 %: "
        f"**{'holds' if strict else 'does not hold'}** ({'; '.join(lines)}).",
    ]
    if trained:
        parts += ["## Cut and trained in turn", grid_table(found, "recovered")]
    parts += [
        "## Bytes",
        "Of what was cut, 8-bit weights. *Formula*: d (8g + 4) / 8g, one 4-bit index a kept grain\n"
        "of g weights. *Grains*: that format written out, one more index for every 15 grains that\n"
        f"a gap leaves out; the largest excess over the formula is {excess:.1f} %. "
        "*Container*:\nthis library's file, which codes both streams.",
        table([m for m in found if not m.arm.startswith("random")]),
        "## Memory references",
        "Read-modify-writes of output memory in the sparse accelerator the paper assumes, for\n"
        f"one image in {study.layer}: one a product for elements; by rows one for each output that "
        "a row touches.",
        memory(some, done, out),
        "## Against the paper",
        "Mao et al. 2017, arXiv:1705.08922, compare the grains on ImageNet networks: at equal\n"
        "density fine > vector > kernel in accuracy, filters far behind, and vector needs no more\n"
        "bytes than fine at equal accuracy on three of five networks. "
        f"{'The order repeats here.' if strict else 'The order does not repeat here everywhere.'}\n"
        f"{study.own_words}",
        f"Made by `{command(some.data)}`. The same for any model and data:\n"
        "`secateurs compare granularity MODEL --data DATA --densities 0.5,0.2,0.1 --seeds 0,1,2 "
        "--out DIR`.",
    ]
    return "\n\n".join(parts) + "\n"


def available(some: Grid, out: Path) -> list[Point]:
    """Read the cells that are done; of trained arms only seeds that all grains have."""

    def there(cell: Cell) -> bool:
        return (out / cell.path / "point.json").exists()

    found: list[Cell] = []
    for seed in some.seeds:
        if not (dense_folder(out, next(some.cuts(seed))) / "report.json").exists():
            continue
        found += [cell for cell in some.cuts(seed) if there(cell)]
        chains = list(some.chains(seed))
        full = {d for d in some.trained or () if all(there(c) for c in chains if c.density == d)}
        found += [cell for cell in chains if cell.density in full]
    return [read_point(out / cell.path) for cell in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="?", choices=list(STUDIES), default="mnist")
    parser.add_argument("--data-dir")
    parser.add_argument("--out", type=Path, help="runs/regularity, or one by the data's name")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--page", type=Path, help="what to write; in docs/results")
    parser.add_argument("--done", action="store_true", help="Report on what is done, run nothing.")
    args = parser.parse_args()
    torch.set_num_threads(1)
    name = "regularity" if args.data == "mnist" else f"regularity-{args.data}"
    out, place = args.out or Path("runs") / name, args.page or Path(f"docs/results/{name}.md")
    some = grid(args.data, args.seeds, args.data_dir)
    claim(some, out)
    if args.done:
        done = available(some, out)
    else:
        done = list(points(some, out, say=Say(line=lambda line: print(line, flush=True))))
    found = write_report(some, done, out)
    write_whole(place, page(some, done, found, out, place.with_suffix(".svg").name))
    write_whole(place.with_suffix(".svg"), (out / CURVES).read_text())
    print(place)


if __name__ == "__main__":
    main()
