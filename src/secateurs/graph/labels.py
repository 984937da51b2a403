"""Labels that flow: which unit every position of every value belongs to.

A value carries at most one layer of labels per axis. A layer's `ids` are broadcastable to
the value's shape: length 1 along every axis on which they are constant, so a million
tokens cost as much as one. Id 0 is a fixed position. Whatever must go together is only
written down here; `groups` settles it once, for all pairs, at the end.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Layer:
    """Labels of one axis: removal shortens the value along `axis`, where `ids` say so."""

    ids: Tensor
    """int64, as many axes as the value, length 1 where constant."""
    axis: int


@dataclass(frozen=True)
class Value:
    """What is known of one tensor in the traced program."""

    shape: tuple[int, ...]
    layers: tuple[Layer, ...] = ()
    const: Tensor | None = None
    """The value itself where it depends on no input and no floating-point parameter."""
    why: str = ""
    """Why axes without labels have none: "the model's input", ..."""

    def at(self, axis: int) -> Layer | None:
        """Return the layer that shortens `axis`, None where it has a fixed size."""
        return next((layer for layer in self.layers if layer.axis == axis), None)


@dataclass(frozen=True)
class Freeze:
    """Ids that must stay, and why."""

    ids: Tensor
    reason: str
    node: str


@dataclass
class Labels:
    """The book in which rules write: pairs of ids, frozen ids, rectangles."""

    count: int = 1
    """Ids given out so far; 0 is taken by fixed positions."""
    pairs: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    freezes: list[Freeze] = field(default_factory=list)
    rectangles: list[Tensor] = field(default_factory=list)
    """(rows, columns) of ids: every row must keep the same number."""
    rows: list[tuple[str, Tensor]] = field(default_factory=list)
    """(operation, ids) that stand for whole rows of a rectangle."""
    params: dict[tuple[str, int], Tensor] = field(default_factory=dict)
    """(parameter, dim) → ids, broadcastable to the parameter's shape."""
    made: list[tuple[int, int]] = field(default_factory=list)
    """Ranges of ids that no parameter was given, but a value that is the same everywhere."""
    read: set[str] = field(default_factory=set)
    """Parameters that some operation has read."""

    def fresh(self, n: int) -> Tensor:
        """Return n new ids, (n,)."""
        self.count += n
        return torch.arange(self.count - n, self.count)

    def fresh_uniform(self, n: int) -> Tensor:
        """Return n new ids for an axis along which a value is the same everywhere, (n,)."""
        self.made.append((self.count, self.count + n))
        return self.fresh(n)

    def uniform(self, ids: Tensor) -> bool:
        """Tell whether all of these ids were made by `fresh_uniform`."""
        inside = torch.zeros_like(ids, dtype=torch.bool)
        for low, high in self.made:
            inside |= (ids >= low) & (ids < high)
        return bool(inside.all())

    def unify(self, a: Tensor, b: Tensor, reason: str = "meets a fixed position") -> None:
        """Note that ids which meet after broadcasting go together; id 0 freezes its partner."""
        a, b = (t.reshape(-1) for t in torch.broadcast_tensors(a, b))  # type: ignore[no-untyped-call]
        real = (a > 0) & (b > 0)
        if not bool(real.all()):
            self.freeze(torch.cat([a[~real], b[~real]]), reason)
            a, b = a[real], b[real]
        self.pairs.append((a, b))

    def freeze(self, ids: Tensor, reason: str, node: str = "") -> None:
        """Note that ids stay, and why."""
        ids = distinct(ids)
        if bool(ids.any()):
            self.freezes.append(Freeze(ids[ids > 0], reason, node))

    def tie(self, ids: Tensor, axes: Iterable[int]) -> Tensor:
        """Unify along axes and return the ids with length 1 there."""
        for axis in axes:
            if ids.shape[axis] > 1:
                first = ids.narrow(axis, 0, 1)
                self.unify(first, ids)
                ids = first
        return ids

    def rectangle(self, ids: Tensor, axis: int) -> None:
        """Note that every row along `axis` must keep the same number."""
        matrix = ids.movedim(axis, -1).reshape(-1, ids.shape[axis])
        if len(matrix) > 1:
            self.rectangles.append(matrix)


def compact(ids: Tensor) -> Tensor:
    """Give axes on which ids are constant length 1."""
    for axis, size in enumerate(ids.shape):
        if size > 1:
            first = ids.narrow(axis, 0, 1)
            if ids.stride(axis) == 0 or bool((ids == first).all()):
                ids = first
    return ids


def distinct(ids: Tensor) -> Tensor:
    """List the ids that occur, sorted."""
    found: Tensor = ids.reshape(-1).unique()  # type: ignore[no-untyped-call]
    return found


def varying(ids: Tensor) -> list[int]:
    """List the axes along which ids are not constant."""
    return [axis for axis, size in enumerate(ids.shape) if size > 1]


def aligned(ids: Tensor, rank: int) -> Tensor:
    """Add leading axes of length 1, as broadcasting does."""
    return ids.reshape((1,) * (rank - ids.ndim) + tuple(ids.shape))


def split_axis(ids: Tensor, axis: int, parts: int) -> Tensor:
    """View one axis as (parts, rest)."""
    shape = ids.shape
    return ids.reshape(*shape[:axis], parts, -1, *shape[axis + 1 :])


def along(ids: Tensor, axis: int, rank: int) -> Tensor:
    """Lay ids, (n,), along one axis of a value of `rank` axes."""
    return ids.reshape([-1 if d == axis else 1 for d in range(rank)])


def groups(count: int, pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Number the classes that the pairs make of ids 0..count-1: → int64 (count,)."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    if not pairs:
        return torch.arange(count)
    a = torch.cat([p[0] for p in pairs]).numpy()
    b = torch.cat([p[1] for p in pairs]).numpy()
    links = coo_matrix(([True] * len(a), (a, b)), shape=(count, count))
    return torch.from_numpy(connected_components(links, directed=False)[1]).long()
