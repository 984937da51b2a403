"""As many units as a cost allows."""

from collections.abc import Callable

from secateurs.budget.normalise import Normalise
from secateurs.budget.race import Race, race
from secateurs.core.cut import decide
from secateurs.core.errors import BudgetError
from secateurs.core.site import Decision, Quota, Scores, Sites

Cost = Callable[[Decision], int]
"""A decision → what it costs, in any unit; keeping more never costs less."""


def to_cost(
    sites: Sites,
    scores: Scores,
    cost: Cost,
    target: int,
    *,
    floor: int = 1,
    multiple_of: int | None = None,
    tolerance: float = 0.01,
    normalise: Normalise = "none",
) -> Quota:
    """Keep the best of all sites ranked together whose cost is at most `target`.

    The joint ranking is followed as far as the target allows; what is left is then filled
    with units that still fit, best site first.

    Args:
        cost: monotone in the decision; called some tens of times, and a few per site.
        target: in the unit of `cost`; never exceeded.
        tolerance: how far below the target the result may stay, as a fraction of it.

    Raises:
        BudgetError: no quota lies within the tolerance; says what is reachable.
        ShapeError: a site has not one score per unit.
    """
    contest = race(sites, scores, floor=floor, multiple_of=multiple_of, normalise=normalise)

    def price(quota: Quota) -> int:
        return cost(decide(sites, scores, quota))

    lowest = price({name: count.low for name, count in contest.counts.items()})
    highest = price({name: count.units for name, count in contest.counts.items()})
    reachable = f"{lowest} to {highest} can be reached"
    if not target >= lowest:
        raise BudgetError(
            f"cannot cut the cost to {target}; {reachable} with the given sites and floors"
        )
    quota = _fill(contest, price, _longest(contest, price, target), target)
    found = price(quota)
    if target - found > tolerance * target:
        raise BudgetError(
            f"cannot come within {tolerance:.2%} of a cost of {target}: the nearest below it is "
            f"{found}; {reachable}, so change the target, the tolerance or multiple_of"
        )
    return quota


def _longest(contest: Race, price: Callable[[Quota], int], target: int) -> Quota:
    """Follow the ranking as far as the target allows, by bisection on the number of places."""
    fits = sum(count.low for count in contest.counts.values())
    ends = sum(count.units for count in contest.counts.values()) + 1
    while ends - fits > 1:
        middle = (fits + ends) // 2
        if price(contest.quota(middle, fill=False)) <= target:
            fits = middle
        else:
            ends = middle
    return contest.quota(fits, fill=False)


def _fill(contest: Race, price: Callable[[Quota], int], quota: Quota, target: int) -> Quota:
    """Give each site in turn, that with the best next unit first, all it can still have."""
    for name in contest.by_next(quota):
        count, have = contest.counts[name], quota[name]
        fits, ends = 0, -((have - count.units) // count.step) + 1
        middle = 1  # The first step rarely fits, so try it before halving.
        while ends - fits > 1:
            if price({**quota, name: min(count.units, have + middle * count.step)}) <= target:
                fits = middle
            else:
                ends = middle
            middle = (fits + ends) // 2
        quota = {**quota, name: min(count.units, have + fits * count.step)}
    return quota
