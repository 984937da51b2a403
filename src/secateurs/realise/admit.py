"""Which of the units that a mask emptied may leave: pools stay even, no axis becomes empty."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from secateurs.graph.graph import Graph
from secateurs.graph.units import legal


@dataclass(frozen=True)
class PutBack:
    """Units that stay, as zeros, although the mask empties them."""

    bucket: str
    count: int
    reason: str
    """A sentence that names the operation or the axis."""
    operation: str = ""
    """The parameters the units lie in."""


def admit(graph: Graph, mask: Mapping[str, Tensor]) -> tuple[Tensor, list[PutBack]]:
    """Say which emptied units leave, bool (units,), and which stay and why.

    Every pool of a bucket loses as many units as the one that loses fewest, and at least
    one index stays on every axis. Units that stay are zeros, so the function is the same.
    """
    empty = emptied(graph, mask)
    removed = legal(graph, empty)
    while not torch.equal(again := legal(graph, removed), removed):
        removed = again
    back = []
    for name, bucket in graph.buckets.items():
        ids = bucket.ids
        count = int((empty & ~removed)[ids].sum())
        if count:
            back.append(PutBack(name, count, _reason(graph, name, empty), where(graph, name)))
    return removed, back


def emptied(graph: Graph, mask: Mapping[str, Tensor]) -> Tensor:
    """Mark the units whose every position in every parameter is masked: bool (units,)."""
    empty = torch.ones(graph.units, dtype=torch.bool)
    seen = torch.zeros(graph.units, dtype=torch.bool)
    for (name, dim), units in graph.axes.items():
        if name in graph.buffers:
            continue
        here = units >= 0
        seen[units[here]] = True
        keep = mask.get(name)
        if keep is None:
            empty[units[here]] = False
            continue
        keep = keep.cpu()
        if units.dim() == 2:
            # Shape: (out, in / groups, ...) → (groups, out / groups, in / groups, ...)
            keep = keep.reshape(len(units), -1, *keep.shape[1:]).movedim(dim + 1, 1)
            alive = keep.flatten(2).any(dim=2)
        else:
            alive = keep.movedim(dim, 0).flatten(1).any(dim=1) if keep.dim() > 1 else keep
        empty[units[here & alive]] = False
    return empty & seen


def _reason(graph: Graph, name: str, empty: Tensor) -> str:
    bucket = graph.buckets[name]
    if bucket.among:
        lost = empty[bucket.ids].view(-1, bucket.among).sum(dim=1).tolist()
        if len(set(lost)) > 1:
            shown = ", ".join(map(str, lost[:4])) + (", ..." if len(lost) > 4 else "")
            return f"its {len(lost)} pools would lose {shown} units; each must lose the same"
    return f"an axis of {where(graph, name)} would be empty"


def where(graph: Graph, name: str) -> str:
    """Say which parameters a bucket lies in."""
    params = list(dict.fromkeys(s.param for s in graph.buckets[name].slices))
    return ", ".join(params[:4]) + (", ..." if len(params) > 4 else "")
