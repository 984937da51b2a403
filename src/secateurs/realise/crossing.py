"""Operations whose result for one channel depends on the others: leaving some out shows."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor, fx

from secateurs.realise.attributes import owner

_OVER: dict[str, Callable[[Tensor, Any], Iterable[int]]] = {
    "layer_norm": lambda x, a: range(x.dim() - len(a[1]), x.dim()),
    "rms_norm": lambda x, a: range(x.dim() - len(a[1]), x.dim()),
    "group_norm": lambda x, a: [1],
    "softmax": lambda x, a: [a[1]],
    "_softmax": lambda x, a: [a[1]],
    "log_softmax": lambda x, a: [a[1]],
    "cumsum": lambda x, a: [a[1]],
    "mean": lambda x, a: _dims(x, a),
    "var": lambda x, a: _dims(x, a),
    "var_mean": lambda x, a: _dims(x, a),
    "std": lambda x, a: _dims(x, a),
    "std_mean": lambda x, a: _dims(x, a),
    "amax": lambda x, a: _dims(x, a),
    "amin": lambda x, a: _dims(x, a),
    "max": lambda x, a: _dims(x, a),
    "min": lambda x, a: _dims(x, a),
    "argmax": lambda x, a: _dims(x, a),
    "sort": lambda x, a: _dims(x, a),
    "topk": lambda x, a: _dims(x, (a[0], a[2] if len(a) > 2 else -1)),
    "native_layer_norm": lambda x, a: range(x.dim() - len(a[1]), x.dim()),
    "native_group_norm": lambda x, a: [1],
    # Evaluation mode takes no statistics; standardised weights use the other one.
    "batch_norm": lambda x, a: [0, *range(2, x.dim())] if a[5] else [],
    "instance_norm": lambda x, a: range(2, x.dim()),
}
"""Operation → the axes of its first argument that it takes statistics over."""


def _dims(x: Tensor, args: tuple[Any, ...]) -> Any:
    dims = args[1] if len(args) > 1 else None
    if isinstance(dims, int):
        return [dims]
    return dims if isinstance(dims, list | tuple) and dims else range(x.dim())


def crossing(
    graph: fx.Graph, before: Mapping[str, Any], after: Mapping[str, Any]
) -> tuple[str, ...]:
    """Name the statistics taken over an axis that became shorter, and in which module.

    `before` and `after` are the values of the traced program and of the smaller one.
    """
    found: dict[str, None] = {}
    for node in graph.nodes:
        over = _OVER.get(getattr(getattr(node.target, "overloadpacket", None), "__name__", ""))
        source = node.args[0] if node.args else None
        if over is None or not isinstance(source, fx.Node):
            continue
        old, new = before.get(source.name), after.get(source.name)
        if not isinstance(old, Tensor) or not isinstance(new, Tensor) or old.dim() != new.dim():
            continue
        if any(old.shape[d] != new.shape[d] for d in over(old, node.args)):
            found[f"{node.target.overloadpacket.__name__} in {owner(node) or 'the model'}"] = None
    return tuple(found)
