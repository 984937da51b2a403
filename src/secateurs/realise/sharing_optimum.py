"""The best k centroids there are, by dynamic programming over sorted values."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from secateurs.realise.sharing_clusters import settle

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Cost = Callable[[Ints, Ints], Floats]
EXACT = 1 << 13
"""Different values beyond which neighbours are taken together first."""


def optimum(values: Tensor, k: int, *, exact: int = EXACT) -> Tensor:
    """Return the k sorted centroids of least squared distance, float64 (k,) on the CPU.

    With no more than `exact` different values there are none better. With more, values in
    the same of `exact` thin cells keep together, and k-means takes the last steps. Where
    there are fewer values than centroids, the greatest value stands several times.

    Source: Bellman 1973, "A note on cluster analysis and dynamic programming"; the search
    of one row from the answers of the row's coarser half, as in Grønlund et al. 2017,
    arXiv:1701.07204.
    """
    ordered = values.detach().cpu().double().flatten().sort().values
    points = ordered.numpy()
    firsts = np.flatnonzero(np.diff(points, prepend=-np.inf) > 0)
    if firsts.size > exact:
        firsts = _cells(points, exact)
    cuts = np.append(firsts, points.size)
    ends = cuts[_split(points, cuts, min(k, firsts.size))]
    # Means of differences to the middle keep their digits where all values are large.
    middle = points[points.size // 2]
    total = np.append(0.0, np.cumsum(points - middle))
    means = middle + (total[ends[1:]] - total[ends[:-1]]) / np.diff(ends)
    means = np.append(means, np.full(k - means.size, points[-1]))
    return settle(ordered, torch.from_numpy(means).sort().values)


def _cells(points: Floats, count: int) -> Ints:
    """Return where thin cells begin: half of them equally wide, half equally full."""
    wide = np.searchsorted(points, np.linspace(points[0], points[-1], count // 2))
    full = np.arange(count // 2) * points.size // (count // 2)
    return np.unique(np.concatenate([wide, full]))


def _split(points: Floats, cuts: Ints, k: int) -> Ints:
    """Return the k + 1 places among the cuts at which the best k clusters begin and end."""
    n = cuts.size - 1
    centred = points - points[points.size // 2]
    ones = cuts.astype(np.float64)
    sums = np.append(0.0, np.cumsum(centred))[cuts]
    squares = np.append(0.0, np.cumsum(centred**2))[cuts]

    def cost(i: Ints, j: Ints) -> Floats:
        weight = np.maximum(ones[j] - ones[i], 1)
        return np.asarray(squares[j] - squares[i] - (sums[j] - sums[i]) ** 2 / weight)

    best = cost(np.zeros(n + 1, np.int64), np.arange(n + 1))
    choices = []
    for m in range(1, k):
        best, choice = _row(best, cost, m, n)
        choices.append(choice)
    ends = [n]
    for choice in reversed(choices):
        ends.append(int(choice[ends[-1]]))
    return np.array([0, *reversed(ends)])


def _row(best: Floats, cost: Cost, m: int, n: int) -> tuple[Floats, Ints]:
    """Add one cluster: for each end j in m + 1..n, where the last of m + 1 clusters begins.

    The best beginning never moves back as the end moves on. So the ends are answered from
    coarse to fine, each between the answers of its neighbours: about 2n costs a pass.
    """
    found, choice = np.full(n + 1, np.inf), np.full(n + 1, m)
    step = 1 << (n - m).bit_length()
    while step := step >> 1:
        ends = np.arange(m + step, n + 1, 2 * step)
        after = np.minimum(ends + step, n)
        high = np.where(ends + step <= n, choice[after], ends - 1)
        found[ends], choice[ends] = _least(best, cost, ends, choice[ends - step], high)
    return found, choice


def _least(best: Floats, cost: Cost, ends: Ints, low: Ints, high: Ints) -> tuple[Floats, Ints]:
    """Return the least of best[i] + cost(i, j) over i in low..high for each end j, and its i."""
    width = np.maximum(np.minimum(high, ends - 1) - low, 0) + 1
    first = np.cumsum(width) - width
    begins = np.arange(width.sum()) - np.repeat(first - low, width)
    value = best[begins] + cost(begins, np.repeat(ends, width))
    least = np.minimum.reduceat(value, first)
    ties = np.where(value == np.repeat(least, width), begins, ends[-1])
    return least, np.minimum.reduceat(ties, first)
