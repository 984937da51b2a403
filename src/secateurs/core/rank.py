"""The k-th largest of many numbers, without sorting or copying them."""

from collections.abc import Sequence

import torch
from torch import Tensor

_SMALL = 1 << 20
_SAMPLE = 1 << 17


def kth_largest(parts: Sequence[Tensor], k: int) -> Tensor:
    """Return the k-th largest value over all parts, counted from 1, as a scalar tensor.

    Large inputs are narrowed to a thin interval around the answer, guessed from an evenly
    spaced sample and verified by counting, so the working memory is a fraction of theirs.

    >>> kth_largest([torch.tensor([1., 4.]), torch.tensor([3.])], 2)
    tensor(3.)
    """
    n = sum(part.numel() for part in parts)
    assert 1 <= k <= n, f"{k} of {n}"
    if n <= _SMALL:
        return _kth(torch.cat([part.flatten() for part in parts]), k)
    low, high = _interval(parts, n, k)
    above, inside = 0, []
    for part in parts:
        over = part > high
        above += int(torch.count_nonzero(over))
        inside.append(part[over.logical_xor_(part > low)])
    between = torch.cat(inside)
    if k <= above:
        return _kth(torch.cat([part[part > high] for part in parts]), k)
    if k <= above + between.numel():
        return _kth(between, k - above)
    above += between.numel()
    ties = sum(int(torch.count_nonzero(part == low)) for part in parts)
    if k <= above + ties:
        return low
    return _kth(torch.cat([part[part < low] for part in parts]), k - above - ties)


def _interval(parts: Sequence[Tensor], n: int, k: int) -> tuple[Tensor, Tensor]:
    """Guess bounds of the k-th largest from about 2**17 evenly spaced values."""
    sample = torch.cat([part.flatten()[:: max(1, n // _SAMPLE)] for part in parts])
    sample = sample.sort(descending=True).values
    last = sample.numel() - 1
    place = k * last // n
    # Four standard deviations of the place of a quantile in a random sample of this size.
    slack = 2 * int((last + 1) ** 0.5)
    return sample[min(last, place + slack)], sample[max(0, place - slack)]


def _kth(values: Tensor, k: int) -> Tensor:
    return values.kthvalue(values.numel() - k + 1).values
