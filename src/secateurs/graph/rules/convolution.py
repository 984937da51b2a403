"""Convolutions: contractions over channels, at every position of a window."""

from collections.abc import Sequence
from typing import Any

from secateurs.graph.labels import Layer, Value
from secateurs.graph.rules.contraction import bias_on, contract
from secateurs.graph.rules.step import Step, total
from secateurs.graph.rules.views import Choose, first, reshape

_WINDOW = "a convolution slides along it"


def conv(
    step: Step,
    x: Value,
    weight: Value,
    bias: Value | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Value:
    """conv1d, 2d, 3d: x (batch, in, *space), weight (out, in / groups, *kernel)."""
    factor = total(weight.shape[2:]) * total(step.shape[2:])
    return _convolve(step, x, weight, bias, groups, factor, transposed=False)


def conv_transpose(
    step: Step,
    x: Value,
    weight: Value,
    bias: Value | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Value:
    """conv_transpose1d, 2d, 3d: weight (in, out / groups, *kernel)."""
    factor = total(weight.shape[2:]) * total(x.shape[2:])
    return _convolve(step, x, weight, bias, groups, factor, transposed=True)


def convolution(
    step: Step,
    x: Value,
    weight: Value,
    bias: Value | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
) -> Value:
    """The one operation that lower-level traces show."""
    if transposed:
        return conv_transpose(step, x, weight, bias, groups=groups)
    return conv(step, x, weight, bias, groups=groups)


def _convolve(
    step: Step,
    x: Value,
    weight: Value,
    bias: Value | None,
    groups: int,
    factor: int,
    *,
    transposed: bool,
) -> Value:
    space = len(weight.shape) - 2
    batched = len(x.shape) == space + 2
    if not batched:
        x = _with_axes(x, [0, *[a + 1 for a in range(len(x.shape))]], (1, *x.shape))
    x = _channels_only(step, x)
    weight = _channels_only(step, weight)
    if groups == 1:
        spec = ["NI", "IO" if transposed else "OI"]
        out = contract(step, [x, weight], spec, "NO", factor=factor)
    else:
        out = _grouped(step, x, weight, groups, factor, transposed=transposed)
    shape = step.shape if batched else (1, *step.shape)
    rank = len(shape)
    out = _with_axes(out, [0, 1], (*out.shape, *shape[2:]))
    out = bias_on(step, out, bias, 1)
    if batched:
        return Value(shape, out.layers, why=out.why)
    layers = tuple(Layer(ly.ids.reshape(ly.ids.shape[1:]), ly.axis - 1) for ly in out.layers)
    assert rank == len(step.shape) + 1
    return Value(step.shape, layers, why=out.why)


def _grouped(
    step: Step, x: Value, weight: Value, groups: int, factor: int, *, transposed: bool
) -> Value:
    """Contract group by group.

    Units are positions within the groups, the same number in each; or, where a group has a
    single input or output (depthwise) or whole rows are asked for, the groups themselves.
    """
    batch, channels = x.shape
    rows, columns = weight.shape
    inputs = channels // groups
    outputs = columns if transposed else rows // groups
    whole = inputs == 1 or outputs == 1 or step.whole_rows
    choose: Choose = first if whole else _second
    x = reshape(step, x, (batch, groups, inputs), choose=choose)
    weight = reshape(step, weight, (groups, rows // groups, columns), choose=choose)
    if whole:
        weight = step.freeze_axes(weight, [2], "belongs to a group that leaves as a whole")
        weight = step.tied(weight, [1, 2])
    spec = "GIO" if transposed else "GOI"
    out = contract(step, [x, weight], ["NGI", spec], "NGO", factor=factor)
    if transposed and not whole:
        layer = out.at(2)
        if layer is not None:
            step.labels.rectangle(layer.ids, 2)
    return reshape(step, out, (batch, groups * outputs))


def _second(axes: Sequence[int], sizes: Sequence[int]) -> int:
    return axes[-1]


def _channels_only(step: Step, value: Value) -> Value:
    """Keep the first two axes of a value, (a, b, *space) → (a, b)."""
    space = list(range(2, len(value.shape)))
    value = step.tied(step.freeze_axes(value, space, _WINDOW), space)
    layers = tuple(
        Layer(layer.ids.reshape(layer.ids.shape[:2]), layer.axis) for layer in value.layers
    )
    return Value(value.shape[:2], layers, why=value.why)


def _with_axes(value: Value, places: Sequence[int], shape: tuple[int, ...]) -> Value:
    """Spread the axes of a value over `places` of a longer shape."""
    layers = []
    for layer in value.layers:
        sizes = [1] * len(shape)
        for own, place in enumerate(places):
            sizes[place] = layer.ids.shape[own]
        layers.append(Layer(layer.ids.reshape(sizes), places[layer.axis]))
    return Value(shape, tuple(layers), why=value.why)
