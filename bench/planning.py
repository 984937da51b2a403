"""How long planning takes, and how it grows with depth.

    python bench/planning.py                 # one line of JSON per model

Planning is tracing, sending labels and settling units, then the plan itself: nothing is cut.
The chains are residual blocks of 32 channels, so only the number of graph nodes grows.
"""

import json
import time
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torchvision import models

from secateurs.graph.program import capture
from secateurs.graph.trace import wire
from secateurs.realise.plan import plan

T = TypeVar("T")


class Chain(nn.Module):
    """Residual blocks in a row."""

    def __init__(self, depth: int) -> None:
        """Build so many blocks."""
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 32, 1), nn.Linear(32, 10)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(32, 64, 1), nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 32, 1))
            for _ in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 3, height, width) → (batch, 10)."""
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        out: Tensor = self.head(x.mean((2, 3)))
        return out


MODELS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "resnet50": (models.resnet50, 224),
    "vit_b_16": (models.vit_b_16, 224),
    **{f"chain of {d} blocks": (lambda d=d: Chain(d), 8) for d in (32, 64, 128)},
}
"""Name → how to build it, and the side of its image."""


def measured(name: str) -> dict[str, Any]:
    """Time the parts of a plan, each the least of three, in seconds of one processor."""
    make, side = MODELS[name]
    model, x = make().eval(), torch.randn(2, 3, side, side)
    parameters = {n for n, _ in model.named_parameters()}
    program, trace_s = least(lambda: capture(model, x))
    graph, labels_s = least(lambda: wire(program, parameters, lambda: None))
    _, plan_s = least(lambda: plan(model, graph, density=0.5))
    return {
        "model": name,
        "nodes": len(program.module.graph.nodes),
        "trace_s": round(trace_s, 2),
        "labels_s": round(labels_s, 2),
        "plan_s": round(plan_s, 2),
        "total_s": round(trace_s + labels_s + plan_s, 2),
    }


def least(action: Callable[[], T], times: int = 3) -> tuple[T, float]:
    """Do something several times: → what it gave last, and its least processor time."""
    taken = []
    for _ in range(times):
        start = time.process_time()
        result = action()
        taken.append(time.process_time() - start)
    return result, min(taken)


def main() -> None:
    """Measure every model after one small one that warms the tracer up."""
    torch.set_num_threads(1)
    capture(Chain(1).eval(), torch.randn(2, 3, 8, 8))
    for name in MODELS:
        print(json.dumps(measured(name)), flush=True)


if __name__ == "__main__":
    main()
