"""A pruned model that runs faster on an ordinary processor, or says that it does not."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn

from secateurs.core.errors import PruneError, UnknownNameError
from secateurs.core.example import Example, tensors
from secateurs.core.layers import plain_module
from secateurs.measure.latency import latency
from secateurs.realise.sparse import native
from secateurs.realise.sparse.accelerated import NOT_COMPILED, Accelerated
from secateurs.realise.sparse.choice import Chosen
from secateurs.realise.sparse.choose import choose
from secateurs.realise.sparse.lower import Lowering
from secateurs.realise.sparse.passes import part, passes_of
from secateurs.realise.sparse.read import read, shapes_of
from secateurs.realise.sparse.timings import default_path, timings

Progress = Callable[[int, int], None]
Weights = Literal["float32", "int8"]
_BITS = {"float32": (32,), "int8": (32, 8)}


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
    first, passes = example, passes_of(plain, example, lowered)
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
        _settle_(result, plain, example, threads, rounds)
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
    result: Accelerated, model: nn.Module, example: Example, threads: int, rounds: int
) -> None:
    """Time whole calls side by side, and let the dense program run where it is faster."""
    models: dict[str, nn.Module] = {"dense": model}
    if any(t.dim() == 4 for t in tensors(example)):
        models["dense, channels last"] = _Last(copy.deepcopy(model))
    timed = latency({**models, "sparse": result}, example, threads=threads, rounds=rounds)
    result.latency = timed
    if result.speedup.high < 1:
        if result.passes > 1:  # a program for the whole batch takes the place of a part's
            program = read(model, example)[0].eval()
            result.program, result.part_inputs, result.passes = program, result.inputs, 1
        last = result.best_dense != "dense"
        result.run_dense_(_Last(result.program) if last else result.program)


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
