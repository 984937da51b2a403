"""Tensors of few values: the input of the encoder, made by weight sharing or quantisation."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from secateurs.core.errors import ShapeError

LARGEST = (1 << 30) - 1


@dataclass(frozen=True)
class Shared:
    """A tensor whose kept weights are entries of a codebook.

    codebook  (entries,), floating point
    index     which entry, a whole number for each weight; -1 where the weight is zero
    dtype     of the dense tensor
    """

    codebook: Tensor
    index: Tensor
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        """Refuse an index that points outside the codebook."""
        if self.codebook.dim() != 1 or not self.codebook.is_floating_point():
            raise ShapeError(
                f"a codebook is one row of floating-point values, not {self.codebook.dtype} "
                f"of shape {tuple(self.codebook.shape)}"
            )
        entries = self.codebook.numel()
        low, high = _range(self.index, "an index")
        if low < -1 or high >= entries:
            raise ShapeError(
                f"an index runs from {low} to {high}, but a codebook of {entries} entries "
                f"has 0 to {entries - 1}, and -1 for zero"
            )

    @property
    def mask(self) -> Tensor:
        """Which weights stay, bool."""
        return self.index >= 0

    def dense(self) -> Tensor:
        """Return the plain tensor."""
        book = torch.cat([self.codebook.to(self.dtype), self.codebook.new_zeros(1).to(self.dtype)])
        return book[self.index.int()]

    def canonical(self) -> "Shared":
        """Return the same tensor with a sorted codebook, no entry unused or twice.

        This is what a file holds: `decode(encode(x))` is `x.canonical()`.
        """
        keys, place = self.ranking()
        places = torch.cat([place, place.new_tensor([-1])]).int()
        index = places[self.index.int()]
        return replace(self, codebook=disorder(keys, self.codebook.dtype), index=index)

    def ranking(self) -> tuple[Tensor, Tensor]:
        """Return the entries in use as sorted whole numbers, and where each entry went.

        (used,) and (entries,), int64; entries out of use went to -1. See `order`.
        """
        keys = order(self.codebook)
        kept = self.index[self.mask].long()
        used = torch.bincount(kept, minlength=keys.numel()) > 0
        unique, found = torch.unique(keys[used], return_inverse=True)
        place = torch.full_like(keys, -1)
        place[used] = found
        return unique, place


@dataclass(frozen=True)
class Uniform:
    """A tensor of evenly spaced levels: `step * level`.

    step      floating point, of shape () or, one for each row, (rows,)
    level     whole numbers, the tensor's shape; 0 is zero
    dtype     of the dense tensor
    """

    step: Tensor
    level: Tensor
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        """Refuse steps that do not fit the levels, and levels too large to store."""
        rows = tuple(self.level.shape[:1])
        if not self.step.is_floating_point() or tuple(self.step.shape) not in ((), rows):
            raise ShapeError(
                f"a step of {self.step.dtype} and shape {tuple(self.step.shape)} for levels of "
                f"shape {tuple(self.level.shape)}; give one floating-point step, or one a row"
            )
        low, high = _range(self.level, "a level")
        if max(-low, high) > LARGEST:
            raise ShapeError(f"levels run from {low} to {high}, beyond {LARGEST}")

    @property
    def mask(self) -> Tensor:
        """Which weights are not zero, bool."""
        return self.level != 0

    def dense(self) -> Tensor:
        """Return the plain tensor; the product is rounded once."""
        step = self.step.double()
        if step.dim():
            step = step.reshape(-1, *[1] * (self.level.dim() - 1))
        return (self.level.double() * step).to(self.dtype)


Coded = Tensor | Shared | Uniform
"""What a file holds under a name."""

_INTEGER = {
    torch.float64: torch.int64,
    torch.float32: torch.int32,
    torch.float16: torch.int16,
    torch.bfloat16: torch.int16,
}


def order(values: Tensor) -> Tensor:
    """Return whole numbers, int64, that sort as the values do: bit patterns, negatives turned.

    >>> order(torch.tensor([-1.0, -0.0, 0.0, 1.0])).diff().gt(0).tolist()
    [True, True, True]
    """
    bits = values.contiguous().view(_INTEGER[values.dtype]).long()
    lowest = -(1 << (8 * values.element_size() - 1))
    return torch.where(bits < 0, lowest - bits - 1, bits)


def disorder(keys: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the values, of `dtype`, that `order` was given."""
    lowest = -(1 << (8 * dtype.itemsize - 1))
    bits = torch.where(keys < 0, lowest - keys - 1, keys)
    return bits.to(_INTEGER[dtype]).view(dtype)


def _range(whole: Tensor, name: str) -> tuple[int, int]:
    if whole.is_floating_point() or whole.is_complex() or whole.dtype == torch.bool:
        raise ShapeError(f"{name} is a whole number, not {whole.dtype}")
    if whole.numel() == 0:
        return 0, -1
    return int(whole.min()), int(whole.max())
