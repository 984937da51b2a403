"""What methods that remove channels share: the producing filters, the budget, the overlap."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from secateurs.budget.normalise import Normalise, normalised
from secateurs.budget.ranked import ranked_together
from secateurs.budget.uniform import uniform
from secateurs.core.example import Example
from secateurs.core.layers import layers
from secateurs.core.site import Decision, Quota, Scores, Sites
from secateurs.granularity.coupled import Coupled, channels, isomorphic
from secateurs.graph.graph import Graph
from secateurs.graph.trace import trace
from secateurs.methods.task import Target
from secateurs.methods.where import check, places, to_target

Share = Literal["uniform", "global", "isomorphic"]
"""Keep the same fraction of every site, rank the units of all sites together, or rank
together the sites of the same topology and keep the same fraction of each such group."""


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
    axes: set[tuple[str, tuple[int, ...]]] = {
        (layer.param, (layer.out_axis,)) for layer in layers(model).values()
    }
    return _seen(sites, axes)


def read(sites: Mapping[str, Coupled], model: nn.Module) -> dict[str, Coupled]:
    """The same units, seen as the weights that read them; for scoring only.

    Units that no linear or convolution layer reads are left as they are.
    """
    found = layers(model).values()
    plain: set[tuple[str, tuple[int, ...]]] = {(x.param, (x.in_axis,)) for x in found}
    # Grouped inputs lie in (groups, out / groups, in / groups, ...), axes 0 and 2.
    return _seen(sites, plain | {(layer.param, (0, 2)) for layer in found})


def _seen(
    sites: Mapping[str, Coupled], axes: set[tuple[str, tuple[int, ...]]]
) -> dict[str, Coupled]:
    def seen(site: Coupled) -> Coupled:
        some = tuple(p for p in site.bucket.slices if (p.param, p.dims) in axes)
        return replace(site, bucket=replace(site.bucket, slices=some)) if some else site

    return {name: seen(site) for name, site in sites.items()}


def scale_(
    values: Mapping[str, Tensor], sites: Mapping[str, Coupled], factors: Mapping[str, Tensor]
) -> None:
    """Multiply all that leaves with each unit by the unit's factor, (units,), in place.

    Only tensors that `values` holds: pass `weights(model)`, and buffers stay.
    """
    for name, site in sites.items():
        for param, factor in site.spread(factors[name]).items():
            if param in values:
                values[param].mul_(factor.to(values[param]))


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
    after making sites comparable as `normalise` says; `isomorphic` does so among the sites
    of each topology, and every topology keeps the same fraction.

    Raises:
        BudgetError: the target cannot be met; names the reachable range.
        UnknownNameError: no such way to share.
    """
    check("ranking", how, get_args(Share))
    if how == "isomorphic":
        scores, how, normalise = among_alike(place.sites, scores, normalise), "global", "none"
    if target.kind == "density":
        if how == "uniform":
            return uniform(place.sites, target.fraction, multiple_of=target.multiple_of)
        return ranked_together(
            place.sites,
            scores,
            target.fraction,
            normalise=normalise,
            multiple_of=target.multiple_of,
        )

    alike = how == "uniform"
    return to_target(place.sites, place.graph, scores, target, alike=alike, normalise=normalise)


def among_alike(
    sites: Mapping[str, Coupled], scores: Scores, normalise: Normalise
) -> dict[str, Tensor]:
    """Replace scores by their rank, 0 to 1, among all units of sites of the same topology."""
    comparable, found = normalised(scores, normalise), dict[str, Tensor]()
    for names in isomorphic(sites).values():
        pool = torch.cat([comparable[name] for name in names])
        order = pool.argsort(descending=True, stable=True)
        steps = torch.arange(len(pool), 0, -1, device=pool.device, dtype=torch.float64)
        ranks = torch.empty_like(steps).scatter_(0, order, steps / len(pool))
        parts = torch.split(ranks, [sites[name].units for name in names])
        found |= dict(zip(names, parts, strict=True))
    return {name: found[name] for name in sites}


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
