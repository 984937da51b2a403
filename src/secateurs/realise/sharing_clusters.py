"""One-dimensional k-means: first centroids, and the steps that move them to their means.

Sorted values and running sums make a step cost k binary searches, however many values
there are. A centroid that wins no value stays where it is.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from secateurs.core.errors import UnknownNameError

Start = Literal["linear", "density", "random", "kmeans++"]
_SAMPLE = 1 << 17


def linear(ordered: Tensor, k: int, generator: torch.Generator | None = None) -> Tensor:
    """Return k centroids in equal steps from the least to the greatest value.

    Rare large weights keep a centroid of their own.

    Source: Han et al. 2016, arXiv:1510.00149, section 3.2, as are `density` and `random`.
    """
    return torch.linspace(float(ordered[0]), float(ordered[-1]), k, dtype=ordered.dtype)


def density(ordered: Tensor, k: int, generator: torch.Generator | None = None) -> Tensor:
    """Return the middles of k equal steps of the cumulative distribution."""
    place = (torch.arange(k) * 2 + 1) * ordered.numel() // (2 * k)
    return ordered[place]


def random(ordered: Tensor, k: int, generator: torch.Generator | None = None) -> Tensor:
    """Return k of the values, each at most once while there are enough."""
    n = ordered.numel()
    place = torch.randperm(n, generator=generator)[:k]
    spare = torch.randint(n, (k - place.numel(),), generator=generator)
    return ordered[torch.cat([place, spare])].sort().values


def plus_plus(ordered: Tensor, k: int, generator: torch.Generator | None = None) -> Tensor:
    """Return k of the values, each drawn in proportion to its squared distance to the others.

    Source: Arthur & Vassilvitskii 2007, "k-means++". Deviation: of very many values an even
    sample takes part.
    """
    sample = ordered[:: -(-ordered.numel() // _SAMPLE)]
    first = torch.randint(sample.numel(), (1,), generator=generator)
    found = [sample[first]]
    far = (sample - found[0]).square()
    for _ in range(k - 1):
        total = far.cumsum(0)
        drawn = torch.rand(1, dtype=total.dtype, generator=generator) * total[-1]
        place = torch.searchsorted(total, drawn, right=True).clamp_max(sample.numel() - 1)
        found.append(sample[place])
        far = torch.minimum(far, (sample - found[-1]).square())
    return torch.cat(found).sort().values


STARTS: dict[str, Callable[[Tensor, int, torch.Generator | None], Tensor]] = {
    "linear": linear,
    "density": density,
    "random": random,
    "kmeans++": plus_plus,
}


def kmeans(
    values: Tensor,
    k: int,
    *,
    start: Start = "linear",
    generator: torch.Generator | None = None,
    steps: int = 300,
) -> Tensor:
    """Return k sorted centroids of some values, float64 (k,) on the CPU.

    Args:
        values: (n,), n at least 1, finite.
        start: where the centroids begin.
        generator: of what is random in a start.
        steps: at most so many.

    Raises:
        UnknownNameError: no such start.
    """
    if start not in STARTS:
        raise UnknownNameError(f"unknown start {start!r}; use one of {', '.join(STARTS)}")
    ordered = values.detach().cpu().double().flatten().sort().values
    return settle(ordered, STARTS[start](ordered, k, generator), steps=steps)


def settle(ordered: Tensor, centroids: Tensor, *, steps: int = 300) -> Tensor:
    """Move sorted centroids to the means of the values nearest them until nothing changes.

    The sum of squared distances never grows.
    """
    summed = torch.cat([ordered.new_zeros(1), ordered.cumsum(0)])
    ends = torch.tensor([0, ordered.numel()])
    before = None
    for _ in range(steps):
        cuts = torch.searchsorted(ordered, _middles(centroids), right=True)
        cuts = torch.cat([ends[:1], cuts, ends[1:]])
        if before is not None and torch.equal(cuts, before):
            break
        count, total = cuts.diff(), summed[cuts].diff()
        means = total / count.clamp_min(1)
        # A running sum may round a mean to just outside its cell.
        low, high = ordered[cuts[:-1].clamp_max(ends[1] - 1)], ordered[(cuts[1:] - 1).clamp_min(0)]
        means = torch.minimum(torch.maximum(means, low), high)
        centroids, before = torch.where(count > 0, means, centroids), cuts
    return centroids


def nearest(values: Tensor, centroids: Tensor) -> Tensor:
    """Return which of the sorted centroids is nearest each value: int64; ties go to the lower."""
    book = centroids.to(values.device)
    return torch.searchsorted(_middles(book), values.detach().contiguous().to(book.dtype))


def _middles(centroids: Tensor) -> Tensor:
    return (centroids[1:] + centroids[:-1]) / 2
