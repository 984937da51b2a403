"""The traced program with smaller tensors: sizes follow from the labels."""

import copy
from collections.abc import Container, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from secateurs.graph.graph import Graph
from secateurs.graph.labels import Layer, Value, along
from secateurs.graph.rules.picking import known, row_of
from secateurs.graph.units import check
from secateurs.graph.walk import attribute, operation

_SIZED = {
    "view", "reshape", "_unsafe_view", "view_copy", "_reshape_alias", "expand", "broadcast_to",
    "zeros", "ones", "full", "empty", "rand", "randn",
    "new_zeros", "new_ones", "new_full", "new_empty",
}  # fmt: skip
_FIRST = {"zeros", "ones", "full", "empty", "rand", "randn"}
"""Operations whose size is the first argument rather than the second."""


def rewrite(graph: Graph, removed: Tensor, *, hollow: Container[str] = ()) -> fx.GraphModule:
    """Return the traced program without the removed units, bool (units,); it runs.

    Parameters and buffers are new and smaller, named as in `graph.module`; the graph's
    own module is untouched. Those that `hollow` has, by canonical name, have a shape and no
    memory: for whoever has the smaller tensors already and puts them in.

    Raises:
        StructureError: the removal breaks a rectangle or empties an axis.
    """
    removed = removed.cpu()
    check(graph, removed)
    stays = label_mask(graph, removed)
    root = nn.Module()
    program = copy.deepcopy(graph.module.graph)
    small: dict[int, Any] = {}
    for node in program.nodes:
        if node.op == "get_attr":
            held = attribute(graph.module, str(node.target))
            if id(held) not in small:
                small[id(held)] = _smaller(graph, str(node.target), held, stays, hollow)
            _place(root, str(node.target), small[id(held)])
        elif node.op == "call_module":
            _place(root, str(node.target), attribute(graph.module, str(node.target)))
        elif node.op == "call_function":
            _resize(graph, node, stays)
            _renumber(graph, program, root, node, stays)
    result = fx.GraphModule(root, program)
    for key in ("_in_spec", "_out_spec"):
        if hasattr(graph.module, key):
            setattr(result, key, getattr(graph.module, key))
    return result


def label_mask(graph: Graph, removed: Tensor) -> Tensor:
    """Mark the labels that stay: bool (labels,)."""
    stays = torch.cat([~removed, torch.ones(1, dtype=torch.bool)])  # unit -1 is the last
    return stays[graph.unit_of]


def shrunk(tensor: Tensor, layers: tuple[Layer, ...], stays: Tensor) -> Tensor:
    """Return a tensor without the positions whose labels leave."""
    rows = []
    for layer in layers:
        keep = stays[layer.ids].to(tensor.device)
        if bool(keep.all()):
            continue
        if keep.numel() == tensor.shape[layer.axis]:
            tensor = tensor.index_select(layer.axis, keep.reshape(-1).nonzero().squeeze(1))
        else:
            rows.append((layer, keep))
    for layer, keep in rows:
        for axis, size in enumerate(keep.shape):  # rows of this layer that have left already
            if size > 1 and size != tensor.shape[axis]:
                other = next(ly for ly in layers if ly.axis == axis)
                left = stays[other.ids].reshape(-1).nonzero().squeeze(1).to(tensor.device)
                keep = keep.index_select(axis, left)
        moved = tensor.movedim(layer.axis, -1)
        chosen = keep.movedim(layer.axis, -1).expand(moved.shape)
        tensor = moved[chosen].view(*moved.shape[:-1], -1).movedim(-1, layer.axis).contiguous()
    return tensor


def kept_shape(value: Value, stays: Tensor) -> tuple[int, ...]:
    """Return the shape of a value after removal."""
    shape = list(value.shape)
    for layer in value.layers:
        keep = stays[layer.ids]
        rows = keep.numel() // keep.shape[layer.axis]
        shape[layer.axis] = int(keep.sum()) // rows
    return tuple(shape)


def _smaller(graph: Graph, target: str, held: Any, stays: Tensor, hollow: Container[str]) -> Any:
    if not isinstance(held, Tensor):
        return held
    name = graph.names.get(target, "")
    layers = graph.layers.get(name, ())
    if name in hollow:
        shape = kept_shape(Value(tuple(held.shape), layers), stays)
        tensor = torch.empty(shape, dtype=held.dtype, device="meta")
    else:
        tensor = shrunk(held.detach(), layers, stays).clone()
    return nn.Parameter(tensor, held.requires_grad) if isinstance(held, nn.Parameter) else tensor


def _place(root: nn.Module, target: str, held: Any) -> None:
    *path, last = target.split(".")
    for atom in path:
        if not hasattr(root, atom):
            root.add_module(atom, nn.Module())
        root = getattr(root, atom)
    if isinstance(held, Tensor) and not isinstance(held, nn.Parameter):
        root.register_buffer(last, held)
    else:
        setattr(root, last, held)


def _resize(graph: Graph, node: fx.Node, stays: Tensor) -> None:
    """Replace the sizes an operation was called with by those that are left."""
    name = operation(node).removeprefix("aten.").rstrip("_")
    result = graph.values.get(node.name)
    change = _CHANGES.get(name)
    if name in _SIZED and isinstance(result, Value) and result.layers:
        _set(node, 0 if name in _FIRST else 1, list(kept_shape(result, stays)))
    elif change is not None:
        change(graph.values, node, stays, result)


def _renumber(
    graph: Graph, program: fx.Graph, root: nn.Module, node: fx.Node, stays: Tensor
) -> None:
    """Give an operation that takes positions by number those they have afterwards."""
    found = picked(graph, node)
    if found is None:
        return
    axis, place, numbers = found
    renumbered = renumbered_along(graph, node, axis, numbers, stays)
    if renumbered is None and operation(node) != "aten.gather":
        return
    taken = numbers if renumbered is None else renumbered[1]
    if operation(node) == "aten.gather":
        shape = kept_shape(graph.values[node.name], stays)
        taken = along(taken, axis, len(shape)).expand(shape).contiguous()
    name = f"{node.name}_numbers"
    _place(root, name, taken.to(_device(graph)))
    with program.inserting_before(node):
        new = program.get_attr(name)
    old: Any = node.args[place]
    if operation(node) == "aten.index":
        old, indices = old[axis], [*old]
        indices[axis] = new
        _set(node, place, indices)
    else:
        _set(node, place, new)
    _erase(program, old)


def _erase(program: fx.Graph, node: fx.Node) -> None:
    """Take out what only made numbers that are no longer read; it may not fit any more."""
    if node.users or node.op == "placeholder":
        return
    sources = node.all_input_nodes
    program.erase_node(node)
    for source in sources:
        _erase(program, source)


def picked(graph: Graph, node: fx.Node) -> tuple[int, int, Tensor] | None:
    """Tell what known positions an operation takes: (axis, which argument, positions)."""
    name, args = operation(node), node.args
    if name not in ("aten.index", "aten.index_select", "aten.gather"):
        return None
    x = _input(graph.values, node)
    place = 1 if name == "aten.index" else 2
    given: Any = args[place] if len(args) > place else None
    if name == "aten.index":
        held = [a for a, i in enumerate(given) if isinstance(i, fx.Node)]
        axis = held[0] if len(held) == 1 else None
        given = None if axis is None else given[axis]
    else:
        axis = int(str(args[1])) % len(x.shape)
    numbers = graph.values.get(given.name) if isinstance(given, fx.Node) else None
    if axis is None or not x.layers or not isinstance(numbers, Value):
        return None
    found = row_of(numbers, x.shape, axis) if "gather" in name else known(numbers, x.shape[axis])
    return None if found is None else (axis, place, found)


def renumbered_along(
    graph: Graph, node: fx.Node, axis: int, numbers: Tensor, stays: Tensor
) -> tuple[Tensor, Tensor] | None:
    """Say which of the taken positions stay, bool, and their new numbers; None if all do."""
    layer = _input(graph.values, node).at(axis)
    if layer is None:
        return None
    keep = stays[layer.ids].reshape(-1)
    if bool(keep.all()):
        return None
    left = keep[numbers]
    return left, (keep.cumsum(0) - 1)[numbers[left]]


def renumbered(graph: Graph, removed: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Say what buffers of positions hold afterwards: name → (which entries stay, new numbers).

    Only buffers that nothing but such operations reads, all in the same way.
    """
    stays = label_mask(graph, removed.cpu())
    found: dict[str, list[tuple[Tensor, Tensor] | None]] = {}
    for source in graph.module.graph.nodes:
        name = graph.names.get(str(source.target)) if source.op == "get_attr" else None
        if name is None or not isinstance(graph.values.get(source.name), Value):
            continue
        for user in source.users:
            here = picked(graph, user)
            if here is None or graph.values[source.name].const is None:
                found.setdefault(name, []).append(None)
                continue
            axis, _, numbers = here
            found.setdefault(name, []).append(renumbered_along(graph, user, axis, numbers, stays))
    result = {}
    for name, uses in found.items():
        first = uses[0]
        if first is not None and all(
            use is not None and torch.equal(use[0], first[0]) and torch.equal(use[1], first[1])
            for use in uses
        ):
            result[name] = first
    return result


def _device(graph: Graph) -> torch.device:
    tensors = [*graph.module.parameters(), *graph.module.buffers()]
    return tensors[0].device if tensors else torch.device("cpu")


def _set(node: fx.Node, place: int, held: Any) -> None:
    node.args = (*node.args[:place], held, *node.args[place + 1 :])


def _input(values: Mapping[str, Any], node: fx.Node, place: int = 0) -> Value:
    source = node.args[place]
    assert isinstance(source, fx.Node)
    value = values[source.name]
    assert isinstance(value, Value)
    return value


def _unflatten(values: Mapping[str, Any], node: fx.Node, stays: Tensor, result: Any) -> None:
    args: Any = node.args
    dim = args[1] % len(_input(values, node).shape)
    count = len(args[2])
    _set(node, 2, list(kept_shape(result, stays)[dim : dim + count]))


def _reshape_as(values: Mapping[str, Any], node: fx.Node, stays: Tensor, result: Any) -> None:
    node.target = torch.ops.aten.reshape.default
    node.args = (node.args[0], list(kept_shape(result, stays)))


def _divide(values: Mapping[str, Any], node: fx.Node, stays: Tensor, result: Any) -> None:
    """split, chunk: say the size of every piece."""
    x = _input(values, node)
    args: Any = node.args
    named: Any = node.kwargs
    dim = (args[2] if len(args) > 2 else named.get("dim", 0)) % len(x.shape)
    if x.at(dim) is None:
        return
    sizes = [kept_shape(piece, stays)[dim] for piece in result]
    node.target = torch.ops.aten.split_with_sizes.default
    node.args, node.kwargs = (node.args[0], sizes, dim), {}


def _slice(values: Mapping[str, Any], node: fx.Node, stays: Tensor, result: Any) -> None:
    x = _input(values, node)
    args: Any = node.args
    dim = (args[1] if len(args) > 1 else 0) % len(x.shape)
    layer = x.at(dim)
    if layer is None or (len(args) > 4 and args[4] != 1):
        return  # the positions within one stride leave together, so the stride still fits
    size = x.shape[dim]
    keep = stays[layer.ids].movedim(dim, -1).reshape(-1, size)[0]
    low, high, _ = slice(*[*args[2:4], None, None][:2]).indices(size)
    before, inside = int(keep[:low].sum()), int(keep[low:high].sum())
    node.args = (node.args[0], dim, before, before + inside)


def _kept_before(x: Value, axis: int, stays: Tensor) -> Tensor | None:
    """Count, for every position of a labelled axis, how many before it stay: (size + 1,)."""
    layer = x.at(axis)
    if layer is None:
        return None
    keep = stays[layer.ids].movedim(axis, -1).reshape(-1, x.shape[axis])[0]
    return torch.cat([torch.zeros(1, dtype=torch.long), keep.cumsum(0)])


def _select(values: Mapping[str, Any], node: fx.Node, stays: Tensor, result: Any) -> None:
    x = _input(values, node)
    args: Any = node.args
    before = _kept_before(x, args[1] % len(x.shape), stays)
    if before is not None:
        _set(node, 2, int(before[args[2] % x.shape[args[1]]]))


def _narrow(values: Mapping[str, Any], node: fx.Node, stays: Tensor, result: Any) -> None:
    x = _input(values, node)
    args: Any = node.args
    before = _kept_before(x, args[1] % len(x.shape), stays)
    if before is not None:
        start = args[2] % x.shape[args[1]]
        _set(node, 2, int(before[start]))
        _set(node, 3, int(before[start + args[3]] - before[start]))


def _roll(values: Mapping[str, Any], node: fx.Node, stays: Tensor, result: Any) -> None:
    """Shift by as many positions as stay of those that went round the end."""
    x = _input(values, node)
    args: Any = node.args
    if len(args) < 3:
        return
    shifts, dims = ([a] if isinstance(a, int) else list(a) for a in args[1:3])
    for k, axis in enumerate(dims):
        before = _kept_before(x, axis % len(x.shape), stays)
        if before is not None:
            size = x.shape[axis]
            shifts[k] = int(before[size] - before[size - shifts[k] % size])
    _set(node, 1, shifts)


def _pad(values: Mapping[str, Any], node: fx.Node, stays: Tensor, result: Any) -> None:
    x = _input(values, node)
    args: Any = node.args
    widths = list(args[1])
    for layer in result.layers:
        k = len(x.shape) - 1 - layer.axis
        if 2 * k >= len(widths):
            continue
        keep = stays[layer.ids].movedim(layer.axis, -1).reshape(-1, layer.ids.shape[layer.axis])[0]
        low, high = widths[2 * k], widths[2 * k + 1]
        widths[2 * k] = int(keep[:low].sum())
        widths[2 * k + 1] = int(keep[len(keep) - high :].sum())
    _set(node, 1, widths)


def _layer_norm(values: Mapping[str, Any], node: fx.Node, stays: Tensor, result: Any) -> None:
    value = result[0] if isinstance(result, list) else result
    args: Any = node.args
    count = len(args[1])
    _set(node, 1, list(kept_shape(value, stays)[len(value.shape) - count :]))


def _conv(values: Mapping[str, Any], node: fx.Node, stays: Tensor, result: Any) -> None:
    """Whole groups leave where the weight keeps its inner axis: count those that stay."""
    name = operation(node).removeprefix("aten.")
    transposed = "transpose" in name or (name == "convolution" and bool(node.args[6]))
    place = 8 if name == "convolution" else 6
    groups = node.args[place] if len(node.args) > place else 1
    if groups == 1:
        return
    weight = kept_shape(_input(values, node, 1), stays)
    space = len(weight) - 2
    data = result if transposed else _input(values, node)
    channels = kept_shape(data, stays)[len(data.shape) - space - 1]
    _set(node, place, channels // weight[1])


def _attention(values: Mapping[str, Any], node: fx.Node, stays: Tensor, result: Any) -> None:
    """Keep the temperature that follows from the old width."""
    width = _input(values, node).shape[-1]
    if len(node.args) <= 6 and node.kwargs.get("scale") is None:
        node.kwargs = {**node.kwargs, "scale": width**-0.5}


_CHANGES = {
    "unflatten": _unflatten,
    "reshape_as": _reshape_as,
    "view_as": _reshape_as,
    **dict.fromkeys(("split", "split_with_sizes", "chunk", "tensor_split"), _divide),
    **dict.fromkeys(("unsafe_split", "unsafe_chunk"), _divide),
    "slice": _slice,
    "select": _select,
    "narrow": _narrow,
    "roll": _roll,
    **dict.fromkeys(("pad", "constant_pad_nd"), _pad),
    **dict.fromkeys(("layer_norm", "rms_norm", "_fused_rms_norm"), _layer_norm),
    "native_layer_norm": _layer_norm,
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "convolution"), _conv),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _conv),
    "scaled_dot_product_attention": _attention,
}
