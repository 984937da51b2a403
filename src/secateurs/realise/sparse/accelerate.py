"""A pruned model that runs faster on an ordinary processor, or says that it does not."""

import copy
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn

from secateurs.core.errors import PruneError, ShapeError, UnknownNameError
from secateurs.core.example import Example, tensors
from secateurs.core.layers import plain_module
from secateurs.measure.latency import Latency, Speedup, latency, speedups
from secateurs.realise.sparse import native
from secateurs.realise.sparse.choice import Chosen
from secateurs.realise.sparse.choose import choose
from secateurs.realise.sparse.engine import Engine
from secateurs.realise.sparse.lower import Lowering
from secateurs.realise.sparse.ops import Product
from secateurs.realise.sparse.passes import joined, part, passes_of
from secateurs.realise.sparse.read import read, shapes_of
from secateurs.realise.sparse.timings import default_path, timings

Progress = Callable[[int, int], None]
Weights = Literal["float32", "int8"]
_BITS = {"float32": (32,), "int8": (32, 8)}
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
        from secateurs.realise.sparse.files import save_accelerated  # which reads this class

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
        return f"{sparse} of {len(self.plan)} layers sparse{bits}, {self.threads} threads"


def weights_for(word: str) -> Weights:
    """Return what weights may be stored in.

    Raises:
        UnknownNameError: neither `float32` nor `int8`.
    """
    if word not in _BITS:
        raise UnknownNameError(f"unknown weights {word!r}; use {' or '.join(_BITS)}")
    return word  # type: ignore[return-value]  # just checked


def accelerate(
    model: nn.Module,
    example: Example,
    *,
    threads: int | None = None,
    instructions: str | None = None,
    weights: Weights = "float32",
    cache: str | Path | None = "default",
    rounds: int = 10,
    progress: Progress | None = None,
) -> Accelerated:
    """Return a model that skips its zeros, layer by layer where that was measured to be faster.

    The choice is made by timing every layer, then the whole: `speedup` says what was gained
    over torch's dense kernels in this very run, which may be nothing.

    Args:
        model: pruned, float32, on the CPU; not changed. Zeros in its weights are skipped.
        example: what it is called with; the result takes inputs of this shape only.
        threads: CPU threads of every call; as set by torch when None.
        instructions: `avx512`, `avx2` or `plain`; the best there are when None.
        weights: `int8` also tries weights of 8 bits, with one scale a filter, in linear layers
            and 1 x 1 convolutions; sums and activations stay float32. Only these change what is
            computed, by at most half a step, 1/254 of a filter's greatest weight, a weight.
        cache: file of earlier timings on this machine; None times everything anew.
        rounds: how often the whole network is timed against the dense one.
        progress: called with (layers timed, of).

    Raises:
        PruneError: nothing was compiled, since there was no C compiler at installation, or
            the model is not float32 on the CPU.
        StructureError: the model cannot be traced.
        UnknownNameError: there are no such weights or instructions.
    """
    weights_for(weights)
    found = native.available()
    if not found:
        raise PruneError(NOT_COMPILED)
    plain = plain_module(model)
    _check(plain, example)
    threads = threads or torch.get_num_threads()
    instructions = instructions or found[0]
    native.lanes(instructions)
    module, names, lowered = _traced(plain, example)
    whole, first, passes = module, example, passes_of(plain, example, lowered)
    if passes > 1:
        first = part(example, 0, passes)
        few = _traced(plain, first)
        if (few[1], few[2].ops.keys()) == (names, lowered.ops.keys()):
            module, names, lowered = few
        else:  # what it does depends on the number of images
            first, passes = example, 1
    path = default_path() if cache == "default" else None if cache is None else Path(cache)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with timings(path) as known:
            plans = _plans(lowered, instructions, threads, _BITS[weights], known, progress)
    finally:
        torch.set_num_threads(before)
    made = [
        Accelerated(
            module, names, first, plan,
            instructions=instructions, threads=threads, passes=passes, lowered=lowered,
        )
        for plan in plans
    ]  # fmt: skip
    result = _faster(made, example)
    if rounds:
        _settle_(result, plain, whole, example, threads, rounds)
    return result


def _plans(
    lowered: Lowering,
    instructions: str,
    threads: int,
    bits: tuple[int, ...],
    known: dict[str, Chosen],
    progress: Progress | None,
) -> list[dict[str, Chosen]]:
    """Choose for every layer; with several threads also without torch's kernels where it has some.

    Torch's threads go on looking for work after a product, which slows the layers behind it by
    more than timing one layer shows.
    """

    def chosen(dense: bool) -> dict[str, Chosen]:
        return choose(
            lowered.ops, lowered.shapes,
            instructions=instructions, threads=threads, bits=bits, dense=dense,
            known=known, progress=progress,
        )  # fmt: skip

    plan = chosen(True)
    mixed = len({c.sparse for c in plan.values()}) == 2
    return [plan, chosen(False)] if mixed and threads > 1 else [plan]


def _faster(made: list[Accelerated], example: Example) -> Accelerated:
    """Return the one that is faster as a whole."""
    if len(made) == 1:
        return made[0]
    models = {str(i): m for i, m in enumerate(made)}
    timed = latency(models, example, threads=made[0].threads, rounds=5)
    return made[int(min(timed, key=lambda name: timed[name].median_s))]


def _traced(model: nn.Module, example: Example) -> tuple[fx.GraphModule, dict[str, str], Lowering]:
    module, names = read(model, example)
    return module, names, Lowering(module, shapes_of(module, example), names)


def _check(model: nn.Module, example: Example) -> None:
    """Refuse weights and inputs that are not on the CPU, and floats of another precision."""
    held = [("the model's", n, t) for n, t in (*model.named_parameters(), *model.named_buffers())]
    given = [("the example's", f"input {i}", t) for i, t in enumerate(tensors(example))]
    for whose, name, tensor in (*held, *given):
        kind = str(tensor.dtype).removeprefix("torch.")
        floats = tensor.is_floating_point() or tensor.is_complex()
        if tensor.device.type != "cpu" or (floats and tensor.dtype != torch.float32):
            raise PruneError(
                f"{whose} {name} is {kind} on {tensor.device}; the sparse run time computes in "
                "float32 on the CPU, so call .float().cpu() first"
            )


def _settle_(
    result: Accelerated,
    model: nn.Module,
    program: fx.GraphModule,
    example: Example,
    threads: int,
    rounds: int,
) -> None:
    """Time whole calls side by side, and let the dense program run where it is faster."""
    models: dict[str, nn.Module] = {"dense": model}
    if any(t.dim() == 4 for t in tensors(example)):
        models["dense, channels last"] = _Last(copy.deepcopy(model))
    timed = latency({**models, "sparse": result}, example, threads=threads, rounds=rounds)
    result.latency = timed
    if result.speedup.high < 1:
        result.program, result.part_inputs, result.passes = program.eval(), result.inputs, 1
        last = result.best_dense != "dense"
        result.run_dense_(_Last(program) if last else program)


class _Last(nn.Module):
    """A model, given up to this one, with its weights and images laid out channels last."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model.to(memory_format=torch.channels_last)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        def last(t: Any) -> Any:
            four = isinstance(t, Tensor) and t.dim() == 4
            return t.contiguous(memory_format=torch.channels_last) if four else t

        args, kwargs = torch.utils._pytree.tree_map(last, (args, kwargs))
        return self.model(*args, **kwargs)


def _inputs(found: list[tuple[tuple[int, ...], torch.dtype]]) -> str:
    return ", ".join(f"{shape} {str(dtype).removeprefix('torch.')}" for shape, dtype in found)
