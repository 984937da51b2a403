"""Pointwise operations: labels that meet go together."""

from typing import Any

from secateurs.graph.labels import Layer, Value
from secateurs.graph.rules.step import Result, Step, values_in


def pointwise(step: Step, *args: Any, **kwargs: Any) -> Result:
    """Unify the labels of everything that is broadcast together."""
    value = step.meet(list(values_in([list(args), kwargs])), step.shape)
    return [value] * len(step.shapes) if step.many else value


def expand_as(step: Step, x: Value, other: Value) -> Result:
    """Drop what the value it follows drops; known numbers stay known."""
    if x.const is not None:
        return Value(step.shape, const=x.const.expand(step.shape), why=x.why)
    return pointwise(step, x, other)


def copy_(step: Step, target: Value, source: Value, *_: Any) -> Value:
    """Write one value into another: they must drop the same positions."""
    return step.meet([target, source], step.shape)


def like(step: Step, x: Value, *_: Any, **__: Any) -> Value:
    """zeros_like, dropout, clone, ...: the shape of the first argument alone."""
    return Value(step.shape, x.layers, why=x.why)


def prelu(step: Step, x: Value, weight: Value) -> Value:
    """One slope per channel, on axis 1."""
    return step.meet([x, on_axis(weight, 1, len(x.shape))], step.shape)


def weight_norm(step: Step, v: Value, g: Value, dim: int = 0) -> Value:
    """A weight from direction and magnitude: v's labels, unified with g's along `dim`."""
    return step.meet([v, g], step.shape)


def on_axis(weight: Value, axis: int, rank: int) -> Value:
    """Lay a one-dimensional value along one axis of a value of `rank` axes."""
    shape = [weight.shape[0] if d == axis else 1 for d in range(rank)]
    layers = tuple(Layer(layer.ids.reshape(shape), axis) for layer in weight.layers)
    return Value(tuple(shape), layers, why=weight.why)


def glu(step: Step, x: Value, dim: int = -1) -> Value:
    """The first half times the sigmoid of the second: halves go together."""
    dim %= len(x.shape)
    layers = []
    for layer in x.layers:
        ids = layer.ids
        if ids.shape[dim] > 1:
            low, high = ids.chunk(2, dim)
            step.labels.unify(low, high)
            ids = low
        layers.append(Layer(ids, layer.axis))
    return Value(step.shape, tuple(layers), why=x.why)
