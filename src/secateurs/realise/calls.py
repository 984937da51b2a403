"""Which values of the traced graph each module is called with, and what it must return."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from secateurs.core.example import Example, arguments, call, map_tensors
from secateurs.realise.program import Ref, run

Values = Mapping[str, Any]
"""Node name → what the node gave."""

_PROBES = 8
_CALLS_CHECKED = 3
"""A module called many times (a shared layer, an unrolled loop) is checked on its first calls."""


@dataclass(frozen=True)
class Call:
    """One call of one module; a tensor that the graph knows is a `Ref` to its node."""

    path: str
    args: Any
    """Nested (args, kwargs)."""
    result: Any


def record_values(module: fx.GraphModule, example: Example) -> dict[str, Any]:
    """Run a traced program and keep a copy of every value at the moment it is made."""
    args, kwargs = arguments(example)
    given = iter(pytree.tree_leaves((args, kwargs)))
    values: dict[str, Any] = {}
    holes = [n for n in module.graph.nodes if n.op == "placeholder"]
    feed = dict(zip([n.name for n in holes], given, strict=False))

    def record(name: str, value: Any) -> None:
        values[name] = map_tensors(_copied, value)

    with torch.no_grad():
        run(module, lambda node: feed[node.name], record)
    return values


def _copied(tensor: Tensor) -> Tensor:
    # No program writes into its parameters, and copies of all of them are large.
    return tensor.detach() if isinstance(tensor, nn.Parameter) else tensor.detach().clone()


def record_calls(model: nn.Module, example: Example, values: Values) -> dict[str, list[Call]]:
    """Run a model and say which graph values its modules were given and returned.

    `values` come from the traced program of the same model on the same example, both in
    float64: tensors are recognised by their content.
    """
    known = _Known(values)
    found: dict[str, list[Call]] = defaultdict(list)
    entered: list[tuple[str, Any]] = []

    def enter(path: str) -> Callable[..., None]:
        def hook(_m: nn.Module, args: Any, kwargs: Any) -> None:
            wanted = len(found[path]) < _CALLS_CHECKED
            given = pytree.tree_map_only(Tensor, known.first, (args, kwargs)) if wanted else None
            entered.append((path, given))

        return hook

    def leave(_m: nn.Module, _args: Any, _kwargs: Any, result: Any) -> None:
        path, given = entered.pop()
        if len(found[path]) < _CALLS_CHECKED:
            returned = pytree.tree_map_only(Tensor, known.last, result)
            found[path].append(Call(path, given, returned))

    handles = []
    for path, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(enter(path), with_kwargs=True))
        handles.append(module.register_forward_hook(leave, with_kwargs=True))
    try:
        with torch.no_grad():
            call(model, example)
    finally:
        for handle in handles:
            handle.remove()
    return dict(found)


class _Known:
    """Recognises a tensor by its shape and content among the values of a graph."""

    def __init__(self, values: Values) -> None:
        self._by_shape: dict[Any, list[tuple[str, Tensor]]] = defaultdict(list)
        self._probes: dict[Any, Tensor] = {}
        for name, value in values.items():
            if isinstance(value, Tensor):
                self._by_shape[(tuple(value.shape), value.dtype)].append((name, value))

    def _near(self, tensor: Tensor) -> list[tuple[str, Tensor]]:
        """List the values that agree in a few entries: almost every other one differs there."""
        key = (tuple(tensor.shape), tensor.dtype)
        near = self._by_shape.get(key, [])
        if near and key not in self._probes:
            self._probes[key] = torch.stack([_probe(value) for _, value in near])
        if not near:
            return []
        agree = _agree(self._probes[key], _probe(tensor)).all(dim=1)
        return [near[k] for k in agree.nonzero().flatten().tolist()]

    def first(self, tensor: Tensor) -> Any:
        return self._ref(tensor, self._near(tensor))

    def last(self, tensor: Tensor) -> Any:
        return self._ref(tensor, self._near(tensor)[::-1])

    def _ref(self, tensor: Tensor, near: list[tuple[str, Tensor]]) -> Any:
        name = next((n for n, value in near if bool(_agree(value, tensor).all())), None)
        return tensor if name is None else Ref(name)


def _probe(tensor: Tensor) -> Tensor:
    """Take a few entries from all over a tensor, without copying it."""
    count = min(_PROBES, tensor.numel())
    places = torch.arange(count, device=tensor.device) * (tensor.numel() - 1) // max(1, count - 1)
    return tensor.detach().take(places)


def _agree(a: Tensor, b: Tensor) -> Tensor:
    if a.is_floating_point() or a.is_complex():
        return torch.isclose(a, b, rtol=1e-9, atol=1e-12, equal_nan=True)
    return a == b


def fill(structure: Any, values: Values) -> Any:
    """Put the graph's values where the `Ref`s are; every tensor is a copy."""

    def value(leaf: Any) -> Any:
        found = values[leaf.name] if isinstance(leaf, Ref) else leaf
        return found.clone() if isinstance(found, Tensor) else found

    return pytree.tree_map(value, structure, is_leaf=lambda x: isinstance(x, Ref))


def difference(found: Any, wanted: Any) -> float:
    """Largest difference of two nested outputs over the wanted one's deviation; inf if unlike."""
    a, b = _tensors(found), _tensors(wanted)
    if len(a) != len(b) or any(x.shape != y.shape for x, y in zip(a, b, strict=True)):
        return float("inf")
    return max((_distance(x, y) for x, y in zip(a, b, strict=True)), default=0.0)


def _tensors(nested: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(nested) if isinstance(leaf, Tensor)]


def _distance(found: Tensor, wanted: Tensor) -> float:
    if wanted.numel() == 0:
        return 0.0
    if wanted.is_complex() and found.is_complex():
        found, wanted = torch.view_as_real(found), torch.view_as_real(wanted)
    if not wanted.is_floating_point():
        return 0.0 if torch.equal(found, wanted) else float("inf")
    found, wanted = found.detach().double(), wanted.detach().double()
    if not torch.equal(found.isfinite(), wanted.isfinite()):
        return float("inf")
    finite = wanted.isfinite()
    if not bool(finite.any()):
        # Infinities may agree; NaN agrees with nothing, so it proves nothing.
        return 0.0 if torch.equal(found, wanted) else float("inf")
    found, wanted = found[finite], wanted[finite]
    spread = float(wanted.std(correction=0)) or float(wanted.abs().max()) or 1.0
    return float((found - wanted).abs().max()) / spread
