"""Run a traced program node by node, looking at or replacing what the nodes return."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from secateurs.core.errors import EvidenceError
from secateurs.core.example import Example, arguments, map_tensors, split
from secateurs.graph.graph import Graph
from secateurs.graph.labels import Value

Rule = Callable[..., Any]


class Program(fx.Interpreter):
    """The traced program of a model, with the model's present parameters.

    `rule(node)` returns what computes an operation in its place, or None to leave it;
    `visit(node, result)` is called after every node and returns what is passed on.
    """

    def __init__(
        self,
        graph: Graph,
        model: nn.Module,
        *,
        rule: Callable[[fx.Node], Rule | None] = lambda node: None,
        visit: Callable[[fx.Node, Any], Any] = lambda node, result: result,
        change: Callable[[Tensor], Tensor] = lambda tensor: tensor,
    ) -> None:
        """Take parameters and buffers from `model`, each through `change`."""
        super().__init__(graph.module)
        self.wiring, self.rule, self.visit, self.change = graph, rule, visit, change
        held = [*model.named_parameters(remove_duplicate=False), *model.named_buffers()]
        self.tensors = {name: tensor.detach() for name, tensor in held}

    def call(self, example: Example) -> Any:
        """Run on an example of the shapes that were traced."""
        flat = pytree.tree_leaves(arguments(example))
        program: Any = self.module
        holders = [n for n in program.graph.nodes if n.op == "placeholder"]
        if len(flat) != len(holders):
            flat = [leaf for leaf in flat if isinstance(leaf, Tensor)]
        return self.run(*flat, enable_io_processing=False)

    def run_node(self, n: fx.Node) -> Any:
        """Run one node by its rule, and show it to `visit`."""
        if n.target is torch.ops.aten._assert_tensor_metadata.default:
            return None  # what a cast was given when it was traced; here it may be something else
        if n.op == "get_attr":
            result = self._attribute(n)
        elif n.op == "call_function" and (rule := self.rule(n)) is not None:
            args, kwargs = self.fetch_args_kwargs_from_env(n)
            result = rule(n, *args, **kwargs)
        else:
            result = super().run_node(n)
        return self.visit(n, result)

    def _attribute(self, n: fx.Node) -> Any:
        name = self.wiring.names.get(str(n.target), str(n.target))
        found = self.tensors[name] if name in self.tensors else super().run_node(n)
        return self.change(found.detach()) if isinstance(found, Tensor) else found


def operation(node: fx.Node) -> str:
    """Name a node's operation without overload and without the mark of in-place ones."""
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        return str(target.overloadpacket).removesuffix("_")
    return getattr(target, "__name__", str(target))


def units_of(graph: Graph, node: fx.Node) -> tuple[int, Tensor] | None:
    """Say along which axis of a node's value its units lie, and which: → (axis, (n,)).

    -1 where a position belongs to no unit. None where none does, or where they lie along
    several axes.
    """
    value = graph.values.get(node.name)
    if not isinstance(value, Value):
        return None
    for layer in value.layers:
        units = graph.unit_of[layer.ids]
        n = value.shape[layer.axis]
        if layer.ids.numel() == layer.ids.shape[layer.axis] == n and bool((units >= 0).any()):
            return layer.axis, units.reshape(-1)
    return None


def portions(batches: Any, example: Example) -> Iterator[Example]:
    """Cut the inputs of batches into examples as long as the one that was traced.

    A rest that is shorter is left out.

    Raises:
        EvidenceError: no batch is as long as the example.
    """
    leaf = next(t for t in pytree.tree_leaves(arguments(example)) if isinstance(t, Tensor))
    size, found = len(leaf), False
    for batch in batches:
        inputs, _ = split(batch)
        first = next(t for t in pytree.tree_leaves(arguments(inputs)) if isinstance(t, Tensor))
        for start in range(0, len(first) - size + 1, size):
            found = True
            yield map_tensors(lambda t, s=start: t[s : s + size].to(leaf.device), inputs)  # type: ignore[misc]
    if not found:
        raise EvidenceError(
            f"no batch is as long as the example the model was traced with, {size}; "
            "trace with a shorter example or pass longer batches"
        )
