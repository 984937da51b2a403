"""Functions of a model: every weight cut at one grain.

All take glob patterns `include` and `exclude`, matched against the parameter's name and
the layer's. A linear layer is a convolution with one kernel position: its rows, columns
and kernels are single elements, and its fibres are its input channels.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from torch import nn

from secateurs.core.errors import ShapeError, StructureError
from secateurs.core.layers import Layer, layers
from secateurs.core.site import Site
from secateurs.granularity.blocks import Blocks
from secateurs.granularity.patterns import Patterns, chosen
from secateurs.granularity.strided import Strided


def elements(
    model: nn.Module,
    *,
    per_output: bool = False,
    include: Patterns = None,
    exclude: Patterns = None,
) -> dict[str, Site]:
    """Every weight on its own; `per_output` makes each output channel a pool of its own.

    Raises, as all grains do:
        ShapeError: the grain does not fit a layer; all such layers are named.
        UnknownNameError: a pattern matches nothing.
    """
    return _cut(model, lambda _: (1, 1), per_output, include, exclude)


def rows(
    model: nn.Module,
    *,
    per_output: bool = False,
    include: Patterns = None,
    exclude: Patterns = None,
) -> dict[str, Site]:
    """Rows of each kernel, (1, 1, 1, kw): one step along the last axis."""
    return _cut(model, lambda x: (1, 1, *_along(x, -1)), per_output, include, exclude)


def columns(
    model: nn.Module,
    *,
    per_output: bool = False,
    include: Patterns = None,
    exclude: Patterns = None,
) -> dict[str, Site]:
    """Columns of each kernel, (1, 1, kh, 1); a 1-d kernel has one row, so single elements."""
    return _cut(model, lambda x: (1, 1, *_along(x, -2)), per_output, include, exclude)


def kernels(
    model: nn.Module,
    *,
    per_output: bool = False,
    include: Patterns = None,
    exclude: Patterns = None,
) -> dict[str, Site]:
    """Whole kernels, (1, 1, kh, kw): one input channel of one output channel."""
    return _cut(model, lambda x: (1, 1, *x.kernel), per_output, include, exclude)


def out_channels(
    model: nn.Module, *, include: Patterns = None, exclude: Patterns = None
) -> dict[str, Site]:
    """Whole output channels (filters) of each weight, the weights that make them."""
    return _cut(model, lambda x: (1, _ins(x), *x.kernel), False, include, exclude)


def in_channels(
    model: nn.Module, *, include: Patterns = None, exclude: Patterns = None
) -> dict[str, Site]:
    """Whole input channels of each weight, all that reads them."""
    return _cut(model, lambda x: (_outs(x), 1, *x.kernel), False, include, exclude)


def fibres(
    model: nn.Module, *, include: Patterns = None, exclude: Patterns = None
) -> dict[str, Site]:
    """One position of one input channel across all filters, (out, 1, 1, 1).

    Group-wise brain damage cuts these: a column of the lowered weight matrix.
    """
    return _cut(model, lambda x: (_outs(x), 1), False, include, exclude)


def vectors(
    model: nn.Module, size: int, *, include: Patterns = None, exclude: Patterns = None
) -> dict[str, Site]:
    """Vectors across `size` neighbouring filters, (size, 1, 1, 1).

    Where `size` does not divide a layer's filters, its vectors are half as long, or a quarter
    and so on: 10 classes are five vectors of 2 for size 4, a depthwise filter stands alone.
    """

    def fitting(layer: Layer) -> tuple[int, int]:
        length = size
        while length > 1 and _outs(layer) % length:
            length //= 2
        return (length, 1)

    return _cut(model, fitting, False, include, exclude)


def blocks(
    model: nn.Module,
    shape: Sequence[int],
    *,
    include: Patterns = None,
    exclude: Patterns = None,
) -> dict[str, Site]:
    """Blocks of `shape`, (out, in, *kernel); axes left out count 1, and -1 is a whole axis.

    A whole axis of a grouped convolution is the share of one group.
    """

    def block(layer: Layer) -> tuple[int, ...]:
        whole = (_outs(layer), _ins(layer), *layer.kernel)
        extra = tuple(shape[len(whole) :])
        lengths = [n if b == -1 else b for n, b in zip(whole, shape, strict=False)]
        return (*lengths, *(n for n in extra if n not in (1, -1)))

    return _cut(model, block, False, include, exclude)


def pools(
    model: nn.Module, among: int, *, include: Patterns = None, exclude: Patterns = None
) -> dict[str, Site]:
    """Elements in pools of `among` neighbours along the input channels, for N:M sparsity.

    The pool is where we may cut; how many of it stay is the budget's: density 0.5, or
    `per_pool(sites, 2)`, makes pools of 4 the 2:4 that sparse matrix units read.

    Raises:
        ShapeError: `among` does not divide the input channels of a layer.
    """
    found = _chosen(model, include, exclude)
    misfits = {x.param: x.shape for x in found if among < 2 or _ins(x) % among}
    _refuse(misfits, f"pools of {among} neighbouring input channels do not fit")

    def pooled(layer: Layer) -> Site:
        kernel = tuple(range(2, len(layer.shape)))
        order = (layer.out_axis, *kernel, layer.in_axis)
        return Blocks(layer.param, layer.shape, (1,) * len(layer.shape), among, order)

    return {x.param: pooled(x) for x in found}


def strided(
    model: nn.Module,
    stride: int,
    *,
    shared: bool = True,
    include: Patterns = None,
    exclude: Patterns = None,
) -> dict[str, Site]:
    """Offset classes of each kernel, pools of `stride`; keep one per pool for every stride-th.

    `shared` gives all filters that read an input channel the same offsets; otherwise
    every kernel has its own. Layers whose kernel has fewer than `stride` positions,
    linear ones among them, must be left out by `exclude`.
    """
    found = _chosen(model, include, exclude)
    misfits = {x.param: x.shape for x in found if not 2 <= stride <= _taps(x)}
    _refuse(misfits, f"a stride of {stride} (2 to the number of kernel positions) does not fit")
    return {
        x.param: Strided(x.param, x.shape, stride, shared, x.groups, x.transposed) for x in found
    }


def _cut(
    model: nn.Module,
    block: Callable[[Layer], Sequence[int]],
    per_output: bool,
    include: Patterns,
    exclude: Patterns,
) -> dict[str, Site]:
    """Cut each chosen weight into blocks given as (out, in, *kernel), short ones filled with 1."""
    found = _chosen(model, include, exclude)
    shapes = {x.param: _stored_order(x, block(x)) for x in found}
    misfits = {x.param: x.shape for x in found if not _fits(x, shapes[x.param])}
    _refuse(misfits, f"blocks of {_listed(shapes[name] for name in misfits)} do not fit")
    sites = {x.param: Blocks(x.param, x.shape, shapes[x.param]) for x in found}
    return {
        x.param: _pool_outputs(x, sites[x.param]) if per_output else sites[x.param] for x in found
    }


def _chosen(model: nn.Module, include: Patterns, exclude: Patterns) -> list[Layer]:
    """List the layers that patterns choose; a full name may also be another parameter's."""
    found = layers(model)
    for pattern in [include] if isinstance(include, str) else include or ():
        for name, parameter in model.named_parameters():
            if name == pattern and name not in found and parameter.dim() >= 2:
                found[name] = Layer(name, tuple(parameter.shape))
    if not found:
        raise StructureError(
            f"{type(model).__name__} has no linear or convolution layer; name the parameters to "
            f"cut in full with include=[...]"
        )
    names = chosen({name: (name.rpartition(".")[0],) for name in found}, include, exclude)
    return [found[name] for name in names]


def _stored_order(layer: Layer, block: Sequence[int]) -> tuple[int, ...]:
    out, inner, *kernel = (*block, *(1,) * (len(layer.shape) - len(block)))
    return (inner, out, *kernel) if layer.transposed else (out, inner, *kernel)


def _fits(layer: Layer, block: Sequence[int]) -> bool:
    return len(block) == len(layer.shape) and all(
        b > 0 and n % b == 0 for n, b in zip(layer.group_shape, block, strict=True)
    )


def _pool_outputs(layer: Layer, site: Blocks) -> Blocks:
    """Number the units output channel by output channel, and rank within each."""
    if layer.transposed and layer.groups > 1:
        raise ShapeError(
            f"per_output does not fit {layer.param!r}, a grouped transposed convolution; "
            f"leave it out with exclude={layer.param!r}"
        )
    order = (layer.out_axis, layer.in_axis, *range(2, len(layer.shape)))
    return replace(site, among=site.units // site.grid[layer.out_axis], order=order)


def _refuse(misfits: Mapping[str, tuple[int, ...]], complaint: str) -> None:
    if misfits:
        named = ", ".join(f"{name!r} {shape}" for name, shape in misfits.items())
        raise ShapeError(
            f"{complaint} {named}; choose a size that divides them, or leave them out with "
            f"exclude={list(misfits)}"
        )


def _listed(shapes: Iterable[object]) -> str:
    return " or ".join(dict.fromkeys(str(shape) for shape in shapes))


def _along(layer: Layer, axis: int) -> list[int]:
    """Full length along one kernel axis, counted from the end, 1 along the others."""
    size = len(layer.kernel)
    return [n if d - size == axis else 1 for d, n in enumerate(layer.kernel)]


def _outs(layer: Layer) -> int:
    return layer.group_shape[layer.out_axis]


def _ins(layer: Layer) -> int:
    return layer.group_shape[layer.in_axis]


def _taps(layer: Layer) -> int:
    taps = 1
    for n in layer.kernel:
        taps *= n
    return taps
