"""How many kernels each filter of a layer keeps."""

import math
from typing import Literal

import torch
from torch import Tensor

from secateurs.core.errors import BudgetError

Budget = Literal["fixed", "adaptive"]


def kept_per_filter(strengths: Tensor, density: float, budget: Budget) -> Tensor:
    """Say how many kernels each filter keeps: strengths (filters, kernels) → int (filters,).

    `fixed` keeps ⌈density · kernels⌉ in each. `adaptive` keeps round(density · all) in the
    layer, shared in proportion to 1 - `hoyer`, at least one each.

    Raises:
        BudgetError: the density is not above 0 and at most 1.
    """
    if not 0 < density <= 1:
        raise BudgetError(f"cannot keep a density of {density} of the kernels; use 0.5 for half")
    filters, kernels = strengths.shape
    if budget == "fixed":
        keep = math.ceil(round(density * kernels, 9))
        return torch.full((filters,), keep, device=strengths.device)
    total = max(filters, round(density * kernels * filters))
    return _shared((1 - hoyer(strengths)).double() * kernels, total, kernels)


def hoyer(strengths: Tensor) -> Tensor:
    """Index of sparsity of each row: 0 when all are equal, 1 when one is all, (rows,).

    >>> hoyer(torch.tensor([[1., 1., 1., 1.], [0., 2., 0., 0.]]))
    tensor([0., 1.])

    Source: Hoyer 2004, "Non-negative matrix factorization with sparseness constraints", eq. 1.
    """
    root = math.sqrt(strengths.shape[1])
    sizes = strengths.abs()
    length = torch.linalg.vector_norm(sizes, dim=1)
    ratio = sizes.sum(dim=1) / length.where(length > 0, torch.ones_like(length))
    # A row of zeros is as even as can be; one number alone is both.
    index = (root - ratio.where(length > 0, torch.full_like(ratio, root))) / max(root - 1, 1e-12)
    found: Tensor = index.clamp(0, 1)
    return found


def best(strengths: Tensor, keep: Tensor) -> Tensor:
    """Mark the `keep[i]` largest of row i, ties to the lower index: → bool, the same shape.

    >>> best(torch.tensor([[3., 1., 2.], [.1, .3, .2]]), torch.tensor([2, 1]))
    tensor([[ True, False,  True],
            [False,  True, False]])
    """
    order = strengths.argsort(dim=1, descending=True, stable=True)
    first = torch.arange(strengths.shape[1], device=strengths.device) < keep[:, None]
    return torch.zeros_like(first).scatter_(1, order, first)


def _shared(wanted: Tensor, total: int, most: int) -> Tensor:
    """Share `total` places in proportion to `wanted`, 1 to `most` each, exactly."""
    wanted = wanted.clamp(min=1e-9)

    def given(factor: float) -> Tensor:
        return (wanted * factor).clamp(1, most)

    low, high = 0.0, float(most / wanted.min())
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if float(given(middle).sum()) < total else (low, middle)
    exact = given(high)
    keep = exact.floor().long()
    # What rounding down has left goes to the largest remainders.
    left = total - int(keep.sum())
    room = (exact - keep).masked_fill(keep >= most, -1)
    keep[room.argsort(descending=True, stable=True)[:left]] += 1
    return keep
