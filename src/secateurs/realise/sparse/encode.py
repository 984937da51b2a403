"""Sparse weights as the kernels read them: groups of filters and their entries, block by block."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from secateurs.core.errors import ShapeError

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Encoded:
    """One layer's entries; see layers.h for the shapes."""

    together: int
    """Filters of a group, which share their offsets."""
    starts: Ints
    offsets: Ints
    values: Floats
    filters: Ints
    bias: Floats

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
        return sum(a.nbytes for a in (self.starts, self.offsets, self.values, self.filters))


def encode(
    weight: Tensor, bias: Tensor, places: NDArray[np.int64], *, together: int, block: int
) -> Encoded:
    """Return the non-zero entries of a layer, ordered for the kernels.

    Args:
        weight: (out, columns): every filter's weights.
        places: (groups of a grouped convolution, columns): from an output position to the
            input that a column reads, in floats.
        together: 1, 2 or 4 neighbouring filters share offsets; where one is zero and another
            is not, the zero is stored.
        block: so many columns are finished, for all filters, before the next ones.

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
    group, column = used.nonzero()
    blocks = max(1, -(-columns // block))
    key = column // block * len(filters) + group
    if blocks > 1:
        by_block = np.argsort(key, kind="stable")
        group, column, key = group[by_block], column[by_block], key[by_block]
    count = np.bincount(key, minlength=blocks * len(filters)).reshape(blocks, -1)
    ends = count.cumsum().reshape(blocks, -1)
    starts = np.concatenate([(ends[:, :1] - count[:, :1]), ends], axis=1)
    offsets = places[filters[group, 0] // share, column]
    values = dense[filters[group], column[:, None]]
    return Encoded(
        together,
        np.ascontiguousarray(starts, np.int32),
        np.ascontiguousarray(offsets, np.int32),
        np.ascontiguousarray(values, np.float32),
        np.ascontiguousarray(filters, np.int32),
        np.ascontiguousarray(bias.detach().numpy(), np.float32),
    )


def _up(value: int, step: int) -> int:
    return -(-value // step) * step
