"""Walk the traced program once, sending labels along."""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from secateurs.graph.labels import Labels, Layer, Value, along
from secateurs.graph.program import Program
from secateurs.graph.rules.pointwise import pointwise
from secateurs.graph.rules.step import Product, Result, Rule, Step, plain, values_in
from secateurs.graph.rules.table import RULES

_CONVS = ("conv1d", "conv2d", "conv3d", "convolution")
_TRANSPOSED = ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")


@dataclass
class Walk:
    """The labels of every value of one program."""

    program: Program
    labels: Labels
    rules: Mapping[str, Rule] = field(default_factory=dict)
    whole_rows: bool = False
    columns: frozenset[str] = frozenset()
    """Operations that keep columns as units even so."""
    values: dict[str, Any] = field(default_factory=dict)
    """Node → Value, or a list of them."""
    products: list[Product] = field(default_factory=list)
    kernels: set[fx.Node] = field(default_factory=set)
    """Parameters from which convolution weights are made: only their first two axes count."""

    def run(self, progress: Callable[[int, int], None] | None = None) -> "Walk":
        """Visit every node in order."""
        nodes = list(self.program.module.graph.nodes)
        self.kernels = kernels(self.program.module.graph)
        for number, node in enumerate(nodes):
            self.values[node.name] = self._visit(node)
            if progress is not None:
                progress(number + 1, len(nodes))
        return self

    def _visit(self, node: fx.Node) -> Any:
        if node.op == "placeholder":
            held = pytree.tree_map_only(Tensor, _shape, node.meta.get("val"))
            return _as_values(held, "the model's input") if held is not None else None
        if node.op == "get_attr":
            return self._attribute(node)
        arguments = fx.map_arg((node.args, dict(node.kwargs)), lambda n: self.values[n.name])
        if node.op == "output":
            for value in values_in(arguments):
                for layer in value.layers:
                    self.labels.freeze(layer.ids, "reaches the model's output", where(node))
            return None
        if node.target is operator.getitem:
            held, place = arguments[0]
            return held[int(str(place))] if isinstance(held, list) else held
        return self._operation(node, *arguments)

    def _operation(self, node: fx.Node, args: Any, kwargs: Any) -> Any:
        name = operation(node)
        shapes = _shapes(node)
        inputs = list(values_in([list(args), kwargs]))
        if shapes is None:
            _freeze_all(
                self.labels, inputs, f"operation {name} has a size that depends on data", node
            )
            return plain(Step(self.labels, "", name, print, [()]), f"operation {name}")
        many = isinstance(node.meta["val"], (list, tuple))
        if not shapes:
            return [] if many else None
        constant = _evaluated(node, args, kwargs, inputs)
        if constant is not None:
            return constant
        step = Step(
            self.labels, where(node), name, _function(node), shapes, many, _used(node),
            self.whole_rows and where(node) not in self.columns, self.products,
        )  # fmt: skip
        rule = self._rule(node)
        if rule is not None and all(0 not in s for s in shapes):
            try:
                result: Result = rule(step, *args, **kwargs)
                return _checked(step, result)
            except Exception as error:
                reason = f"operation {name} could not be followed: {type(error).__name__}: {error}"
        elif rule is None:
            reason = f"operation {name} has no rule"
        else:
            reason = f"operation {name} returned nothing in this run"
        if any(v.layers for v in inputs):
            _freeze_all(self.labels, inputs, reason, node)
            return plain(step, reason)
        return plain(step, next((v.why for v in inputs if v.why), "a constant"))

    def _rule(self, node: fx.Node) -> Rule | None:
        name = operation(node)
        for table in (self.rules, RULES):
            for key in (name, name.removeprefix("aten."), name.removeprefix("aten.").rstrip("_")):
                if key in table and (table is self.rules or name.startswith("aten.")):
                    return table[key]
        if torch.Tag.pointwise in getattr(node.target, "tags", ()):
            return pointwise
        return None

    def _attribute(self, node: fx.Node) -> Any:
        tensor = attribute(self.program.module, str(node.target))
        if not isinstance(tensor, Tensor):
            return None
        shape = tuple(tensor.shape)
        if not tensor.is_floating_point():
            return Value(shape, const=tensor.detach().cpu(), why="a constant")
        name = self.program.names.get(str(node.target))
        if name is None:
            return Value(shape, why="a constant")
        if not node.users:
            return None
        self.labels.read.add(name)
        kernel = node in self.kernels
        return Value(shape, parameter_layers(self.labels, name, tensor, list(node.users), kernel))


def parameter_layers(
    labels: Labels, name: str, tensor: Tensor, users: list[fx.Node], kernel: bool
) -> tuple[Layer, ...]:
    """Label every axis of a parameter longer than 1; a convolution kernel's first two.

    The inner axis of a grouped convolution's weight gets labels per group, because the
    groups may keep different positions.
    """
    shape = tuple(tensor.shape)
    layers = []
    uses = {_kernel(user) for user in users}
    grouped = next(iter(uses)) if len(uses) == 1 else None
    for axis, size in enumerate(shape):
        if size == 1 or (kernel and axis > 1):
            continue
        ids = labels.params.get((name, axis))
        if ids is None:
            if axis == 1 and grouped is not None and grouped > 1:
                ids = labels.fresh(grouped * size).view(grouped, 1, size)
                ids = ids.expand(-1, shape[0] // grouped, -1).reshape(shape[0], size)
                ids = ids.reshape(shape[0], size, *[1] * (len(shape) - 2))
            else:
                ids = along(labels.fresh(size), axis, len(shape))
            labels.params[name, axis] = ids
        layers.append(Layer(ids, axis))
    return tuple(layers)


def kernels(graph: fx.Graph) -> set[fx.Node]:
    """Find the parameters from which convolution weights are made, standardised or not."""
    found: set[fx.Node] = set()
    for node in graph.nodes:
        if operation(node).removeprefix("aten.") not in (*_CONVS, *_TRANSPOSED):
            continue
        weight = node.args[1]
        seen: set[fx.Node] = set()
        stack = [weight] if isinstance(weight, fx.Node) else []
        while stack:
            here = stack.pop()
            if here not in seen:
                seen.add(here)
                stack += here.all_input_nodes
        if not any(n.op == "placeholder" for n in seen):
            found |= {n for n in seen if n.op == "get_attr"}
    return found


def _kernel(user: fx.Node) -> int | None:
    """Return the number of groups where a node uses a weight as a convolution kernel."""
    name = operation(user).removeprefix("aten.")
    if name not in (*_CONVS, *_TRANSPOSED) or len(user.args) < 2:
        return None
    place = 8 if name == "convolution" else 6
    groups = user.args[place] if len(user.args) > place else user.kwargs.get("groups", 1)
    return int(groups) if isinstance(groups, int) else None


def operation(node: fx.Node) -> str:
    """Name a node's operation without its overload: `aten.relu_`."""
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        return str(target.overloadpacket)
    return getattr(target, "__name__", str(target))


def where(node: fx.Node) -> str:
    """Say where a node is, with the user's source line when known."""
    trace = node.meta.get("stack_trace") or node.stack_trace or ""
    lines = [ln.strip() for ln in trace.splitlines() if ln.strip().startswith('File "')]
    theirs = [ln for ln in lines if "/torch/nn/" not in ln] or lines
    if not theirs:
        return str(node.name)
    file, line = theirs[-1].split('"')[1], theirs[-1].split("line ")[1].split(",")[0]
    return f"{node.name} ({file}:{line})"


def attribute(module: torch.nn.Module, target: str) -> Any:
    """Follow a dotted name."""
    held: Any = module
    for atom in target.split("."):
        held = getattr(held, atom)
    return held


def _function(node: fx.Node) -> Callable[..., Any]:
    assert callable(node.target)
    return node.target


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(int(n) for n in tensor.shape)


def _shapes(node: fx.Node) -> list[tuple[int, ...]] | None:
    leaves = pytree.tree_leaves(node.meta.get("val"))
    try:
        return [_shape(t) for t in leaves if isinstance(t, Tensor)]
    except Exception:
        return None


def _used(node: fx.Node) -> frozenset[int]:
    return frozenset(
        user.args[1]
        for user in node.users
        if user.target is operator.getitem and isinstance(user.args[1], int)
    )


def _as_values(held: Any, why: str) -> Any:
    if isinstance(held, tuple) and all(isinstance(n, int) for n in held):
        return Value(held, why=why)
    if isinstance(held, (list, tuple)):
        return [_as_values(item, why) for item in held]
    return None


def _freeze_all(labels: Labels, values: list[Value], reason: str, node: fx.Node) -> None:
    for value in values:
        for layer in value.layers:
            labels.freeze(layer.ids, reason, where(node))


def _evaluated(node: fx.Node, args: Any, kwargs: Any, inputs: list[Value]) -> Any:
    """Compute integer and boolean constants for real: index tables, masks."""
    if isinstance(node.meta["val"], (list, tuple)) or any(v.const is None for v in inputs):
        return None
    if node.meta["val"].is_floating_point() or "rand" in str(node.target):
        return None
    args, kwargs = pytree.tree_map_only(Value, lambda v: v.const, (args, kwargs))
    kwargs = {k: "cpu" if k == "device" else v for k, v in kwargs.items()}
    try:
        const = _function(node)(*args, **kwargs)
    except Exception:
        return None
    return Value(tuple(const.shape), const=const, why="a constant")


def _checked(step: Step, result: Result) -> Result:
    """Refuse a rule's answer that does not fit what the operation returns."""
    values = result if isinstance(result, list) else [result]
    found = [v.shape for v in values]
    if found != step.shapes:
        raise ValueError(f"the rule says {found}, the operation returns {step.shapes}")
    for value in values:
        for layer in value.layers:
            n = layer.ids.shape[layer.axis]
            if layer.ids.ndim != len(value.shape) or n != value.shape[layer.axis]:
                raise ValueError(f"labels {tuple(layer.ids.shape)} do not fit {value.shape}")
    return result
