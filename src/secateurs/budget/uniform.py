"""The same density everywhere, or one given for each site."""

from collections.abc import Mapping

from secateurs.budget.counts import allowed, exact
from secateurs.core.errors import BudgetError, UnknownNameError
from secateurs.core.site import Quota, Sites


def uniform(
    sites: Sites, density: float, *, floor: int = 1, multiple_of: int | None = None
) -> Quota:
    """Keep the same fraction of the units of every site.

    Counts are the allowed ones nearest to density × units, halves to even.

    Raises:
        BudgetError: `density` is not in 0 to 1.
    """
    return each(sites, dict.fromkeys(sites, density), floor=floor, multiple_of=multiple_of)


def each(
    sites: Sites,
    densities: Mapping[str, float],
    *,
    floor: int = 1,
    multiple_of: int | None = None,
) -> Quota:
    """Keep a given fraction of the units of each site; sites not named stay whole.

    Raises:
        BudgetError: a density is not in 0 to 1.
        UnknownNameError: a density is given for a site that does not exist.
    """
    unknown = [name for name in densities if name not in sites]
    if unknown:
        raise UnknownNameError(
            f"densities are given for {', '.join(unknown)}; the sites are {', '.join(sites)}"
        )
    counts = allowed(sites, floor, multiple_of)
    return {
        name: counts[name].nearest(exact(densities.get(name, 1.0)) * site.units)
        for name, site in sites.items()
    }


def per_pool(sites: Sites, keep: int) -> Quota:
    """Keep exactly `keep` units of every pool; a site without pools is one pool.

    Raises:
        BudgetError: a site has fewer units to a pool.
    """
    for name, site in sites.items():
        pool = site.among or site.units
        if not 0 <= keep <= pool:
            raise BudgetError(
                f"cannot keep {keep} of every {pool} units of {name!r}; keep 0 to {pool}"
            )
    return {
        name: keep * (site.units // site.among if site.among else 1) for name, site in sites.items()
    }
