"""Sparse networks against the best dense engine there is, whole networks, in one run.

    python bench/runtime.py --out runs/runtime                 # docs/results/runtime.md
    python bench/runtime.py --out runs/runtime --every         # the whole grid; hours
    python bench/runtime.py --out runs/runtime --only resnet50 # cells whose name begins so

Weights are random and dropped at random, at the given density in every layer but the first and
depthwise convolutions; time does not depend on which. Engines are timed in turns and the ratio
is taken round by round against the one that is fastest dense. Needs `pip install
'secateurs[bench,export]' openvino`. Results go into docs/results/runtime.jsonl too: what it has
of this kind of processor is not done again; remove its lines to begin anew.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from runtime_engines import ENGINES, other_numbers
from runtime_page import page
from torch import Tensor, nn

from secateurs.measure.environment import environment
from secateurs.measure.latency import latency, speedups
from secateurs.measure.report import write_whole
from secateurs.models.create import create
from secateurs.realise.sparse import accelerate, native


@dataclass(frozen=True)
class Cell:
    network: str
    pattern: str
    """element, vector4 (four filters share positions), fibre (all filters do)."""
    density: float
    threads: int = 1
    batch: int = 1

    @property
    def name(self) -> str:
        return f"{self.network}-{self.pattern}-{self.density}-{self.threads}t-b{self.batch}"


class Mlp(nn.Sequential):
    """Three linear layers of 2,048."""

    def __init__(self) -> None:
        super().__init__(
            *(nn.Linear(784, 2048), nn.ReLU(), nn.Linear(2048, 2048), nn.ReLU()),
            nn.Linear(2048, 10),
        )


class FeedForward(nn.Module):
    """The feed-forward blocks of a small transformer: 384 wide, four of them, with norms."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(384), nn.Linear(384, 1536), nn.GELU(), nn.Linear(1536, 384))
            for _ in range(4)
        )

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + block(x)
        return x


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "resnet50": (lambda: create("torchvision:resnet50"), (3, 224, 224)),
    "vgg16": (lambda: create("torchvision:vgg16"), (3, 224, 224)),
    "mobilenetv1": (lambda: create("timm:mobilenetv1_100"), (3, 224, 224)),
    "mobilenetv2": (lambda: create("torchvision:mobilenet_v2"), (3, 224, 224)),
    "alexnet-features": (lambda: create("torchvision:alexnet").features, (3, 224, 224)),
    "resnet20": (lambda: create("resnet20"), (3, 32, 32)),
    "mlp": (Mlp, (784,)),
    "feed-forward": (FeedForward, (197, 384)),
}

CHOSEN = [
    Cell("resnet50", "element", 0.1),
    Cell("resnet50", "vector4", 0.1),
    Cell("resnet50", "element", 0.05),
    Cell("resnet50", "vector4", 0.05),
    Cell("vgg16", "element", 0.1),
    Cell("mobilenetv1", "element", 0.1),
    Cell("alexnet-features", "fibre", 0.1),
    Cell("resnet50", "element", 0.1, batch=16),
    Cell("resnet50", "element", 0.4),
    Cell("resnet50", "element", 0.2),
    Cell("resnet50", "element", 1.0),
    Cell("resnet50", "vector4", 0.5),
    Cell("resnet50", "element", 0.1, threads=2),
    Cell("resnet50", "vector4", 0.1, threads=2),
    Cell("mobilenetv2", "element", 0.1),
    Cell("resnet20", "element", 0.1),
    Cell("mlp", "element", 0.1),
    Cell("feed-forward", "element", 0.1),
    Cell("feed-forward", "vector4", 0.1),
    Cell("vgg16", "vector4", 0.1),
    Cell("mobilenetv1", "vector4", 0.1),
    Cell("alexnet-features", "element", 0.1),
    Cell("resnet50", "vector4", 0.1, batch=16),
    Cell("resnet50", "fibre", 0.1),
    Cell("resnet50", "element", 0.5),
    Cell("resnet50", "element", 0.3),
    Cell("resnet50", "vector4", 0.2),
    Cell("resnet50", "fibre", 0.5),
]


def every() -> list[Cell]:
    return CHOSEN + [
        Cell(network, pattern, density, threads, batch)
        for threads in (1, 2)
        for batch in (1, 16)
        for network in NETWORKS
        for pattern in ("element", "vector4", "fibre")
        for density in (1.0, 0.5, 0.3, 0.2, 0.1, 0.05)
    ]


def pruned(model: nn.Module, pattern: str, density: float) -> nn.Module:
    """Drop weights of all layers but the first and depthwise ones, in place."""
    generator = torch.Generator().manual_seed(0)
    found = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    for layer in found[1:] if len(found) > 8 else found:
        if isinstance(layer, nn.Conv2d) and layer.groups > 1:
            continue
        weight = layer.weight.data
        rows = {"element": 1, "vector4": 4, "fibre": len(weight)}[pattern]
        shape = (-(-len(weight) // rows), *weight.shape[1:])
        keep = torch.rand(shape, generator=generator) < density
        weight *= keep.repeat_interleave(rows, 0)[: len(weight)] / density**0.5
    return model.eval()


def measure(cell: Cell, rounds: int, int8: bool) -> dict[str, object]:
    torch.manual_seed(0)
    torch.set_num_threads(cell.threads)
    build, shape = NETWORKS[cell.network]
    model = pruned(build(), cell.pattern, cell.density)
    x = torch.randn(cell.batch, *shape)
    start = time.perf_counter()
    fast = accelerate(model, x, threads=cell.threads, cache=None, rounds=0)
    made_s = time.perf_counter() - start
    with torch.no_grad():
        exact = model.double()(x.double())
        model.float()
    off = float((fast(x).double() - exact).abs().max() / exact.abs().max())
    engines = {**ENGINES, **(other_numbers() if int8 else {})}
    models = {name: make(model, x, cell.threads) for name, make in engines.items()}
    timed = latency({**models, "secateurs": fast}, x, threads=cell.threads, rounds=rounds)
    best = min(ENGINES, key=lambda name: timed[name].median_s)
    gain = speedups(timed, best)["secateurs"]
    layers = [line.chosen for line in fast.plan if line.chosen.sparse]
    return {
        "instructions": fast.instructions,
        **asdict(cell),
        "name": cell.name,
        "median_s": {name: t.median_s for name, t in timed.items()},
        "best": best,
        "speedup": [gain.ratio, gain.low, gain.high],
        "compiled_s": made_s,
        "difference": off,
        "passes": fast.passes,
        "sparse_layers_s": [sum(c.dense_s for c in layers), sum(c.sparse_s for c in layers)],
        "environment": environment(),
    }


def rows_of(*files: Path) -> list[dict[str, Any]]:
    """Read the results of several files, the first's first, one of each cell and processor."""
    lines = [line for f in files if f.exists() for line in f.read_text().splitlines()]
    found = {(row["instructions"], row["name"]): row for row in map(json.loads, lines)}
    return list(found.values())


def left(cells: list[Cell], rows: list[dict[str, Any]], only: str) -> Iterator[Cell]:
    """Yield the cells that this processor has no result of."""
    have = {row["name"] for row in rows if row["instructions"] == native.available()[0]}
    for cell in dict.fromkeys(cells):
        if cell.name not in have and cell.name.startswith(only):
            yield cell


def _place(row: dict[str, Any]) -> tuple[Any, ...]:
    """Say where a row stands: by processor, threads, batch, network, pattern and zeros."""
    kind = native.INSTRUCTIONS.index(row["instructions"])
    network = list(NETWORKS).index(row["network"])
    return kind, row["threads"], row["batch"], network, row["pattern"], -row["density"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of results")
    parser.add_argument("--page", type=Path, default=Path("docs/results/runtime.md"))
    parser.add_argument("--every", action="store_true", help="the whole grid")
    parser.add_argument("--only", default="", help="cells whose name begins so")
    parser.add_argument("--int8", action="store_true", help="also time bfloat16 and 8 bits")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no cell after so long")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    lines, file = options.page.with_suffix(".jsonl"), options.out / "cells.jsonl"
    start = time.monotonic()
    for cell in left(every() if options.every else CHOSEN, rows_of(lines, file), options.only):
        if time.monotonic() - start > options.seconds:
            break
        row = measure(cell, options.rounds, options.int8)
        with file.open("a") as out:
            out.write(json.dumps(row) + "\n")
        print(f"{cell.name}: {row['speedup'][0]:.2f}x over {row['best']}", flush=True)
    rows = rows_of(lines, file)
    rows.sort(key=_place)
    write_whole(lines, "".join(json.dumps(row) + "\n" for row in rows))
    page(rows, options.page)


if __name__ == "__main__":
    main()
