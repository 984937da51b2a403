"""Models and traced programs in float64 for a proof, and back."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

_WAS = "secateurs_dtype"
_LOW = (torch.float32, torch.float16, torch.bfloat16)


@contextmanager
def in_double() -> Iterator[None]:
    """Let everything compute in float64: casts to less and new tensors of the default dtype too."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with _Double():
            yield
    finally:
        torch.set_default_dtype(before)


class _Double(TorchFunctionMode):
    """Replaces lower precision wherever a model asks for it by name."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function of torch with float64 in the place of less."""
        if func in _CASTS:
            return torch.Tensor.double(args[0])
        if any(_is_low(a) for a in args):
            args = tuple(torch.float64 if _is_low(a) else a for a in args)
        kwargs = kwargs or {}
        if _is_low(kwargs.get("dtype")):
            kwargs = {**kwargs, "dtype": torch.float64}
        return func(*args, **kwargs)


_CASTS = (torch.Tensor.float, torch.Tensor.half, torch.Tensor.bfloat16)


def doubled(module: fx.GraphModule, lookup: Callable[[str], Any]) -> fx.GraphModule:
    """Copy a traced program with other tensors, computing in float64.

    `lookup` gives the tensor for a `get_attr` target, or None where the program's own stays.
    """
    graph = fx.Graph()
    made: dict[fx.Node, fx.Node] = {}
    result = graph.graph_copy(module.graph, made)
    if result is not None:
        graph.output(result)
    for old, new in made.items():
        # Copies are renamed where two names collide; the old name is how values are found.
        assert old.name == new.name, (old.name, new.name)
    held: dict[str, Any] = {}
    for node in graph.nodes:
        if node.op == "get_attr" and str(node.target) not in held:
            found = lookup(str(node.target))
            held[str(node.target)] = (
                _double(attribute(module, str(node.target))) if found is None else found
            )
    for name, child in module.named_children():
        if isinstance(child, fx.GraphModule):
            held.setdefault(name, child)
    double_constants_(graph)
    return fx.GraphModule(held, graph)


def _double(value: Any) -> Any:
    if isinstance(value, nn.Parameter):
        return nn.Parameter(value.detach().double(), requires_grad=value.requires_grad)
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value


def attribute(module: nn.Module, target: str) -> Any:
    """Follow a dotted name."""
    value: Any = module
    for name in target.split("."):
        value = getattr(value, name)
    return value


def double_constants_(graph: fx.Graph) -> None:
    """Make a program's dtype constants float64, remembering what they were."""
    for node in graph.nodes:
        wanted = {d for d in pytree.tree_leaves((node.args, node.kwargs)) if _is_low(d)}
        if wanted and node.op == "call_function":
            node.meta = {**node.meta, _WAS: wanted.pop()}
            _replace(node, dict.fromkeys(_LOW, torch.float64))


def restore_constants_(graph: fx.Graph) -> None:
    """Undo `double_constants_`."""
    for node in graph.nodes:
        was = node.meta.get(_WAS)
        if was is not None:
            _replace(node, {torch.float64: was})


def _is_low(value: object) -> bool:
    return isinstance(value, torch.dtype) and value in _LOW


def _replace(node: fx.Node, other: Mapping[torch.dtype, torch.dtype]) -> None:
    args, kwargs = pytree.tree_map(
        lambda v: other.get(v, v) if isinstance(v, torch.dtype) else v, (node.args, node.kwargs)
    )
    node.args, node.kwargs = args, kwargs
