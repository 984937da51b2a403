"""Operations whose result for one channel depends on the others: leaving some out shows."""

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, fx

from secateurs.graph.graph import Graph
from secateurs.graph.labels import Value
from secateurs.graph.rewrite import kept_shape, label_mask
from secateurs.realise.attributes import owner

_OVER: dict[str, Callable[[int, Any], Iterable[int]]] = {
    "layer_norm": lambda rank, a: range(rank - len(a[1]), rank),
    "rms_norm": lambda rank, a: range(rank - len(a[1]), rank),
    "group_norm": lambda rank, a: [1],
    "softmax": lambda rank, a: [a[1]],
    "_softmax": lambda rank, a: [a[1]],
    "log_softmax": lambda rank, a: [a[1]],
    "cumsum": lambda rank, a: [a[1]],
    "mean": lambda rank, a: _dims(rank, a),
    "var": lambda rank, a: _dims(rank, a),
    "var_mean": lambda rank, a: _dims(rank, a),
    "std": lambda rank, a: _dims(rank, a),
    "std_mean": lambda rank, a: _dims(rank, a),
    "amax": lambda rank, a: _dims(rank, a),
    "amin": lambda rank, a: _dims(rank, a),
    "max": lambda rank, a: _dims(rank, a),
    "min": lambda rank, a: _dims(rank, a),
    "argmax": lambda rank, a: _dims(rank, a),
    "sort": lambda rank, a: _dims(rank, a),
    "topk": lambda rank, a: _dims(rank, (a[0], a[2] if len(a) > 2 else -1)),
    "native_layer_norm": lambda rank, a: range(rank - len(a[1]), rank),
    "native_group_norm": lambda rank, a: [1],
    # Evaluation mode takes no statistics; standardised weights use the other one.
    "batch_norm": lambda rank, a: [0, *range(2, rank)] if a[5] else [],
    "instance_norm": lambda rank, a: range(2, rank),
}
"""Operation → the axes of its first argument that it takes statistics over."""


def _dims(rank: int, args: tuple[Any, ...]) -> Any:
    dims = args[1] if len(args) > 1 else None
    if isinstance(dims, int):
        return [dims]
    return dims if isinstance(dims, list | tuple) and dims else range(rank)


def crossing(graph: Graph, removed: Tensor) -> tuple[str, ...]:
    """Name the statistics over an axis that the removed units shorten, and the module of each."""
    stays = label_mask(graph, removed.cpu())
    found: dict[str, None] = {}
    for node in graph.module.graph.nodes:
        over = _OVER.get(getattr(getattr(node.target, "overloadpacket", None), "__name__", ""))
        source = node.args[0] if node.args else None
        if over is None or not isinstance(source, fx.Node):
            continue
        value = graph.values.get(source.name)
        if not isinstance(value, Value) or not value.layers:
            continue
        left = kept_shape(value, stays)
        if any(value.shape[d] != left[d] for d in over(len(value.shape), node.args)):
            found[f"{node.target.overloadpacket.__name__} in {owner(node) or 'the model'}"] = None
    return tuple(found)
