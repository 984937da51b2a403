"""A traced program that stands in for a module: its weights keep their names, and it trains."""

import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

_TRAINING_FLAG: dict[Any, int] = {
    torch.ops.aten.dropout.default: 2,
    torch.ops.aten.feature_dropout.default: 2,
    torch.ops.aten.alpha_dropout.default: 2,
    torch.ops.aten.feature_alpha_dropout.default: 2,
    torch.ops.aten.dropout_.default: 2,
    torch.ops.aten.batch_norm.default: 5,
    torch.ops.aten.rrelu.default: 3,
}
"""Operations that behave otherwise in training, and which argument says so."""


def leaves(args: Any, kwargs: Any) -> list[Tensor]:
    """List the tensors a call is given, in order."""
    return [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]


def pack(spec: str, *values: Any) -> Any:
    """Rebuild a nested output from its leaves; `spec` is `pytree.treespec_dumps`."""
    return pytree.tree_unflatten(list(values), pytree.treespec_loads(spec))


def program(
    source: fx.Graph,
    tensors: Mapping[str, tuple[str, Any]],
    inputs: Mapping[str, int],
    outputs: Iterable[Any],
    spec: str,
) -> fx.GraphModule:
    """Cut a module out of a traced graph: a module that is called like the one it replaces.

    Args:
        source: the traced graph.
        tensors: target of a `get_attr` node → (name, tensor) to hold under a local name.
        inputs: node name → position among the tensors of a call.
        outputs: the leaves of the result: a node's name as `Ref`, or a constant.
        spec: how the leaves nest.

    Raises:
        KeyError: the part reads a value that is neither an input nor one of `tensors`.
    """
    outputs = list(outputs)
    wanted = slice_of(source, inputs, [leaf.name for leaf in outputs if isinstance(leaf, Ref)])
    graph, made, held = fx.Graph(), {}, {}
    args, kwargs = graph.placeholder("*args"), graph.placeholder("**kwargs")
    given = graph.call_function(leaves, (args, kwargs))
    for name, position in inputs.items():
        made[name] = graph.call_function(operator.getitem, (given, position))
    training: list[fx.Node] = []
    for node in source.nodes:
        if node.name in inputs or node not in wanted:
            continue
        if node.op == "placeholder":
            raise KeyError(node.name)
        made[node.name] = graph.node_copy(node, lambda n: made[n.name])
        if node.op == "get_attr":
            local, value = tensors[str(node.target)]
            made[node.name].target, held[local] = local, value
        _follow_mode(graph, made[node.name], training)
    packed = [made[leaf.name] if isinstance(leaf, Ref) else leaf for leaf in outputs]
    graph.output(graph.call_function(pack, (spec, *packed)))
    return module_of(graph, held)


class Ref:
    """The value of a node, where a nested structure would hold a tensor."""

    def __init__(self, name: str) -> None:
        """Point at a node by name."""
        self.name = name


def module_of(graph: fx.Graph, held: Mapping[str, Any]) -> fx.GraphModule:
    """Wrap a graph as a module that holds these tensors under their dotted names."""
    root: dict[str, Any] = dict(held)
    root["training"] = False
    result = fx.GraphModule(root, graph, class_name="TracedPart")
    result.training = False
    return result


def _follow_mode(graph: fx.Graph, node: fx.Node, training: list[fx.Node]) -> None:
    """Let dropout and batch norm read `self.training`, which tracing had made a constant."""
    place = _TRAINING_FLAG.get(node.target)
    if place is None or len(node.args) <= place:
        return
    if not training:
        with graph.inserting_before(node):
            training.append(graph.get_attr("training"))
    node.args = (*node.args[:place], training[0], *node.args[place + 1 :])


def slice_of(graph: fx.Graph, inputs: Iterable[str], outputs: Iterable[str]) -> set[fx.Node]:
    """Find the nodes that the outputs are computed by, from the inputs on.

    An operation that writes into a value of the slice, or into a view of one, belongs to it.
    """
    nodes = {node.name: node for node in graph.nodes}
    order = {node: i for i, node in enumerate(graph.nodes)}
    writers = _writers(graph)
    stop = set(inputs)
    stack = [nodes[name] for name in outputs if name not in stop]
    last = max((order[n] for n in stack), default=-1)
    found: set[fx.Node] = set()
    while stack:
        node = stack.pop()
        if node in found:
            continue
        found.add(node)
        stack.extend(n for n in node.all_input_nodes if n.name not in stop)
        stack.extend(n for n in writers.get(node, ()) if order[n] <= last and n.name not in stop)
    return found


def _writers(graph: fx.Graph) -> dict[fx.Node, list[fx.Node]]:
    """List the operations that write into each value, directly or through views of it."""
    found: dict[fx.Node, list[fx.Node]] = {}
    for node in graph.nodes:
        base = node.args[0] if writes(node) else None
        while isinstance(base, fx.Node):
            found.setdefault(base, []).append(node)
            base = base.args[0] if _views(base) else None
    return found


def writes(node: fx.Node) -> bool:
    """Tell whether a node changes its first argument in place."""
    schema = getattr(node.target, "_schema", None)
    return bool(schema is not None and schema.is_mutable and node.args)


def _views(node: fx.Node) -> bool:
    """Tell whether a node's result may share memory with its first argument."""
    if node.target is operator.getitem:
        return True
    schema = getattr(node.target, "_schema", None)
    return bool(schema and node.args and schema.arguments and schema.arguments[0].alias_info)


def run(
    module: fx.GraphModule, feed: Callable[[fx.Node], Any], record: Callable[[str, Any], None]
) -> Any:
    """Run a graph node by node, showing every value at the moment it is made."""

    class _Recorder(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = feed(n) if n.op == "placeholder" else super().run_node(n)
            record(n.name, value)
            return value

    return _Recorder(module, garbage_collect_values=True).run()


def is_program(module: nn.Module) -> bool:
    """Tell whether a module is one of ours: a traced part or a whole traced graph."""
    return isinstance(module, fx.GraphModule)
