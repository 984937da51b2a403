"""Data movement: the same operation, applied to the labels."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from secateurs.graph.labels import Layer, Value, along, compact, split_axis, varying
from secateurs.graph.rules.step import Result, Step
from secateurs.graph.rules.views import first, reshape


def view(step: Step, x: Value, *_: Any, **__: Any) -> Value:
    """view, reshape, flatten, unflatten: order stays, axes merge and split."""
    return reshape(step, x, step.shape)


def view_as(step: Step, x: Value, other: Value) -> Value:
    """reshape_as, view_as: the size is another value's, so both drop the same."""
    return step.meet([reshape(step, x, step.shape), other], step.shape)


def move(step: Step, x: Value, *args: Any, **kwargs: Any) -> Result:
    """permute, transpose, select, slice, flip, repeat, ...: rearrange labels alike."""
    return moved(step, x, lambda t: step.op(t, *args, **kwargs))


def slice_(
    step: Step, x: Value, dim: int = 0, start: Any = None, end: Any = None, stride: int = 1
) -> Result:
    """Take a run; with a stride, the positions within one stride go together."""
    axis = dim % len(x.shape)
    layer = x.at(axis)
    if stride != 1 and layer is not None:
        size = x.shape[axis]
        begin, stop, _ = slice(start, end, stride).indices(size)
        if size % stride or begin >= stride or stop < size:
            x = step.freeze_axes(x, [axis], "a strided slice takes it apart")
        else:
            pairs = split_axis(layer.ids, axis, size // stride)
            step.labels.tie(pairs, [axis + 1])
    return moved(step, x, lambda t: step.op(t, dim, start, end, stride))


def roll(step: Step, x: Value, shifts: Any, dims: Any = ()) -> Result:
    """Shift cyclically: two runs change places, and every row keeps as many of each."""
    axes = [dims] if isinstance(dims, int) else list(dims)
    axes = [d % len(x.shape) for d in axes]
    if not axes or len(set(axes)) < len(axes):
        x = step.freeze_axes(x, axes or list(range(len(x.shape))), "is shifted as one long row")
    for axis, shift in zip(axes, [shifts] if isinstance(shifts, int) else shifts, strict=False):
        layer, size = x.at(axis), x.shape[axis]
        if layer is not None:
            last = shift % size
            step.labels.rectangle(layer.ids.narrow(axis, size - last, last), axis)
            step.labels.rectangle(layer.ids.narrow(axis, 0, size - last), axis)
    return moved(step, x, lambda t: torch.roll(t, shifts, dims))


def divide(step: Step, x: Value, sizes: Any, dim: int = 0) -> Result:
    """split, chunk: pieces of one size keep the same number each, as a user's code expects."""
    dim %= len(x.shape)
    layer = x.at(dim)
    length = step.shapes[0][dim]
    if layer is not None and length > 1 and all(s[dim] == length for s in step.shapes):
        ids = split_axis(layer.ids, dim, len(step.shapes))
        step.labels.rectangle(ids, dim + 1)
    return moved(step, x, lambda t: step.op(t, sizes, dim))


def expand(step: Step, x: Value, *args: Any, **kwargs: Any) -> Value:
    """Repeat axes of length 1: they hold the same everywhere, so any position may go."""
    value = moved(step, x, lambda t: t.expand(step.shape))
    assert isinstance(value, Value)
    rank = len(step.shape)
    layers = list(value.layers)
    for axis, size in enumerate(step.shape):
        own = axis - rank + len(x.shape)
        if size > 1 and (own < 0 or x.shape[own] == 1):
            layers.append(Layer(along(step.labels.fresh_uniform(size), axis, rank), axis))
    return Value(step.shape, tuple(layers), why=x.why)


def pixel_shuffle(step: Step, x: Value, factor: int) -> Value:
    """Turn channels into space: the factor² phases of a channel go together."""
    *batch, channels, height, width = x.shape
    split = (*batch, channels // factor**2, factor, factor, height, width)
    x = reshape(step, x, split, choose=first)
    n = len(batch)
    order = [*range(n), n, n + 3, n + 1, n + 4, n + 2]
    turned = moved(step, x, lambda t: t.permute(order))
    assert isinstance(turned, Value)
    return reshape(step, turned, step.shape, choose=first)


def im2col(step: Step, x: Value, *args: Any, **kwargs: Any) -> Value:
    """Lay patches out: every channel becomes one row per tap of the kernel."""
    taps = step.shape[1] // x.shape[1]
    x = step.tied(step.freeze_axes(x, [2, 3], "a sliding window reads it"), [2, 3])
    layers = tuple(
        Layer(layer.ids.squeeze(-1).repeat_interleave(taps, 1), 1)
        if layer.axis == 1
        else Layer(layer.ids.squeeze(-1), layer.axis)
        for layer in x.layers
    )
    return Value(step.shape, layers, why=x.why)


def moved(step: Step, x: Value, op: Any) -> Result:
    """Apply `op` to every layer's ids, and to its positions to see where its axis went."""
    results = [Value(shape, why=x.why) for shape in step.shapes]
    layers: list[list[Layer]] = [[] for _ in results]
    for layer in x.layers:
        ids = op(layer.ids.expand(x.shape))
        rank = len(x.shape)
        place = op(along(torch.arange(x.shape[layer.axis]), layer.axis, rank).expand(x.shape))
        pieces = zip(pytree.tree_leaves(ids), pytree.tree_leaves(place), strict=True)
        for k, (piece, where) in enumerate(pieces):
            moved = _landed(step, compact(piece), compact(where))
            if moved is not None:
                layers[k].append(moved)
    values = [Value(v.shape, tuple(ls), why=v.why) for v, ls in zip(results, layers, strict=True)]
    return values if step.many else values[0]


def _landed(step: Step, ids: Tensor, where: Tensor) -> Layer | None:
    axes: Sequence[int] = varying(where)
    if len(axes) == 1 and ids.shape[axes[0]] > 1:
        return Layer(ids, axes[0])
    if len(axes) == 1:
        step.freeze(ids, "all of its positions are tied to each other")
        return None
    reason = "takes a single position of it" if not axes else "takes it apart"
    step.freeze(ids, f"operation {step.name} {reason}")
    return None
