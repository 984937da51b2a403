"""Sites competing for places: which site wins how many, for any number of places."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from secateurs.budget.counts import Counts, allowed, fitting
from secateurs.budget.normalise import Normalise, normalised
from secateurs.core.rank import kth_largest
from secateurs.core.site import Quota, Scores, Site, Sites


@dataclass(frozen=True)
class Race:
    """Every site holds its `low` places; the rest go to the best rungs of all sites.

    A rung is what a site gains from one allowed count to the next, and its value the mean
    score of the units gained. Equal rungs go to the earlier site, then the lower index.
    """

    counts: Mapping[str, Counts]
    rungs: Mapping[str, Tensor]
    """Values of all rungs; non-increasing, except that rungs of one unit stay unsorted."""

    def quota(self, total: int, *, fill: bool) -> Quota:
        """Hand out at most `total` places, which are at least the sum of all `low`.

        All are handed out when every rung is one unit. Otherwise the ranking is followed
        until a rung does not fit; `fill` then goes on with the rungs behind it that do.
        Without `fill`, more places never mean fewer for any site.
        """
        if all(count.step == 1 for count in self.counts.values()):
            return self._single(total)
        return self._mixed(total, fill)

    def by_next(self, quota: Quota) -> list[str]:
        """List the sites with places left, that with the best next rung first."""
        values = {
            name: float(kth_largest([self.rungs[name]], -(-quota[name] // count.step) + 1))
            for name, count in self.counts.items()
            if quota[name] < count.units
        }
        return sorted(values, key=lambda name: -values[name])

    def _single(self, total: int) -> Quota:
        """Cut all scores at one value; sites that fall below `low` leave the race with it."""
        racing = list(self.counts)
        while True:
            places = total - sum(c.low for n, c in self.counts.items() if n not in racing)
            won = _winners({name: self.rungs[name] for name in racing}, places)
            short = [name for name in racing if won[name] < self.counts[name].low]
            if not short:
                return {name: won.get(name, count.low) for name, count in self.counts.items()}
            racing = [name for name in racing if name not in short]

    def _mixed(self, total: int, fill: bool) -> Quota:
        owners, sizes = self._order
        keep = {name: count.low for name, count in self.counts.items()}
        left = total - sum(keep.values())
        names = list(self.counts)
        fits = int((sizes.cumsum(0) <= left).sum())
        for owner, won in enumerate(owners[:fits].bincount(minlength=len(names)).tolist()):
            count = self.counts[names[owner]]
            keep[names[owner]] = min(count.units, count.low + won * count.step)
        left -= int(sizes[:fits].sum())
        closed: set[int] = set()
        for owner, size in zip(owners[fits:].tolist(), sizes[fits:].tolist(), strict=True):
            if not fill or left == 0 or len(closed) == len(names):
                break
            if owner in closed:
                continue
            if size > left:
                closed.add(owner)
                continue
            keep[names[owner]] += size
            left -= size
        return keep

    @cached_property
    def _order(self) -> tuple[Tensor, Tensor]:
        """Owner and size of every rung above `low`, best first."""
        values, owners, sizes = [], [], []
        for site, (name, count) in enumerate(self.counts.items()):
            rungs = self.rungs[name].sort(descending=True).values[-(-count.low // count.step) :]
            size = torch.full((rungs.numel(),), count.step)
            if rungs.numel() and count.units % count.step:
                size[-1] = count.units % count.step
            values.append(rungs.double().cpu())
            sizes.append(size)
            owners.append(torch.full_like(size, site))
        order = torch.cat(values).argsort(descending=True, stable=True)
        return torch.cat(owners)[order], torch.cat(sizes)[order]


def race(
    sites: Sites, scores: Scores, *, floor: int, multiple_of: int | None, normalise: Normalise
) -> Race:
    """Let the sites compete with their scores.

    Raises:
        BudgetError: an option is out of range.
        ShapeError: a site has not one score per unit.
    """
    counts = allowed(sites, floor, multiple_of)
    values = normalised(fitting(sites, scores), normalise)
    return Race(counts, {n: _rungs(sites[n], counts[n], values[n]) for n in sites})


def _rungs(site: Site, count: Counts, scores: Tensor) -> Tensor:
    """Value of each rung: the mean of the next best units, as many from every pool."""
    if count.step == 1:
        return scores
    pools = scores.view(-1, site.among or site.units)
    # Shape: (pools, among) → all best of their pool, all second, ...
    ranked = pools.sort(dim=1, descending=True).values.t().reshape(-1)
    return torch.stack([rung.double().mean() for rung in torch.split(ranked, count.step)])


def _winners(values: Mapping[str, Tensor], places: int) -> dict[str, int]:
    """Count how many of the `places` best values each site has; ties to the earlier site."""
    if places == 0:
        return dict.fromkeys(values, 0)
    boundary = kth_largest(list(values.values()), places)
    won = {name: int(torch.count_nonzero(v > boundary)) for name, v in values.items()}
    left = places - sum(won.values())
    for name, v in values.items():
        if left == 0:
            break
        tied = min(left, int(torch.count_nonzero(v == boundary)))
        won[name] += tied
        left -= tied
    return won
