"""What a rule is given: one operation of the traced program, and the book to write in."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from secateurs.graph.labels import Labels, Layer, Value, aligned

Result = Value | list[Value]
Rule = Callable[..., Any]
"""`rule(step, *args, **kwargs)` with `Value`s for tensors → a Value, or a list of them."""


@dataclass(frozen=True)
class Product:
    """A contraction met on the way: ids of its axes, and what else multiplies."""

    node: str
    factor: int
    out: Tensor
    inner: Tensor
    groups: int
    others: tuple[Tensor, ...] = ()


@dataclass
class Step:
    """One operation: its name, the shapes it returns, the book, and the answers so far."""

    labels: Labels
    node: str
    name: str
    op: Callable[..., Any]
    shapes: list[tuple[int, ...]]
    """Shapes of the results; one for most operations."""
    many: bool = False
    """Whether it returns a list, even of one."""
    used: frozenset[int] = frozenset()
    """Which of several results are read."""
    whole_rows: bool = False
    products: list[Product] = field(default_factory=list)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the first result."""
        return self.shapes[0]

    def freeze(self, ids: Tensor, reason: str) -> None:
        """Keep these ids, for this reason, here."""
        self.labels.freeze(ids, reason, self.node)

    def freeze_axes(self, value: Value, axes: Sequence[int], reason: str) -> Value:
        """Freeze the layers that shorten one of `axes`, and return the value without them."""
        rest = []
        for layer in value.layers:
            if layer.axis in axes:
                self.freeze(layer.ids, reason)
            else:
                rest.append(layer)
        why = reason if len(rest) < len(value.layers) else value.why
        return Value(value.shape, tuple(rest), why=why)

    def tied(self, value: Value, axes: Sequence[int]) -> Value:
        """Make every layer constant along `axes` by unifying along them."""
        layers = tuple(
            Layer(self.labels.tie(layer.ids, [a for a in axes if a != layer.axis]), layer.axis)
            for layer in value.layers
        )
        return Value(value.shape, layers, why=value.why)

    def meet(self, values: Sequence[Value], shape: tuple[int, ...]) -> Value:
        """Unify the labels of values that are broadcast together, axis by axis."""
        rank, layers = len(shape), []
        for axis in range(rank):
            held: list[Tensor] = []
            fixed: list[str] = []
            for value in values:
                own = axis - rank + len(value.shape)
                if own < 0 or value.shape[own] == 1:
                    continue
                layer = value.at(own)
                if layer is None:
                    fixed.append(value.why or "a tensor of fixed size")
                else:
                    held.append(aligned(layer.ids, rank))
            if held and fixed:
                for ids in held:
                    self.freeze(ids, meets(fixed[0]))
            elif held:
                for ids in held[1:]:
                    self.labels.unify(held[0], ids)
                layers.append(Layer(held[0], axis))
        why = next((v.why for v in values if v.why), "")
        return Value(shape, tuple(layers), why=why)


def meets(why: str) -> str:
    """Turn why a partner has no labels into why those who meet it stay."""
    return why if why.startswith(("meets", "operation", "reaches")) else f"meets {why}"


def values_in(tree: Any) -> Iterator[Value]:
    """Yield every value in nested arguments."""
    if isinstance(tree, Value):
        yield tree
    elif isinstance(tree, (list, tuple)):
        for item in tree:
            yield from values_in(item)
    elif isinstance(tree, dict):
        yield from values_in(list(tree.values()))


def plain(step: Step, why: str) -> Result:
    """Return results without labels."""
    values = [Value(shape, why=why) for shape in step.shapes]
    return values if step.many else values[0]


def total(sizes: Sequence[int]) -> int:
    """Multiply sizes; 1 for none."""
    return math.prod(sizes)


NONE = torch.tensor([-1])
"""An axis of length 1 that belongs to no unit."""
