"""Repair without training: outputs of cut layers get back the mean and spread they had."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.core.errors import PruneError
from secateurs.core.example import Batch, call
from secateurs.core.finite import check_finite
from secateurs.measure.forward import evaluation, inputs_of
from secateurs.recovery.batchnorm import collecting, tracked
from secateurs.recovery.layerwise import Kept, Pair, pairs
from secateurs.recovery.rows import Linear

_ROWS = 32
"""Fewer outputs than these say too little of a spread."""
_DEAD = 1e-6
"""An output whose variance is a smaller share of the original's is a constant."""


@dataclass(frozen=True)
class Moments:
    """Of each output of a layer, over inputs and positions, in float64."""

    rows: int
    mean: Tensor
    """(out,)."""
    squares: Tensor
    """(out,): sum of squared distances from the mean."""

    @staticmethod
    def of(linear: Linear, y: Tensor) -> "Moments":
        """Measure one output of the layer."""
        flat = y.movedim(1 if linear.spatial else -1, 0).flatten(1).double()
        mean = flat.mean(1)
        return Moments(flat.shape[1], mean, (flat - mean[:, None]).square().sum(1))

    def __add__(self, other: "Moments") -> "Moments":
        """Merge the moments of other rows (Chan, Golub & LeVeque 1979)."""
        rows, apart = self.rows + other.rows, other.mean - self.mean
        between = apart.square() * self.rows * other.rows / rows
        mean = self.mean + apart * other.rows / rows
        return Moments(rows, mean, self.squares + other.squares + between)

    @property
    def variance(self) -> Tensor:
        """(out,)."""
        return self.squares / self.rows


def renormalise_(
    small: nn.Module, original: nn.Module, batches: Iterable[Batch], kept: Kept
) -> tuple[str, ...]:
    """Give the outputs of cut layers the mean and variance of the original's, in place.

    Every output of a layer that lost inputs is scaled and shifted through its weights and its
    bias: → the layers, front to back. Cut channels take part of the signal with them, layer by
    layer, until biases that were made for all of it decide alone; this is what new statistics
    mend where there are batch norms, and layers without bias are left to those. Two passes over
    the inputs, whatever the depth. Labels are not used.

    Source: Jordan, Sedghi, Saukh, Entezari & Neyshabur 2023, "REPAIR", arXiv:2211.08403,
    section 3, there between permuted networks. Deviation: all statistics are taken in one pass,
    each layer's behind those before it.

    Args:
        small: the smaller model. Its layers keep the original's paths.
        original: the model it was cut from; not changed.
        batches: inputs with or without labels; a few hundred inputs are enough.
        kept: `Compacted.kept`.

    Raises:
        PruneError: there are no batches, or outputs are not finite.
    """
    found, _ = pairs(small, original, kept)
    wanted = {path: pair for path, pair in found.items() if pair.linear.bias is not None}
    if not wanted:
        return ()
    inputs = list(batches)
    if not inputs:
        raise PruneError("cannot measure outputs without inputs; the loader is empty")
    targets = _targets(original, inputs, wanted)
    seen: dict[str, Moments] = {}

    def mend(path: str, y: Tensor) -> Tensor:
        now = Moments.of(wanted[path].linear, y)
        seen[path] = seen[path] + now if path in seen else now
        slope, shift = _affine(seen[path], targets[path])
        axis = 1 if wanted[path].linear.spatial else -1
        return (y.movedim(axis, -1) * slope.to(y) + shift.to(y)).movedim(-1, axis)

    with evaluation(small), collecting(tracked(small)):
        _run(small, inputs, list(wanted), mend)
    for path, moments in seen.items():
        check_finite(f"outputs of {path}", moments.squares, targets[path].squares)
    for path, moments in seen.items():
        _write(wanted[path].linear, *_affine(moments, targets[path]))
    return tuple(seen)


def _affine(now: Moments, target: Moments) -> tuple[Tensor, Tensor]:
    """Return slope and shift, (out,), that turn the moments into the target's."""
    living = now.variance > _DEAD * target.variance
    enough = min(now.rows, target.rows) >= _ROWS
    ratio = target.variance / torch.where(living, now.variance, 1.0)
    slope = torch.where(living & enough, ratio.sqrt(), 1.0)
    return slope, target.mean - slope * now.mean


def _write(linear: Linear, slope: Tensor, shift: Tensor) -> None:
    matrix, bias = linear.matrix(), linear.bias
    assert bias is not None
    linear.write_(matrix * slope.view(*matrix.shape[:2], 1).to(matrix))
    with torch.no_grad():
        bias.copy_(bias * slope.to(bias) + shift.to(bias))


def _targets(original: nn.Module, inputs: list[Any], wanted: dict[str, Pair]) -> dict[str, Moments]:
    found: dict[str, Moments] = {}

    def hear(path: str, y: Tensor) -> Tensor:
        now = Moments.of(wanted[path].original, y)
        found[path] = found[path] + now if path in found else now
        return y

    with evaluation(original):
        _run(original, inputs, list(wanted), hear)
    outputs = {path: wanted[path].outputs.to(m.mean.device) for path, m in found.items()}
    return {
        path: Moments(m.rows, m.mean[outputs[path]], m.squares[outputs[path]])
        for path, m in found.items()
    }


def _run(
    model: nn.Module, inputs: list[Any], paths: list[str], change: Callable[[str, Tensor], Tensor]
) -> None:
    """Run all inputs, letting `change` replace the output of each layer."""

    def hook(path: str) -> Callable[[nn.Module, Any, Tensor], Tensor]:
        return lambda module, args, y: change(path, y)

    modules = dict(model.named_modules())
    handles = [modules[path].register_forward_hook(hook(path)) for path in paths]
    try:
        for x in inputs_of(model, inputs):
            call(model, x)
    finally:
        for handle in handles:
            handle.remove()
