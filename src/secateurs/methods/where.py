"""Where a method may cut, and how much stays, by the names a user gives."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn

from secateurs.budget.cost import to_cost
from secateurs.budget.erk import Shaped, erk
from secateurs.budget.normalise import Normalise
from secateurs.budget.ranked import lamp, ranked_together
from secateurs.budget.uniform import each
from secateurs.core.errors import BudgetError, UnknownNameError
from secateurs.core.example import Example
from secateurs.core.site import Decision, Quota, Scores, Sites
from secateurs.granularity.coupled import channels
from secateurs.granularity.table import GRANULARITIES
from secateurs.graph.cost import predict
from secateurs.graph.graph import Graph
from secateurs.graph.trace import trace
from secateurs.methods.task import Target

REMOVED = "out_channel"
"""The granularity whose units are coupled through the network and removed physically."""

_TOLERANCE = 0.05
"""In a small network one channel may cost several per cent of the whole."""

Ranking = Literal["uniform", "global", "lamp", "erk"]


@dataclass(frozen=True)
class Where:
    """The units a method may cut; with a graph, they can be removed physically."""

    sites: Sites
    graph: Graph | None = None


def check(what: str, name: str, known: Iterable[str]) -> None:
    """Raise `UnknownNameError` unless `name` is one of the known ones."""
    if name not in (options := list(known)):
        raise UnknownNameError(f"unknown {what} {name!r}; use one of {', '.join(options)}")


def where(
    model: nn.Module, example: Example, granularity: str, *, exclude: tuple[str, ...] = ()
) -> Where:
    """Find the units of one granularity, by name.

    Raises:
        UnknownNameError: no such granularity, or `exclude` matches nothing.
        StructureError: `out_channel`, and the model cannot be traced or has nothing to remove.
    """
    if granularity == REMOVED:
        graph = trace(model, example)
        return Where(channels(graph, exclude=exclude or None), graph)
    check("granularity", granularity, GRANULARITIES)
    return Where(GRANULARITIES[granularity](model, exclude=exclude or None))


def quota(
    place: Where,
    scores: Scores,
    target: Target,
    ranking: Ranking,
    densities: Mapping[str, float] | None = None,
) -> Quota:
    """Say how many units of every site stay to meet a target.

    Sites that `densities` names keep that fraction; the target holds for the others.

    Raises:
        BudgetError: the target cannot be met; names the reachable range, or the granularity
            that would do.
    """
    check("ranking", ranking, get_args(Ranking))
    if target.kind != "density":
        return to_target(
            place.sites,
            _wired(place, target),
            scores,
            target,
            alike=ranking == "uniform",
        )
    step = target.multiple_of
    if ranking == "global":
        return ranked_together(
            place.sites, scores, target.fraction, normalise="mean", multiple_of=step
        )
    if ranking == "lamp":
        return lamp(place.sites, scores, target.fraction, multiple_of=step)
    if ranking == "erk":
        if place.graph is not None:
            raise BudgetError(
                f"erk shares places by the shape of one parameter, and the units of {REMOVED} "
                "lie in several; use --ranking uniform or global"
            )
        shaped = cast(Mapping[str, Shaped], place.sites)
        return erk(shaped, target.fraction, multiple_of=step)
    wanted = dict.fromkeys(place.sites, target.fraction)
    return each(place.sites, {**wanted, **(densities or {})}, multiple_of=step)


def counted(place: Where, scores: Scores, target: Target, ranking: Ranking) -> Quota:
    """Share a target; a `global` density compares scores as they are, not per mean of a layer.

    For scores that are in the same unit everywhere.
    """
    if ranking == "global" and target.kind == "density":
        return ranked_together(place.sites, scores, target.fraction, multiple_of=target.multiple_of)
    return quota(place, scores, target, ranking)


def named(words: Iterable[str], sites: Iterable[str]) -> dict[str, float]:
    """Read `NAME=DENSITY` words for sites by name.

    >>> named(["fc1.weight=0.08"], ["fc1.weight", "fc2.weight"])
    {'fc1.weight': 0.08}

    Raises:
        BudgetError: a word is not of that form, or its density is not in (0, 1].
        UnknownNameError: no site has the name.
    """
    found = {}
    for word in words:
        name, _, value = word.partition("=")
        check("site", name, sites)
        try:
            fraction = float(value)
        except ValueError:
            raise BudgetError(
                f"density {word!r} is not NAME=FRACTION; write for example {name}=0.1"
            ) from None
        found[name] = Target("density", fraction).fraction
    return found


def reachable(place: Where, target: Target) -> None:
    """Raise `BudgetError` unless some choice of units meets the target."""
    if target.kind != "density":
        order = {name: torch.arange(site.units, 0.0, -1) for name, site in place.sites.items()}
        to_target(place.sites, _wired(place, target), order, target, alike=True)


def _wired(place: Where, target: Target) -> Graph:
    """Return the graph, without which only masks are left."""
    if place.graph is None:
        raise BudgetError(
            f"masks leave parameters and MACs as they are, so --{target.kind} "
            f"{target.fraction:g} cannot be met by them; use --density, or "
            f"--granularity {REMOVED}"
        )
    return place.graph


def to_target(
    sites: Sites,
    graph: Graph,
    scores: Scores,
    target: Target,
    *,
    alike: bool,
    normalise: Normalise = "mean",
) -> Quota:
    """Say how many channels of every site stay to meet a target of parameters or MACs.

    `alike` shrinks all sites alike, as nearly as whole channels allow; else all are ranked
    together after `normalise` has made them comparable.

    Raises:
        BudgetError: the target cannot be met; names the reachable range.
    """

    def cost(decision: Decision) -> int:
        found = predict(graph, decision)
        return found.macs if target.kind == "macs" else found.parameters

    limit = int(target.fraction * cost({}))
    # Steps of several channels cannot come as near.
    step = target.multiple_of
    tolerance = _TOLERANCE * (2 if step > 1 else 1)
    if alike:
        # Ranked together by their place within the site, all sites shrink alike.
        return to_cost(
            sites,
            places(sites, scores),
            cost,
            limit,
            tolerance=tolerance,
            multiple_of=step,
        )
    return to_cost(
        sites,
        scores,
        cost,
        limit,
        tolerance=tolerance,
        normalise=normalise,
        multiple_of=step,
    )


def places(sites: Sites, scores: Scores) -> dict[str, Tensor]:
    """Replace scores by their rank within the pool, from just above 0 to 1 for the best.

    >>> class One:
    ...     units, among = 4, None
    >>> places({"a": One()}, {"a": torch.tensor([3., 1., 1., 2.])})["a"]
    tensor([1.0000, 0.5000, 0.2500, 0.7500], dtype=torch.float64)
    """
    return {name: _places(scores[name], site.among) for name, site in sites.items()}


def _places(scores: Tensor, among: int | None) -> Tensor:
    pools = scores.view(-1, among or scores.numel())
    order = pools.argsort(dim=1, descending=True, stable=True)
    steps = torch.arange(pools.shape[1], 0, -1, device=scores.device, dtype=torch.float64)
    ranks = torch.empty(pools.shape, dtype=torch.float64, device=scores.device)
    ranks.scatter_(1, order, (steps / pools.shape[1]).expand_as(ranks))
    return ranks.view(-1)
