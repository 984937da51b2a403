"""Norms, softmax and reductions: what they keep, what they read across."""

from collections.abc import Sequence
from typing import Any

from secateurs.graph.labels import Layer, Value, split_axis
from secateurs.graph.rules.pointwise import on_axis, pointwise
from secateurs.graph.rules.step import Result, Step, plain, values_in


def batch_norm(step: Step, x: Value, *stats: Any, **_: Any) -> Result:
    """Scale, shift and statistics, each (channels,), along axis 1."""
    params = [v for v in stats if isinstance(v, Value)]
    value = step.meet([x, *(on_axis(v, 1, len(x.shape)) for v in params)], x.shape)
    return _first(step, value)


def layer_norm(step: Step, x: Value, normalized: Sequence[int], *params: Any, **_: Any) -> Result:
    """Scale and shift over the last axes; the statistics are those of what stays."""
    held = [v for v in params if isinstance(v, Value)]
    value = step.meet([x, *held], x.shape)
    axes = range(len(x.shape) - len(normalized), len(x.shape))
    for layer in value.layers:
        if layer.axis not in axes:
            value = step.tied(value, list(axes))
    return _first(step, value)


def group_norm(step: Step, x: Value, groups: int, *params: Any, **_: Any) -> Value:
    """Every group keeps the same number of channels, (batch, channels, *space)."""
    space = [a for a in range(len(x.shape)) if a != 1]
    x = step.tied(step.freeze_axes(x, space, "group normalisation reads all of it"), space)
    layer = x.at(1)
    if layer is not None and groups > 1:
        step.labels.rectangle(split_axis(layer.ids, 1, groups), 2)
        if x.shape[1] == groups:
            x = step.freeze_axes(x, [1], "is the only channel of its normalisation group")
    held = [on_axis(v, 1, len(x.shape)) for v in params if isinstance(v, Value)]
    return step.meet([x, *held], x.shape)


def instance_norm(step: Step, x: Value, *params: Any, **_: Any) -> Value:
    """Each channel by itself."""
    space = list(range(2, len(x.shape)))
    x = step.freeze_axes(x, space, "instance normalisation reads all of it")
    held = [on_axis(v, 1, len(x.shape)) for v in params if isinstance(v, Value)]
    return step.meet([x, *held], x.shape)


def softmax(step: Step, x: Value, dim: int, *_: Any, **__: Any) -> Value:
    """Along a labelled axis: over what stays."""
    return Value(x.shape, step.tied(x, [dim % len(x.shape)]).layers, why=x.why)


def reduce(step: Step, x: Value, *args: Any, **kwargs: Any) -> Result:
    """sum, mean, amax, var, norm: reduced axes lose their labels, rows must agree."""
    if args and isinstance(args[0], Value):
        return pointwise(step, x, *args)
    axes = _reduced(step, x, args, kwargs)
    if step.many and 1 in step.used:
        x = step.freeze_axes(x, axes, f"operation {step.name} numbers its positions")
    x = step.tied(x, axes)
    keep = len(step.shape) == len(x.shape)
    layers = []
    for layer in x.layers:
        if layer.axis in axes:
            continue
        ids, axis = layer.ids, layer.axis
        if not keep:
            ids = ids.reshape([n for a, n in enumerate(ids.shape) if a not in axes])
            axis -= sum(a < axis for a in axes)
        layers.append(Layer(ids, axis))
    value = Value(step.shape, tuple(layers), why=x.why)
    return [value] * len(step.shapes) if step.many else value


def scan(step: Step, x: Value, dim: int = -1, *_: Any, **__: Any) -> Result:
    """cumsum, sort, topk: order along an axis matters, so its labels freeze."""
    axis = dim % len(x.shape)
    x = step.freeze_axes(x, [axis], f"operation {step.name} depends on its order")
    x = step.tied(x, [axis])
    values = [Value(shape, x.layers, why=x.why) for shape in step.shapes]
    return values if step.many else values[0]


def pool(step: Step, x: Value, *args: Any, **_: Any) -> Result:
    """Pooling and resizing: the last axes are space, the others pass."""
    rank = len(x.shape)
    for other in values_in(list(args)):
        step.freeze_axes(other, range(len(other.shape)), f"operation {step.name} reads it")
    space = [a for a in range(rank) if x.shape[a] != step.shape[a]]
    space = sorted({*space, *range(rank - SPACE.get(step.name.split(".")[-1], 2), rank)})
    x = step.tied(step.freeze_axes(x, space, f"operation {step.name} reads along it"), space)
    value = Value(step.shape, x.layers, why=x.why)
    return [value] * len(step.shapes) if step.many else value


SPACE = {
    name: dims
    for dims in (1, 2, 3)
    for name in (
        f"avg_pool{dims}d",
        f"max_pool{dims}d",
        f"max_pool{dims}d_with_indices",
        f"adaptive_avg_pool{dims}d",
        f"_adaptive_avg_pool{dims}d",
        f"adaptive_max_pool{dims}d",
        f"upsample_nearest{dims}d",
    )
} | {"upsample_linear1d": 1, "upsample_trilinear3d": 3}


def _reduced(step: Step, x: Value, args: Any, kwargs: Any) -> list[int]:
    """Find the reduced axes among the arguments, or from the shapes when all are."""
    name = step.name.split(".")[-1]
    place = 1 if name in ("norm", "linalg_vector_norm") else 0
    dim = kwargs.get("dim", args[place] if len(args) > place else None)
    rank = len(x.shape)
    if isinstance(dim, bool) or dim is None or dim == []:
        return list(range(rank))
    if isinstance(dim, int):
        dim = [dim]
    return sorted({int(d) % rank for d in dim}) if rank else []


def _first(step: Step, value: Value) -> Result:
    """Return the main result, and statistics without labels."""
    if not step.many:
        return value
    rest = plain(step, value.why)
    assert isinstance(rest, list)
    return [value, *rest[1:]]
