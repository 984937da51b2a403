"""What methods that remove channels share: the producing filters, the budget, the overlap."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from secateurs.budget.normalise import Normalise
from secateurs.budget.ranked import ranked_together
from secateurs.budget.uniform import uniform
from secateurs.core.example import Example
from secateurs.core.layers import layers
from secateurs.core.site import Decision, Quota, Scores, Sites
from secateurs.granularity.coupled import Coupled, channels
from secateurs.graph.graph import Graph
from secateurs.graph.trace import trace
from secateurs.methods.task import Target
from secateurs.methods.where import check, places, to_target

Share = Literal["uniform", "global"]
"""Keep the same fraction of every site, or rank the units of all sites together."""


@dataclass(frozen=True)
class Channels:
    """The coupled channels of a model and how it is wired."""

    sites: Mapping[str, Coupled]
    graph: Graph


def removable(model: nn.Module, example: Example, exclude: Sequence[str] = ()) -> Channels:
    """Find the channels of a model that can be removed physically.

    Raises:
        StructureError: the model cannot be traced or has nothing to remove.
        UnknownNameError: `exclude` matches nothing.
    """
    graph = trace(model, example)
    return Channels(channels(graph, exclude=tuple(exclude) or None), graph)


def filters(sites: Mapping[str, Coupled], model: nn.Module) -> dict[str, Coupled]:
    """The same units, seen as the weights of the filters that produce them.

    For scoring only: a paper that ranks filters speaks of these, and not of what reads
    their output. Of a residual stream all filters that write to it count. Units that no
    linear or convolution layer produces, such as those of an embedding, are left as they are.
    """
    outputs = {(layer.param, (layer.out_axis,)) for layer in layers(model).values()}

    def seen(site: Coupled) -> Coupled:
        made = tuple(p for p in site.bucket.slices if (p.param, p.dims) in outputs)
        return replace(site, bucket=replace(site.bucket, slices=made)) if made else site

    return {name: seen(site) for name, site in sites.items()}


def share(
    place: Channels,
    scores: Scores,
    target: Target,
    how: Share,
    *,
    normalise: Normalise = "mean",
) -> Quota:
    """Say how many channels of every site stay to meet a target of any kind.

    `uniform` keeps the same fraction of every site, as nearly as whole channels and the
    target allow; the scores then choose within sites only. `global` ranks all together
    after making sites comparable as `normalise` says.

    Raises:
        BudgetError: the target cannot be met; names the reachable range.
        UnknownNameError: no such way to share.
    """
    check("ranking", how, get_args(Share))
    if target.kind == "density":
        if how == "uniform":
            return uniform(place.sites, target.fraction)
        return ranked_together(place.sites, scores, target.fraction, normalise=normalise)

    alike = how == "uniform"
    return to_target(place.sites, place.graph, scores, target, alike=alike, normalise=normalise)


@dataclass(frozen=True)
class Agreement:
    """How alike two criteria are on one network at one budget."""

    overlap: float
    """Of the units that one cuts, the fraction that the other cuts too; 0 to 1."""
    correlation: float
    """Spearman's, within sites, averaged over units; -1 to 1."""

    def __str__(self) -> str:
        """Show both numbers."""
        return f"{self.overlap:.0%} of the cut units are the same, Spearman {self.correlation:.2f}"


def agreement(sites: Sites, a: Scores, b: Scores, one: Decision, other: Decision) -> Agreement:
    """Compare two criteria by their scores and by what they decided at the same quota."""
    cut = sum(int((~keep).sum()) for keep in one.values())
    both = sum(int((~one[name] & ~other[name]).sum()) for name in one)
    first, second = places(sites, a), places(sites, b)
    units = sum(scores.numel() for scores in first.values())
    weighted = sum(_correlation(first[n], second[n]) * first[n].numel() for n in first)
    return Agreement(both / cut if cut else 1.0, weighted / units)


def _correlation(a: Tensor, b: Tensor) -> float:
    if a.numel() < 2:
        return 1.0
    return float(torch.corrcoef(torch.stack([a, b]))[0, 1])
