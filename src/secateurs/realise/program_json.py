"""A traced program as JSON and back: node by node, naming only operations torch itself defines."""

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx

from secateurs.core.errors import FileError
from secateurs.realise.program import leaves, module_of, pack

_PYTHON: dict[str, Callable[..., Any]] = {
    "getitem": operator.getitem,
    "leaves": leaves,
    "pack": pack,
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "floordiv": operator.floordiv,
}
"""The functions a program may call besides torch's operations."""
_NAMESPACES = ("aten", "torchvision", "prims")
_REFUSED = ("aten.from_file.default", "aten.from_file.out")
"""Operations that reach files, which no traced part of a network does."""
_OPS = ("placeholder", "get_attr", "call_function", "output")

_KINDS: dict[type, str] = {
    torch.dtype: "dtype",
    torch.memory_format: "memory_format",
    torch.layout: "layout",
    torch.device: "device",
}


def dump_program(module: fx.GraphModule) -> list[dict[str, Any]]:
    """Write a traced part as JSON nodes; its tensors are saved elsewhere, by name.

    Raises:
        FileError: it calls something that is not an operation of torch.
    """
    return [
        {
            "name": node.name,
            "op": node.op,
            "target": _name_of(node),
            "args": [_dump(a) for a in node.args],
            "kwargs": {k: _dump(v) for k, v in node.kwargs.items()},
        }
        for node in module.graph.nodes
    ]


def load_program(
    nodes: list[dict[str, Any]], tensors: Mapping[str, Tensor], where: str
) -> fx.GraphModule:
    """Rebuild a traced part from `dump_program` and the tensors it names.

    Raises:
        FileError: a node is malformed, or names something else than an operation of torch.
    """
    graph = fx.Graph()
    made: dict[str, fx.Node] = {}
    held: dict[str, Tensor] = {}
    try:
        for node in nodes:
            args = tuple(_load(a, made) for a in node["args"])
            kwargs = {k: _load(v, made) for k, v in node["kwargs"].items()}
            target: Any = node["target"]
            if node["op"] not in _OPS:
                raise FileError(f"{where}: {node['op']!r} is no kind of node; save it again")
            if node["op"] == "call_function":
                target = _function(target, where)
            elif node["op"] == "get_attr" and target != "training":
                held[target] = tensors[target]
            made[node["name"]] = graph.create_node(node["op"], target, args, kwargs, node["name"])
        graph.lint()
    except (KeyError, TypeError, IndexError, AttributeError, RuntimeError, ValueError) as error:
        raise FileError(f"{where}: a traced part is damaged ({error}); save it again") from error
    return module_of(graph, held)


def _name_of(node: fx.Node) -> str:
    if node.op != "call_function":
        return str(node.target)
    for name, function in _PYTHON.items():
        if node.target is function:
            return name
    name = str(node.target)
    if not isinstance(node.target, torch._ops.OpOverload) or name.split(".")[0] not in _NAMESPACES:
        raise FileError(
            f"cannot save a traced part that calls {name}; only torch's own operations can be saved"
        )
    return name


def _function(name: str, where: str) -> Callable[..., Any]:
    if name in _PYTHON:
        return _PYTHON[name]
    parts = name.split(".")
    if len(parts) != 3 or parts[0] not in _NAMESPACES or name in _REFUSED:
        raise FileError(f"{where}: {name!r} is no operation of torch; do not load this file")
    found: Any = torch.ops
    for part in parts:
        found = getattr(found, part)
    if not isinstance(found, torch._ops.OpOverload):
        raise FileError(f"{where}: {name!r} is no operation of torch; do not load this file")
    return found


def _dump(value: Any) -> Any:
    if isinstance(value, fx.Node):
        return {"node": value.name}
    if isinstance(value, tuple):
        return {"tuple": [_dump(v) for v in value]}
    if isinstance(value, list):
        return [_dump(v) for v in value]
    if isinstance(value, slice):
        return {"slice": [_dump(v) for v in (value.start, value.stop, value.step)]}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    for kind, name in _KINDS.items():
        if isinstance(value, kind):
            return {name: str(value).removeprefix("torch.")}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise FileError(f"cannot save a traced part with an argument of type {type(value).__name__}")


def _load(value: Any, made: Mapping[str, fx.Node]) -> Any:
    if isinstance(value, list):
        return [_load(v, made) for v in value]
    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    if kind == "node":
        return made[inner]
    if kind == "tuple":
        return tuple(_load(v, made) for v in inner)
    if kind == "slice":
        return slice(*(_load(v, made) for v in inner))
    if kind == "float":
        return float(inner)
    if kind == "device":
        return torch.device(inner)
    found = getattr(torch, inner)
    if type(found) not in _KINDS or _KINDS[type(found)] != kind:
        raise ValueError(f"{inner} is no {kind}")
    return found
