"""Where a method may cut, and how much stays, by the names a user gives."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, cast, get_args

import torch
from torch import nn

from secateurs.budget.cost import to_cost
from secateurs.budget.erk import Shaped, erk
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
        return _to_cost(place, scores, target)
    if ranking == "global":
        return ranked_together(place.sites, scores, target.fraction, normalise="mean")
    if ranking == "lamp":
        return lamp(place.sites, scores, target.fraction)
    if ranking == "erk":
        if place.graph is not None:
            raise BudgetError(
                f"erk shares places by the shape of one parameter, and the units of {REMOVED} "
                "lie in several; use --ranking uniform or global"
            )
        return erk(cast(Mapping[str, Shaped], place.sites), target.fraction)
    wanted = dict.fromkeys(place.sites, target.fraction)
    return each(place.sites, {**wanted, **(densities or {})})


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
        _to_cost(place, order, target)


def _to_cost(place: Where, scores: Scores, target: Target) -> Quota:
    graph = place.graph
    if graph is None:
        raise BudgetError(
            f"masks leave parameters and MACs as they are, so --{target.kind} "
            f"{target.fraction:g} cannot be met by them; use --density, or "
            f"--granularity {REMOVED}"
        )

    def cost(decision: Decision) -> int:
        found = predict(graph, decision)
        return found.macs if target.kind == "macs" else found.parameters

    limit = int(target.fraction * cost({}))
    # In a small network one channel may cost several per cent of the whole.
    return to_cost(place.sites, scores, cost, limit, tolerance=0.05, normalise="mean")
