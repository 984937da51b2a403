"""Uniform quantisation: every weight becomes a whole number of steps."""

from dataclasses import dataclass

import torch
from torch import Tensor

from secateurs.core.errors import PruneError
from secateurs.realise.coding.shared import LARGEST, Shared, Uniform


def quantise(weight: Tensor, bits: int, *, per_row: bool = False) -> Uniform:
    """Return a weight on 2 ** bits - 1 levels, evenly around zero; the largest keeps its place.

    Args:
        weight: (rows, ...), finite.
        bits: 2 to 16.
        per_row: a step of its own for each row (output channel), else one for the tensor.

    Raises:
        PruneError: bits are out of range, or weights are not finite.
    """
    if not 2 <= bits <= 16:
        raise PruneError(f"cannot quantise to {bits} bits; use 2 to 16")
    weight = _finite(weight)
    size = weight.abs()
    if per_row and weight.dim():
        largest = size.flatten(1).amax(1) if size.numel() else size.new_zeros(len(size))
    else:
        largest = size.max() if size.numel() else size.new_zeros(())
    step = largest.double() / ((1 << bits - 1) - 1)
    # Steps are stored as float32 whatever the weight is; a row of zeros has any step.
    return levels(weight, torch.where(step > 0, step, 1.0).float())


def levels(weight: Tensor, step: Tensor) -> Uniform:
    """Return a weight rounded to whole numbers of `step`, () or (rows,); halves go to even.

    Raises:
        PruneError: a step is not positive, or too small for the weights, or weights are
            not finite.
    """
    weight = _finite(weight)
    if step.numel() and not (bool(step.isfinite().all()) and float(step.min()) > 0):
        raise PruneError(f"a step is positive and finite, not {float(step.min())}")
    whole = (weight.double() / _lined_up(step, weight)).round()
    if whole.numel() and float(whole.abs().max()) > LARGEST:
        raise PruneError(
            f"a step of {float(step.min()):g} makes {float(whole.abs().max()):g} levels; "
            f"use a larger one"
        )
    return Uniform(step, whole.int(), weight.dtype)


@dataclass(frozen=True)
class Rates:
    """What a level costs where it stands, in bits: an estimate of the adaptive coder.

    level   bits of the level by its number, from `lowest` on, given that it is not zero
    one     bits of not being zero, the matrix's shape
    zero    bits of being zero
    """

    level: Tensor
    lowest: int
    one: Tensor
    zero: Tensor

    def of(self, level: Tensor) -> Tensor:
        """Return the bits of each level of a matrix."""
        place = (level.long() - self.lowest).clamp(0, self.level.numel() - 1)
        return torch.where(level == 0, self.zero, self.one + self.level[place])


def rates(level: Tensor) -> Rates:
    """Estimate from the levels themselves, (rows, columns), what each costs.

    A weight is not zero with the odds of its row and of its column together, which is how
    the context coder sees it: what stands in empty rows or columns is dear. Counts begin
    at one half, so that nothing is free or forbidden.
    """
    some = (level != 0).double()
    rows, columns = some.shape
    everywhere = _odds(some.sum(), some.numel())
    row = _odds(some.sum(1, keepdim=True), columns)
    column = _odds(some.sum(0, keepdim=True), rows)
    odds = row + column - everywhere
    lowest, highest = int(level.min()) - 1, int(level.max()) + 1
    counts = torch.bincount((level[level != 0] - lowest).long(), minlength=highest - lowest + 1)
    share = (counts + 0.5) / (counts + 0.5).sum()
    natural = 1 / torch.log(torch.tensor(2.0, dtype=torch.float64))
    one = torch.nn.functional.softplus(-odds) * natural
    zero = torch.nn.functional.softplus(odds) * natural
    return Rates(-share.log2(), lowest, one, zero)


def rate_distortion(
    weight: Tensor,
    step: Tensor,
    price: float,
    *,
    importance: Tensor | None = None,
    passes: int = 8,
) -> Uniform:
    """Return the levels of least error + price x bits: cheap levels win where they cost little.

    Error is the squared error times `importance`. Bits are estimated from the levels of the
    pass before; a weight may take the two levels around it, their neighbours towards zero,
    or zero, and a zero stays zero.

    Source: the trade of Wiedemann et al. 2020, arXiv:1907.11900, section IV. Deviation:
    bits come from counts over rows, columns and levels instead of from the running coder,
    so that all weights are settled at once.

    Args:
        weight: (rows, ...), finite.
        step: () or (rows,), positive.
        price: error that a bit is worth, 0 or more; 0 rounds to nearest.
        importance: of the weight's shape, 0 or more: the curvature of the loss, say. One
            by default.
        passes: estimates of the bits; fewer if nothing changes.

    Raises:
        PruneError: as `levels`; or the price is negative.
    """
    if not price >= 0:
        raise PruneError(f"a price is 0 or more, not {price:g}")
    found = levels(weight, step)
    if price == 0 or weight.numel() == 0:
        return found
    flat = weight.detach().double().reshape(_matrix(weight))
    scale = _lined_up(step, weight).expand(weight.shape).reshape(flat.shape)
    worth = torch.ones_like(flat) if importance is None else importance.double().view_as(flat)
    exact = flat / scale
    level = found.level.reshape(flat.shape)
    around = torch.stack([exact.floor(), exact.ceil()])
    inward = around - around.sign()
    choices = torch.cat([around, inward, torch.zeros_like(exact)[None]]).int()
    choices[:, flat == 0] = 0
    error = worth * scale.square() * (choices - exact).square()
    for _ in range(passes):
        bits = rates(level)
        cost = error + price * torch.stack([bits.of(choice) for choice in choices])
        # Of equal costs the first wins: the nearer, with more levels.
        new = choices.gather(0, cost.argmin(0, keepdim=True))[0]
        if torch.equal(new, level):
            break
        level = new
    return Uniform(step, level.reshape(weight.shape), weight.dtype)


def as_shared(quantised: Uniform) -> Shared:
    """Return the same tensor with its levels as a codebook, so that they may be tuned.

    Raises:
        PruneError: rows have steps of their own.
    """
    if quantised.step.dim():
        raise PruneError("a codebook is one for the tensor; quantise with one step")
    used = torch.unique(quantised.level)
    used = used[used != 0]
    index = torch.searchsorted(used, quantised.level).int()
    index = torch.where(quantised.level == 0, -1, index)
    book = (used.double() * quantised.step.double()).to(quantised.dtype)
    return Shared(book, index.int(), quantised.dtype)


def _odds(count: Tensor, total: int) -> Tensor:
    """Return the logarithm of the odds of one, from counts that begin at one half."""
    return torch.log((count + 0.5) / (total - count + 0.5))


def _matrix(weight: Tensor) -> tuple[int, int]:
    rows = weight.shape[0] if weight.dim() > 1 else 1
    return rows, weight.numel() // rows


def _lined_up(step: Tensor, weight: Tensor) -> Tensor:
    step = step.double().to(weight.device)
    return step.reshape(-1, *[1] * (weight.dim() - 1)) if step.dim() else step


def _finite(weight: Tensor) -> Tensor:
    weight = weight.detach()
    if not bool(weight.isfinite().all()):
        raise PruneError("cannot quantise weights that are NaN or infinite; train anew")
    return weight
