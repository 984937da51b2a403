"""Error against bytes before any training: pruning, sharing, both, int8 and SVD, side by side.

    python bench/compression_curves.py --data-dir DATA --out runs/deep-compression

LeNet-300-100 as bench/deep_compression.py trains it, seed 0; errors are of the held-out images,
bytes those of whole files. Writes quantisation.md and a figure for the results page.
"""

import argparse
import copy
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import torch
from deep_compression import data_of, dense
from fine_grained_jobs import wrong
from torch import Tensor, nn

from secateurs.budget.ranked import ranked_together
from secateurs.core.cut import score, select
from secateurs.criteria.magnitude import l1
from secateurs.data.load import Data
from secateurs.evidence.weights import weights
from secateurs.granularity.grains import elements
from secateurs.measure.report import write_whole
from secateurs.measure.table import aligned
from secateurs.realise.activations import RangeBy, calibrate, quantised
from secateurs.realise.coding.container import encode
from secateurs.realise.coding.shared import Coded
from secateurs.realise.quantise import quantise
from secateurs.realise.sharing import share

WAYS = (
    *("pruning only", "int8 and fewer, no pruning", "sharing only", "pruning and sharing", "SVD"),
    *("int8 and fewer, activations int8", "pruning, int8, activations int8"),
)
CALIBRATION = 16
"""Batches of 64 training images that ranges come from."""
DENSITIES = (0.5, 0.3, 0.2, 0.1, 0.05)
COMMAND = "python bench/compression_curves.py --data-dir DATA --out runs/deep-compression"
FIGURE = "compression-curves.svg"
ABOUT = """## One way alone, and two together

Before any training, LeNet-300-100, seed 0: error % of the held-out images at whole files that are
at least so many times smaller than dense; the best of what was tried, `-` where nothing was.
Pruning is by magnitude, all layers ranked together, values in float32; uniform levels have one
step a row; sharing is by k-means from a linear start; both is sharing what pruning left; SVD keeps
the ranks of the three layers in one proportion, the ten classes' among them, which is most of what
it loses: a lower bound of what SVD can do. All are coded by whatever makes them smallest.

Where activations are int8 too, every layer's input is rounded to a grid of 256 values; its range,
of least squared error, comes from 1,024 training images, and its step and
zero are in the file. Weights there have 3, 4, 6 or 8 bits, and after pruning 4 or 8.

![Error against ratio for pruning, sharing, both and SVD](compression-curves.svg)
"""
BITS = (8, 6, 4, 3)
RANGES = """Weights in 8 bits and activations in fewer, their ranges by what the batches held
(`minmax`), by all but 0.1 % on either side, or by least squared error; error % of the held-out
images, which is {dense:.2f} before.
"""
Point = tuple[str, float, float]


def points(model: nn.Module, data: Data) -> Iterator[Point]:
    """Yield (way, dense bytes by those of the file, error %)."""
    whole = {n: torch.ones_like(w, dtype=torch.bool) for n, w in weights(model).items()}
    whole = {n: keep for n, keep in whole.items() if keep.dim() > 1}
    for bits in (3, 4, 6, 8):
        levels = {n: quantise(weights(model)[n], bits, per_row=True) for n in whole}
        yield WAYS[1], *tried(model, data, levels)
        yield WAYS[5], *tried(model, data, levels, by="mse")
    for bits in (2, 3, 4, 5):
        yield WAYS[2], *tried(model, data, share(model, whole, bits, codebook="linear"))
    sites = elements(model)
    scores = score(sites, l1, weight=weights(model))
    for density in DENSITIES:
        mask = select(sites, scores, ranked_together(sites, scores, density, normalise="mean"))
        cut = {n: weights(model)[n].detach() * keep for n, keep in mask.items()}
        yield WAYS[0], *tried(model, data, cut)
        for bits in (3, 5):
            yield WAYS[3], *tried(model, data, share(model, mask, bits, codebook="linear"))
        for bits in (4, 8):
            levels = {n: quantise(w, bits, per_row=True) for n, w in cut.items()}
            yield WAYS[6], *tried(model, data, levels, by="mse")
    for part in (0.5, 0.2, 0.1, 0.05):
        yield WAYS[4], *low_rank(model, data, whole, part)


def tried(
    model: nn.Module, data: Data, coded: dict[str, Coded], by: RangeBy | None = None, bits: int = 8
) -> tuple[float, float]:
    """Return dense bytes by those of the file, and the error; activations by `by`, if given."""
    state = model.state_dict()
    contents = {n: coded.get(n, t) for n, t in state.items()}
    plain = {n: c if isinstance(c, Tensor) else c.dense() for n, c in coded.items()}
    if by is None:
        return bytes_of(state) / len(encode(contents)), error(model, data, plain)
    changed = copy.deepcopy(model)
    changed.load_state_dict({**state, **plain})
    grids = calibrate(changed, data.batches(CALIBRATION), by=by, bits=bits)
    contents["activations"] = torch.tensor([[g.step, g.zero] for g in grids.values()])
    with quantised(changed, grids):
        return bytes_of(state) / len(encode(contents)), wrong(changed, data.valid)


def ranges(model: nn.Module, data: Data) -> str:
    """Return a table of errors: ranges by bits of an activation."""
    matrices = {n: w for n, w in weights(model).items() if w.dim() > 1}
    levels = {n: quantise(w, 8, per_row=True) for n, w in matrices.items()}
    lines = [("range", *(f"{bits} bits" for bits in BITS))]
    for by in get_args(RangeBy):
        errors = [tried(model, data, levels, by=by, bits=bits)[1] for bits in BITS]
        lines.append((by, *(f"{e:.2f}" for e in errors)))
    return f"{RANGES.format(dense=wrong(model, data.valid))}\n{aligned(lines)}"


def low_rank(
    model: nn.Module, data: Data, names: dict[str, Tensor], part: float
) -> tuple[float, float]:
    state, stored, plain = model.state_dict(), {}, {}
    for name, tensor in state.items():
        if name not in names:
            stored[name] = tensor
            continue
        u, s, v = torch.linalg.svd(tensor, full_matrices=False)
        rank = max(1, round(part * len(s)))
        stored[f"{name}.u"], stored[f"{name}.v"] = u[:, :rank] * s[:rank], v[:rank]
        plain[name] = stored[f"{name}.u"] @ v[:rank]
    return bytes_of(state) / len(encode(stored)), error(model, data, plain)


def bytes_of(state: dict[str, Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in state.values())


def error(model: nn.Module, data: Data, plain: dict[str, Tensor]) -> float:
    changed = copy.deepcopy(model)
    changed.load_state_dict({**model.state_dict(), **plain})
    return wrong(changed, data.valid)


def table(found: list[Point]) -> str:
    ratios = (2, 4, 6, 8, 12, 16, 24, 32)
    lines = [("way", *(f"{r}x" for r in ratios))]
    for way in WAYS:
        cells = []
        for least in ratios:
            errors = [e for w, ratio, e in found if w == way and ratio >= least]
            cells.append(f"{min(errors):.1f}" if errors else "-")
        lines.append((way, *cells))
    return aligned(lines)


def figure(found: list[Point], path: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "secateurs"
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(6.4, 3.6), layout="constrained")
    plot = drawn.subplots()
    for way in WAYS:
        mine = sorted((ratio, e) for w, ratio, e in found if w == way)
        best = [(r, e) for r, e in mine if e <= min(other for s, other in mine if s >= r)]
        plot.plot(*zip(*best, strict=True), marker="o", ms=3, label=way)
    plot.set(xscale="log", yscale="log", xlabel="dense bytes / bytes of the file", ylabel="error %")
    plot.legend(frameon=False, fontsize=8)
    drawn.savefig(path, format="svg", metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir")
    parser.add_argument("--out", type=Path, default=Path("runs/deep-compression"))
    parser.add_argument("--results", type=Path, default=Path("docs/results"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = data_of("lenet300", 0, args.data_dir)
    model = dense("lenet300", 0, args.data_dir, args.out)
    found = list(points(model, data))
    figure(found, args.results / FIGURE)
    made = f"Made by `{COMMAND}`.\n"
    rounded = ranges(model, data)
    page = f"{ABOUT}\n{table(found)}\n\n{rounded}\n\n{made}"
    write_whole(args.out / "quantisation.md", page)
    print(page)


if __name__ == "__main__":
    main()
