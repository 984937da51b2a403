"""Activations as whole numbers of few bits, their ranges measured on some batches: no training."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from secateurs.core.errors import PruneError, UnknownNameError

RangeBy = Literal["minmax", "percentile", "mse"]
SHRINK = tuple(0.93**i for i in range(48))
"""Parts of the largest range that `mse` tries."""
SAMPLE = 1 << 18
"""Values of a batch that a range by percentile or error looks at."""


@dataclass(frozen=True)
class Grid:
    """Evenly spaced values, zero among them: (level - zero) * step for level 0 to 2**bits - 1."""

    step: float
    zero: int
    bits: int = 8

    def __call__(self, x: Tensor) -> Tensor:
        """Return the nearest value of the grid; the ends for what lies beyond them."""
        level = (x / self.step).round() + self.zero
        return (level.clamp(0, (1 << self.bits) - 1) - self.zero) * self.step


def grid(low: float, high: float, bits: int = 8) -> Grid:
    """Return the grid from about `low` to about `high`, widened to zero, which is one of it.

    >>> grid(0.0, 25.5).step
    0.1

    Source: Jacob et al. 2018, arXiv:1712.05877, section 2.1 and equation 13.

    Raises:
        PruneError: bits are out of range, or the ends are not finite.
    """
    if not 2 <= bits <= 16:
        raise PruneError(f"cannot quantise to {bits} bits; use 2 to 16")
    low, high = min(low, 0.0), max(high, 0.0)
    if not high - low < float("inf"):
        raise PruneError(f"activations run from {low} to {high}; train anew")
    most = (1 << bits) - 1
    step = (high - low) / most or 1.0
    return Grid(step, round(-low / step), bits)


def calibrate(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    by: RangeBy = "mse",
    percentile: float = 99.9,
    bits: int = 8,
) -> dict[str, Grid]:
    """Return a grid for the input of every linear layer and convolution, by module name.

    Args:
        model: is run in evaluation mode and not changed.
        batches: inputs, or tuples that begin with them. Held out from what is reported.
        by: the range. `minmax` holds all that was seen, `percentile` that share of it on
            either side, `mse` leaves the least mean squared error.
        percentile: 50 to 100, for `percentile`.
        bits: of an activation.

    Raises:
        UnknownNameError: `by` is none of these.
        PruneError: no batch came, a percentile is out of range, or activations are not finite.
    """
    if by not in get_args(RangeBy):
        raise UnknownNameError(f"unknown range {by!r}; use one of {', '.join(get_args(RangeBy))}")
    if not 50 <= percentile <= 100:
        raise PruneError(f"a percentile is 50 to 100, not {percentile:g}")
    seen = _watch(model, batches)
    if not seen:
        raise PruneError("no batch reached a layer; calibrate with at least one")
    return {name: _range(torch.cat(x), by, percentile, bits) for name, x in seen.items()}


@contextmanager
def quantised(model: nn.Module, grids: Mapping[str, Grid]) -> Iterator[nn.Module]:
    """Let the layers named see their inputs rounded to the grids, inside the block."""
    handles = [
        model.get_submodule(name).register_forward_pre_hook(_rounds(to))
        for name, to in grids.items()
    ]
    try:
        yield model
    finally:
        for handle in handles:
            handle.remove()


def _rounds(to: Grid) -> Any:
    return lambda module, args: (to(args[0]), *args[1:])


def _watch(model: nn.Module, batches: Iterable[Any]) -> dict[str, list[Tensor]]:
    """Return a sample of what each layer is given."""
    seen: dict[str, list[Tensor]] = {}

    def keeps(name: str) -> Any:
        def hook(module: nn.Module, args: Any) -> None:
            x = args[0].detach().flatten()
            ends = torch.stack(x.aminmax()) if x.numel() else x
            some = x[:: -(-x.numel() // SAMPLE)] if x.numel() else x
            seen.setdefault(name, []).append(torch.cat([some, ends]))

        return hook

    layers = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    named = [(name, m) for name, m in model.named_modules() if isinstance(m, layers)]
    handles = [m.register_forward_pre_hook(keeps(name)) for name, m in named]
    was = model.training
    try:
        model.eval()
        with torch.no_grad():
            for batch in batches:
                model(batch[0] if isinstance(batch, tuple | list) else batch)
    finally:
        model.train(was)
        for handle in handles:
            handle.remove()
    return seen


def _range(x: Tensor, by: RangeBy, percentile: float, bits: int) -> Grid:
    low, high = (float(end) for end in x.aminmax())
    whole = grid(low, high, bits)
    if by == "minmax":
        return whole
    if by == "percentile":
        ordered = x.sort().values
        beyond = round((1 - percentile / 100) * (len(ordered) - 1))
        return grid(float(ordered[beyond]), float(ordered[-1 - beyond]), bits)

    def error(ends: tuple[float, float]) -> float:
        to = grid(*ends, bits)
        return float((to(x) - x).square().mean())

    # Both ends together first, then each by itself.
    best = min(((part * low, part * high) for part in SHRINK), key=error)
    best = min(((best[0], part * high) for part in SHRINK), key=error)
    return grid(*min(((part * low, best[1]) for part in SHRINK), key=error), bits)
