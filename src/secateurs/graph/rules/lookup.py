"""Tables, indices and new tensors."""

from collections.abc import Sequence
from typing import Any

import torch

from secateurs.graph.labels import Layer, Value, along, compact
from secateurs.graph.rules.step import Step


def embedding(step: Step, weight: Value, index: Value, *_: Any, **__: Any) -> Value:
    """Rows are looked up by number and stay; columns pass."""
    weight = step.freeze_axes(weight, [0], "rows are looked up by number")
    weight = step.tied(weight, [0])
    rank = len(step.shape)
    layers = tuple(
        Layer(along(layer.ids.reshape(-1), rank - 1, rank), rank - 1) for layer in weight.layers
    )
    return Value(step.shape, layers, why=weight.why)


def index(step: Step, x: Value, indices: Sequence[Any]) -> Value:
    """Indexed axes are rigid; the labels of the others pass."""
    held = [a for a, i in enumerate(indices) if isinstance(i, Value)]
    x = step.freeze_axes(x, held, "is indexed by number")
    x = step.tied(x, held)
    numbers: list[Any] = [None] * len(indices)
    spread: Any = torch.broadcast_shapes(  # type: ignore[no-untyped-call]
        *[indices[a].shape for a in held]
    )
    for a in held:
        numbers[a] = torch.zeros(spread, dtype=torch.long)
    layers = []
    for layer in x.layers:
        rank = len(x.shape)
        place = along(torch.arange(x.shape[layer.axis]), layer.axis, rank).expand(x.shape)
        key = tuple(slice(None) if n is None else n for n in numbers)
        where = compact(place[key])
        axis = next(a for a, n in enumerate(where.shape) if n > 1)
        layers.append(Layer(compact(layer.ids.expand(x.shape)[key]), axis))
    value = Value(step.shape, tuple(layers), why=x.why)
    if x.layers and layers[0].ids.ndim != len(step.shape):
        raise NotImplementedError("a mask selects a number of positions that depends on data")
    return value


def gather(step: Step, x: Value, dim: int, picked: Value, **_: Any) -> Value:
    """Positions along one axis are taken by number; it is rigid, and so are its partners."""
    axis = dim % len(x.shape)
    x = step.freeze_axes(x, list(range(len(x.shape))), "is indexed by number")
    step.freeze_axes(picked, [axis], "is indexed by number")
    return Value(step.shape, why=x.why)


def create(step: Step, *_: Any, **__: Any) -> Value:
    """zeros, ones, full, rand: the same everywhere, so any position may go."""
    rank = len(step.shape)
    layers = tuple(
        Layer(along(step.labels.fresh(n), axis, rank), axis)
        for axis, n in enumerate(step.shape)
        if n > 1
    )
    return Value(step.shape, layers, why="a constant")
