"""Sizes of the batch leave a traced part, so it runs on batches of any size; checked, or undone."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from secateurs.core.example import Example, map_tensors, tensors

_aten = torch.ops.aten
_VIEWS = {
    _aten.view.default,
    _aten.reshape.default,
    _aten._unsafe_view.default,
}


def two_batches(example: Example) -> tuple[Example, Example] | None:
    """Make another batch of the same shape, and both as one; None unless all tensors share one.

    The other batch is the example mirrored along its last axis.
    """
    found = tensors(example)
    sizes = {t.shape[0] if t.dim() > 1 else 0 for t in found}
    if len(sizes) != 1 or sizes == {0}:
        return None
    other: Example = map_tensors(lambda t: t.flip(-1), example)
    both: Example = map_tensors(lambda t: torch.cat([t, t.flip(-1)]), example)
    return other, both


@dataclass(frozen=True)
class Undo:
    """What `generalise_` changed in a part."""

    args: tuple[tuple[fx.Node, Any], ...]
    made: tuple[fx.Node, ...]


def generalise_(part: fx.GraphModule, batch: int) -> Undo:
    """Let views infer their first size and expansions take it from the input, in place."""
    before: list[tuple[fx.Node, Any]] = []
    made: list[fx.Node] = []
    first = next((n for n in part.graph.nodes if _is_input(n)), None)
    for node in list(part.graph.nodes):
        if node.target in _VIEWS and _inferable(node.args[1]):
            before.append((node, node.args))
            node.args = (node.args[0], [-1, *node.args[1][1:]])
        elif node.target is _aten.expand.default and first is not None:
            sizes = node.args[1]
            if len(sizes) > 1 and sizes[0] == batch:
                before.append((node, node.args))
                with part.graph.inserting_before(node):
                    made.append(part.graph.call_function(_aten.sym_size.int, (first, 0)))
                node.args = (node.args[0], [made[-1], *sizes[1:]])
    part.recompile()
    return Undo(tuple(before), tuple(made))


def restore_(part: fx.GraphModule, undo: Undo) -> None:
    """Take back what `generalise_` did."""
    for node, args in undo.args:
        node.args = args
    for node in undo.made:
        part.graph.erase_node(node)
    part.recompile()


def _inferable(sizes: Any) -> bool:
    return len(sizes) > 1 and all(type(s) is int and s > 0 for s in sizes)


def _is_input(node: fx.Node) -> bool:
    """Tell whether a node picks a tensor of the call."""
    source = node.args[0] if node.args else None
    return (
        isinstance(source, fx.Node)
        and source.op == "call_function"
        and (getattr(source.target, "__name__", "") == "leaves")
    )
