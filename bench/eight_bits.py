"""Layers with float32 weights and with weights of 8 bits, timed in turns in one process.

    python bench/eight_bits.py --seconds 40

Random weights at one density, one thread, the layer alone: what a call of the engine takes, its
copies of input and output included.
"""

import argparse
import copy
import time
from statistics import median

import torch
from torch import Tensor, nn

from secateurs.realise.sparse import Choice, available
from secateurs.realise.sparse.engine import Engine
from secateurs.realise.sparse.lower import Lowering
from secateurs.realise.sparse.ops import Product
from secateurs.realise.sparse.read import read, shapes_of

LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "linear 4096 to 4096": (nn.Linear(4096, 4096), (1, 4096)),
    "linear 9216 to 4096": (nn.Linear(9216, 4096), (1, 9216)),
    "linear 2048 to 1000": (nn.Linear(2048, 1000), (1, 2048)),
    "linear 4096 to 4096, batch 16": (nn.Linear(4096, 4096), (16, 4096)),
    "1 x 1, 1024 to 256, 14 x 14": (nn.Conv2d(1024, 256, 1), (1, 1024, 14, 14)),
    "1 x 1, 512 to 2048, 7 x 7": (nn.Conv2d(512, 2048, 1), (1, 512, 7, 7)),
    "1 x 1, 256 to 64, 56 x 56": (nn.Conv2d(256, 64, 1), (1, 256, 56, 56)),
}
CHOICES = {1: (Choice(1, 12), Choice(1, 4)), 4: (Choice(4, 3), Choice(4, 2))}
"""Filters that are cut together → what is tried; the fastest counts."""


def engine(layer: nn.Module, x: Tensor, choice: Choice) -> Engine:
    module, names = read(layer, x)
    low = Lowering(module, shapes_of(module, x), names)
    choices = {name: choice for name, op in low.ops.items() if isinstance(op, Product)}
    return Engine(
        module, low.ops, low.shapes, low.alias, choices, instructions=available()[0], threads=1
    )  # fmt: skip


def engines(density: float) -> dict[tuple[str, int, int], list[tuple[Engine, Tensor]]]:
    """Return what to time: (layer, filters together, bits) → engines and their input."""
    generator = torch.Generator().manual_seed(0)
    found = {}
    for name, (dense, shape) in LAYERS.items():
        x = torch.randn(shape, generator=generator)
        for together, choices in CHOICES.items():
            layer = copy.deepcopy(dense).eval()
            weight = layer.weight.data
            groups = -(-len(weight) // together), *weight.shape[1:]
            keep = torch.rand(groups, generator=generator) < density
            weight *= keep.repeat_interleave(together, 0)[: len(weight)]
            for bits in (32, 8):
                found[name, together, bits] = [
                    (engine(layer, x, Choice(c.together, c.vectors, bits=bits)), x) for c in choices
                ]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=40)
    parser.add_argument("--density", type=float, default=0.1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    held = engines(options.density)
    times = {key: [[] for _ in runs] for key, runs in held.items()}
    end = time.monotonic() + options.seconds
    while time.monotonic() < end:
        for key, runs in held.items():
            for taken, (fast, x) in zip(times[key], runs, strict=True):
                start = time.perf_counter()
                fast.run((x,), {})
                taken.append(time.perf_counter() - start)
    print("| layer | cut | float32 | int8 | |\n|---|---|---|---|---|")
    best = {key: min(median(t) for t in taken) * 1e6 for key, taken in times.items()}
    for name, together, bits in best:
        if bits == 32:
            wide, small = best[name, together, 32], best[name, together, 8]
            cut = "element" if together == 1 else f"vector{together}"
            print(f"| {name} | {cut} | {wide:.0f} | {small:.0f} | {wide / small:.2f}x |")


if __name__ == "__main__":
    main()
