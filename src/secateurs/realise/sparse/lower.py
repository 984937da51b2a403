"""Read a traced program as products, pools and sums; what follows a product is fused into it."""

import operator
from collections.abc import Callable, Mapping
from dataclasses import replace
from math import inf
from typing import Any

import torch
from torch import Tensor, fx

from secateurs.core.errors import StructureError
from secateurs.graph.walk import attribute
from secateurs.realise.sparse.ops import Call, Mean, Op, Pool, Product, Sum

aten = torch.ops.aten

_SAME = {aten.alias.default, aten.detach.default, aten.lift_fresh_copy.default}
_DROPOUT = {
    aten.dropout.default,
    aten.dropout_.default,
    aten.feature_dropout.default,
    aten.feature_dropout_.default,
    aten.alpha_dropout.default,
}
Shapes = Mapping[str, tuple[int, ...]]
Node = Any
"""An `fx.Node`, with arguments of the kinds its operation takes."""


class Lowering:
    """The operations found so far, by the value they make, in the order they run."""

    def __init__(self, module: fx.GraphModule, shapes: Shapes, params: Mapping[str, str]) -> None:
        """Lower `module`; `params` maps its attributes to the user's names."""
        self.module, self.shapes, self.params = module, shapes, params
        self.ops: dict[str, Op] = {}
        self.alias: dict[str, str] = {}
        self.shared: set[str] = set()
        for node in module.graph.nodes:
            if node.op == "call_function" and not self._known(node):
                self.ops[node.name] = Call(node.name, node)

    def value(self, node: Any) -> str:
        """Return the name of the value that a node stands for."""
        name = str(node.name)
        while name in self.alias:
            name = self.alias[name]
        return name

    def _known(self, node: Node) -> bool:
        rule = _RULES.get(node.target)
        if rule is None or not all(self._floats(a) for a in node.args[:1]):
            return False
        return rule(self, node)

    def _floats(self, arg: Any) -> bool:
        """Tell whether an argument is a value made at run time, whose shape is known."""
        return isinstance(arg, fx.Node) and arg.name in self.shapes

    def image(self, arg: Node) -> bool:
        """Tell whether a value is made in planes, one a channel."""
        op = self.ops.get(self.value(arg))
        return isinstance(op, (Pool, Mean, Sum)) or (isinstance(op, Product) and not op.linear)

    def tokens(self, arg: Node) -> bool:
        """Tell whether a value is made by a linear layer."""
        op = self.ops.get(self.value(arg))
        return isinstance(op, Product) and op.linear

    def constant(self, arg: Any) -> Tensor | None:
        """Return the tensor behind a `get_attr` argument, if it is float32."""
        if not isinstance(arg, fx.Node) or arg.op != "get_attr":
            return None
        found = attribute(self.module, str(arg.target))
        single = isinstance(found, Tensor) and found.dtype == torch.float32
        return found.detach() if single else None

    def before(self, arg: Node, kinds: tuple[type, ...], node: Node) -> Any:
        """Return the operation that made a value, if only `node` reads it and it is open."""
        name = self.value(arg)
        op = self.ops.get(name)
        if not isinstance(op, kinds) or len(arg.users) > 1 or name in self.shared:
            return None
        return None if getattr(op, "clamped", False) else op

    def put(self, op: Any, old: str | None = None) -> bool:
        """Add an operation; `old` is the value it takes the place of."""
        if old is not None:
            del self.ops[old]
            self.alias[old] = op.name
        self.ops[op.name] = op
        return True


def _sizes(value: Any, flat: bool, default: int) -> tuple[int, int]:
    """Read a setting of a convolution or pool as (vertical, horizontal).

    >>> _sizes([3], True, 1), _sizes([1, 2], False, 1), _sizes(2, False, 0)
    ((1, 3), (1, 2), (2, 2))
    """
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    return (default if flat else values[0], values[-1])


def _arg(node: Node, place: int, name: str, default: Any) -> Any:
    return node.args[place] if len(node.args) > place else node.kwargs.get(name, default)


def _convolution(low: Lowering, node: Node) -> bool:
    weight, bias = low.constant(node.args[1]), _arg(node, 2, "bias", None)
    padding = _arg(node, 4, "padding", 0)
    held = None if bias is None else low.constant(bias)
    if weight is None or isinstance(padding, str) or (bias is not None and held is None):
        return False
    flat = weight.dim() == 3
    if len(low.shapes[node.name]) != weight.dim():
        return False
    if low.tokens(node.args[0]):
        return False
    stride, pad, dilation = (
        _sizes(_arg(node, place, name, default), flat, default)
        for place, name, default in ((3, "stride", 1), (4, "padding", 0), (5, "dilation", 1))
    )
    shape = (weight.shape[0], weight.shape[1], 1, weight.shape[2]) if flat else weight.shape
    return low.put(
        Product(
            node.name,
            low.value(node.args[0]),
            low.params.get(str(node.args[1].target), str(node.args[1].target)),
            weight.reshape(shape),
            torch.zeros(shape[0]) if held is None else held,
            stride,
            pad,
            dilation,
            groups=_arg(node, 6, "groups", 1),
        )
    )


def _linear(low: Lowering, node: Node) -> bool:
    weight, bias = low.constant(node.args[1]), _arg(node, 2, "bias", None)
    held = None if bias is None else low.constant(bias)
    if weight is None or (bias is not None and held is None):
        return False
    if low.image(node.args[0]) and len(low.shapes[node.args[0].name]) != 2:
        return False
    return low.put(
        Product(
            node.name,
            low.value(node.args[0]),
            low.params.get(str(node.args[1].target), str(node.args[1].target)),
            weight[:, :, None, None],
            torch.zeros(len(weight)) if held is None else held,
            linear=True,
        )
    )


def _batch_norm(low: Lowering, node: Node) -> bool:
    """Fold a norm with fixed statistics into the product before it."""
    op = low.before(node.args[0], (Product,), node)
    scale, shift, mean, variance = held = [low.constant(a) for a in node.args[1:5]]
    if op is None or op.residual or op.linear or mean is None or variance is None:
        return False
    if any(a is not None and h is None for a, h in zip(node.args[1:5], held, strict=True)):
        return False
    factor = (variance.double() + float(node.args[7])).rsqrt()
    if scale is not None:
        factor = factor * scale.double()
    bias = (op.bias.double() - mean.double()) * factor
    if shift is not None:
        bias = bias + shift.double()
    if op.factor is not None:
        factor = op.factor * factor
    return low.put(replace(op, name=node.name, factor=factor, bias=bias.float()), op.name)


def _add(low: Lowering, node: Node) -> bool:
    """Fuse a sum of two values into the product that made the later one."""
    if len(node.args) < 2 or node.kwargs.get("alpha", 1) != 1:
        return False
    a, b = node.args[:2]
    if not (low._floats(a) and low._floats(b)) or a is b:
        return False
    shape = low.shapes[node.name]
    if low.shapes[a.name] != shape or low.shapes[b.name] != shape:
        return False
    order = list(low.ops)
    found = [
        (order.index(op.name), op, other)
        for value, other in ((a, b), (b, a))
        if (op := low.before(value, (Product,), node)) is not None
        and op.residual is None
        and not (low.image(other) if op.linear else low.tokens(other))
    ]
    if found:
        _, op, other = max(found, key=lambda f: f[0])
        return low.put(replace(op, name=node.name, residual=low.value(other)), op.name)
    if len(shape) == 4 and low.image(a) and low.image(b):
        return low.put(Sum(node.name, low.value(a), low.value(b)))
    return False


def _clamp(bounds: Callable[[Node], tuple[float, float]]) -> Callable[[Lowering, Node], bool]:
    def rule(low: Lowering, node: Node) -> bool:
        op = low.before(node.args[0], (Product, Sum), node)
        if op is None:
            return False
        low_, high = bounds(node)
        return low.put(replace(op, name=node.name, low=low_, high=high), op.name)

    return rule


def _limits(node: Node) -> tuple[float, float]:
    least, most = _arg(node, 1, "min", None), _arg(node, 2, "max", None)
    return (-inf if least is None else float(least)), (inf if most is None else float(most))


def _hardtanh(node: Node) -> tuple[float, float]:
    return float(_arg(node, 1, "min_val", -1.0)), float(_arg(node, 2, "max_val", 1.0))


def _max_pool(low: Lowering, node: Node) -> bool:
    window = _sizes(node.args[1], False, 1)
    stride = _sizes(_arg(node, 2, "stride", []) or window, False, 1)
    padding = _sizes(_arg(node, 3, "padding", 0), False, 0)
    dilation = _sizes(_arg(node, 4, "dilation", 1), False, 1)
    source = low.value(node.args[0])
    if dilation != (1, 1) or not low.image(node.args[0]) or len(low.shapes[node.name]) != 4:
        return False
    return low.put(Pool(node.name, source, window, stride, padding))


def _mean(low: Lowering, node: Node) -> bool:
    shape, source = low.shapes[node.args[0].name], low.value(node.args[0])
    if len(shape) != 4:
        return False
    if node.target is aten.mean.dim:
        axes = sorted(a % 4 for a in node.args[1])
        if axes != [2, 3]:
            return False
    elif low.shapes[node.name] == shape:
        return _same(low, node)
    elif low.shapes[node.name][2:] != (1, 1):
        return False
    if not low.image(node.args[0]):
        return False
    return low.put(Mean(node.name, source))


def _flat(low: Lowering, node: Node) -> bool:
    """Let the mean of each channel go by its shape without the axes of length 1."""
    op = low.before(node.args[0], (Mean,), node)
    shape = low.shapes[node.name]
    if op is None or len(shape) != 2 or shape != low.shapes[node.args[0].name][:2]:
        return False
    return low.put(replace(op, name=node.name), op.name)


def _same(low: Lowering, node: Node) -> bool:
    if len(node.args[0].users) > 1:
        low.shared.add(low.value(node.args[0]))
    low.alias[node.name] = low.value(node.args[0])
    return True


def _dropped(low: Lowering, node: Node) -> bool:
    """In evaluation dropout does nothing."""
    return _same(low, node)


_RULES: dict[Any, Callable[[Lowering, Node], bool]] = {
    aten.conv2d.default: _convolution,
    aten.conv1d.default: _convolution,
    aten.linear.default: _linear,
    aten.batch_norm.default: _batch_norm,
    aten.add.Tensor: _add,
    aten.relu.default: _clamp(lambda node: (0.0, inf)),
    aten.relu6.default: _clamp(lambda node: (0.0, 6.0)),
    aten.hardtanh.default: _clamp(_hardtanh),
    aten.clamp.default: _clamp(_limits),
    aten.max_pool2d.default: _max_pool,
    aten.adaptive_avg_pool2d.default: _mean,
    aten.mean.dim: _mean,
    aten.flatten.using_ints: _flat,
    aten.view.default: _flat,
    aten.reshape.default: _flat,
    **dict.fromkeys(_SAME, _same),
    **dict.fromkeys(_DROPOUT, _dropped),
}
"""Operation → what it becomes; False where this use of it stays torch's."""


def functional(module: fx.GraphModule) -> fx.GraphModule:
    """Replace operations that write into their argument by those that return a new value, in place.

    Whoever read the argument afterwards reads the new value.

    Raises:
        StructureError: an operation writes into a view, or has no such twin.
    """
    order = {node: i for i, node in enumerate(module.graph.nodes)}
    for node in list(module.graph.nodes):
        schema = getattr(node.target, "_schema", None)
        if node.op != "call_function" or schema is None or not schema.is_mutable:
            continue
        base = node.args[0]
        twin = _twin(node.target)
        if twin is None or not isinstance(base, fx.Node) or _is_view(base) or _is_viewed(base):
            raise StructureError(
                f"{node.name}: {node.target} writes into a value that others share; "
                "write it without the trailing underscore to run it sparsely"
            )
        node.target = twin
        later = [u for u in base.users if order[u] > order[node]]
        for user in later:
            user.replace_input_with(base, node)
    module.recompile()
    return module


def _twin(target: Any) -> Any:
    namespace, name, overload = str(target).split(".")
    if not name.endswith("_"):
        return None
    packet = getattr(getattr(torch.ops, namespace), name[:-1], None)
    return getattr(packet, overload, None)


def _is_view(node: Node) -> bool:
    if node.target is operator.getitem or node.op in ("placeholder", "get_attr"):
        return True
    schema = getattr(node.target, "_schema", None)
    return bool(schema and schema.returns and schema.returns[0].alias_info)


def _is_viewed(node: Node) -> bool:
    return any(u.op == "call_function" and _is_view(u) and not _mutable(u) for u in node.users)


def _mutable(node: Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return bool(schema is not None and schema.is_mutable)
