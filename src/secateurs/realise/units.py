"""From removed units to masks and shares: where in the parameters a unit lies."""

from collections.abc import Mapping

import torch
from torch import Tensor

from secateurs.core.mask import Mask
from secateurs.graph.graph import Graph


def mask_of(graph: Graph, removed: Tensor) -> Mask:
    """Mask every position of the removed units: bool (units,) → mask, True where kept.

    The inverse of `graph.units.removed_units`.
    """
    gone = positions(graph, removed)
    return Mask({name: ~where for name, where in gone.items() if bool(where.any())})


def positions(graph: Graph, chosen: Tensor) -> dict[str, Tensor]:
    """Mark, in the shape of every labelled parameter, where the chosen units lie."""
    found: dict[str, Tensor] = {}
    for (name, dim), units in graph.axes.items():
        shape = graph.shapes[name]
        hit = chosen[units.clamp(min=0).to(chosen.device)] & (units >= 0).to(chosen.device)
        if hit.dim() == 2:
            # Shape: (groups, in / groups) → (groups, out / groups, in / groups, 1...)
            groups, inner = hit.shape
            rest = shape[dim + 1 :]
            spread = hit.view(groups, 1, *([1] * (dim - 1)), inner, *([1] * len(rest)))
            spread = spread.expand(groups, shape[0] // groups, *shape[1:]).reshape(shape)
        else:
            spread = hit.view([-1 if d == dim else 1 for d in range(len(shape))]).expand(shape)
        found[name] = found[name] | spread if name in found else spread.clone()
    return found


def prunable_share(graph: Graph, parameters: Mapping[str, Tensor]) -> float:
    """Share of the parameters' entries that belong to some unit, 0 to 1."""
    where = positions(graph, torch.ones(graph.units, dtype=torch.bool))
    total = sum(p.numel() for p in parameters.values())
    return sum(int(where[n].sum()) for n in parameters if n in where) / max(total, 1)
