"""A network whose sparse layers skip their zeros."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from secateurs.core.errors import PruneError, ShapeError
from secateurs.core.example import Example, tensors
from secateurs.measure.latency import Latency, Speedup, speedups
from secateurs.realise.sparse.choice import Chosen
from secateurs.realise.sparse.engine import Engine
from secateurs.realise.sparse.lower import Lowering
from secateurs.realise.sparse.ops import Product
from secateurs.realise.sparse.passes import joined, part
from secateurs.realise.sparse.read import shapes_of
from secateurs.realise.sparse.saving import save_accelerated

NOT_COMPILED = (
    "the sparse kernels were not compiled; install a C compiler, then install secateurs again, "
    "or go on with the dense model"
)


@dataclass(frozen=True)
class LayerPlan:
    """One linear or convolution layer, as it will run."""

    param: str
    shape: tuple[int, ...]
    chosen: Chosen


class Accelerated(nn.Module):
    """A network whose sparse layers skip their zeros, for inputs of one shape.

    It is called like the model it was made of, in evaluation mode and without gradients. Its
    weights are fixed; `plan` says what runs how.
    """

    def __init__(
        self,
        module: fx.GraphModule,
        names: Mapping[str, str],
        example: Example,
        plan: Mapping[str, Chosen],
        *,
        instructions: str,
        threads: int,
        passes: int = 1,
        lowered: Lowering | None = None,
    ) -> None:
        """Encode the sparse layers of a traced program; see `accelerate`.

        The program and the example are of one of `passes` equal parts of a batch.
        """
        super().__init__()
        self.program, self.names = module.eval(), dict(names)
        self.threads, self.instructions, self.passes = threads, instructions, passes
        self.part_inputs = [(tuple(t.shape), t.dtype) for t in tensors(example)]
        self.chosen = dict(plan)
        lowered = lowered or Lowering(module, shapes_of(module, example), names)
        self.plan = [
            LayerPlan(op.param, tuple(op.weight.shape), plan[name])
            for name, op in lowered.ops.items()
            if isinstance(op, Product) and name in plan
        ]
        self.engine = Engine(
            module,
            lowered.ops,
            lowered.shapes,
            lowered.alias,
            {n: c.choice for n, c in plan.items()},
            instructions=instructions,
            threads=threads,
        )
        self.latency: dict[str, Latency] = {}
        """`sparse`, `dense` and `dense, channels last`: whole passes, timed side by side."""
        self.dense: nn.Module | None = None
        """What runs in its place, where the whole was measured to be slower than that."""

    @property
    def inputs(self) -> list[tuple[tuple[int, ...], torch.dtype]]:
        """Shapes and types of a whole batch."""
        return [(s and (s[0] * self.passes, *s[1:]), d) for s, d in self.part_inputs]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute what the model computes.

        Raises:
            ShapeError: an input is not of the shape and type that the example had.
        """
        given = [(tuple(t.shape), t.dtype) for t in tensors((args, kwargs))]
        if given != self.inputs:
            raise ShapeError(
                f"made for inputs {_inputs(self.inputs)}, called with {_inputs(given)}; "
                "accelerate the model once for each shape"
            )
        with torch.no_grad():
            if self.dense is not None:
                return self.dense(*args, **kwargs)
            if self.passes == 1:
                return self.engine.run(args, kwargs)
            parts = (part((args, kwargs), i, self.passes) for i in range(self.passes))
            return joined([self.engine.run(*some) for some in parts])

    def run_dense_(self, module: nn.Module) -> None:
        """Let a dense program run in its place, and give up the sparse one."""
        self.dense = module
        self.engine.release_()

    def save(self, path: str | os.PathLike[str]) -> int:
        """Write it as one `.secz` file, for `load_accelerated`; returns its size in bytes.

        Raises:
            FileError: it cannot be written.
        """
        return save_accelerated(self, path)

    @property
    def speedup(self) -> Speedup:
        """How many times faster than the faster dense layout, over the rounds that were timed.

        Raises:
            PruneError: it was loaded from a file and not timed on this machine.
        """
        if not self.latency:
            raise PruneError("not timed on this machine; call accelerate() on the model instead")
        return speedups(self.latency, self.best_dense)["sparse"]

    @property
    def best_dense(self) -> str:
        """Which of torch's dense layouts was fastest."""
        dense = [n for n in self.latency if n != "sparse"]
        return min(dense, key=lambda name: self.latency[name].median_s)

    def extra_repr(self) -> str:
        """Show how much of it is sparse."""
        sparse = sum(line.chosen.sparse for line in self.plan)
        if self.dense is not None:
            why = self.speedup.verdict if self.latency else "slower when it was saved"
            return f"dense, since sparse layers made it {why}"
        small = sum(line.chosen.choice.bits == 8 for line in self.plan)
        bits = f", {small} of them in 8 bits" if small else ""
        passes = f", {self.passes} passes" if self.passes > 1 else ""
        return f"{sparse} of {len(self.plan)} layers sparse{bits}, {self.threads} threads{passes}"


def _inputs(found: list[tuple[tuple[int, ...], torch.dtype]]) -> str:
    return ", ".join(f"{shape} {str(dtype).removeprefix('torch.')}" for shape, dtype in found)
