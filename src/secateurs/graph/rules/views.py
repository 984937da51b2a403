"""Reshapes: merging axes dissolves rows, splitting one makes a rectangle of them."""

from collections.abc import Callable, Iterator, Sequence

from torch import Tensor

from secateurs.graph.labels import Layer, Value, compact, varying
from secateurs.graph.rules.step import Step

Choose = Callable[[Sequence[int], Sequence[int]], int]
"""(varying axes, their sizes) → the axis that shrinks."""

SMALL = 4


def last_long(axes: Sequence[int], sizes: Sequence[int]) -> int:
    """Choose the last axis longer than `SMALL`, or else the last.

    Trailing axes of 2 to 4 are pairs of a rotary embedding or the phases of an upsampling:
    positions along them are taken apart one by one, so they must go together.
    """
    long = [axis for axis, size in zip(axes, sizes, strict=True) if size > SMALL]
    return (long or list(axes))[-1]


def first(axes: Sequence[int], sizes: Sequence[int]) -> int:
    """Choose the outermost axis: whole rows."""
    return axes[0]


def whole_rows(axes: Sequence[int], sizes: Sequence[int]) -> int:
    """Choose the axis before the one that would shrink: units become its whole rows."""
    place = list(axes).index(last_long(axes, sizes))
    return axes[max(0, place - 1)]


def reshape(step: Step, value: Value, shape: Sequence[int], choose: Choose | None = None) -> Value:
    """Give a value another shape: row-major order of its elements stays."""
    target = tuple(shape)
    if choose is None:
        choose = whole_rows if step.whole_rows else last_long
    parts = list(blocks(value.shape, target))
    layers = []
    for layer in value.layers:
        moved = _move(step, layer, value.shape, target, parts, choose)
        if moved is not None:
            layers.append(moved)
    return _one_per_axis(step, Value(target, tuple(layers), why=value.why))


def blocks(old: Sequence[int], new: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
    """Pair the smallest runs of axes of two shapes that hold the same elements.

    >>> list(blocks((2, 6, 5), (2, 3, 2, 5)))
    [([0], [0]), ([1], [1, 2]), ([2], [3])]
    """
    i = j = 0
    while i < len(old) or j < len(new):
        a, b, p, q = [], [], 1, 1
        if i < len(old):
            a, p, i = [i], old[i], i + 1
        if j < len(new):
            b, q, j = [j], new[j], j + 1
        while p != q:
            if p < q:
                p, a, i = p * old[i], [*a, i], i + 1
            else:
                q, b, j = q * new[j], [*b, j], j + 1
        yield a, b


def _move(
    step: Step,
    layer: Layer,
    old: tuple[int, ...],
    new: tuple[int, ...],
    parts: list[tuple[list[int], list[int]]],
    choose: Choose,
) -> Layer | None:
    here, there = next(part for part in parts if layer.axis in part[0])
    # Dropping columns and then merging equals merging and then dropping only if whatever
    # is merged inside of them drops the same columns.
    ids = step.labels.tie(layer.ids, [a for a in here if a > layer.axis])
    ids = compact(_regroup(ids, old, new, parts))
    axes = [a for a in varying(ids) if a in there]
    if not axes:
        step.freeze(ids, f"{step.name} leaves a single label on the axis")
        return None
    if len(axes) == 1:
        return Layer(ids, axes[0])
    axis = choose(axes, [new[a] for a in axes])
    inner = [a for a in axes if a > axis]
    if inner and step.whole_rows:
        step.labels.rows.append((step.node, ids))
    ids = step.labels.tie(ids, inner)
    step.labels.rectangle(ids, axis)
    return Layer(ids, axis)


def _regroup(
    ids: Tensor,
    old: tuple[int, ...],
    new: tuple[int, ...],
    parts: list[tuple[list[int], list[int]]],
) -> Tensor:
    """Reshape ids block by block, so that constant blocks keep length 1."""
    full, target = list(ids.shape), [1] * len(new)
    for here, there in parts:
        if any(ids.shape[a] > 1 for a in here):
            for a in here:
                full[a] = old[a]
            for a in there:
                target[a] = new[a]
    return ids.expand(full).reshape(target)


def _one_per_axis(step: Step, value: Value) -> Value:
    """Freeze labels that would shorten an axis that others shorten already.

    Copies that `expand` made stay all together where what was copied may go, as the queries
    that share a key head do.
    """
    reason = f"{step.name} merges two labelled axes"
    for axis in {layer.axis for layer in value.layers}:
        rivals = [layer for layer in value.layers if layer.axis == axis]
        copies = [layer for layer in rivals if step.labels.uniform(layer.ids)]
        if len(rivals) == 1:
            continue
        if len(rivals) - len(copies) != 1:
            value = step.freeze_axes(value, [axis], reason)
            continue
        for layer in copies:
            step.freeze(layer.ids, reason)
        rest = tuple(layer for layer in value.layers if all(layer is not c for c in copies))
        value = Value(value.shape, rest, why=value.why)
    return value
