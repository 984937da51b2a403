"""Tables and new tensors."""

from typing import Any

from secateurs.graph.labels import Layer, Value, along
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


def create(step: Step, *_: Any, **__: Any) -> Value:
    """zeros, ones, full, rand: the same everywhere, so any position may go."""
    rank = len(step.shape)
    layers = tuple(
        Layer(along(step.labels.fresh_uniform(n), axis, rank), axis)
        for axis, n in enumerate(step.shape)
        if n > 1
    )
    return Value(step.shape, layers, why="a constant")
