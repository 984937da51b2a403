"""All sites compete for the same places."""

from collections.abc import Mapping, Sequence

from secateurs.budget.counts import exact, total_units
from secateurs.budget.normalise import Normalise
from secateurs.budget.race import race
from secateurs.core.errors import UnknownNameError
from secateurs.core.site import Quota, Scores, Sites


def ranked_together(
    sites: Sites,
    scores: Scores,
    density: float,
    *,
    floor: int = 1,
    multiple_of: int | None = None,
    normalise: Normalise = "none",
    groups: Mapping[str, Sequence[str]] | None = None,
) -> Quota:
    """Let all sites compete for round(density × units) places, halves to even.

    The places are met exactly, floors included, where all counts are allowed. Pools and
    `multiple_of` may leave a remainder smaller than the step of every site that has
    units left; it stays unused.

    Args:
        normalise: how to make sites comparable; see `secateurs.budget.normalise`.
        groups: compete within each group of sites only, at the same density in each;
            sites in no group stay whole, and a group too small for its floors keeps those.

    Raises:
        BudgetError: `density` is not in 0 to 1, or too low for the floors.
        ShapeError: a site has not one score per unit.
        UnknownNameError: a group names a site that does not exist.
    """
    if groups is None:
        contest = race(sites, scores, floor=floor, multiple_of=multiple_of, normalise=normalise)
        return contest.quota(total_units(contest.counts, density), fill=True)
    unknown = [name for names in groups.values() for name in names if name not in sites]
    if unknown:
        raise UnknownNameError(
            f"groups name {', '.join(unknown)}; the sites are {', '.join(sites)}"
        )
    quota = {name: site.units for name, site in sites.items()}
    for names in groups.values():
        some = {name: sites[name] for name in names}
        contest = race(some, scores, floor=floor, multiple_of=multiple_of, normalise=normalise)
        # A group of one unit keeps it at any density, so floors come on top here.
        low = sum(count.low for count in contest.counts.values())
        places = round(exact(density) * sum(count.units for count in contest.counts.values()))
        quota |= contest.quota(max(low, places), fill=True)
    return quota


def lamp(
    sites: Sites,
    scores: Scores,
    density: float,
    *,
    floor: int = 1,
    multiple_of: int | None = None,
) -> Quota:
    """Rank all sites together by their layer-adaptive magnitudes; pass `l1` or `l2` scores.

    Raises:
        BudgetError, ShapeError: as `ranked_together`.

    Source: Lee et al. 2021, arXiv:2010.07611.
    """
    return ranked_together(
        sites, scores, density, floor=floor, multiple_of=multiple_of, normalise="lamp"
    )
