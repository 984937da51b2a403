"""Erdős-Rényi-kernel: wide layers sparser than narrow ones, from shapes alone."""

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Protocol

from secateurs.budget.counts import Counts, allowed, total_units
from secateurs.core.errors import BudgetError
from secateurs.core.site import Quota, Site


class Shaped(Site, Protocol):
    """A site over one parameter."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The parameter's shape."""


def erk(
    sites: Mapping[str, Shaped], density: float, *, floor: int = 1, multiple_of: int | None = None
) -> Quota:
    """Keep a fraction of each site in proportion to (sum of lengths) / (product of lengths).

    Sites that would exceed density 1 stay whole, and the others share the rest. The total
    is round(density × units) exactly, halves to even, where pools and `multiple_of` allow
    it, else the remainder stays unused.

    Raises:
        BudgetError: `density` is not in 0 to 1, or too low for the floors; or a site spans
            several parameters, as coupled channels do.

    Source: Evci et al. 2020, arXiv:1911.11134, section 3, with the kernel term.
    """
    for name, site in sites.items():
        if not hasattr(site, "shape"):
            raise BudgetError(
                f"erk reads densities off the shape of one parameter, but {name!r} spans "
                f"{len(site.params)}; rank these sites together, or use a uniform density"
            )
    counts = allowed(sites, floor, multiple_of)
    total = total_units(counts, density)
    raw = {name: Fraction(sum(s.shape), math.prod(s.shape)) for name, s in sites.items()}
    whole: set[str] = set()
    while True:
        rest = total - sum(counts[name].units for name in whole)
        weight = sum(raw[name] * counts[name].units for name in sites if name not in whole)
        scale = Fraction(rest) / weight if weight else Fraction(0)
        over = {name for name in sites if name not in whole and scale * raw[name] > 1}
        if not over:
            break
        whole |= over
    wanted = {
        name: Fraction(count.units) * (1 if name in whole else scale * raw[name])
        for name, count in counts.items()
    }
    return apportion(counts, wanted, total)


def apportion(counts: Mapping[str, Counts], wanted: Mapping[str, Fraction], total: int) -> Quota:
    """Round wanted counts to allowed ones of the given sum, by largest remainder."""
    keep = {name: count.below(wanted[name]) for name, count in counts.items()}
    left = total - sum(keep.values())
    while left < 0:
        able = [name for name, count in counts.items() if keep[name] > count.low]
        name = min(able, key=lambda name: wanted[name] - keep[name])
        left += keep[name]
        keep[name] = counts[name].under(keep[name])
        left -= keep[name]
    while True:
        able = [n for n, c in counts.items() if 0 < c.above(keep[n]) - keep[n] <= left]
        if not able:
            return keep
        name = max(able, key=lambda name: wanted[name] - keep[name])
        left += keep[name]
        keep[name] = counts[name].above(keep[name])
        left -= keep[name]
