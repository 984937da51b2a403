"""Positions taken by number: a permutation that is known moves labels like any movement."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from secateurs.graph.labels import Layer, Value, along, compact
from secateurs.graph.rules.movement import moved
from secateurs.graph.rules.step import Result, Step

_REASON = "is indexed by number"


def index(step: Step, x: Value, indices: Sequence[Any]) -> Result:
    """One axis picked by known numbers moves; other indexed axes are rigid, the rest passes."""
    held = [a for a, i in enumerate(indices) if isinstance(i, Value)]
    if len(held) == 1:
        numbers = known(indices[held[0]], x.shape[held[0]])
        if numbers is not None:
            return _picked(step, x, held[0], numbers)
    x = step.freeze_axes(x, held, _REASON)
    x = step.tied(x, held)
    places: list[Any] = [None] * len(indices)
    spread: Any = torch.broadcast_shapes(  # type: ignore[no-untyped-call]
        *[indices[a].shape for a in held]
    )
    for a in held:
        places[a] = torch.zeros(spread, dtype=torch.long)
    layers = []
    for layer in x.layers:
        rank = len(x.shape)
        place = along(torch.arange(x.shape[layer.axis]), layer.axis, rank).expand(x.shape)
        key = tuple(slice(None) if n is None else n for n in places)
        where = compact(place[key])
        axis = next(a for a, n in enumerate(where.shape) if n > 1)
        layers.append(Layer(compact(layer.ids.expand(x.shape)[key]), axis))
    value = Value(step.shape, tuple(layers), why=x.why)
    if x.layers and layers[0].ids.ndim != len(step.shape):
        raise NotImplementedError("a mask selects a number of positions that depends on data")
    return value


def pick(step: Step, x: Value, dim: int, numbers: Value) -> Result:
    """index_select: known numbers move labels; unknown ones make the axis rigid."""
    axis = dim % len(x.shape)
    found = known(numbers, x.shape[axis])
    if found is not None:
        return _picked(step, x, axis, found)
    x = step.tied(step.freeze_axes(x, [axis], _REASON), [axis])
    nowhere = torch.zeros(step.shape[axis], dtype=torch.long)
    return moved(step, x, lambda t: t.index_select(axis, nowhere))


def gather(step: Step, x: Value, dim: int, numbers: Value, **_: Any) -> Result:
    """Known numbers that are the same in every row move labels; others make all rigid."""
    axis = dim % len(x.shape)
    found = row_of(numbers, x.shape, axis)
    if found is not None:
        return _picked(step, x, axis, found)
    x = step.freeze_axes(x, list(range(len(x.shape))), _REASON)
    step.freeze_axes(numbers, [axis], _REASON)
    return Value(step.shape, why=x.why)


def known(numbers: Value, size: int) -> Tensor | None:
    """Return known, distinct positions along one axis, (n,); None where they are not."""
    const = numbers.const
    if const is None or const.ndim != 1:
        return None
    if const.dtype == torch.bool:
        return const.nonzero().flatten() if len(const) == size else None
    return _distinct(const.long() % size)


def row_of(numbers: Value, shape: Sequence[int], axis: int) -> Tensor | None:
    """Return the positions that a gather takes in every row alike, (n,), if it does."""
    const = numbers.const
    if const is None or any(
        n != m for a, (n, m) in enumerate(zip(const.shape, shape, strict=True)) if a != axis
    ):
        return None
    rows = const.movedim(axis, -1).reshape(-1, const.shape[axis])
    return _distinct(rows[0].long()) if bool((rows == rows[:1]).all()) else None


def _distinct(numbers: Tensor) -> Tensor | None:
    # Rows of a table that are looked up again and again gain nothing from moving.
    return numbers if len(numbers.unique()) == len(numbers) else None  # type: ignore[no-untyped-call]


def _picked(step: Step, x: Value, axis: int, numbers: Tensor) -> Result:
    """Move labels; one list of numbers serves all rows, so they must drop the same."""
    layers = [
        Layer(step.labels.tie(ly.ids, [a for a in range(len(x.shape)) if a != axis]), axis)
        if ly.axis == axis
        else ly
        for ly in x.layers
    ]
    x = Value(x.shape, tuple(layers), why=x.why)
    return moved(step, x, lambda t: t.index_select(axis, numbers))
