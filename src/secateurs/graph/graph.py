"""How a model is wired: which positions of which parameters must go together."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from secateurs.graph.labels import Layer


@dataclass(frozen=True)
class Slices:
    """Where the units of one bucket lie in one parameter or buffer.

    The tensor is viewed as `view` and its axes `dims` are merged, row-major; then
    `index[u, j]` is the position of the j-th piece of unit u along the merged axis.

    A plain axis d has `view` = the tensor's shape and `dims` = (d,). The input channels of
    a grouped convolution, whose groups may keep different inputs, have
    `view` = (groups, out // groups, in // groups, *kernel) and `dims` = (0, 2).
    """

    param: str
    view: tuple[int, ...]
    dims: tuple[int, ...]
    index: Tensor
    """int64, (units, pieces)."""


@dataclass(frozen=True)
class Bucket:
    """Units that live in the same axes in the same way, so any of them may go first.

    `among` is the pool size where a view demands a rectangle: the units are ordered pool
    by pool and every pool must keep the same number. None means one pool.
    """

    name: str
    """The producing axis, `layer1.0.conv1.weight:0`, unique in the graph."""
    ids: Tensor
    """int64, (units,): the unit's number in the whole graph."""
    slices: tuple[Slices, ...]
    among: int | None = None
    kind: str = "channel"
    """`channel`, or `head` where a unit is a whole row of a rectangle."""


@dataclass(frozen=True)
class Frozen:
    """Positions that stay, and why."""

    param: str
    dim: int
    count: int
    """How many positions of that axis are frozen for this reason."""
    reason: str
    """A sentence: "reaches the model's output", "operation aten.foo has no rule", ..."""
    node: str = ""
    """Where in the traced graph, and the user's source line when known."""


@dataclass(frozen=True)
class Contraction:
    """A linear layer, convolution or matrix product: macs = factor · kept_out · kept_in // groups.

    `out` and `inner` hold the unit at every position of the output and contracted axes,
    -1 where a position belongs to no unit. An axis without any unit may be part of
    `factor`, which counts everything else that multiplies: batch, positions, taps.
    `others` are further axes with units; each multiplies by what it keeps.
    """

    node: str
    factor: int
    out: Tensor
    inner: Tensor
    groups: int = 1
    others: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Graph:
    """A traced model: parameters, coupled units, and what is frozen and why."""

    shapes: Mapping[str, tuple[int, ...]]
    """Every parameter and buffer once, by its canonical dotted name."""
    aliases: Mapping[str, str]
    """Other names of tied parameters → the canonical name."""
    axes: Mapping[tuple[str, int], Tensor]
    """(parameter, dim) → the unit at each index, -1 where none; (groups, n) for grouped inputs."""
    buckets: Mapping[str, Bucket]
    frozen: tuple[Frozen, ...]
    contractions: tuple[Contraction, ...]
    module: fx.GraphModule = field(repr=False)
    """The traced program, in evaluation mode."""
    macs: int = 0
    """Multiply-accumulates of one call on the example input, batch included."""
    units: int = 0
    """How many units there are; buckets number them 0 to units - 1."""
    unit_of: Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.long), repr=False)
    """Label → unit, -1 where none; int64."""
    values: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Node of `module` → what is known of its value (a `labels.Value`, or a list)."""
    layers: Mapping[str, tuple[Layer, ...]] = field(default_factory=dict, repr=False)
    """Parameter → its labels."""
    rectangles: tuple[Tensor, ...] = field(default=(), repr=False)
    """(rows, columns) of units, -1 where none: every row keeps the same number."""
    names: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Attribute of `module` → canonical name."""
    buffers: frozenset[str] = frozenset()
    """Which of `shapes` are buffers."""
    recorded: bool = False
    """Whether `module` is one recorded run: good for labels, not for running elsewhere."""
