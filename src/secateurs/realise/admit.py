"""Which of the units that a mask emptied may leave: pools stay even, no axis becomes empty."""

from dataclasses import dataclass

import torch
from torch import Tensor

from secateurs.graph.graph import Graph


@dataclass(frozen=True)
class PutBack:
    """Units that stay although the mask empties them."""

    bucket: str
    count: int
    reason: str
    """A sentence that names the operation."""
    operation: str = ""


def admit(graph: Graph, removed: Tensor) -> tuple[Tensor, list[PutBack]]:
    """Take back removals that no tensor could express: bool (units,) → the same, and why.

    Every pool of a bucket loses as many units as the one that loses fewest, and at least
    one index stays on every axis. Units that stay are zeros, so the function is the same.
    """
    removed, back = removed.clone(), []
    for name, bucket in graph.buckets.items():
        if bucket.among:
            back += _even(name, bucket.ids.view(-1, bucket.among), removed)
    for (param, dim), units in graph.axes.items():
        back += _not_empty(graph, param, dim, units, removed)
    return removed, back


def _even(name: str, pools: Tensor, removed: Tensor) -> list[PutBack]:
    """Make all pools, (pools, among), lose the same number, in place."""
    gone = removed[pools]
    least = int(gone.sum(dim=1).min())
    # The first ones of every pool leave; the rest of its emptied units stays.
    extra = gone & (gone.cumsum(dim=1) > least)
    if not bool(extra.any()):
        return []
    removed[pools[extra]] = False
    counts = gone.sum(dim=1).tolist()
    reason = f"its {len(pools)} pools would lose {_short(counts)} units; each must lose the same"
    return [PutBack(name, int(extra.sum()), reason, "view")]


def _not_empty(graph: Graph, param: str, dim: int, units: Tensor, removed: Tensor) -> list[PutBack]:
    if bool((units < 0).any()) or units.numel() == 0 or not bool(removed[units].all()):
        return []
    back = []
    for name, bucket in graph.buckets.items():
        if not bool(torch.isin(bucket.ids, units).any()):
            continue
        stay = bucket.ids.view(-1, bucket.among)[:, 0] if bucket.among else bucket.ids[:1]
        removed[stay] = False
        reason = f"axis {dim} of {param} would be empty"
        back.append(PutBack(name, len(stay), reason, param))
        break
    return back


def bucket_of(graph: Graph, name: str) -> str:
    """Say which parameter axes a bucket lives in."""
    return ", ".join(dict.fromkeys(s.param for s in graph.buckets[name].slices))


def _short(counts: list[int]) -> str:
    shown = ", ".join(map(str, counts[:4]))
    return shown + (", ..." if len(counts) > 4 else "")
