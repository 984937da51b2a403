"""Sparse weights as the kernels read them: groups of filters and their entries, block by block."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from secateurs.core.errors import ShapeError

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]
_SMALLEST = float(np.finfo(np.float32).tiny)
_AT_ONCE = 1 << 22
"""Places of a layer that are looked at together; numbers of 64 bits stand for each meanwhile."""


@dataclass(frozen=True)
class Encoded:
    """One layer's entries; see layers.h for the shapes."""

    together: int
    """Filters of a group, which share their offsets."""
    starts: Ints
    offsets: Ints | NDArray[np.uint16]
    """Planes of the input, of 16 bits, where there is a scale."""
    values: Floats | NDArray[np.int8]
    """Whole steps of 8 bits where there is a scale."""
    filters: Ints
    bias: Floats
    scale: Floats | None = None
    """(filters,): how much a step is."""

    @property
    def blocks(self) -> int:
        """How many blocks of input channels there are."""
        return len(self.starts)

    @property
    def groups(self) -> int:
        """How many groups of filters there are."""
        return len(self.starts[0]) - 1

    @property
    def entries(self) -> int:
        """How many offsets are stored; each has `together` values."""
        return len(self.offsets)

    @property
    def bytes(self) -> int:
        """What the arrays take in memory."""
        arrays = (self.starts, self.offsets, self.values, self.filters, self.bias, self.scale)
        return sum(a.nbytes for a in arrays if a is not None)


def quantised(weight: Tensor) -> tuple[Tensor, Floats]:
    """Return weights as whole steps of 8 bits, (out, columns), and each filter's step, (out,).

    A step is a filter's greatest magnitude over 127, so that no weight is off by more than half
    a step; small weights may become zero.
    """
    exact = weight.detach().double().numpy()
    step = (np.abs(exact).max(axis=1, initial=0) / 127).clip(min=_SMALLEST).astype(np.float32)
    steps = np.rint(exact / step[:, None]).astype(np.int8)
    return torch.from_numpy(steps), step


def encode(
    weight: Tensor,
    bias: Tensor,
    places: NDArray[np.int64],
    *,
    together: int,
    block: int,
    scale: Floats | None = None,
) -> Encoded:
    """Return the non-zero entries of a layer, ordered for the kernels.

    Args:
        weight: (out, columns): every filter's weights, or whole steps of `scale` in 8 bits.
        places: (groups of a grouped convolution, columns): from an output position to the
            input that a column reads, in floats; in planes where there is a scale.
        scale: (out,).
        together: 1, 2 or 4 neighbouring filters share offsets; where one is zero and another
            is not, the zero is stored.
        block: so many columns are finished, for all filters, before the next ones.

    Raises:
        ShapeError: the filters do not split so, or a place does not fit its bits.

    Groups are ordered by their number of entries, so that the loop over entries, whose end a
    processor has to guess, ends alike many times in a row.
    """
    dense = weight.detach().numpy()
    out, columns = dense.shape
    if out % len(places):
        raise ShapeError(f"{out} filters do not split into {len(places)} groups")
    filters = np.arange(_up(out, together)).clip(max=out - 1).reshape(-1, together)
    share = out // len(places)
    if share % together and len(places) > 1:
        raise ShapeError(
            f"groups of {together} filters do not fit {share} filters that share inputs"
        )
    used = (dense != 0)[filters].any(axis=1)
    order = np.argsort(used.sum(axis=1), kind="stable")
    filters, used = filters[order], used[order]
    kind: Any = np.float32 if scale is None else np.int8
    bits: Any = np.int32 if scale is None else np.uint16
    counts: list[NDArray[np.int64]] = []
    offsets: list[NDArray[Any]] = []
    values: list[NDArray[Any]] = []
    rows = max(1, _AT_ONCE // max(1, min(block, columns)))
    for left in range(0, max(1, columns), block):
        here = used[:, left : left + block]
        counts.append(here.sum(axis=1))
        for top in range(0, len(filters), rows):
            group, column = here[top : top + rows].nonzero()
            group, column = group + top, column + left
            offsets.append(_whole(places[filters[group, 0] // share, column], bits))
            values.append(dense[filters[group], column[:, None]].astype(kind))
    count = np.stack(counts)
    ends = count.cumsum().reshape(len(counts), -1)
    starts = np.concatenate([(ends[:, :1] - count[:, :1]), ends], axis=1)
    return Encoded(
        together,
        _whole(starts, np.int32),
        np.concatenate(offsets),
        np.concatenate(values),
        np.ascontiguousarray(filters, np.int32),
        np.ascontiguousarray(bias.detach().numpy(), np.float32),
        scale,
    )


def _whole(numbers: NDArray[np.int64], kind: type[Any]) -> NDArray[Any]:
    """Return whole numbers in fewer bits, which must hold them."""
    fits = np.iinfo(kind)
    if numbers.size and not fits.min <= numbers.min() <= numbers.max() <= fits.max:
        raise ShapeError(
            f"places or counts from {numbers.min()} to {numbers.max()} do not fit {fits.bits} bits"
        )
    return np.ascontiguousarray(numbers, kind)


def _up(value: int, step: int) -> int:
    return -(-value // step) * step
