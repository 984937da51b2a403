"""The whole numbers of units a site may keep."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from torch import Tensor

from secateurs.core.errors import BudgetError, ShapeError
from secateurs.core.site import Site, Sites


@dataclass(frozen=True)
class Counts:
    """A site may keep `low`, any multiple of `step` above it, or all of its `units`."""

    low: int
    step: int
    units: int

    def below(self, wanted: Fraction) -> int:
        """Return the largest allowed count that is not above `wanted`, at least `low`."""
        if wanted >= self.units:
            return self.units
        return max(self.low, int(wanted // self.step) * self.step)

    def nearest(self, wanted: Fraction) -> int:
        """Return the allowed count nearest to `wanted`, halves to the even multiple."""
        count = round(wanted / self.step) * self.step
        if count > self.units or abs(self.units - wanted) < abs(count - wanted):
            return self.units
        return max(self.low, count)

    def above(self, count: int) -> int:
        """Return the next allowed count; `units` is followed by itself."""
        return min(self.units, count + self.step)

    def under(self, count: int) -> int:
        """Return the allowed count before one that is above `low`."""
        return max(self.low, (count - 1) // self.step * self.step)


def allowed(sites: Sites, floor: int, multiple_of: int | None) -> dict[str, Counts]:
    """Say which counts each site may keep.

    A site with fewer than `floor` units keeps them all, and counts are rounded up to
    fill its pools evenly.

    Raises:
        BudgetError: `floor` is negative or `multiple_of` below 1.
    """
    if floor < 0:
        raise BudgetError(f"cannot keep at least {floor} units of every site; use floor=0 or more")
    if multiple_of is not None and multiple_of < 1:
        raise BudgetError(f"cannot keep multiples of {multiple_of}; use multiple_of=1 or more")
    return {name: _counts(site, floor, multiple_of or 1) for name, site in sites.items()}


def _counts(site: Site, floor: int, multiple_of: int) -> Counts:
    pools = site.units // site.among if site.among else 1
    step = math.lcm(pools, multiple_of)
    return Counts(min(site.units, math.ceil(floor / step) * step), step, site.units)


def exact(density: float) -> Fraction:
    """Read a density as the decimal number it prints as, so that 0.7 of 45 is 31.5.

    >>> round(exact(0.7) * 45), round(0.7 * 45)
    (32, 31)

    Raises:
        BudgetError: it is not in 0 to 1.
    """
    if not 0 <= density <= 1:
        raise BudgetError(f"cannot keep a density of {density}; use 0 to 1, 0.3 keeps 30 %")
    return Fraction(str(float(density)))


def total_units(counts: Mapping[str, Counts], density: float) -> int:
    """Return how many units a density allows over all sites, halves to even.

    Raises:
        BudgetError: the floors of the sites alone need more.
    """
    units = sum(count.units for count in counts.values())
    total = round(exact(density) * units)
    low = sum(count.low for count in counts.values())
    if total < low:
        raise BudgetError(
            f"density {density} keeps {total} of {units} units, but the floors of {len(counts)} "
            f"sites need {low}; use a density of at least {low / units:.4g}, or a lower floor"
        )
    return total


def fitting(sites: Sites, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Pick the scores of the sites, in the order of the sites.

    Raises:
        ShapeError: a site has no scores, or not one per unit.
    """
    for name, site in sites.items():
        found = tuple(scores[name].shape) if name in scores else "none"
        if found != (site.units,):
            raise ShapeError(
                f"{name!r} needs a score for each of its {site.units} units, shape "
                f"({site.units},), but found {found}"
            )
    return {name: scores[name] for name in sites}
