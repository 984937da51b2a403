"""How many ranks each layer keeps, to meet a cost."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from secateurs.core.errors import BudgetError


@dataclass(frozen=True)
class Spectrum:
    """What each rank of a layer is worth, and what it costs."""

    energies: Tensor
    """(ranks,), descending: squared singular values, or variances."""
    price: float
    """Of one rank."""
    whole: float
    """Of the layer as it is."""

    def cost(self, rank: int) -> float:
        """What the layer costs with so many ranks; as it is where that is cheaper."""
        return min(self.whole, rank * self.price)


def least(layers: Mapping[str, Spectrum], rest: float = 0.0) -> float:
    """What one rank a layer costs, and everything else."""
    return rest + sum(x.cost(1) for x in layers.values())


def share_ranks(
    layers: Mapping[str, Spectrum], budget: float, rest: float = 0.0
) -> dict[str, int | None]:
    """Say how many ranks each layer keeps, None where it stays as it is.

    Ranks go in order of the share of their layer's energy that a unit of cost buys, the
    cheapest loss first, until what is left and `rest`, what everything else costs, fit;
    every layer keeps at least one.

    Source: Zhang et al. 2015, arXiv:1505.06798, section 2.4. Deviation: all ranks are in one
    line, where the paper takes one at a time from the layer whose loss is least.

    Raises:
        BudgetError: even one rank a layer costs more; names the reachable range.
    """
    if least(layers, rest) > budget:
        most = rest + sum(x.whole for x in layers.values())
        raise BudgetError(
            f"cannot reach a cost of {budget:.4g} by lower ranks; {least(layers, rest):.4g} to "
            f"{most:.4g} can be reached, so keep more"
        )
    energies = {name: layer.energies.cpu() for name, layer in layers.items()}
    worth = {n: e / e.sum().clamp(min=1e-30) / layers[n].price for n, e in energies.items()}

    def kept(bar: float) -> dict[str, int]:
        return {name: max(1, int((w >= bar).sum())) for name, w in worth.items()}

    def cost(bar: float) -> float:
        return rest + sum(layers[name].cost(rank) for name, rank in kept(bar).items())

    ends = torch.tensor([0.0, torch.inf])
    bars = torch.cat([ends, *worth.values()]).double().sort().values
    low, high = 0, len(bars) - 1  # the last leaves one rank a layer, which fits
    while low < high:
        middle = (low + high) // 2
        if cost(float(bars[middle])) <= budget:
            high = middle
        else:
            low = middle + 1
    return {
        name: rank if rank * layers[name].price < layers[name].whole else None
        for name, rank in kept(float(bars[low])).items()
    }
