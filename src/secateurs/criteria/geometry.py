"""Geometry: a unit that others can stand in for matters little."""

import torch
from torch import Tensor

from secateurs.core.evidence import Evidence


def fpgm(e: Evidence) -> Tensor:
    """Sum of the distances from each unit's weights to those of all others, (units,).

    The unit nearest to the geometric median of all scores least. In float64, because units
    are compared by small differences of large sums; distances are summed in order of size,
    so that twins score the same to the last bit.

    Source: He et al. 2019, arXiv:1811.00250, eq. 5 to 7, over the units themselves.
    """
    rows = e.weight.double()
    return torch.cdist(rows, rows).sort(dim=1).values.sum(dim=1)
