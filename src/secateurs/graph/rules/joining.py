"""cat, stack, pad: values laid side by side."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from secateurs.graph.labels import Layer, Value
from secateurs.graph.rules.step import Step, meets


def cat(step: Step, values: Sequence[Value], dim: int = 0) -> Value:
    """Join along an axis; across the other axes the pieces must drop the same."""
    values = [v for v in values if v.shape != (0,)]
    rank = len(step.shape)
    dim %= rank
    layers = []
    for axis in range(rank):
        layer = (_joined if axis == dim else _shared)(step, values, axis, dim)
        if layer is not None:
            layers.append(layer)
    return Value(step.shape, tuple(layers), why=next((v.why for v in values if v.why), ""))


def stack(step: Step, values: Sequence[Value], dim: int = 0) -> Value:
    """Join along a new axis: its rows keep the same number each."""
    rank = len(step.shape)
    dim %= rank
    return cat(step, [_unsqueezed(v, dim) for v in values], dim)


def pad(step: Step, x: Value, widths: Sequence[int], *_: Any, **__: Any) -> Value:
    """Widen; what is padded onto a labelled axis may go like any channel."""
    rank = len(x.shape)
    sides = {rank - 1 - k: (widths[2 * k], widths[2 * k + 1]) for k in range(len(widths) // 2)}
    x = step.tied(x, [a for a, (low, high) in sides.items() if low or high])
    layers = []
    for layer in x.layers:
        low, high = sides.get(layer.axis, (0, 0))
        if low < 0 or high < 0:
            raise NotImplementedError("negative padding")
        new = step.labels.fresh(low + high)
        shape = [1] * rank
        shape[layer.axis] = -1
        rows = list(layer.ids.shape)
        pieces = []
        for ids in (new[:low], new[low:]):
            rows[layer.axis] = len(ids)
            pieces.append(ids.reshape(shape).expand(rows))
        layers.append(Layer(torch.cat([pieces[0], layer.ids, pieces[1]], layer.axis), layer.axis))
    return Value(step.shape, tuple(layers), why=x.why)


def _joined(step: Step, values: Sequence[Value], axis: int, dim: int) -> Layer | None:
    held = [v.at(axis) for v in values]
    if not any(held):
        return None
    rank = len(step.shape)
    pieces: list[Tensor] = []
    for value, layer in zip(values, held, strict=True):
        if layer is None:
            shape = [value.shape[axis] if a == axis else 1 for a in range(rank)]
            pieces.append(torch.zeros(shape, dtype=torch.long))
        else:
            pieces.append(layer.ids)
    shape = [max(p.shape[a] for p in pieces) for a in range(rank)]
    wide = []
    for piece in pieces:
        shape[axis] = piece.shape[axis]
        wide.append(piece.expand(shape))
    return Layer(torch.cat(wide, axis), axis)


def _shared(step: Step, values: Sequence[Value], axis: int, dim: int) -> Layer | None:
    held = [v.at(axis) for v in values]
    if not any(held):
        return None
    if not all(held):
        fixed = next(v for v, layer in zip(values, held, strict=True) if layer is None)
        for layer in held:
            if layer is not None:
                step.freeze(layer.ids, meets(fixed.why or "a tensor of fixed size"))
        return None
    ids = [layer.ids for layer in held if layer is not None]
    if step.name.endswith("stack") or any(i.shape[dim] > 1 for i in ids):
        rank = len(step.shape)
        sizes = [v.shape[dim] for v in values]
        shape = [max(i.shape[a] for i in ids) for a in range(rank)]
        rows = []
        for piece, size in zip(ids, sizes, strict=True):
            shape[dim] = size
            rows.append(piece.expand(shape))
        joined = torch.cat(rows, dim)
        step.labels.rectangle(joined, axis)
        return Layer(joined, axis)
    for other in ids[1:]:
        step.labels.unify(ids[0], other)
    return Layer(ids[0], axis)


def _unsqueezed(value: Value, dim: int) -> Value:
    layers = tuple(
        Layer(layer.ids.unsqueeze(dim), layer.axis + (layer.axis >= dim)) for layer in value.layers
    )
    return Value((*value.shape[:dim], 1, *value.shape[dim:]), layers, why=value.why)
