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
    above = sum(int(torch.count_nonzero(part > high)) for part in parts)
    if k <= above:
        return _kth(torch.cat([part[part > high] for part in parts]), k)
    at_high = sum(int(torch.count_nonzero(part == high)) for part in parts)
    if k <= above + at_high:
        return high
    inside = torch.cat([part[(part < high) & (part > low)] for part in parts])
    if k <= above + at_high + inside.numel():
        return _kth(inside, k - above - at_high)
    at_low = sum(int(torch.count_nonzero(part == low)) for part in parts)
    above_low = above + at_high + inside.numel()
    if k <= above_low + at_low:
        return low
    return _kth(torch.cat([part[part < low] for part in parts]), k - above_low - at_low)


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
