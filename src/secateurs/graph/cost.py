"""Costs before anything is touched: what a decision would leave, counted from the graph."""

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from secateurs.core.errors import BudgetError, UnknownNameError
from secateurs.core.site import Decision
from secateurs.graph.graph import Contraction, Graph


@dataclass(frozen=True)
class Cost:
    """Parameters (tied ones once, buffers not) and multiply-accumulates of one call."""

    parameters: int
    macs: int


def predict(graph: Graph, decision: Decision) -> Cost:
    """Count what is left after a decision by bucket name; buckets not named stay whole.

    Raises:
        UnknownNameError: a name is no bucket's.
        BudgetError: a decision does not hold one bool per unit.
    """
    return predict_removed(graph, removed_by(graph, decision))


def removed_by(graph: Graph, decision: Decision) -> Tensor:
    """Mark the units that a decision drops: bool (units,)."""
    removed = torch.zeros(graph.units, dtype=torch.bool)
    for name, keep in decision.items():
        if name not in graph.buckets:
            known = ", ".join(list(graph.buckets)[:5])
            raise UnknownNameError(f"no bucket is called {name!r}; there are {known}, ...")
        bucket = graph.buckets[name]
        if keep.shape != bucket.ids.shape:
            raise BudgetError(
                f"the decision for {name!r} has shape {tuple(keep.shape)}; "
                f"pass one bool for each of its {len(bucket.ids)} units"
            )
        removed[bucket.ids] = ~keep.to(device="cpu", dtype=torch.bool)
    return removed


def predict_removed(graph: Graph, removed: Tensor) -> Cost:
    """Count what is left after removing units, bool (units,)."""
    stays = torch.cat([~removed, torch.ones(1, dtype=torch.bool)])  # unit -1 is the last
    parameters = sum(
        _elements(graph, name, stays) for name in graph.shapes if name not in graph.buffers
    )
    return Cost(parameters, sum(_macs(c, stays) for c in graph.contractions))


def _elements(graph: Graph, name: str, stays: Tensor) -> int:
    sizes = list(graph.shapes[name])
    for dim, size in enumerate(sizes):
        units = graph.axes.get((name, dim))
        if units is not None and size:
            assert units.shape[-1] == size
            # Groups keep the same number each.
            sizes[dim] = int(stays[units].sum()) // (units.numel() // size)
    return prod(sizes)


def _macs(product: Contraction, stays: Tensor) -> int:
    held = (product.out, product.inner, *product.others)
    return product.factor * prod(int(stays[units].sum()) for units in held) // product.groups
